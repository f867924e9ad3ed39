"""From run records to verdicts: which claims the measurements support, contradict or leave open.

A part of a claim says that the mean over seeds lies in a region. Tests of where it lies (``student_t_test``, for counts
``binomial_test``) give a p-value of "inside", "below" and "above"; :mod:`icsbench.analysis.decision` makes verdicts of
them. The p-value of exact sign flips is computed beside Student's t, and has to agree with it where the rule says so.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.decision import EXPLORATORY, LEVEL, PValues, Rule, Tested, both, of_parts
from icsbench.analysis.decision import decide as decide_family
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.statistics import (
    MOST_FOR_SIGN_FLIPS,
    Interval,
    Place,
    binomial_interval,
    binomial_test,
    mean_interval,
    seeds_needed,
    sign_flip_test,
    student_t_test,
)
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.seal import SEAL, broken

FEWEST_SEEDS = EXPLORATORY.least
"""With fewer pairs of seeds no verdict: the exact test of five cannot reach 0.05 (its floor is 1/16)."""

Outcome = Literal["supported", "contradicted", "inconclusive", "not measured"]
Side = Literal["inside", "below", "above"]


@dataclass(frozen=True, eq=False)
class Finding:
    """One part of a claim, measured: values and interval as displayed (a ratio as a ratio, its mean geometric)."""

    part: Part
    group: Group | None
    values: dict[int, float]
    left_out: dict[int, str]
    missing: str = ""
    """Why it was not measured."""
    note: str = ""
    """What was found on the way: a learning rate that was chosen, say."""
    behind: Mapping[int, tuple[Run, ...]] = field(default_factory=dict)
    """As of :class:`Measured`."""

    @property
    def _averaged(self) -> list[float]:
        return [_averaged(self.part, value) for value in self.values.values()]

    @property
    def interval(self) -> Interval:
        """Mean over the seeds and its 95 % t-interval; NaN where there is no value."""
        if not self.values:
            return Interval(math.nan, math.nan, math.nan, 0)
        mean, low, high, n = (binomial_interval if self.part.kind == "count" else mean_interval)(self._averaged)
        return Interval(_displayed(self.part, mean), _displayed(self.part, low), _displayed(self.part, high), n)

    @property
    def place(self) -> Place:
        """Where the mean lies, by Student's t; of counts by the exact binomial test."""
        test = binomial_test if self.part.kind == "count" else student_t_test
        return test(self._averaged, *_region(self.part))

    @property
    def sign_flip(self) -> Place:
        """The same by exact sign flips; NaN for more seeds than it can be done for, and for counts."""
        if len(self.values) > MOST_FOR_SIGN_FLIPS or self.part.kind == "count":
            return Place(math.nan, math.nan, math.nan)
        return sign_flip_test(self._averaged, *_region(self.part))

    def tested(self, rule: Rule) -> Place | None:
        """Where the mean lies by the tests of a rule; None where there are too few values for it."""
        if self.missing or len(self.values) < rule.least:
            return None
        if rule.exact and not math.isnan(self.sign_flip.inside):
            return both(self.place, self.sign_flip)
        return self.place

    @property
    def measurement(self) -> tuple[Any, ...]:
        """What tells one measurement from another: the values."""
        return tuple(self.values.items()) or (self.part.name,)

    @property
    def side(self) -> Side:
        """Where the mean itself lies."""
        mean = self.interval.mean
        return "below" if mean <= self.part.low else "above" if mean >= self.part.high else "inside"

    @property
    def p(self) -> float:
        """Two-sided p-value of this part alone, unadjusted."""
        return _two_sided(self.place.inside, min(self.place.below, self.place.above)) if self.values else math.nan

    @property
    def p_sign_flip(self) -> float:
        """The same by exact sign flips."""
        place = self.sign_flip
        return _two_sided(place.inside, min(place.below, place.above)) if self.values else math.nan

    @property
    def disagree(self) -> bool:
        """Whether the t-test and the exact sign flips of this part fall on two sides of 0.05."""
        return _disagree(self.p, self.p_sign_flip, len(self.values))

    def seeds_needed(self, level: float) -> int | None:
        """How many seeds would probably settle this part at a one-sided level."""
        return seeds_needed(self._averaged, *_region(self.part), level)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the records say about one claim. The p-values are NaN where nothing was measured."""

    claim: Claim
    verdict: Outcome
    speaks_for: str
    """Who is right by this measurement; empty where nobody is."""
    reason: str
    findings: tuple[Finding, ...] = ()
    n: int = 0
    """The fewest seeds behind a part."""
    p: float = math.nan
    p_holm: float = math.nan
    p_sign_flip: float = math.nan
    seeds_needed: int | None = None
    scale: str = ""
    facts: str = ""
    command: str = ""
    runs: tuple[Run, ...] = field(default=())

    @property
    def of(self) -> str:
        """What ``n`` counts: seeds, or random networks or problems."""
        return self.claim.parts[0].of if self.claim.parts else "seeds"

    @property
    def disagree(self) -> bool:
        """Whether the t-test and the exact sign flips fall on two sides of 0.05, both uncorrected."""
        tests = len(self.findings) if self.verdict == "contradicted" else 1
        return _disagree(self.p, self.p_sign_flip, self.n, tests)


def judge(runs: Sequence[Run], claims: Sequence[Claim] | None = None) -> list[Verdict]:
    """The verdict on each claim (by default on all of them), in their order.

    Only finished runs count, the diverged ones and those at chance among them.

    :raises IcsbenchError: runs must not be pooled (they are of several scales, or of several settings of one study), or
        a record was changed since it was finished, is damaged, or lies in a folder that is not its own.
    """
    refuse_changed(runs)
    return decide(measure(runs, all_claims() if claims is None else claims))


def measure(runs: Sequence[Run], claims: Sequence[Claim]) -> list[tuple[Claim, list[Finding]]]:
    """The parts of each claim, measured on the records as they are; :func:`judge` first checks that none was changed.

    :raises IcsbenchError: as :func:`judge`.
    """
    studies = _studies(runs, {study for claim in claims for study in claim.studies})
    return [(claim, [_measure(part, studies) for part in claim.parts]) for claim in claims]


def decide(
    measured: Sequence[tuple[Claim, Sequence[Finding]]], rule: Rule = EXPLORATORY, members: int | None = None
) -> list[Verdict]:
    """The verdicts on claims whose parts have been measured: pure arithmetic on the values per seed.

    ``members``: how many the family has, where it has others that are not measured (yet).
    """
    tested = [
        Tested(
            tuple(finding.tested(rule) for finding in findings),
            frozenset(finding.measurement for finding in findings),
        )
        for _, findings in measured
    ]
    found = decide_family(tested, members)
    family = max(members or 0, len({of.measurements for of, p in zip(tested, found, strict=True) if p.p == p.p}))
    return [
        _verdict(_Summary(claim, tuple(findings), of.places, p, rule, family))
        for (claim, findings), of, p in zip(measured, tested, found, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Summary:
    """A claim with its tests."""

    claim: Claim
    findings: tuple[Finding, ...]
    places: tuple[Place | None, ...]
    p: PValues
    rule: Rule
    family: int
    """How many members the family has."""

    @property
    def n(self) -> int:
        """The fewest values behind a part."""
        return min((len(finding.values) for finding in self.findings), default=0)

    @property
    def outside(self) -> list[tuple[int, Finding, Place]]:
        """Those parts that lie outside of their regions, so that the claim is contradicted, with their numbers."""
        return [
            (number, finding, place)
            for number, (finding, place) in enumerate(zip(self.findings, self.places, strict=True), 1)
            if place is not None and 2 * len(self.findings) * min(place.below, place.above) <= self.rule.level
        ]


def _disagree(p: float, p_sign_flip: float, n: int, tests: int = 1) -> bool:
    """Where all signs are alike, sign flips give the smallest p-value that they can give: that is no disagreement."""
    if math.isnan(p) or math.isnan(p_sign_flip):
        return False
    smallest = tests * 2 * 2.0**-n
    return p_sign_flip > max(LEVEL, smallest) if p <= LEVEL else p_sign_flip <= LEVEL


def _two_sided(one: float, other: float) -> float:
    return math.nan if math.isnan(one) else min(1.0, 2 * min(one, other))


def _verdict(summary: _Summary) -> Verdict:
    claim, findings = summary.claim, summary.findings
    groups = [finding.group for finding in findings if finding.group is not None]
    runs = tuple(dict.fromkeys(run for group in groups for run in group.runs))
    commands = map(_command, groups) if groups else (f"icsbench sweep experiment={name}" for name in claim.studies[:1])
    verdict, speaks_for, reason, needed = _outcome(summary)
    return Verdict(
        claim=claim,
        verdict=verdict,
        speaks_for=speaks_for,
        reason=reason,
        findings=findings,
        n=summary.n,
        p=summary.p.p,
        p_holm=summary.p.corrected,
        p_sign_flip=of_parts(
            [f.sign_flip if p is not None else None for f, p in zip(findings, summary.places, strict=True)]
        )[2],
        seeds_needed=needed,
        scale=str(runs[0].setting("scale")) if runs else "",
        facts="; ".join(dict.fromkeys(group.facts for group in groups)),
        command="; ".join(dict.fromkeys(commands)),
        runs=runs,
    )


def _command(group: Group) -> str:
    """The command that makes the records of a group: it names what its scale or its experiment could set otherwise."""
    run = group.runs[0]
    seeds = sorted({run.seed for run in group.runs})
    words = [f"icsbench sweep experiment={run.setting('experiment')} scale={run.setting('scale')}"]
    words += _of_the_training(group) if group.kind == "training" else []
    words += [f"seed={','.join(map(str, seeds))}"] if seeds != [*range(FEWEST_SEEDS)] else []
    return " ".join(words)


def _of_the_training(group: Group) -> list[str]:
    run = group.runs[0]
    steps = {run.setting("steps") for run in group.runs}
    words = []
    if not group.regression:
        words += [f"data={run.setting('data.name')}", "data.root=PATH"] if run.setting("data.root") else []
        words += ["data.binary=true"] if run.setting("data.binary") else []
        words += [f"data.val_size={size}"] if (size := run.setting("data.val_size")) is not None else []
    words += _of_the_network(group)
    words += ["amp=true"] if run.setting("amp") and "amp" not in group.factors else []
    words += [f"optim.lr={','.join(f'{lr:g}' for lr in group.lrs)}"]
    return words + ([f"steps={min(steps)}"] if len(steps) == 1 else [])


def _of_the_network(group: Group) -> list[str]:
    """The options of the network that its scales set differently, where the study does not vary them."""
    run = group.runs[0]
    if any(key.split(".")[0] == "model" for key in group.factors):
        return []
    stated = Counter(key for values in run.model.scales.values() for key in values if key.startswith("model."))
    return [f"{key}={_text(run.settings[key])}" for key, n in stated.items() if n > 1 and key in run.settings]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _outcome(summary: _Summary) -> tuple[Outcome, str, str, int | None]:
    """Verdict, who is right by it, why, and how many seeds would settle it."""
    claim, findings, rule = summary.claim, summary.findings, summary.rule
    missing = "; ".join(dict.fromkeys(finding.missing for finding in findings if finding.missing))
    of = findings[0].part.of if findings else "seeds"
    if all(finding.missing for finding in findings):
        return "not measured", "", missing or f"no study yet: it needs {claim.needs}", None
    over = f"p = {summary.p.corrected:.2g} after Holm over {summary.family} claims"
    if without := sorted({seed for finding in findings for seed in finding.left_out}):
        over += f"; left out: {of[:-1]} {', '.join(map(str, without))}"
    decided = summary.p.corrected <= rule.level
    if decided and summary.p.contradicts <= summary.p.supports:
        below = [(number, finding, place.below < place.above) for number, finding, place in summary.outside]
        sides = dict.fromkeys(finding.part.below if lower else finding.part.above for _, finding, lower in below)
        where = ", ".join(f"part {number} {'below' if lower else 'above'}" for number, _, lower in below)
        return "contradicted", "; ".join(filter(None, sides)), f"outside its region: {where}; {over}", None
    if missing:
        return "inconclusive", "", f"a part was not measured: {missing}", None
    if any(place is None for place in summary.places):
        left_out = {seed: why for finding in findings for seed, why in finding.left_out.items()}
        why = f", left out: {'; '.join(f'{of[:-1]} {s} ({w})' for s, w in left_out.items())}" if left_out else ""
        few = f"{summary.n} {of} with a value{why}; {rule.least} are the fewest for a verdict"
        return "inconclusive", "", few, None if left_out else rule.least
    if decided:
        return "supported", claim.by, f"every part lies in its region; {over}", None
    needed = _settled_with(findings, rule.level / 2 / summary.family)
    with_more = f"about {needed} {of} would probably settle it" if needed else f"more {of} would hardly settle it"
    return "inconclusive", "", f"{over}; {with_more}", needed


def _settled_with(findings: Sequence[Finding], level: float) -> int | None:
    """Values that would settle a claim if the means are true: for the last part inside, or the first one outside."""
    outside = [finding for finding in findings if finding.side != "inside"]
    needed = [finding.seeds_needed(level / (len(findings) if outside else 1)) for finding in outside or findings]
    known = [number for number in needed if number is not None]
    if outside:
        return min(known, default=None)
    return max(known) if len(known) == len(needed) else None


def _studies(runs: Sequence[Run], wanted: set[str]) -> dict[str, Group]:
    """The finished runs of each study."""
    kept = [run for run in runs if run.finished and run.setting("experiment") in wanted]
    scales = sorted({str(run.setting("scale")) for run in kept})
    if len(scales) > 1:
        raise IcsbenchError(
            f"the records are of scales {' and '.join(scales)}, which make no report together; choose one with --scale"
        )
    same: dict[tuple[Any, ...], Run] = {}
    for run in kept:
        key = (run.setting("experiment"), run.path.parent.name, run.path.name)
        if (other := same.setdefault(key, run)) is not run:
            raise IcsbenchError(f"{other.path} and {run.path}: the same run twice; delete one")
    studies: dict[str, Group] = {}
    for group in group_runs(kept):
        study = str(group.runs[0].setting("experiment"))
        if study in studies:
            raise IcsbenchError(
                f"{studies[study].runs[0].path} and {group.runs[0].path} must not be pooled: {studies[study].name} and "
                f"{group.name} are studies of their own; move one to a folder of its own (results=) and give the other"
            )
        studies[study] = group
    return studies


def refuse_changed(runs: Iterable[Run]) -> None:
    """Check that every record is as it was when its run was finished.

    Checked is every record that has a seal, whatever its files say now, and every one that says it is finished.

    :raises IcsbenchError: a record was changed.
    """
    for run in runs:
        if run.finished or (run.path / SEAL).exists():
            _refuse_changed(run)


def _refuse_changed(run: Run) -> None:
    what = broken(run.path)
    if what == "run":
        raise IcsbenchError(f"{run.path}: the record was made in another folder; put it back, or run it again")
    if what == SEAL and not (run.path / SEAL).exists():
        raise IcsbenchError(f"{run.path}: {SEAL} is missing; delete the run's folder and run it again")
    if what is not None:
        raise IcsbenchError(
            f"{run.path / what}: not what it was when the run was finished; delete the run's folder and run it again"
        )


def _measure(part: Part, studies: dict[str, Group]) -> Finding:
    reasons = []
    for study in part.studies:
        if study not in studies:
            reasons.append(f"no finished run of experiment {study}")
            continue
        if studies[study].kind == "lab" and studies[study].runs[0].at_step is not None:
            reasons.append(f"{study} is a lab, which has no steps to be cut at")
            continue
        try:
            found = part.measure(studies[study])
        except NotMeasured as reason:
            reasons.append(str(reason))
            continue
        used = replace(studies[study], runs=found.runs) if found.runs else studies[study]
        unfit = {key: f"{value:g} has no logarithm" for key, value in found.values.items() if not _fits(part, value)}
        values = {key: value for key, value in found.values.items() if key not in unfit}
        return Finding(part, used, values, found.left_out | unfit, note=found.note, behind=found.behind)
    return Finding(part, None, {}, {}, "; ".join(reasons))


def _fits(part: Part, value: float) -> bool:
    """Whether the mean can take a value in: that of a ratio is geometric."""
    return value > 0 or part.kind != "ratio"


def _averaged(part: Part, value: float) -> float:
    return math.log(value) if part.kind == "ratio" else value


def _displayed(part: Part, value: float) -> float:
    return math.exp(value) if part.kind == "ratio" else value


def _region(part: Part) -> tuple[float, float]:
    if part.kind != "ratio":
        return part.low, part.high
    return math.log(part.low) if part.low > 0 else -math.inf, math.log(part.high)


def used_of(findings: Iterable[Finding]) -> list[Group]:
    """The studies that the findings come from, each with those of its runs that were used."""
    used: dict[str, Group] = {}
    for group in (finding.group for finding in findings if finding.group is not None):
        before = used[group.name].runs if group.name in used else ()
        used[group.name] = replace(group, runs=tuple(dict.fromkeys((*before, *group.runs))))
    return [*used.values()]
