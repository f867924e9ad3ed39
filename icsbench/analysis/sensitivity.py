"""How much a verdict rests on choices: the verdict under each other specification of its measures and its seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from icsbench.analysis.claims.contract import Claim, Measure
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.verdicts import FEWEST_SEEDS, Outcome, Verdict, decide

_FEWEST_SHOWN = 3
_OPPOSITE: dict[Outcome, Outcome] = {"supported": "contradicted", "contradicted": "supported"}


@dataclass(frozen=True, eq=False)
class Specification:
    """One other way to measure a claim, and the verdict by it.

    ``counts``: whether it can agree or not; it cannot where the records lack what it needs, or where it has fewer
    seeds than any verdict takes.
    """

    name: str
    verdict: Verdict

    @property
    def counts(self) -> bool:
        """See the class."""
        findings = self.verdict.findings
        return not any(finding.missing for finding in findings) and self.verdict.n >= FEWEST_SEEDS


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The verdicts on one claim under its registered specification and under others.

    Each is judged by itself, the registered one too: without the correction over the other claims of a report, so that
    two verdicts differ by their specification alone.
    """

    registered: Verdict
    others: tuple[Specification, ...]

    @property
    def counted(self) -> list[Specification]:
        """Those that can agree or not."""
        return [one for one in self.others if one.counts]

    @property
    def agreeing(self) -> list[Specification]:
        """Those with the verdict of the registered one."""
        return [one for one in self.counted if one.verdict.verdict == self.registered.verdict]

    @property
    def flipped_by(self) -> Specification | None:
        """The first with the opposite verdict."""
        opposite = _OPPOSITE.get(self.registered.verdict)
        return next((one for one in self.counted if one.verdict.verdict == opposite), None)

    @property
    def opened_by(self) -> Specification | None:
        """The first that leaves open what the registered one decides."""
        decided = self.registered.verdict in _OPPOSITE
        return next((one for one in self.counted if decided and one.verdict.verdict == "inconclusive"), None)


def of_verdicts(verdicts: Sequence[Verdict]) -> dict[Verdict, Sensitivity]:
    """Of each verdict that can be compared with one under another specification, how many agree.

    :raises IcsbenchError: a record is damaged.
    """
    judged = _measured_whole(verdicts)
    found = zip(judged, sensitivities(judged), strict=True)
    return {verdict: one for verdict, one in found if one.counted}


def _measured_whole(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [v for v in verdicts if v.findings and not any(finding.missing for finding in v.findings) and v.n]


def sensitivities(verdicts: Sequence[Verdict]) -> list[Sensitivity]:
    """Of each claim that was measured whole, the verdicts under other specifications.

    They are, one at a time: the ``variants`` of each of its parts, each of its seeds left out, and its first seeds
    alone (from the third on). Nothing is changed about the regions.

    :raises IcsbenchError: a record is damaged.
    """
    return [_sensitivity(verdict.claim, verdict.findings) for verdict in _measured_whole(verdicts)]


def _sensitivity(claim: Claim, findings: tuple[Finding, ...]) -> Sensitivity:
    others = (*_by_variants(findings), *_by_seeds(findings))
    found = tuple(Specification(name, _alone(claim, changed)) for name, changed in others)
    return Sensitivity(_alone(claim, findings), found)


def _alone(claim: Claim, findings: Sequence[Finding]) -> Verdict:
    return decide([(claim, findings)])[0]


def _by_variants(findings: tuple[Finding, ...]) -> Iterator[tuple[str, list[Finding]]]:
    for place, finding in enumerate(findings):
        for name, measure in finding.part.variants.items():
            which = f"part {place + 1}, {name}" if len(findings) > 1 else name
            if finding.group is not None:
                other = _measured_by(measure, finding, finding.group)
                yield which, [other if one is finding else one for one in findings]


def _measured_by(measure: Measure, finding: Finding, group: Group) -> Finding:
    try:
        found = measure(group)
    except NotMeasured as reason:
        return Finding(finding.part, None, {}, {}, missing=str(reason))
    return replace(finding, values=found.values, left_out=found.left_out, note=found.note)


def _by_seeds(findings: tuple[Finding, ...]) -> Iterator[tuple[str, list[Finding]]]:
    seeds = sorted({seed for finding in findings for seed in finding.values})
    one = findings[0].part.of[:-1]
    if any(finding.part.of != "seeds" for finding in findings):
        return
    for seed in seeds:
        yield f"without {one} {seed}", [_with(finding, set(seeds) - {seed}) for finding in findings]
    for n in range(_FEWEST_SHOWN, len(seeds)):
        yield f"the first {n} {one}s", [_with(finding, set(seeds[:n])) for finding in findings]


def _with(finding: Finding, seeds: set[int]) -> Finding:
    return replace(finding, values={seed: value for seed, value in finding.values.items() if seed in seeds})
