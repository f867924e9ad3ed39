"""What ``icsbench reproduce`` does: studies with all their runs, or only those that open claims need."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from icsbench import reading
from icsbench.analysis.claims import all_claims, serves
from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.decision import Look, looks_of
from icsbench.analysis.extension import Limits, Study, default_looks, extend, family_of
from icsbench.analysis.registration import Lock, at_looks, read_lock
from icsbench.app.batch import run_studies
from icsbench.app.launch import failures, launch
from icsbench.app.overrides import key_of
from icsbench.app.progress import in_all
from icsbench.app.reproduce import Reproduction, reproduction_of
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run, load_runs, run_folders
from icsbench.report.plan import print_family, print_outcome, print_step


def reproduce(arguments: list[str], list_: bool) -> None:
    """Run studies, then draw, judge and write the page; with ``list_`` say what they would cost.

    :raises IcsbenchError: the arguments do not fit, or a study failed; the others are run all the same.
    """
    wanted = reproduction_of(arguments)
    if list_:
        wanted.print_costs(Console(), serves)
        return
    failed: dict[str, str] = {}

    def ended(study: str, lines: Sequence[str]) -> None:
        try:
            if not lines:
                reading.draw(wanted.results / study, None, brief=len(wanted.studies) > 1)
                return
        except IcsbenchError as error:
            lines = [str(error)]
        why = in_all(lines)
        if wanted.studies == (study,):
            raise IcsbenchError(why)
        failed.setdefault(study, lines[0])
        print(f"icsbench: {study}: {why}", file=sys.stderr)

    if processes := wanted.processes():
        run_studies(wanted.runs, wanted.tasks, processes, ended)
    else:
        for study in wanted.studies:
            ended(study, _launched(wanted, study))
    if set(wanted.studies) - set(failed):
        reading.judge_and_write(wanted.results, wanted.results, wanted.scale)
        reading.write_page(wanted.results, wanted.results / "report.html", wanted.scale)
    if failed:
        first, why = next(iter(failed.items()))
        raise IcsbenchError(
            f"not finished: {', '.join(failed)}, for the reasons above; the first: {first}: {why}; the same command "
            "goes on there"
        )


def _launched(wanted: Reproduction, study: str) -> list[str]:
    """Hand a study to Hydra's launcher; what failed."""
    try:
        launch(wanted.arguments(study))
    except IcsbenchError as error:
        return [*failures] or [str(error)]
    return []


def until_decided(
    arguments: list[str], most_seeds: int | None, hours: float | None, look_texts: Sequence[str], lock_file: Path | None
) -> None:
    """Run the seeds that open claims of the studies need, and say where each claim stands.

    With a lock its claims, studies, seeds and looks are those that count.

    :raises IcsbenchError: arguments, options or records that do not fit, or a study that failed.
    """
    if hours is not None and not (hours > 0 and math.isfinite(hours)):
        raise IcsbenchError(f"--hours {hours:g}: give hours above 0")
    if most_seeds is not None and most_seeds < 1:
        raise IcsbenchError(f"--most-seeds {most_seeds}: give 1 or more")
    if lock_file is None:
        lock = None
        wanted = reproduction_of(arguments)
        family, studies, lacking, processes = _extended(wanted, looks_of(look_texts))
    else:
        if look_texts:
            raise IcsbenchError("--look goes without --lock: a lock names its looks")
        lock, lacking = read_lock(lock_file), {}
        wanted = _locked(arguments, lock)
        family = [verdict.claim for verdict, _ in at_looks([], lock).values()]
        sweeps = {study: wanted.sweep(study) for study in wanted.studies}
        studies = {name: Study(name, lock.seeds, of.runs_per_seed, lock.looks) for name, of in sweeps.items()}
        processes = max(sweep.processes for sweep in sweeps.values())

    def records() -> list[Run]:
        if not any(run_folders(wanted.results)):
            return []
        found = [run for run in load_runs(wanted.results) if run.setting("experiment") in studies]
        if lock is not None:
            return [run for run in found if run.path.parent.name in lock.studies[str(run.setting("experiment"))]]
        return [run for run in found if run.setting("scale") == wanted.scale]

    console = Console()
    limits = Limits(most_seeds, hours, processes)
    print_family(console, family, studies, lacking, limits)
    outcome = extend(
        family,
        studies,
        limits,
        records=records,
        run=lambda study, seeds: launch(wanted.arguments(study, seeds)),
        say=lambda step: print_step(console, step, studies[step.study]),
        lock=lock,
    )
    print_outcome(console, outcome, studies)
    if outcome.failed:
        lines = [f"{study}: {why}" for study, why in outcome.failed.items()]
        raise IcsbenchError("\nicsbench: ".join(lines) + "; the same command goes on there")


def _extended(
    wanted: Reproduction, looks: tuple[Look, ...]
) -> tuple[list[Claim], dict[str, Study], dict[str, list[str]], int]:
    """The claims that the studies measure whole, the studies, what other claims lack, and the processes there are."""
    family, lacking = family_of(all_claims(), wanted.studies)
    if not family:
        raise IcsbenchError(f"no claim is measured whole by {', '.join(wanted.studies)}; icsbench claims --list")
    used = [study for study in wanted.studies if any(study in claim.studies for claim in family)]
    sweeps = {study: wanted.sweep(study) for study in used}
    studies = {}
    for name, sweep in sweeps.items():
        of_seeds = any(part.of == "seeds" for claim in family for part in claim.parts if name in part.studies)
        own = default_looks(len(sweep.seeds), len(family), of_seeds)
        studies[name] = Study(name, sweep.seeds, sweep.runs_per_seed, looks or own)
    return family, studies, lacking, max(sweep.processes for sweep in sweeps.values())


def _locked(arguments: list[str], lock: Lock) -> Reproduction:
    """The studies of a lock with the overrides that it has, and those typed.

    :raises IcsbenchError: a study or a setting that is not the lock's.
    """
    if any(key_of(argument) == "seed" for argument in arguments if "=" in argument):
        raise IcsbenchError("seed=: the seeds are those of the lock")
    if strange := [name for name in arguments if "=" not in name and name not in lock.studies]:
        raise IcsbenchError(f"{strange[0]}: {lock.path} has no such study; it has {', '.join(lock.studies)}")
    names = [] if any("=" not in argument for argument in arguments) else [*lock.studies]
    wanted = replace(reproduction_of([*names, *arguments]), own=lock.overrides)
    for study in wanted.studies:
        if others := wanted.folders(study) ^ lock.studies[study].keys():
            raise IcsbenchError(
                f"study {study}: its settings are not those of {lock.path} ({sorted(others)[0]}); leave out overrides "
                "that change them"
            )
    return wanted
