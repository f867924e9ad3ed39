"""What open claims need, and what came of running it, on the console and as plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.decision import Look
from icsbench.analysis.extension import Limits, Outcome, Step, Study, duration
from icsbench.analysis.plan import Need, total_hours
from icsbench.report import words

HOUR = "An hour is an hour of one run's process, as its record has it; where P processes share the runs it takes 1/P."


def needs_as_json(found: Sequence[Need], looks: Sequence[Look]) -> dict[str, Any]:
    """The needs as plain values: ``seeds`` is null where it takes more than ``most``, ``hours`` where not known."""
    claims = [
        {
            "id": need.verdict.claim.id,
            "verdict": need.verdict.verdict,
            "studies": need.studies,
            "seeds": need.seeds,
            "at_least": need.at_least,
            "most": need.most,
            "hours": need.hours,
            "reason": need.verdict.reason,
        }
        for need in found
    ]
    return {"looks": [look._asdict() for look in looks], "claims": claims, "total_hours": total_hours(found)}


def print_needs(console: Console, found: Sequence[Need], looks: Sequence[Look]) -> None:
    """Print a row per open claim: the seeds that it has and needs, of which studies, and the hours; then the total."""
    if not found:
        _line(console, "No claim is open.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "verdict", "seeds needed", "hours", "seeds there"):
        table.add_column(Text(name), justify="right" if name == "hours" else "left", overflow="fold")
    for need in found:
        there = ", ".join(f"{has} of {study}" for study, has in need.studies.items())
        hours = "?" if need.hours is None else f"{need.hours:.2g}"
        cells = (need.verdict.claim.id, need.verdict.verdict, seeds_needed(need), hours, there)
        table.add_row(*(Text(words.printable(cell)) for cell in cells))
    console.print(table)
    console.print()
    for line in _total(found):
        _line(console, line)
    how = "they are judged by Student's t" if not looks else f"looks: {_looks(looks)}; sign flips have to agree"
    _line(console, f"Needed: seeds that settle a claim with probability 0.8 if what was found is true; {how}.")
    _line(console, HOUR)


def seeds_needed(need: Need) -> str:
    """``14``, ``at least 6``, or ``more than 1,000``."""
    if need.seeds is None:
        return f"more than {need.most:,}"
    return f"at least {need.seeds}" if need.at_least else str(need.seeds)


def _total(found: Sequence[Need]) -> list[str]:
    counted = [need for need in found if need.hours is not None]
    endless = sum(need.seeds is None for need in found)
    unknown = len(found) - len(counted) - endless
    lines = [f"Together: {total_hours(found):.2g} hours for {len(counted)} claims; those of one study share its seeds."]
    lines += [f"No number of seeds up to the limit would settle {endless} of them."] if endless else []
    lines += [f"For {unknown} no record says what a run takes; icsbench reproduce --list times it."] if unknown else []
    return lines


def print_family(
    console: Console, family: Sequence[Claim], studies: Mapping[str, Study], lacking: Mapping[str, Any], limits: Limits
) -> None:
    """Print which claims are judged together, at which looks, within which limits."""
    _line(console, f"Judged together: {_plural(len(family), 'claim')}, {', '.join(claim.id for claim in family)}.")
    by_looks: dict[tuple[Look, ...], list[str]] = {}
    for name, study in studies.items():
        by_looks.setdefault(study.looks, []).append(name)
    for looks, names in by_looks.items():
        _line(console, f"Looks: {_looks(looks)} ({', '.join(names)}).")
    for id, without in lacking.items():
        _line(console, f"Not among them: claim {id}, which needs {', '.join(without)} too.")
    processes = _plural(limits.processes, "process", "es")
    seeds = "any number of" if limits.seeds is None else f"at most {limits.seeds}"
    hours = "" if limits.hours is None else f", at most {limits.hours:g} hours"
    _line(console, f"Limits: {seeds} seeds of a study{hours}; runs share {processes}.")


def print_step(console: Console, step: Step, study: Study) -> None:
    """Print what is run next, and why."""
    seeds = f"seed{'s' if len(step.seeds) > 1 else ''} {', '.join(map(str, step.seeds))}"
    if step.hours is None:
        cost = "one seed first, to learn what a run takes" if step.first else "no record says what a run takes"
    else:
        cost = f"about {duration(step.hours)}"
    look = study.looks[step.look]
    why = f"claim{'s' if len(step.claims) > 1 else ''} {', '.join(step.claims)}"
    what = f"{step.study}, {seeds} ({_plural(step.runs, 'run')}, {cost})"
    _line(console, f"Next: {what}, for the look with {look.seeds} seeds at {why}.")


def print_outcome(console: Console, outcome: Outcome, studies: Mapping[str, Study]) -> None:
    """Print where each claim stands: its verdict and the look that gave it, or why it was left open."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "verdict", "why", "claim"):
        table.add_column(Text(name))
    for standing in outcome.standings:
        verdict = standing.verdict
        if standing.decided and verdict is not None:
            seeds = {studies[name].looks[standing.look].seeds for name in standing.claim.studies}
            said, why = words.SYMBOLS[verdict.verdict] + f" {verdict.verdict}", verdict.reason
            why = f"look {standing.look + 1}, {' or '.join(map(str, sorted(seeds)))} seeds: {why}"
        else:
            said, why = "? open", outcome.stopped.get(standing.claim.id, "")
        cells = (standing.claim.id, said, why, standing.claim.statement)
        table.add_row(*(Text(words.printable(cell)) for cell in cells))
    console.print(table)
    console.print()
    decided = sum(standing.decided for standing in outcome.standings)
    _line(
        console,
        f"Decided: {decided} of {_plural(len(outcome.standings), 'claim')}. The same command goes on from here.",
    )


def _plural(number: int, word: str, ending: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else ending}"


def _looks(looks: Sequence[Look]) -> str:
    return ", ".join(f"{look.seeds} seeds at {look.level:g}" for look in looks)


def _line(console: Console, line: str) -> None:
    console.print(words.printable(line), markup=False, highlight=False, soft_wrap=True)
