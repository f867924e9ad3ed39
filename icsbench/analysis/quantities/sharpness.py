"""Batch sharpness of a run beside 2 / lr, the edge of stability of SGD."""

import math

import numpy as np

from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.quantities.curves import Series
from icsbench.analysis.quantities.updates import WINDOWS, learning_rate
from icsbench.record import schema
from icsbench.record.reader import Run


def sharpness_over_edge(run: Run) -> Series:
    """Steps (m,) and batch sharpness times lr / 2, (m,), with the learning rate of the next update.

    :raises NotMeasured: the run did not measure it.
    """
    steps, sharpness = run.metrics.series(schema.batch_sharpness("mean"))
    if not len(steps):
        raise NotMeasured(f"{run.path} has no {schema.batch_sharpness('mean')}")
    return steps, sharpness * learning_rate(run, steps) / 2


def settled_sharpness(run: Run) -> float:
    """Mean of batch sharpness times lr / 2 over the second half of the updates; NaN where the run diverged."""
    if run.status == "diverged":
        return math.nan
    first, end = (part * int(run.setting("steps")) for part in WINDOWS["second half"])
    steps, values = sharpness_over_edge(run)
    late = values[(steps >= first) & (steps <= end)]
    return float(np.mean(late)) if len(late) else math.nan
