"""From run records to verdicts: which claims the measurements support, contradict or leave open.

A part of a claim says that the mean over seeds lies in a region. Tests of where it lies (``student_t_test``, for counts
``binomial_test``) give a p-value of "inside", "below" and "above"; :mod:`icsbench.analysis.decision` makes verdicts of
them. The p-value of exact sign flips is computed beside Student's t, and has to agree with it where the rule says so.
Where a part is a bound that theory states for every value, each value is held to it, and nothing is tested.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.commands import command_of
from icsbench.analysis.decision import (
    EXPLORATORY,
    UNREGISTERED,
    PValues,
    Registration,
    Rule,
    Tested,
    of_parts,
)
from icsbench.analysis.decision import decide as decide_family
from icsbench.analysis.findings import Finding, disagree
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.power import fewest
from icsbench.analysis.statistics import (
    Place,
)
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.seal import SEAL, broken

FEWEST_SEEDS = EXPLORATORY.least
"""With fewer pairs of seeds no verdict: the exact test of five cannot reach 0.05 (its floor is 1/16)."""

Outcome = Literal["supported", "contradicted", "inconclusive", "not measured"]


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
    registration: Registration = UNREGISTERED

    @property
    def of(self) -> str:
        """What ``n`` counts: seeds, or random networks or problems."""
        return self.claim.parts[0].of if self.claim.parts else "seeds"

    @property
    def disagree(self) -> bool:
        """Whether the t-test and the exact sign flips fall on two sides of 0.05, both uncorrected."""
        tests = len(_by_chance(self.findings)) if self.verdict == "contradicted" else 1
        return disagree(self.p, self.p_sign_flip, self.n, tests)


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
            tuple(finding.tested(rule) for finding in _by_chance(findings)),
            frozenset(finding.measurement for finding in _by_chance(findings)),
            tuple(finding.holds(rule) for finding in findings if finding.part.kind == "bound"),
        )
        for _, findings in measured
    ]
    found = decide_family(tested, members)
    family = max(members or 0, len({of.measurements for of, p in zip(tested, found, strict=True) if p.p == p.p}))
    settled = {of.measurements for of, p in zip(tested, found, strict=True) if p.corrected <= rule.level}
    return [
        _verdict(
            _Summary(
                claim, tuple(findings), of.places, of.bounds, p, rule, family, family - len(settled - {of.measurements})
            )
        )
        for (claim, findings), of, p in zip(measured, tested, found, strict=True)
    ]


def _by_chance(findings: Sequence[Finding]) -> list[Finding]:
    """Those whose mean is tested."""
    return [finding for finding in findings if finding.part.kind != "bound"]


@dataclass(frozen=True, eq=False)
class _Summary:
    """A claim with its tests: a place for each part that is tested, and for each bound whether it holds."""

    claim: Claim
    findings: tuple[Finding, ...]
    places: tuple[Place | None, ...]
    bounds: tuple[bool | None, ...]
    p: PValues
    rule: Rule
    family: int
    """How many members the family has."""
    members_open: int
    """How many of them are not settled, its own always among them: the step of Holm's correction that it faces."""

    @property
    def n(self) -> int:
        """The fewest values behind a part."""
        return min((len(finding.values) for finding in self.findings), default=0)

    @property
    def outside(self) -> list[tuple[int, Finding, Place]]:
        """Those parts that lie outside of their regions, so that the claim is contradicted, with their numbers."""
        tested = [(number, finding) for number, finding in enumerate(self.findings, 1) if finding in self.tested]
        return [
            (number, finding, place)
            for (number, finding), place in zip(tested, self.places, strict=True)
            if place is not None and 2 * len(tested) * min(place.below, place.above) <= self.rule.level
        ]

    @property
    def tested(self) -> list[Finding]:
        """The parts that are tested: those whose place is in ``places``."""
        return _by_chance(self.findings)

    @property
    def refuted(self) -> list[tuple[int, Finding]]:
        """Those bounds that a value lies outside of, with their numbers."""
        bounds = [(number, of) for number, of in enumerate(self.findings, 1) if of.part.kind == "bound"]
        return [(number, finding) for number, finding in bounds if finding.holds(self.rule) is False]


def _verdict(summary: _Summary) -> Verdict:
    claim, findings = summary.claim, summary.findings
    groups = [finding.group for finding in findings if finding.group is not None]
    runs = tuple(dict.fromkeys(run for group in groups for run in group.runs))
    commands = (
        map(command_of, groups) if groups else (f"icsbench sweep experiment={name}" for name in claim.studies[:1])
    )
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
            [f.sign_flip if p is not None else None for f, p in zip(summary.tested, summary.places, strict=True)],
            all(summary.bounds),
        )[2],
        seeds_needed=needed,
        scale=str(runs[0].setting("scale")) if runs else "",
        facts="; ".join(dict.fromkeys(group.facts for group in groups)),
        command="; ".join(dict.fromkeys(commands)),
        runs=runs,
    )


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
    if refuted := summary.refuted:
        sides = dict.fromkeys(f.part.below if f.side == "below" else f.part.above for _, f in refuted)
        return "contradicted", "; ".join(filter(None, sides)), _beyond(refuted), None
    decided = summary.p.corrected <= rule.level
    if decided and summary.p.contradicts <= summary.p.supports:
        below = [(number, finding, place.below < place.above) for number, finding, place in summary.outside]
        sides = dict.fromkeys(finding.part.below if lower else finding.part.above for _, finding, lower in below)
        where = ", ".join(f"part {number} {'below' if lower else 'above'}" for number, _, lower in below)
        return "contradicted", "; ".join(filter(None, sides)), f"outside its region: {where}; {over}", None
    if missing:
        return "inconclusive", "", f"a part was not measured: {missing}", None
    if any(tested is None for tested in (*summary.places, *summary.bounds)):
        left_out = {seed: why for finding in findings for seed, why in finding.left_out.items()}
        why = f", left out: {'; '.join(f'{of[:-1]} {s} ({w})' for s, w in left_out.items())}" if left_out else ""
        few = f"{summary.n} {of} with a value{why}; {rule.least} are the fewest for a verdict"
        if summary.n >= rule.least:
            few = f"a bound on every value is not supported where one is missing{why}"
        return "inconclusive", "", few, None if left_out else rule.least
    if not summary.places:
        return "supported", claim.by, f"every value keeps to its bound, all {summary.n} {of}; not a test", None
    if decided:
        kept = "; every value keeps to the bounds, which is not a test" if summary.bounds else ""
        return "supported", claim.by, f"every part lies in its region; {over}{kept}", None
    needed = fewest(lambda n: chance_of_verdict(findings, n, rule, summary.members_open))
    with_more = f"about {needed} {of} would probably settle it" if needed else f"more {of} would hardly settle it"
    return "inconclusive", "", f"{over}; {with_more}", needed


def _beyond(refuted: Sequence[tuple[int, Finding]]) -> str:
    """Which values lie beyond which bounds."""
    parts = [
        f"part {number}, {len(finding.beyond)} of {len(finding.values)} {finding.part.of} "
        f"({finding.part.of[:-1]} {finding.beyond[0]}: {finding.values[finding.beyond[0]]:.4g})"
        for number, finding in refuted
    ]
    return f"a value beyond a bound on every value, which is not a test: {'; '.join(parts)}"


def chance_of_verdict(findings: Sequence[Finding], n: int, rule: Rule, members: int) -> float:
    """How likely a claim is decided with n values of each part, if what was found is true: a lower bound.

    ``members``: how many members of the family are open, itself among them, so that it faces the level of the rule
    divided by so many. A part outside is enough; if all lie inside, what each of them misses is added up.
    Bounds are taken to hold.
    """
    if n < rule.least:
        return 0.0
    level = rule.level / 2 / members
    tested = _by_chance(findings)
    outside = [finding for finding in tested if finding.values and finding.side != "inside"]
    if outside:
        return max(finding.chance(n, level / len(tested), rule.exact) for finding in outside)
    return max(0.0, 1 - sum(1 - finding.chance(n, level, rule.exact) for finding in tested))


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


def sharing(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    """By id of a claim the others on the same measurements, which are one member of the family with it."""
    members: dict[frozenset[Any], list[str]] = {}
    for verdict in verdicts:
        if not math.isnan(verdict.p):
            members.setdefault(frozenset(finding.measurement for finding in verdict.findings), []).append(
                verdict.claim.id
            )
    return {id: [other for other in ids if other != id] for ids in members.values() for id in ids if len(ids) > 1}


def used_of(findings: Iterable[Finding]) -> list[Group]:
    """The studies that the findings come from, each with those of its runs that were used."""
    used: dict[str, Group] = {}
    for group in (finding.group for finding in findings if finding.group is not None):
        before = used[group.name].runs if group.name in used else ()
        used[group.name] = replace(group, runs=tuple(dict.fromkeys((*before, *group.runs))))
    return [*used.values()]
