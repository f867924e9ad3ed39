"""The data sets, read from whichever of their usual forms the user has."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from icsbench.data.archives import download, find_archive, read_archive
from icsbench.data.batches import channel_statistics, generator
from icsbench.data.files import called, holds_nothing, listed, names, reason
from icsbench.data.folders import find_tree, read_tree
from icsbench.data.gaussian import FEATURES, SAMPLES, gaussian_problem
from icsbench.data.kinds import KINDS, Kind, Source, Split, layouts
from icsbench.data.parquet import find_parquet, read_parquet
from icsbench.errors import IcsbenchError

DIGITS_TEST_SIZE = 360
DIGITS_UPSAMPLED = 32
SPLIT_SEED = 0  # of the splits that every run shares, whatever its own seed

# What torchvision leaves in a folder that its data sets share.
_TORCHVISIONS = {
    *("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar-100-python", "cifar-100-python.tar.gz"),
    *("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST", "stl10_binary", "stl10_binary.tar.gz"),
    *("train_32x32.mat", "test_32x32.mat", "extra_32x32.mat", "usps.bz2", "usps.t.bz2"),
    *("caltech101", "caltech256", "celeba", "dtd", "eurosat", "flowers-102", "food-101", "gtsrb", "oxford-iiit-pet"),
}


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits of CPU tensors, each in a fixed shuffled order.

    ``label`` names it in captions, ``fingerprint`` is the start of the SHA-256 (16 hex digits) of all its images and
    labels, in the order in which they were read and as they are trained with. That of ``gaussian`` is over the recipe
    instead, the same for every seed; its ``num_classes`` is None, its validation and test split are empty.
    """

    name: str
    label: str
    num_classes: int | None
    train: Split
    val: Split
    test: Split
    fingerprint: str
    binary: bool = False

    def normalization(self) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation, float64 ``(C,)`` in pixel units, for ``normalize`` and ``Batches``.

        Those of the training images, channel by channel; of binary images 0 and 255, so that the network's inputs are
        0 and 1 (Ioffe & Szegedy 2015, section 4.1). Of ``gaussian`` there is none: it has no images.
        """
        if self.binary:
            channels = self.train.images.shape[3]
            return torch.zeros(channels, dtype=torch.float64), torch.full((channels,), 255.0, dtype=torch.float64)
        return channel_statistics(self.train.images)


def load_dataset(name: str, root: str | None, val_size: int, *, binary: bool = False, seed: int = 0) -> Dataset:
    """Return the data set ``name``: ``digits``, ``digits8``, ``cifar10``, ``cifar100``, ``mnist`` or ``gaussian``.

    ``digits`` (upsampled to 32x32x3) and ``digits8`` (the same images as they are, 8x8, in the same splits) come with
    scikit-learn and ignore ``root``. CIFAR and MNIST are read from the folder ``root``, which holds one of these (of
    several, the first):

    1. torchvision's ``cifar-10-batches-py`` (``cifar-100-python``; ``MNIST/raw``, its files packed or not). No byte of
       them is used before its checksum is verified.
    2. Hugging Face parquet files: ``train-*.parquet``, ``train.parquet`` or ``train/*.parquet``, and the same of
       ``test``, in ``root``, in a folder below it (``data``, ``plain_text``, ...) or in a hub's cache
       (``datasets--.../snapshots/...``). See ``read_parquet`` for the columns; files that have nothing but CIFAR-100's
       ``coarse_label`` give 20 classes.
    3. Class folders of images, ``train/<class>/...`` and ``test/<class>/...``. See ``read_tree`` and ``decode`` for
       the files and images that are read.

    Small and capital letters are the same in the names of splits. What is not in ``root`` is looked for in the folder
    below it that is called like the data set (``CIFAR-10``). Where ``root`` holds nothing, or nothing but torchvision's
    files of other data sets, hidden files and notes, what torchvision downloads is downloaded into it; where it holds
    anything else, that is an error.

    The ``val_size`` validation images are taken out of the training images by a fixed draw that no run's seed moves,
    and validation and test images are in a fixed shuffled order. ``binary`` makes every pixel from 128 on 255 and
    every other 0. The images are kept for the life of the process.

    ``gaussian`` (see ``gaussian_problem``) has training data only, and is the one that depends on ``seed``.

    :raises IcsbenchError: the name is unknown, or ``root`` is missing. The files cannot be read, do not hold the data
        set, or are in no known layout. A download fails. ``val_size`` leaves no training image. Or ``gaussian`` is
        asked for with a ``val_size`` or with ``binary``.
    """
    if name == "gaussian":
        return _gaussian(seed, val_size, binary)
    if name not in KINDS:
        root = None
    elif root is not None:
        root = _absolute(root)
    return _load_images(name, root, val_size, binary)


def _absolute(root: str) -> str:
    home = os.path.expanduser(root)
    if home.startswith("~") and not os.path.exists(home):
        raise IcsbenchError(f"data.root={root} begins with a home folder that is not known: write it out")
    return os.path.abspath(home)


def _gaussian(seed: int, val_size: int, binary: bool) -> Dataset:
    if val_size:
        raise IcsbenchError(f"data.val_size={val_size} does not fit gaussian, which is all training data: it must be 0")
    if binary:
        raise IcsbenchError("data.binary=true does not fit gaussian, which has no pixels: it must be false")
    train = Split(*gaussian_problem(seed))
    none = train.take(torch.arange(0))
    recipe = f"gaussian, version 1: {SAMPLES} x {FEATURES} inputs and {FEATURES} x {FEATURES} matrix, Normal(0, 1)"
    return Dataset(
        name="gaussian",
        label=f"Gaussian, {SAMPLES:,} x {FEATURES}, redrawn for each seed",
        num_classes=None,
        train=train,
        val=none,
        test=none,
        fingerprint=hashlib.sha256(recipe.encode()).hexdigest()[:16],
    )


@lru_cache(maxsize=2)
def _load_images(name: str, root: str | None, val_size: int, binary: bool) -> Dataset:
    if name in ("digits", "digits8"):
        source, stream = _read_digits(upsampled=name == "digits"), "digits"
    elif name in KINDS:
        if root is None:
            raise IcsbenchError(f"data.root is not set: {name} needs a folder to be read from or downloaded into")
        stream = name
        try:
            source = _read_files(Path(root), KINDS[name])
        except OSError as error:
            raise IcsbenchError(f"cannot read data.root={root}: {reason(error)}") from error
    else:
        raise IcsbenchError(f"unknown data set {name!r}: choose one of digits, digits8, {', '.join(KINDS)}, gaussian")
    available = len(source.train)
    if not 0 <= val_size < available:
        raise IcsbenchError(
            f"data.val_size={val_size} does not fit {name}, which has {available} training images: "
            f"choose one from 0 to {available - 1}"
        )
    if binary:
        source = source._replace(train=source.train.binary(), test=source.test.binary())
    order = torch.randperm(available, generator=generator(SPLIT_SEED, stream, "validation"))
    test_order = torch.randperm(len(source.test), generator=generator(SPLIT_SEED, stream, "test"))
    return Dataset(
        name=name,
        label=_label(name, source) + ", binary" * binary,
        num_classes=source.num_classes,
        train=source.train.take(order[val_size:]),
        val=source.train.take(order[:val_size]),
        test=source.test.take(test_order),
        fingerprint=_fingerprint(source, binary),
        binary=binary,
    )


def _fingerprint(source: Source, binary: bool) -> str:
    digest = hashlib.sha256(b"binary" * binary)
    for split in (source.train, source.test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_digits(upsampled: bool) -> Source:
    # Only where it is needed: it takes a second or two.
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)
    label = "Digits (8x8)"
    if upsampled:
        size = DIGITS_UPSAMPLED, DIGITS_UPSAMPLED
        images = functional.interpolate(images, size, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
        label = "Digits (8x8, upsampled)"
    every = Split(images.round().byte().permute(0, 2, 3, 1).contiguous(), torch.from_numpy(labels).long())
    order = torch.randperm(len(every), generator=generator(SPLIT_SEED, "digits", "split"))
    return Source(label, 10, every.take(order[DIGITS_TEST_SIZE:]), every.take(order[:DIGITS_TEST_SIZE]))


class Located(NamedTuple):
    """Where a data set lies, in which layout, and what reads it."""

    folder: Path
    layout: str
    read: Callable[[], Source]


def locate(name: str, root: str) -> Located | None:
    """Return where a data set of files lies in ``root``, as :func:`load_dataset` would find it; nothing is read.

    None: ``root`` holds nothing, or nothing but torchvision's files of other data sets, and the data set would be
    downloaded into it.

    :raises IcsbenchError: ``root`` is no folder, cannot be looked into, or holds something else.
    """
    folder = _absolute(root)
    try:
        return _locate(Path(folder), KINDS[name])
    except OSError as error:
        raise IcsbenchError(f"cannot read data.root={folder}: {reason(error)}") from error


def _read_files(root: Path, kind: Kind) -> Source:
    found = _locate(root, kind)
    return found.read() if found else read_archive(download(root, kind), kind)


def _locate(root: Path, kind: Kind) -> Located | None:
    if root.exists() and not root.is_dir():
        raise IcsbenchError(f"data.root is not a folder: {root}")
    there = listed(root) if root.is_dir() else []
    for folder in (root, *(path for path in there if called(path) == kind.name)):
        if found := _known(folder, kind):
            return found
    others = _TORCHVISIONS - {Path(kind.folder).parts[0]}
    strange = [path for path in there if path.name not in others and not holds_nothing(path)]
    if strange and not find_archive(root, kind):  # which another process may have downloaded since
        raise IcsbenchError(
            f"data.root={root} holds {names(strange)}, but not {kind.label} in a layout that is known: "
            f"{layouts(kind)}; for a download of {kind.label}, set data.root to an empty folder"
        )
    return None


def _known(folder: Path, kind: Kind) -> Located | None:
    """Return the data set in ``folder``, or None where nothing in it looks like one."""
    if not folder.is_dir():
        return None
    if archive := find_archive(folder, kind):
        return Located(archive, "torchvision's files", lambda: read_archive(archive, kind))
    if parquet := find_parquet(folder, kind.name):
        return Located(parquet, "parquet files", lambda: read_parquet(parquet, kind))
    if tree := find_tree(folder):
        return Located(folder, "class folders", lambda: read_tree(folder, tree, kind))
    return None


def _label(name: str, source: Source) -> str:
    """The caption; images in a data set's layout that are not as many as the data set's do not pass for it."""
    label, sizes = source.label, (len(source.train), len(source.test))
    if name in KINDS and sizes != KINDS[name].sizes:
        label += f" layout with {sizes[0]:,} + {sizes[1]:,} images"
    return label + source.note
