"""What is seen of runs that are being made: the state of a sweep as lines and as a picture, and the bar of one run."""

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from icsbench.app.progress import Seen, duration, who
from icsbench.app.reports import Report
from icsbench.config import Config

_COLOURS = {"diverged": "magenta", "failed": "red"}
_BAR = 24  # characters
_NAMED = 4  # runs that a plain line names


@dataclass
class _Job:
    study: str
    run: str
    began: float
    seen: Seen | None = None
    first: tuple[float, int] | None = None
    """When it was first seen at which step: a run that goes on does not begin at 0."""

    def projected(self, now: float) -> float | None:
        """Seconds of the whole run at the pace so far."""
        if self.seen is None or self.first is None or self.seen.steps is None or self.seen.step <= self.first[1]:
            return None
        return (now - self.first[0]) / (self.seen.step - self.first[1]) * self.seen.steps


@dataclass
class _Study:
    planned: int | None
    ends: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.ends.total()

    @property
    def complete(self) -> bool:
        return self.planned is not None and self.done >= self.planned


class Tally:
    """The state of a sweep, from what its processes tell.

    :param planned: its studies, and how many runs each has; None where nobody knows.
    """

    def __init__(self, planned: Mapping[str, int | None], now: float) -> None:
        self._began = now
        self._studies = {study: _Study(runs) for study, runs in planned.items()}
        self._jobs: dict[str, _Job] = {}

    def hear(self, report: Report, now: float) -> None:
        """Take in a report that is read at this time."""
        study = self._studies.setdefault(report.study, _Study(None))
        if report.what in ("ended", "failed"):
            self._jobs.pop(report.key, None)
            diverged = report.outcome == "diverged"
            study.ends["failed" if report.what == "failed" else "diverged" if diverged else "complete"] += 1
            study.seconds += [] if report.seconds is None else [report.seconds]
            return
        job = self._jobs.setdefault(report.key, _Job(report.study, report.run, now))
        if report.seen is not None:
            job.run, job.seen = report.run, report.seen
            job.first = job.first or (now, report.seen.step)

    @property
    def begun(self) -> bool:
        """Whether anything was told."""
        return bool(self._jobs) or any(study.done for study in self._studies.values())

    def left(self, now: float) -> tuple[float, bool] | None:
        """Seconds until all is done, by the runs that are finished, and whether some study has none to go by.

        None where no run has finished and none is under way for long enough, or nobody knows how many there are.
        """
        total, timed, unknown = 0.0, False, False
        for name, study in self._studies.items():
            if study.planned is None:
                return None
            if study.complete:
                continue
            jobs = [job for job in self._jobs.values() if job.study == name]
            costs = study.seconds or [cost for job in jobs if (cost := job.projected(now)) is not None]
            if not costs:
                unknown = True
                continue
            mean, timed = sum(costs) / len(costs), True
            total += (study.planned - study.done) * mean - sum(min(mean, now - job.began) for job in jobs)
        return (total / max(1, len(self._jobs)), unknown) if timed else None

    def counts(self, now: float) -> str:
        """How many runs are done, how long that took, and how long the rest will take."""
        studies = self._studies.values()
        ends = sum((study.ends for study in studies), Counter[str]())
        planned = [study.planned for study in studies if study.planned is not None]
        of = f" of {sum(planned)}" if len(planned) == len(studies) else ""
        said = [f"{ends.total()}{of} runs", *(f"{ends[end]} {end}" for end in _COLOURS if ends[end])]
        said.append(f"{duration(now - self._began)} so far")
        if (left := self.left(now)) is not None:
            seconds, unknown = left
            said.append(f"{'at least' if unknown else 'about'} {duration(seconds)} left")
        return ", ".join(said)

    def line(self, now: float) -> str:
        """All of it in one line, for a log."""
        jobs = [*self._jobs.values()]
        named = [f"{job.run}" + ("" if job.seen is None else f" ({_at(job.seen)})") for job in jobs[:_NAMED]]
        more = [f"{len(jobs) - _NAMED} more"] if len(jobs) > _NAMED else []
        return "; ".join([self.counts(now), *(["running: " + ", ".join([*named, *more])] if jobs else [])])

    def picture(self, now: float) -> RenderableType:
        """All of it for a terminal: studies done and to come, those under way with their runs, and the counts."""
        under_way = {job.study for job in self._jobs.values()}
        open_ = {name: of for name, of in self._studies.items() if not of.complete}
        begun = {name: of for name, of in open_.items() if of.done or name in under_way}
        parts: list[RenderableType] = []
        for words, names in (
            ("done", [name for name in self._studies if name not in open_]),
            ("to come", [name for name in open_ if name not in begun]),
        ):
            if names:
                of = "study" if len(names) == 1 else "studies"
                parts.append(_one_line(f"{len(names)} {of} {words}: {', '.join(names)}", "dim"))
        width = max(map(len, begun), default=0)
        for name, study in begun.items():
            parts += [_head(name.ljust(width), study), _jobs([job for job in self._jobs.values() if job.study == name])]
        return Group(*parts, _one_line(self.counts(now), "bold"))


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _at(seen: Seen) -> str:
    return f"{seen.step} rows" if seen.steps is None else f"step {seen.step}/{seen.steps}"


def _grid(*widths: int | None) -> Table:
    grid = Table.grid(padding=(0, 2))
    for width in widths:
        grid.add_column(no_wrap=True, overflow="ellipsis", width=width)
    return grid


def _head(name: str, study: _Study) -> Table:
    grid = _grid(None, _BAR, None, None)
    ends = Text(", ").join(
        Text(f"{study.ends[end]} {end}", style) for end, style in _COLOURS.items() if study.ends[end]
    )
    known = study.planned is not None
    bar = ProgressBar(study.planned, study.done, width=_BAR) if known else Text()
    grid.add_row(name, bar, f"{study.done}/{study.planned}" if known else f"{study.done}", ends)
    return grid


def _jobs(jobs: list[_Job]) -> Table:
    grid = _grid(None, None, None, None)
    for job in jobs:
        grid.add_row(f"  {job.run}", *_cells(job.seen))
    return grid


def _cells(seen: Seen | None) -> tuple[str, str, str]:
    """Where a run is, its accuracy or loss, and its rate."""
    if seen is None:
        return "starting", "", ""
    if seen.accuracy is None and seen.loss is None:
        return _at(seen), "", ""
    how = f"loss {seen.loss:.4g}" if seen.accuracy is None else f"{seen.accuracy:.1%}"
    return _at(seen), how, f"{seen.samples_per_second or 0.0:,.0f} samples/s"


def on_terminal() -> bool:
    """Whether stderr is a terminal that can draw."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def live(console: Console | None = None) -> Live:
    """A display on stderr that is gone when it ends. What is printed meanwhile stands above it.

    The cursor stays visible, so that whatever kills the process leaves a terminal that can be used.
    """
    shown = Live(
        console=console or Console(file=sys.stderr),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    shown.start()
    shown.console.show_cursor(True)
    return shown


@contextlib.contextmanager
def bar(config: Config) -> Iterator[Callable[[Seen], None] | None]:
    """A bar for one training on a terminal: gives what moves it. None where there is no terminal, and for a lab."""
    if config.lab is not None or not on_terminal():
        yield None
        return
    shown = live()
    job = _Job("", who(config), time.monotonic(), Seen(0, config.steps))

    def tell(seen: Seen) -> None:
        now = time.monotonic()
        job.seen, job.first = seen, job.first or (now, seen.step)
        shown.update(_bar(job, now), refresh=True)

    try:
        shown.update(_bar(job, job.began), refresh=True)
        yield tell
    finally:
        shown.stop()


def _bar(job: _Job, now: float) -> Table:
    assert job.seen is not None and job.seen.steps is not None
    grid = _grid(None, _BAR, None, None, None)
    at, how, _ = _cells(job.seen)
    whole = job.projected(now)
    left = "" if whole is None else f"{duration(whole * (1 - job.seen.step / job.seen.steps))} left"
    grid.add_row(job.run, ProgressBar(job.seen.steps, job.seen.step, width=_BAR), at, how, left)
    return grid
