"""What is known of the data sets that are read from files, and what reading one gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Kind(NamedTuple):
    """A data set of files: its caption, its images ``(side, side, channels)``, training and test size, and so on."""

    name: str
    label: str
    num_classes: int
    shape: tuple[int, int, int]
    sizes: tuple[int, int]
    folder: str  # torchvision's


KINDS = {
    kind.name: kind
    for kind in (
        Kind("cifar10", "CIFAR-10", 10, (32, 32, 3), (50_000, 10_000), "cifar-10-batches-py"),
        Kind("cifar100", "CIFAR-100", 100, (32, 32, 3), (50_000, 10_000), "cifar-100-python"),
        Kind("mnist", "MNIST", 10, (28, 28, 1), (60_000, 10_000), "MNIST/raw"),
    )
}


@dataclass(frozen=True)
class Split:
    """Images and their labels, or the inputs and targets of a regression.

    Images are square, uint8 ``(N, H, W, C)`` with C = 1 (grey) or 3 (in RGB order), and labels int64 ``(N,)``. The
    inputs (in ``images``) and targets (in ``labels``) of ``gaussian`` are float64 ``(N, 10)``.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Split:
        """Return the images and labels of ``index``, in its order."""
        return Split(self.images[index], self.labels[index])

    def binary(self) -> Split:
        """Return the split with every pixel from 128 on as 255, and every other as 0."""
        return Split((self.images >= 128).byte() * 255, self.labels)


class Source(NamedTuple):
    """What was read: a caption, the two splits in the order of the files, and what the caption ends in."""

    label: str
    num_classes: int
    train: Split
    test: Split
    note: str = ""


def layouts(kind: Kind) -> str:
    """Return what a data set is read from, for a message."""
    return (
        f"torchvision's folder {kind.folder}, Hugging Face parquet files (train-*.parquet and test-*.parquet, "
        "train.parquet, or train/*.parquet), or an ImageFolder tree (train/<class>/, test/<class>/)"
    )
