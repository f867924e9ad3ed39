"""What ``icsbench reproduce`` does: studies with all their runs, or only those that open claims need."""

import math
import sys
from collections.abc import Sequence

from rich.console import Console

from icsbench import reading
from icsbench.analysis.claims import all_claims, serves
from icsbench.analysis.decision import looks_of
from icsbench.analysis.extension import Limits, Study, default_looks, extend, family_of
from icsbench.app.launch import launch
from icsbench.app.reproduce import reproduction_of
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
    failed: list[str] = []
    for study in wanted.studies:
        try:
            launch(wanted.arguments(study))
        except IcsbenchError as error:
            if wanted.studies == (study,):
                raise
            failed.append(study)
            print(f"icsbench: {study}: {error}", file=sys.stderr)
            continue
        reading.draw(wanted.results / study, None)
    if set(wanted.studies) - set(failed):
        reading.judge_and_write(wanted.results, wanted.results, wanted.scale)
        reading.write_page(wanted.results, wanted.results / "report.html", wanted.scale)
    if failed:
        raise IcsbenchError(f"not finished: {', '.join(failed)}, for the reasons above; the same command goes on there")


def until_decided(arguments: list[str], most_seeds: int | None, hours: float | None, look_texts: Sequence[str]) -> None:
    """Run the seeds that open claims of the studies need, and say where each claim stands.

    :raises IcsbenchError: arguments, options or records that do not fit, or a study that failed.
    """
    if hours is not None and not (hours > 0 and math.isfinite(hours)):
        raise IcsbenchError(f"--hours {hours:g}: give hours above 0")
    if most_seeds is not None and most_seeds < 1:
        raise IcsbenchError(f"--most-seeds {most_seeds}: give 1 or more")
    looks = looks_of(look_texts)
    wanted = reproduction_of(arguments)
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

    def records() -> list[Run]:
        if not any(run_folders(wanted.results)):
            return []
        found = load_runs(wanted.results)
        return [r for r in found if r.setting("experiment") in studies and r.setting("scale") == wanted.scale]

    console = Console()
    limits = Limits(most_seeds, hours, max(sweep.processes for sweep in sweeps.values()))
    print_family(console, family, studies, lacking, limits)
    outcome = extend(
        family,
        studies,
        limits,
        records=records,
        run=lambda study, seeds: launch(wanted.arguments(study, seeds)),
        say=lambda step: print_step(console, step, studies[step.study]),
    )
    print_outcome(console, outcome, studies)
    if outcome.failed:
        lines = [f"{study}: {why}" for study, why in outcome.failed.items()]
        raise IcsbenchError("\nicsbench: ".join(lines) + "; the same command goes on there")
