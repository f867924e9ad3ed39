"""The data: where it is read from or drawn, and the batches it is trained in."""

from icsbench.data.batches import Batches, channel_statistics, epoch_order, normalize
from icsbench.data.gaussian import FullBatch, gaussian_problem
from icsbench.data.kinds import Split
from icsbench.data.sources import Dataset, load_dataset, locate

__all__ = [
    "Batches",
    "Dataset",
    "FullBatch",
    "Split",
    "channel_statistics",
    "epoch_order",
    "gaussian_problem",
    "load_dataset",
    "locate",
    "normalize",
]
