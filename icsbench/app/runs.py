"""One run of whatever kind, with its progress on stderr."""

import os
from typing import Any

from icsbench.app.lab import run_lab
from icsbench.app.progress import Lines
from icsbench.config import Config


def make(config: Config, *, in_pool: bool) -> dict[str, Any]:
    """Train, or run a lab; the summary.

    :param in_pool: in a process of a pool, with one thread; it ends where the sweep that started it has died.
    :raises IcsbenchError: what the run refuses, in one line.
    """
    if config.lab is not None:
        return run_lab(config, in_pool=in_pool)
    from icsbench import training

    show = Lines(config, parent=os.getppid() if in_pool else None)
    return training.run(config, threads=1 if in_pool else None, show=show)
