"""The data sets, read from whichever of their usual forms the user has."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import os
import re
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from torch.nn import functional

from icsbench.data.batches import channel_statistics, generator
from icsbench.data.gaussian import FEATURES, SAMPLES, gaussian_problem
from icsbench.errors import IcsbenchError

# torchvision and scikit-learn are imported where they are used: each takes a second or two, and few runs need both.
if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

DIGITS_TEST_SIZE = 360
DIGITS_UPSAMPLED = 32
SPLIT_SEED = 0  # of the splits that every run shares, whatever its own seed


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

    def _take(self, index: Tensor) -> Split:
        return Split(self.images[index], self.labels[index])

    def _binary(self) -> Split:
        return Split((self.images >= 128).byte() * 255, self.labels)


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

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation, float64 ``(C,)`` in pixel units, for ``normalise`` and ``Batches``.

        Those of the training images, channel by channel; of binary images 0 and 255, so that the network's inputs are
        0 and 1 (Ioffe & Szegedy 2015, section 4.1). Of ``gaussian`` there is none: it has no images.
        """
        if self.binary:
            channels = self.train.images.shape[3]
            return torch.zeros(channels, dtype=torch.float64), torch.full((channels,), 255.0, dtype=torch.float64)
        return channel_statistics(self.train.images)


@dataclass(frozen=True)
class _Source:
    """What was read: a caption and the two splits in the order of the files."""

    label: str
    train: Split
    test: Split


class _Kind(NamedTuple):
    """A data set of files: its caption, its images ``(side, side, channels)``, training and test size, and so on."""

    label: str
    num_classes: int
    shape: tuple[int, int, int]
    sizes: tuple[int, int]
    folder: str  # torchvision's


_KINDS = {
    "cifar10": _Kind("CIFAR-10", 10, (32, 32, 3), (50_000, 10_000), "cifar-10-batches-py"),
    "cifar100": _Kind("CIFAR-100", 100, (32, 32, 3), (50_000, 10_000), "cifar-100-python"),
    "mnist": _Kind("MNIST", 10, (28, 28, 1), (60_000, 10_000), "MNIST/raw"),
}


def load_dataset(name: str, root: str | None, val_size: int, *, binary: bool = False, seed: int = 0) -> Dataset:
    """Return the data set ``name``: ``digits``, ``digits8``, ``cifar10``, ``cifar100``, ``mnist`` or ``gaussian``.

    ``digits`` (upsampled to 32x32x3) and ``digits8`` (the same images as they are, 8x8, in the same splits) come with
    scikit-learn and ignore ``root``. CIFAR and MNIST are read from the folder ``root``, which holds one of:
    torchvision's ``cifar-10-batches-py`` (``cifar-100-python``; ``MNIST/raw``, its files packed or not), Hugging Face
    parquet files (``train-*.parquet``, ``test-*.parquet``), or class folders of images (``train/<class>/``,
    ``test/<class>/``); where it holds none of them, what torchvision downloads is downloaded into it. No byte of
    torchvision's files is used before its checksum is verified.

    The ``val_size`` validation images are taken out of the training images by a fixed draw that no run's seed moves,
    and validation and test images are in a fixed shuffled order. ``binary`` makes every pixel from 128 on 255 and
    every other 0. The images are kept for the life of the process.

    ``gaussian`` (see ``gaussian_problem``) has training data only, and is the one that depends on ``seed``.

    Raises IcsbenchError for an unknown name, a missing ``root``, files that cannot be read or do not hold the data
    set, a failed download, a ``val_size`` that leaves no training image, and, of ``gaussian``, a ``val_size`` or
    ``binary``.
    """
    return _gaussian(seed, val_size, binary) if name == "gaussian" else _load_images(name, root, val_size, binary)


def _gaussian(seed: int, val_size: int, binary: bool) -> Dataset:
    if val_size:
        raise IcsbenchError(f"data.val_size={val_size} does not fit gaussian, which is all training data: it must be 0")
    if binary:
        raise IcsbenchError("data.binary=true does not fit gaussian, which has no pixels: it must be false")
    train = Split(*gaussian_problem(seed))
    none = train._take(torch.arange(0))
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
        source, num_classes, stream = _read_digits(upsampled=name == "digits"), 10, "digits"
    elif name in _KINDS:
        if root is None:
            raise IcsbenchError(f"data.root is not set: {name} needs a folder to be read from or downloaded into")
        num_classes, stream = _KINDS[name].num_classes, name
        try:
            source = _read_files(name, Path(os.path.abspath(os.path.expanduser(root))))
        except OSError as error:
            raise IcsbenchError(f"cannot read data.root={root}: {_reason(error)}") from error
    else:
        raise IcsbenchError(f"unknown data set {name!r}: choose one of digits, digits8, {', '.join(_KINDS)}, gaussian")
    available = len(source.train)
    if not 0 <= val_size < available:
        raise IcsbenchError(
            f"data.val_size={val_size} does not fit {name}, which has {available} training images: "
            f"choose one from 0 to {available - 1}"
        )
    if binary:
        source = _Source(source.label, source.train._binary(), source.test._binary())
    order = torch.randperm(available, generator=generator(SPLIT_SEED, stream, "validation"))
    test_order = torch.randperm(len(source.test), generator=generator(SPLIT_SEED, stream, "test"))
    return Dataset(
        name=name,
        label=_label(name, source) + ", binary" * binary,
        num_classes=num_classes,
        train=source.train._take(order[val_size:]),
        val=source.train._take(order[:val_size]),
        test=source.test._take(test_order),
        fingerprint=_fingerprint(source, binary),
        binary=binary,
    )


def _fingerprint(source: _Source, binary: bool) -> str:
    digest = hashlib.sha256(b"binary" * binary)
    for split in (source.train, source.test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_digits(upsampled: bool) -> _Source:
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
    return _Source(label, every._take(order[DIGITS_TEST_SIZE:]), every._take(order[:DIGITS_TEST_SIZE]))


def _read_files(name: str, root: Path) -> _Source:
    kind = _KINDS[name]
    if root.exists() and not root.is_dir():
        raise IcsbenchError(f"data.root is not a folder: {root}")
    for folder in (root / kind.folder, root):
        if folder.match(kind.folder) and folder.is_dir():
            return _read_archive(folder, name)
    if parquet := _parquet_folder(root, name):
        return _read_parquet(parquet, kind)
    if (root / "train").is_dir() or (root / "test").is_dir():
        return _read_image_folder(root, kind)
    _download(root, name)
    return _read_archive(root / kind.folder, name)


# --- torchvision's files ---------------------------------------------------------------------------------------------

# MD5 of MNIST's unpacked files; torchvision has those of the packed ones.
_UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def _cifar(name: str) -> type[CIFAR10]:
    from torchvision.datasets import CIFAR10, CIFAR100

    return {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]


def _read_archive(folder: Path, name: str) -> _Source:
    return _read_mnist(folder) if name == "mnist" else _read_cifar(folder, name)


def _verify(path: Path, md5: str) -> None:
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(path, md5):
        fault = "corrupt (its checksum is wrong)" if path.exists() else "missing"
        raise IcsbenchError(f"{path} is {fault}: delete the folder {path.parent} to download it again")


def _read_cifar(folder: Path, name: str) -> _Source:
    archive = _cifar(name)
    for filename, md5 in (*archive.train_list, *archive.test_list, (archive.meta["filename"], archive.meta["md5"])):
        _verify(folder / filename, md5)

    def read(train: bool) -> Split:
        with warnings.catch_warnings():
            # NumPy 2.4 complains about how the archive's arrays were pickled, long ago.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            data = archive(folder.parent, train=train)
        return Split(torch.from_numpy(np.ascontiguousarray(data.data)), torch.tensor(data.targets))

    return _Source(_KINDS[name].label, read(train=True), read(train=False))


def _read_mnist(folder: Path) -> _Source:
    from torchvision.datasets import MNIST

    kind = _KINDS["mnist"]
    packed_md5 = dict(MNIST.resources)

    def read(filename: str, header: int) -> Tensor:
        path, md5 = folder / filename, _UNPACKED_MD5[filename]
        if not path.exists():
            path, md5 = folder / f"{filename}.gz", packed_md5[f"{filename}.gz"]
        _verify(path, md5)
        data = path.read_bytes()
        content = bytearray(gzip.decompress(data) if path.suffix else data)
        return torch.frombuffer(content, dtype=torch.uint8, offset=header)

    def split(name: str) -> Split:
        images = read(f"{name}-images-idx3-ubyte", header=16).view(-1, *kind.shape)
        return Split(images, read(f"{name}-labels-idx1-ubyte", header=8).long())

    return _Source(kind.label, split("train"), split("t10k"))


def _download(root: Path, name: str) -> None:
    """Put torchvision's folder into ``root``, whole or not at all."""
    from torchvision.datasets import MNIST

    folder = _KINDS[name].folder
    addresses = MNIST.mirrors if name == "mnist" else [_cifar(name).url]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"), tempfile.TemporaryDirectory(dir=root, prefix=".extract-") as staging:
            if (root / folder).is_dir():
                return
            if name == "mnist":
                for filename, md5 in MNIST.resources:
                    _fetch([mirror + filename for mirror in addresses], Path(staging) / folder, filename, md5)
            else:
                archive = _cifar(name)
                _fetch(addresses, root, archive.filename, archive.tgz_md5)
                with tarfile.open(root / archive.filename) as tar:
                    tar.extractall(staging, filter="data")
            (root / folder).parent.mkdir(exist_ok=True)
            os.replace(Path(staging) / folder, root / folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise IcsbenchError(
            f"cannot download {' or '.join(addresses)} into data.root={root} ({_reason(error)}): instead, put there "
            f"one of torchvision's folder {folder}, Hugging Face parquet files (train-*.parquet, test-*.parquet), "
            "or an ImageFolder tree (train/<class>/, test/<class>/)"
        ) from error


def _fetch(addresses: list[str], folder: Path, filename: str, md5: str) -> None:
    """Download a file into ``folder`` from the first address that gives it with the right checksum."""
    from torchvision.datasets.utils import download_url

    faults = []
    for address in addresses:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return download_url(address, folder, filename, md5)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            # The one RuntimeError of torchvision's downloader is about the checksum.
            faults.append("what came has the wrong checksum" if type(error) is RuntimeError else _reason(error))
    raise OSError("; ".join(dict.fromkeys(faults)))


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- Hugging Face parquet files --------------------------------------------------------------------------------------


def _parquet_folder(root: Path, name: str) -> Path | None:
    """Return ``root`` or the first of its sub-folders that holds a split's parquet files.

    A sub-folder that is called like the data set comes first, one that is called like another is left alone.
    """
    if not root.is_dir():
        return None
    below = [path for path in _listed(root) if path.is_dir() and path.name not in _KINDS.keys() - {name}]
    for folder in (root, *sorted(below, key=lambda path: path.name != name)):
        if any(folder.glob("train-*.parquet")) or any(folder.glob("test-*.parquet")):
            return folder
    return None


def _label(name: str, source: _Source) -> str:
    """The caption; images in a data set's layout that are not as many as the data set's do not pass for it."""
    sizes = len(source.train), len(source.test)
    if name not in _KINDS or sizes == _KINDS[name].sizes:
        return source.label
    return f"{source.label} layout with {sizes[0]:,} + {sizes[1]:,} images"


def _read_parquet(folder: Path, kind: _Kind) -> _Source:
    splits, jpeg = [], False
    for name in ("train", "test"):
        files = sorted(folder.glob(f"{name}-*.parquet"))
        if not files:
            raise IcsbenchError(f"{folder} has no {name}-*.parquet: both splits are needed, train and test")
        if (shards := re.search(r"-of-(\d+)", files[0].name)) and int(shards[1]) != len(files):
            raise IcsbenchError(f"{folder} has {len(files)} of the {int(shards[1])} files {name}-*.parquet")
        images, labels = [], []
        for path in files:
            encoded, targets = _read_parquet_file(path, kind.num_classes)
            named = ((f"image {row} of {path}", data) for row, data in enumerate(encoded))
            pixels, has_jpeg = _decode(named, kind.shape)
            images.append(pixels)
            labels.append(targets)
            jpeg |= has_jpeg
        splits.append(Split(torch.cat(images), torch.cat(labels)))
    train, test = splits
    if (present := len(train.labels.unique())) != kind.num_classes:
        raise IcsbenchError(f"{folder}/train-*.parquet has {present} classes: {kind.label} has {kind.num_classes}")
    return _Source(kind.label + " (JPEG copy)" * jpeg, train, test)


def _read_parquet_file(path: Path, num_classes: int) -> tuple[list[bytes], Tensor]:
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise IcsbenchError(f"cannot read {path} as parquet: {_reason(error)}") from error
    image = next((name for name in ("img", "image") if name in frame.columns), None)
    target = next((name for name in ("fine_label", "label") if name in frame.columns), None)
    if image is None or target is None:
        raise IcsbenchError(
            f"{path} has the columns {', '.join(frame.columns)}: it needs img or image, and label or fine_label"
        )
    kind = frame.schema[image]
    if not isinstance(kind, pl.Struct) or dict(kind).get("bytes") != pl.Binary:
        raise IcsbenchError(f"{path}: column {image} is {kind}: it needs to be a struct of bytes and path")
    encoded, labels = frame[image].struct.field("bytes"), frame[target]
    if not labels.dtype.is_integer():
        raise IcsbenchError(f"{path}: column {target} is {labels.dtype}: it needs to be integers")
    if frame.is_empty():
        raise IcsbenchError(f"{path} has no rows")
    if encoded.null_count() or labels.null_count():
        raise IcsbenchError(f"{path} has rows without image bytes or without a label")
    if not labels.is_between(0, num_classes - 1).all():
        raise IcsbenchError(
            f"{path}: column {target} runs from {labels.min()} to {labels.max()}: it needs to be 0 to {num_classes - 1}"
        )
    return encoded.to_list(), torch.tensor(labels.to_list())


def _decode(
    images: Iterable[tuple[str, bytes]], shape: tuple[int, int, int], resize: bool = False
) -> tuple[Tensor, bool]:
    """Return the encoded ``(where, bytes)`` images as uint8 ``(N, *shape)``, and whether any of them is a JPEG.

    Images of another size are an error, unless ``resize`` scales them.
    """
    side, _, channels = shape
    pixels, jpeg = [], False
    for where, data in images:
        try:
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            size = image.size
            image = image.convert("RGB" if channels == 3 else "L")
        except Exception as error:  # Whatever a decoder makes of foreign bytes.
            raise IcsbenchError(f"{where} cannot be decoded as PNG or JPEG: replace it") from error
        if size != (side, side):
            if not resize:
                raise IcsbenchError(f"{where} is {size[0]}x{size[1]} pixels: it needs to be {side}x{side}")
            image = image.resize((side, side), Image.Resampling.BILINEAR)
        pixels.append(image.tobytes())
        jpeg |= data.startswith(b"\xff\xd8")
    return torch.frombuffer(bytearray().join(pixels), dtype=torch.uint8).view(-1, *shape), jpeg


# --- class folders of images -----------------------------------------------------------------------------------------


def _read_image_folder(root: Path, kind: _Kind) -> _Source:
    classes = {name: _class_names(root / name) for name in ("train", "test")}
    for name, found in classes.items():
        if len(found) != kind.num_classes:
            raise IcsbenchError(f"{root / name} has {len(found)} class folders: {kind.label} has {kind.num_classes}")
    if odd := sorted(set(classes["train"]) ^ set(classes["test"])):
        raise IcsbenchError(f"{root}: train and test need the same class folders, only one has {', '.join(odd)}")
    splits, jpeg = [], False
    for name, found in classes.items():
        files, labels = [], []
        for target, class_name in enumerate(found):
            folder = root / name / class_name
            inside = [path for path in _listed(folder) if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
            if not inside:
                raise IcsbenchError(f"{folder} has no .png, .jpg or .jpeg images")
            files += inside
            labels += [target] * len(inside)
        pixels, has_jpeg = _decode(((str(path), path.read_bytes()) for path in files), kind.shape, resize=True)
        splits.append(Split(pixels, torch.tensor(labels)))
        jpeg |= has_jpeg
    return _Source(kind.label + " (JPEG copy)" * jpeg, *splits)


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise IcsbenchError(f"{folder} is missing: an ImageFolder tree needs train/<class>/ and test/<class>/")
    return [path.name for path in _listed(folder) if path.is_dir()]


def _listed(folder: Path) -> list[Path]:
    """Return what is in ``folder``, sorted, without the hidden entries that file managers leave."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
