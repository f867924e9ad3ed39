"""Image classification data: where it is read from, and the batches it is trained in."""

from icsbench.data.batches import Batches, channel_statistics, normalise
from icsbench.data.sources import Dataset, Split, load_dataset

__all__ = ["Batches", "Dataset", "Split", "channel_statistics", "load_dataset", "normalise"]
