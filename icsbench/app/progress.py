"""What is said of a run on stderr: who it is, how far it is, how it ended."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import parent_process
from typing import Any, NamedTuple

from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.record.schema import FAILURE, TEST_ACCURACY, TRAIN_ACCURACY, TRAIN_LOSS
from icsbench.record.strict_json import loads
from icsbench.record.writer import folder_of

_A_MINUTE = 60.0  # seconds between progress lines
_PARENT = os.getppid()  # in a process of a pool that is the sweep, which may die at any time after this


def orphaned() -> bool:
    """Whether this is a process of a pool whose sweep has died."""
    return parent_process() is not None and os.getppid() != _PARENT


def say(line: str) -> None:
    """Print a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


def who(config: Config) -> str:
    """The run in a few words."""
    if config.lab is not None:
        return f"{config.lab.name} seed {config.seed}"
    return f"{config.norm.name} lr {config.optim.lr:g} seed {config.seed}"


def ending(summary: dict[str, Any]) -> str:
    """How a run ended, with its accuracies, from its ``summary.json``; of a lab, with its number of rows."""
    if "rows" in summary:
        return f"complete, {summary['rows']} rows"
    if not summary[TEST_ACCURACY]:
        diverged = summary["diverged_at"]
        return ("complete" if diverged is None else f"diverged at step {diverged}") + (
            f", train loss {summary[TRAIN_LOSS]:.4g}"
        )
    protocol, accuracy = next(iter(summary[TEST_ACCURACY].items()))
    accuracies = f"train accuracy {summary[TRAIN_ACCURACY]:.1%}, test accuracy {accuracy:.1%} ({protocol})"
    if summary["outcome"] == "diverged":
        return f"diverged at step {summary['diverged_at']}, {accuracies}"
    if summary["outcome"] == "chance":
        return f"{'never left' if summary['left_chance_at'] is None else 'fell back to'} chance, {accuracies}"
    return f"complete, {accuracies}"


def failing(error: IcsbenchError, config: Config) -> str:
    """Why a run failed, and the file of its record that says so, where it got that far."""
    log = folder_of(config) / FAILURE
    try:
        noted = loads(log.read_text(encoding="utf-8"))["error"] == str(error)
    except (OSError, ValueError, KeyError, TypeError):
        noted = False
    return f"{error} (log: {log})" if noted else str(error)


def in_all(failures: Sequence[str]) -> str:
    """The lines of the runs that failed; behind several, how many, and the first of them once more."""
    counted = [f"{len(failures)} runs failed; the first: {failures[0]}"] if len(failures) > 1 else []
    return "\nicsbench: ".join([*failures, *counted])


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class Seen(NamedTuple):
    """How far a run is. Of a lab there are rows alone, and nobody knows how many there will be."""

    step: int
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    samples_per_second: float | None = None

    def __str__(self) -> str:
        if self.steps is None or self.loss is None:
            return f"{self.step} rows"
        accuracy = "" if self.accuracy is None else f"train accuracy {self.accuracy:.1%}, "
        rate = self.samples_per_second or 0.0
        return f"step {self.step}/{self.steps}, loss {self.loss:.4g}, {accuracy}{rate:,.0f} samples/s"


class Shown:
    """Called after every row of a run, with what a training or the number of rows of a lab says; shows it at times.

    In a pool of processes, a run also ends itself where the sweep that started it has died.

    :param tell: shows it, at most every ``every`` seconds; by default a line on stderr once a minute.
    """

    def __init__(
        self,
        config: Config,
        tell: Callable[[Seen], None] | None = None,
        every: float = _A_MINUTE,
    ) -> None:
        self._config = config
        self._tell = tell or (lambda seen: say(f"{who(config)}: {seen}"))
        self._every = every
        self._next = time.monotonic() + (0.0 if tell else every)

    def __call__(self, progress: Any) -> None:
        """Show it, if the last time is long enough ago."""
        if orphaned():
            os.kill(os.getpid(), signal.SIGTERM)  # a training ends with a checkpoint, as when it is asked to stop
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        if isinstance(progress, int):
            self._tell(Seen(progress))
        else:
            step, *rest = progress
            self._tell(Seen(step, self._config.steps, *rest))
