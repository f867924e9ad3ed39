"""Seeds for open claims: which study is extended next, to which look, and when nothing is left that could be decided.

Claims are judged at looks only: when every study behind a claim has exactly the seeds of the look. At look k a false
verdict has a chance of at most ``level_k``, by Holm's correction over the claims that the looks before left open; all
looks together have the sum of their levels (a union bound). Verdicts stand, whatever later seeds say.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.decision import LEVEL, Look, Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.plan import chance_with_seeds, seconds_per_seed
from icsbench.analysis.registration import Lock, at_looks
from icsbench.analysis.verdicts import Verdict, decide, measure, refuse_changed
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run

SHARES = (0.6, 0.4)
"""How the looks share the level where none are given: 0.03 and 0.02."""

HOPE = 0.1
"""A claim is not extended for where its chance of a verdict, if what was found is true, is below this at every look."""


@dataclass(frozen=True)
class Study:
    """A study that can be extended: its own seeds, the runs that one seed takes, and its looks."""

    name: str
    seeds: tuple[int, ...]
    runs_per_seed: int
    looks: tuple[Look, ...]

    def seeds_at(self, look: int) -> tuple[int, ...]:
        """The seeds of a look: the first ones of its own, then those that follow the largest."""
        number, after = self.looks[look].seeds, max(self.seeds) + 1
        return (*self.seeds, *range(after, after + number))[:number]

    def missing(self, look: int, runs: Sequence[Run]) -> tuple[int, ...]:
        """The seeds of a look with runs that are not finished."""
        finished = [run.seed for run in runs if run.finished and run.setting("experiment") == self.name]
        return tuple(seed for seed in self.seeds_at(look) if finished.count(seed) < self.runs_per_seed)


@dataclass(frozen=True)
class Limits:
    """Where an extension stops: seeds per study, hours of wall time, None for no limit; processes that runs share."""

    seeds: int | None = None
    hours: float | None = None
    processes: int = 1


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a claim stands: decided at a ``look``, or open and waiting there for studies.

    ``waits_for`` is empty for a claim that is decided, and for one that has had every look. ``members``: how many
    members of the family are open there.
    """

    claim: Claim
    look: int
    verdict: Verdict | None
    waits_for: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    members: int = 1

    @property
    def decided(self) -> bool:
        """Whether it has a verdict that stands."""
        return self.verdict is not None and self.verdict.verdict in ("supported", "contradicted")


@dataclass(frozen=True)
class Step:
    """The next thing to run: seeds of a study, and for which claims at which look.

    ``hours``: wall time that it would take; None where no record says so. ``first``: no run of the study has been
    finished, so that one seed is run to learn what it takes.
    """

    study: str
    seeds: tuple[int, ...]
    runs: int
    look: int
    claims: tuple[str, ...]
    hours: float | None
    first: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an extension: where each claim stands, why each open one was left, and the studies that failed."""

    standings: tuple[Standing, ...]
    stopped: Mapping[str, str]
    failed: Mapping[str, str]


def default_looks(own: int, members: int, counts_seeds: bool) -> tuple[Look, ...]:
    """Two looks, with 0.03 and 0.02: at the study's ``own`` number of seeds, or the first multiple of it with which
    exact tests of so many ``members`` can settle one (``members 2^(1 - n) <= 0.03``), and at twice that.

    ``counts_seeds``: whether its claims have one value per seed; those on networks or problems have more.
    """
    first = own
    while counts_seeds and members * 2.0 ** (1 - first) > SHARES[0] * LEVEL:
        first += own
    return tuple(Look(seeds, round(share * LEVEL, 4)) for seeds, share in zip((first, 2 * first), SHARES, strict=True))


def family_of(claims: Sequence[Claim], studies: Sequence[str]) -> tuple[list[Claim], dict[str, list[str]]]:
    """The claims that studies measure whole, with those studies alone; and of each they measure a part of, what lacks.

    The family is fixed by the names of the studies, whatever their records say.
    """
    whole, lacking = [], {}
    for claim in claims:
        parts = [replace(part, studies=tuple(s for s in part.studies if s in studies)) for part in claim.parts]
        without = [part.studies[0] for part, kept in zip(claim.parts, parts, strict=True) if not kept.studies]
        if claim.parts and not without:
            whole.append(replace(claim, parts=tuple(parts)))
        elif len(without) < len(claim.parts):
            lacking[claim.id] = without
    return whole, lacking


def standings_of(runs: Sequence[Run], family: Sequence[Claim], studies: Mapping[str, Study]) -> list[Standing]:
    """Where each claim of a family stands, in its order, judged at the looks that the records have reached.

    A claim is judged at a look when all studies of its parts are complete there; a part that one of its studies does
    not measure is looked for in the next. One whose complete parts decide it needs no other part.
    """
    refuse_changed(run for run in runs if run.setting("experiment") in studies)
    standings: dict[str, Standing] = {}
    ready = [*family]
    for look in range(len(next(iter(studies.values())).looks) if studies else 0):
        undecided = [claim for claim in family if claim.id not in standings or not standings[claim.id].decided]
        complete = {name for name, study in studies.items() if not study.missing(look, runs)}
        kept = [
            run
            for run in runs
            if (name := run.setting("experiment")) in complete and run.seed in studies[name].seeds_at(look)
        ]
        measured = measure(kept, [_on(claim, complete) for claim in undecided])
        members = len({frozenset(finding.measurement for finding in findings) for _, findings in measured})
        ready_ids = {claim.id for claim in ready}
        judged = [(claim, findings) for claim, findings in measured if claim.id in ready_ids]
        level = next(iter(studies.values())).looks[look].level
        verdicts = decide(judged, Rule(level, exact=True), members)
        ready = []
        whole = {claim.id: claim for claim in family}
        for (claim, findings), verdict in zip(judged, verdicts, strict=True):
            before = standings.get(claim.id)
            waits = _waits(whole[claim.id], findings, complete)
            known = tuple(findings) if not waits else before.findings if before else ()
            standing = Standing(whole[claim.id], look, verdict, waits, known, members)
            standings[claim.id] = replace(standing, waits_for=()) if standing.decided else standing
            if not standing.decided and not waits:
                ready.append(whole[claim.id])
    return [standings[claim.id] for claim in family]


def _on(claim: Claim, complete: set[str]) -> Claim:
    """A claim whose parts are measured on complete studies, before the first of theirs that is not."""
    return replace(claim, parts=tuple(replace(part, studies=_first(part.studies, complete)) for part in claim.parts))


def _first(studies: tuple[str, ...], complete: set[str]) -> tuple[str, ...]:
    end = next((place for place, study in enumerate(studies) if study not in complete), len(studies))
    return studies[:end]


def _waits(claim: Claim, findings: Sequence[Finding], complete: set[str]) -> tuple[str, ...]:
    """The studies that have to come before a claim can be judged: of each part that was not measured, the next."""
    waits = [
        study
        for part, finding in zip(claim.parts, findings, strict=True)
        if finding.group is None
        for study in part.studies[len(_first(part.studies, complete)) :][:1]
    ]
    return tuple(dict.fromkeys(waits))


def next_step(
    standings: Sequence[Standing],
    runs: Sequence[Run],
    studies: Mapping[str, Study],
    limits: Limits,
    hours_left: float,
    failed: Mapping[str, str],
) -> tuple[Step | None, dict[str, str]]:
    """The cheapest study of the cheapest open claim, to its next look; and of each claim left open for good, why."""
    steps: list[tuple[float, float, Step]] = []
    stopped: dict[str, str] = {}
    wanted: dict[tuple[str, int], list[str]] = {}
    costs = {name: seconds_per_seed([r for r in runs if r.setting("experiment") == name]) for name in studies}
    left = [standing for standing in standings if not standing.decided]
    for standing in left:
        if why := _hopeless(standing, studies, limits, failed):
            stopped[standing.claim.id] = why
            continue
        for study in standing.waits_for:
            wanted.setdefault((study, standing.look), []).append(standing.claim.id)
    for standing in left:
        if standing.claim.id in stopped:
            continue
        found = [
            _step(studies[study], standing.look, runs, costs[study], limits, tuple(wanted[study, standing.look]))
            for study in standing.waits_for
        ]
        hours = sum(math.inf if step.hours is None else step.hours for step in found)
        known = sum(step.hours or 0.0 for step in found)
        if hours_left <= 0 or known > hours_left:
            takes = f"the next look takes {duration(known)}, " if known else ""
            stopped[standing.claim.id] = f"{takes}{duration(max(0.0, hours_left))} of --hours are left"
            continue
        steps += [(hours, math.inf if step.hours is None else step.hours, step) for step in found]
    chosen = min(steps, key=lambda item: item[:2], default=None)
    return (chosen[2] if chosen else None), stopped


def _step(
    study: Study, look: int, runs: Sequence[Run], seconds: float | None, limits: Limits, claims: tuple[str, ...]
) -> Step:
    """All seeds that a look lacks; the first of them alone where no run has shown what a seed takes."""
    missing = study.missing(look, runs)
    if not any(run.finished and run.setting("experiment") == study.name for run in runs):
        return Step(study.name, missing[:1], study.runs_per_seed, look, claims, None, first=True)
    hours = None if seconds is None else len(missing) * seconds / 3600 / limits.processes
    return Step(study.name, missing, len(missing) * study.runs_per_seed, look, claims, hours)


def _hopeless(standing: Standing, studies: Mapping[str, Study], limits: Limits, failed: Mapping[str, str]) -> str:
    """Why no further seed can decide a claim; empty where one may."""
    if not standing.waits_for:
        why = standing.verdict.reason if standing.verdict and standing.verdict.n == 0 else "every look was taken"
        return why or "it cannot be measured"
    for study in standing.waits_for:
        if study in failed:
            return f"{study} failed"
        if limits.seeds is not None and studies[study].looks[standing.look].seeds > limits.seeds:
            number = studies[study].looks[standing.look].seeds
            return f"its next look takes {number} seeds of {study}, --most-seeds allows {limits.seeds}"
    looks = [
        look
        for look in studies[standing.waits_for[0]].looks[standing.look :]
        if limits.seeds is None or look.seeds <= limits.seeds
    ]
    rules = [(look.seeds, Rule(look.level, exact=True)) for look in looks]
    if not standing.findings:
        least = min(rule.least for _, rule in rules)
        of_seeds = all(part.of == "seeds" for part in standing.claim.parts)
        return f"{least} seeds are the fewest for a verdict" if of_seeds and looks[-1].seeds < least else ""
    chance = max(chance_with_seeds(standing.findings, n, rule, standing.members) for n, rule in rules)
    if chance >= HOPE:
        return ""
    if missing := [finding.missing for finding in standing.findings if finding.missing]:
        return "; ".join(dict.fromkeys(missing))
    return f"{looks[-1].seeds} seeds would settle it with a chance of {chance:.0%} only".replace("%", " %")


def duration(hours: float) -> str:
    """Hours in words: ``11.0 h``, ``35 min``, ``under a minute``."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else "under a minute"


def standings_by(runs: Sequence[Run], lock: Lock, studies: Mapping[str, Study]) -> list[Standing]:
    """Where each claim of a lock stands, as :func:`icsbench.analysis.registration.judge_by` judges it.

    A claim waits for every study of its parts that lacks seeds of its next look.
    """
    refuse_changed(run for run in runs if run.setting("experiment") in lock.studies)
    found = at_looks(runs, lock)
    open_ = [verdict.claim for verdict, _ in found.values() if verdict.verdict in ("inconclusive", "not measured")]
    members = max(1, len(open_))
    standings = []
    for verdict, look in found.values():
        reached = -1 if look is None else lock.looks.index(look)
        after = min(reached + 1, len(lock.looks) - 1)
        names = verdict.claim.studies
        waits = tuple(name for name in names if name in studies and studies[name].missing(after, runs))
        decided = verdict.verdict in ("supported", "contradicted")
        place = max(reached, 0) if decided else after
        standings.append(Standing(verdict.claim, place, verdict, () if decided else waits, verdict.findings, members))
    return standings


def extend(
    family: Sequence[Claim],
    studies: Mapping[str, Study],
    limits: Limits,
    *,
    records: Callable[[], Sequence[Run]],
    run: Callable[[str, tuple[int, ...]], object],
    say: Callable[[Step], object],
    lock: Lock | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run what open claims need, the cheapest first, until none is left that the limits let be decided.

    All that is known is in the records, so that a stop at any time, and the same call again, goes on.

    :param records: the runs that there are.
    :param run: makes the runs of a study with these seeds, those that are finished left as they are.
    :param say: told of each step before it is run.
    :param lock: what names claims, seeds and looks, if something does.
    :param clock: seconds; what :attr:`Limits.hours` is counted by, from this call on.
    :raises IcsbenchError: records were changed, or must not be pooled.
    """
    began, failed = clock(), {}
    while True:
        runs = records()
        standings = standings_by(runs, lock, studies) if lock else standings_of(runs, family, studies)
        left = math.inf if limits.hours is None else limits.hours - (clock() - began) / 3600
        step, stopped = next_step(standings, runs, studies, limits, left, failed)
        if step is None:
            return Outcome(tuple(standings), stopped, failed)
        say(step)
        try:
            run(step.study, step.seeds)
        except IcsbenchError as error:
            failed[step.study] = str(error)
            continue
        if set(step.seeds) & set(studies[step.study].missing(step.look, records())):
            failed[step.study] = "its runs ended, and some are not finished; icsbench runs lists them"
