"""What is said of a run on stderr: who it is, how far it is, how it ended."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.record.schema import FAILURE, TEST_ACCURACY, TRAIN_ACCURACY, TRAIN_LOSS
from icsbench.record.strict_json import loads
from icsbench.record.writer import folder_of

_SHOW_EVERY = 10.0  # seconds between progress lines


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


class _Shown:
    """Progress as lines on stderr, one every few seconds.

    In a pool of processes, a run also ends itself where the sweep that started it has died.

    :param parent: process id of that sweep, None outside a pool.
    """

    def __init__(self, config: Config, parent: int | None) -> None:
        self._config = config
        self._parent = parent
        self._next = time.monotonic() + _SHOW_EVERY

    def _due(self) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            os.kill(os.getpid(), signal.SIGTERM)  # a training ends with a checkpoint, as when it is asked to stop
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _SHOW_EVERY
        return True


class Lines(_Shown):
    """The progress of a training."""

    def __call__(self, progress: Any) -> None:
        """Show it, if the last line is long enough ago."""
        if self._due():
            accuracy = "" if progress.accuracy is None else f"train accuracy {progress.accuracy:.1%}, "
            say(
                f"{who(self._config)}: step {progress.step}/{self._config.steps}, loss {progress.loss:.4g}, "
                f"{accuracy}{progress.samples_per_second:,.0f} samples/s"
            )


class Rows(_Shown):
    """The progress of a lab."""

    def __call__(self, rows: int) -> None:
        """Show how many rows there are, if the last line is long enough ago."""
        if self._due():
            say(f"{who(self._config)}: {rows} rows")
