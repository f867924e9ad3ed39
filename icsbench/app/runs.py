"""One run of whatever kind, with its progress on a terminal, on stderr, or told to who watches a sweep."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from icsbench.app.display import bar
from icsbench.app.lab import run_lab
from icsbench.app.progress import Shown
from icsbench.app.reports import EVERY, Reporter
from icsbench.config import Config
from icsbench.errors import IcsbenchError

_PARENT = os.getppid()  # of a process of a pool: the sweep, which may die at any time after this


def make(config: Config, *, in_pool: bool, reports: Path | None) -> dict[str, Any]:
    """Train, or run a lab; the summary.

    :param in_pool: in a process of a pool, with one thread; it ends where the sweep that started it has died.
    :param reports: the folder in which it is told how the run gets on; None for a run that nobody watches.
    :raises IcsbenchError: what the run refuses, in one line; the sweep that started this process has died.
    """
    if in_pool and os.getppid() != _PARENT:
        raise IcsbenchError("not begun, as the sweep that asked for it has died")
    if reports is None:
        with bar(config) as tell:
            return _made(config, in_pool, partial(Shown, tell=tell, every=0.1) if tell else Shown)
    reporter = Reporter(config, reports)
    reporter.began()
    try:
        summary = _made(config, in_pool, partial(Shown, tell=reporter.at, every=EVERY))
    except IcsbenchError:
        reporter.failed()
        raise
    reporter.ended(summary)
    return summary


def _made(config: Config, in_pool: bool, shown: Callable[[Config, int | None], Shown]) -> dict[str, Any]:
    if config.lab is not None:
        return run_lab(config, in_pool=in_pool, shown=shown)
    from icsbench import training

    show = shown(config, _PARENT if in_pool else None)
    return training.run(config, threads=1 if in_pool else None, show=show)
