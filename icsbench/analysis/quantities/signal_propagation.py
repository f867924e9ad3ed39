"""What the lab of signal propagation measured, of one run each."""

import numpy as np

from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.quantities.lab import LabRows, rows_of
from icsbench.analysis.statistics import Floats
from icsbench.record.reader import Run

LAB = "signal_propagation"
SQUARED_MEAN = "squared_mean"
VARIANCE = "variance"


def signals(run: Run, measure: str, key: str) -> tuple[Floats, Floats]:
    """Numbers and values of the layers (``layer``) or blocks (``block``), with the scalars of branches at 1.

    :raises NotMeasured: the run has no such row, as one without residual blocks.
    """
    rows = _rows(run, measure)
    return rows["step"], rows[key]


def theory(run: Run, key: str) -> tuple[Floats, Floats]:
    """Numbers and theory of the blocks that theory speaks of; none with most norms."""
    rows = _rows(run, "block")
    values = rows.columns.get(f"theory_{key}", np.full(len(rows["step"]), np.nan))
    said = np.isfinite(values)
    return rows["step"][said], values[said]


def mean_share(run: Run) -> float:
    """The share ``squared mean / (squared mean + variance)`` of pre-activations, mean over layers from the second."""
    squared, variance = (signals(run, "layer", key)[1][1:] for key in (SQUARED_MEAN, VARIANCE))
    return float((squared / (squared + variance)).mean())


def variance_to_theory(run: Run) -> float:
    """Variance behind the last block that theory speaks of over that ahead of the first, divided by theory's ratio.

    :raises NotMeasured: theory says nothing of the run.
    """
    blocks, said = theory(run, VARIANCE)
    if len(blocks) < 2:
        raise NotMeasured(f"{run.path}: theory says nothing of its blocks")
    steps, values = signals(run, "block", VARIANCE)
    first, last = (values[steps == blocks[end]][0] for end in (0, -1))
    return float(last / first * said[0] / said[-1])


def variance_per_block(run: Run, blocks: int) -> float:
    """The factor by which the variance grows per block over the first ``blocks`` of them: a geometric mean.

    :raises NotMeasured: there are fewer.
    """
    steps, values = signals(run, "block", VARIANCE)
    if len(steps) <= blocks:
        raise NotMeasured(f"{run.path}: {len(steps) - 1} blocks, and it takes {blocks}")
    return float((values[steps == blocks][0] / values[steps == 0][0]) ** (1 / blocks))


def _rows(run: Run, measure: str) -> LabRows:
    rows = rows_of(run).where(measure=measure, scalars="one")
    if not len(rows["step"]):
        raise NotMeasured(f"{run.path}: no row of a {measure}")
    return rows
