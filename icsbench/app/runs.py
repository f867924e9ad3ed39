"""One run of whatever kind, with its progress on a terminal, on stderr, or told to who watches a sweep."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from icsbench.app.display import bar
from icsbench.app.lab import run_lab
from icsbench.app.progress import Shown, orphaned
from icsbench.app.reports import EVERY, Reporter
from icsbench.config import Config
from icsbench.errors import IcsbenchError


def make(config: Config, *, in_pool: bool, reports: Path | None) -> dict[str, Any]:
    """Train, or run a lab; the summary.

    :param in_pool: with one thread, as others of the pool run beside it.
    :param reports: the folder in which it is told how the run gets on; None for a run that nobody watches.
    :raises IcsbenchError: what the run refuses, in one line; the sweep that started this process has died.
    """
    if orphaned():
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


def _made(config: Config, in_pool: bool, shown: Callable[[Config], Shown]) -> dict[str, Any]:
    if config.lab is not None:
        return run_lab(config, in_pool=in_pool, shown=shown)
    from icsbench import training

    return training.run(config, threads=1 if in_pool else None, show=shown(config))
