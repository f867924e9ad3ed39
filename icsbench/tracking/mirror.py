"""What every mirror of a run record shares: it may fail, the run may not."""

import contextlib
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from icsbench.config import Config

Histograms = dict[str, tuple[np.ndarray, np.ndarray]]
"""``{name: (counts, edges)}``."""


class Mirror(ABC):
    """Mirrors config, metrics, histograms and summary of one run to a tracker.

    Whatever goes wrong with the tracker is said once on stderr and never reaches training.
    """

    label: str
    """What the tracker is called in messages."""

    def __init__(self, config: Config, directory: Path) -> None:
        self._on = False
        try:
            self._on = self._open(config, directory)
        except Exception as error:
            self._warn(error, "nothing is mirrored")

    def log(self, row: dict[str, Any], histograms: Histograms | None = None) -> None:
        """Mirror the scalars of one row of metrics, with histograms."""
        if not self._on:
            return
        scalars = {key: value for key, value in row.items() if not isinstance(value, list | tuple)}
        try:
            self._log(scalars, {name: h for name, h in (histograms or {}).items() if np.isfinite(h[1]).all()})
        except Exception as error:
            self._warn(error, "the mirror ends here; the run record goes on")
            self._on = False

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Mirror the summary (None: the run is not complete) and close the mirror."""
        if not self._on:
            return
        try:
            self._finish(summary)
        except Exception as error:
            self._warn(error, "the mirror may be incomplete; the run record is not")
        self._on = False

    @abstractmethod
    def _open(self, config: Config, directory: Path) -> bool:
        """Begin; returns whether anything is to be mirrored."""

    @abstractmethod
    def _log(self, scalars: dict[str, Any], histograms: Histograms) -> None: ...

    @abstractmethod
    def _finish(self, summary: dict[str, Any] | None) -> None: ...

    def _warn(self, error: Exception, consequence: str) -> None:
        said = re.sub(r"\s+", " ", str(error)).strip()[:160]
        print(f"icsbench: {self.label}: {type(error).__name__}: {said}; {consequence}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_processes() -> Iterator[None]:
    """Start processes without a stderr: W&B's own logs to it, page after page, where it cannot write a file."""
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
