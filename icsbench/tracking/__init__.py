"""Mirrors of a run record: Weights & Biases, TensorBoard. Training knows only that there is a mirror."""

import importlib
from pathlib import Path

from icsbench.config import Config
from icsbench.tracking.mirror import Mirror


def mirror_of(config: Config, directory: Path) -> Mirror:
    """The mirror that ``config.tracker`` names, of the run whose record is in ``directory``."""
    return importlib.import_module(f"icsbench.tracking.{config.tracker.name}").Tracker(config, directory)
