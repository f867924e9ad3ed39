"""What the lab of large steps measured, of one run each: averages over its batches."""

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.quantities.lab import LabRows, rows_of
from icsbench.analysis.statistics import Floats
from icsbench.record.reader import Run

LAB = "large_steps"
CHANNEL_MEAN = "channel_mean"
CHANNEL_STD = "channel_std"


def relative_losses(run: Run) -> tuple[Floats, Floats]:
    """The step sizes, and the geometric mean of the relative losses there: two arrays of shape (K,).

    Infinite where that of a batch is.
    """
    return _over_batches(rows_of(run).where(measure="step_size"), "alpha", "relative_loss", geometric=True)


def channels(run: Run, key: str) -> tuple[Floats, Floats]:
    """The depths of the layers from 1, and the geometric mean of a quantity of their channels; it may be 0."""
    return _over_batches(rows_of(run).where(measure="layer"), "step", key, geometric=True)


def sign_shares(run: Run) -> tuple[Floats, Floats]:
    """The classes, and the mean share, by size, of the commoner sign; NaN where no batch has a gradient for a class."""
    return _over_batches(rows_of(run).where(measure="class"), "step", "sign_share_by_size", geometric=False)


def of_batches(run: Run, key: str) -> Floats:
    """A quantity of each batch."""
    return rows_of(run).where(measure="batch")[key]


def divergence_step(run: Run) -> float:
    """The median of the batches' divergence steps; infinite where most of them lie beyond the grid."""
    return float(np.quantile(of_batches(run, "divergence_step"), 0.5, method="inverted_cdf"))


def step_sizes(run: Run) -> Floats:
    """The step sizes of the grid, ascending."""
    return np.unique(rows_of(run).where(measure="step_size")["alpha"])


def _over_batches(rows: LabRows, x: str, key: str, *, geometric: bool) -> tuple[Floats, NDArray[np.float64]]:
    places = np.unique(rows[x])
    averages = []
    for place in places:
        values = rows[key][(rows[x] == place) & ~np.isnan(rows[key])]
        if not len(values):
            averages.append(np.nan)
        elif geometric:
            averages.append(np.exp(np.log(values).mean()) if (values > 0).all() else 0.0)
        else:
            averages.append(values.mean())
    return places, np.array(averages)
