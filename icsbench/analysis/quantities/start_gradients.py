"""What the lab of gradients at the start measured, of one run each."""

import numpy as np

from icsbench.analysis.quantities.lab import rows_of
from icsbench.analysis.statistics import Floats
from icsbench.record.reader import Run

LAB = "start_gradients"


def gradients(run: Run) -> Floats:
    """The norm of the gradient at each layer in forward order, (layers,): the geometric mean over the batches.

    The last is that of the output layer.
    """
    rows = rows_of(run)
    with np.errstate(divide="ignore"):
        logarithms = np.log(rows["gradient"])
    return np.array([np.exp(logarithms[rows["step"] == depth].mean()) for depth in np.unique(rows["step"])])
