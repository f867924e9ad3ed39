"""The runs of studies in one pool: a process starts once, and a configuration is composed once for all its seeds."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import DictConfig

from icsbench import terminal
from icsbench.app.progress import ending, failing, say, who
from icsbench.app.reports import printing_to
from icsbench.app.runs import make
from icsbench.app.watching import watching
from icsbench.config import resolve
from icsbench.errors import IcsbenchError
from icsbench.record.writer import folder_of


class Task(NamedTuple):
    """A configuration of a study, as composed, and its seeds, which are run one after another in one process."""

    study: str
    composed: DictConfig
    seeds: tuple[int, ...]


def run_studies(
    studies: Mapping[str, int | None],
    tasks_of: Callable[[str], Sequence[Task]],
    processes: int,
    ended: Callable[[str, list[str]], None],
) -> None:
    """Make the runs of studies, in their order as far as processes are free, and show how they get on.

    :param studies: how many runs each has; None where nobody knows.
    :param tasks_of: composes the tasks of a study; asked when a process is about to be free for them.
    :param ended: told of each study when its last run has ended, with a line for each run that failed; at the end, of
        those that could not be composed.
    :raises IcsbenchError: a process of the pool was killed.
    """
    waiting: Counter[str] = Counter()
    lines: dict[str, list[str]] = {study: [] for study in studies}
    refused: dict[str, str] = {}
    here = os.getcwd()

    def tasks() -> Iterator[Task]:
        for study in studies:
            try:
                found = tasks_of(study)
            except IcsbenchError as error:
                refused[study] = str(error)
                continue
            waiting[study] += len(found)
            yield from found

    pool = Parallel(processes, return_as="generator_unordered", pre_dispatch="2 * n_jobs", batch_size=1)  # type: ignore
    try:
        with watching(studies) as reports:
            ends: Any = pool(delayed(_make)(task, here, reports) for task in tasks())
            for study, failed in ends:
                lines[study] += failed
                waiting[study] -= 1
                if not waiting[study]:
                    ended(study, lines[study])
    except TerminatedWorkerError:
        raise IcsbenchError(
            "a process that made runs was killed, for lack of memory perhaps; the same command goes on where it stopped"
        ) from None
    for study, why in refused.items():
        ended(study, [why])


def _make(task: Task, here: str, reports: Path) -> tuple[str, list[str]]:
    """Make the runs of a task in the folder ``here``; its study, and a line for each run that failed."""
    os.chdir(here)
    terminal.prepare()
    with printing_to(reports):
        return task.study, _failed(task, reports)


def _failed(task: Task, reports: Path) -> list[str]:
    failed = []
    try:
        first = resolve(task.composed)
    except IcsbenchError as error:
        return [str(error)]
    for config in (replace(first, seed=seed) for seed in task.seeds):
        try:
            summary = make(config, in_pool=True, reports=reports)
        except IcsbenchError as error:
            failed.append(f"{who(config)}: {failing(error, config)}")
        else:
            say(f"{who(config)}: {ending(summary)}; record {folder_of(config)}")
    return failed
