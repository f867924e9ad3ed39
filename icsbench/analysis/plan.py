"""What open claims need: how many seeds would settle each, and the hours that these cost, by the records there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.decision import EXPLORATORY, Look, Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import Group, group_runs
from icsbench.analysis.power import MOST, POWER, fewest
from icsbench.analysis.verdicts import Verdict, chance_of_verdict, decide, measure, refuse_changed
from icsbench.record.reader import Run


@dataclass(frozen=True, eq=False)
class Need:
    """What one open claim needs.

    ``studies``: those that measure it, each with the seeds that it has. ``seeds``: of each study, in all; None where it
    takes more than ``most``. ``at_least``: nothing is known of the effect, and this is the fewest for any verdict.
    """

    verdict: Verdict
    studies: dict[str, int]
    seeds: int | None
    most: int
    at_least: bool
    seconds: dict[str, float | None]
    """What one more seed of each study takes, see :func:`seconds_per_seed`; None where no record says so."""

    @property
    def hours(self) -> float | None:
        """Cost of the seeds that are missing, in hours of one process; None where it is not known, or has no end."""
        if self.seeds is None:
            return None
        missing = {study: max(0, self.seeds - has) for study, has in self.studies.items()}
        costs = [number * seconds for study, number in missing.items() if (seconds := self.seconds[study]) is not None]
        return sum(costs) / 3600 if len(costs) == len(missing) else None


def needs(runs: Sequence[Run], claims: Sequence[Claim] | None = None, looks: tuple[Look, ...] = ()) -> list[Need]:
    """What each open claim needs, the cheapest first, those whose cost is not known last.

    A claim is open where the records leave it inconclusive or do not measure it. As many seeds are needed as settle it
    with probability 0.8, if the means and spreads that were found are the true ones, at the level that is left for it
    once the claims that are settled are out of Holm's correction.

    ``looks``: the only numbers of seeds with which claims are judged, and their levels; the exact tests have to agree
    then. Without, as ``icsbench claims`` judges, with any number of seeds.

    :raises IcsbenchError: as of :func:`icsbench.analysis.verdicts.judge`.
    """
    refuse_changed(runs)
    measured = measure(runs, all_claims() if claims is None else claims)
    rule = Rule(looks[0].level, exact=True) if looks else EXPLORATORY
    verdicts = [v for v in decide(measured, rule) if v.verdict in ("inconclusive", "not measured")]
    members = max(1, len({frozenset(f.measurement for f in v.findings) for v in verdicts if v.n}))
    studies: dict[str, Group] = {str(group.runs[0].setting("experiment")): group for group in group_runs(runs)}
    found = [_need(verdict, studies, looks, members) for verdict in verdicts if verdict.claim.studies]
    return sorted(found, key=lambda need: math.inf if need.hours is None else need.hours)


def total_hours(found: Sequence[Need]) -> float:
    """What all of them cost together: claims that share a study share its seeds. Those without a known cost are out."""
    largest: dict[str, float] = {}
    for need in found:
        if need.hours is None or need.seeds is None:
            continue
        for study, has in need.studies.items():
            hours = max(0, need.seeds - has) * (need.seconds[study] or 0.0) / 3600
            largest[study] = max(hours, largest.get(study, 0.0))
    return sum(largest.values())


def seconds_per_seed(runs: Sequence[Run]) -> float | None:
    """What one more seed of a study takes: a run of each of its configurations, in seconds of one process.

    Of each configuration the mean wall time of its runs counts, as they noted it. None where one noted none.
    """
    total = 0.0
    for group in group_runs(runs):
        for condition in group.conditions:
            noted = [seconds for run in condition.runs if (seconds := run.seconds) is not None]
            if not noted:
                return None
            total += sum(noted) / len(noted)
    return total or None


def values_per_seed(finding: Finding) -> float:
    """How many values a seed gives a part: one, several of a lab, or fewer where seeds were left out."""
    seeds = {run.seed for run in finding.group.runs} if finding.group else set()
    return len(finding.values) / len(seeds) if seeds and finding.values else 1.0


def chance_with_seeds(findings: Sequence[Finding], seeds: int, rule: Rule, members: int) -> float:
    """:func:`~icsbench.analysis.verdicts.chance_of_verdict` for a number of seeds of every study."""
    values = min((int(seeds * values_per_seed(finding)) for finding in findings), default=0)
    return chance_of_verdict(findings, values, rule, members)


def _need(verdict: Verdict, studies: dict[str, Group], looks: tuple[Look, ...], members: int) -> Need:
    behind = [_study(finding, studies) for finding in verdict.findings]
    has = {name: len({run.seed for run in studies[name].runs}) if name in studies else 0 for name in behind}
    seconds = {name: seconds_per_seed(studies[name].runs) if name in studies else None for name in has}
    there = min(has.values(), default=0)
    known = all(len(finding.values) > 1 for finding in verdict.findings)
    later = [look for look in looks if look.seeds > there]
    most = later[-1].seeds if later else looks[-1].seeds if looks else MOST
    if not known:
        least = next((look.seeds for look in later), None) if looks else EXPLORATORY.least
        return Need(verdict, has, least, most, True, seconds)
    if looks:
        enough = (
            look.seeds
            for look in later
            if chance_with_seeds(verdict.findings, look.seeds, Rule(look.level, exact=True), members) >= POWER
        )
        return Need(verdict, has, next(enough, None), most, False, seconds)
    seeds = fewest(lambda n: chance_with_seeds(verdict.findings, n, EXPLORATORY, members))
    return Need(verdict, has, None if seeds is None else max(seeds, there + 1), most, False, seconds)


def _study(finding: Finding, studies: dict[str, Group]) -> str:
    """The study that a part was measured on; of one that was not, the first that is there, or else the first of all."""
    if finding.group is not None:
        return str(finding.group.runs[0].setting("experiment"))
    return next((name for name in finding.part.studies if name in studies), finding.part.studies[0])
