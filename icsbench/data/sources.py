"""The data sets, read from whichever of their usual forms the user has."""

from __future__ import annotations

import contextlib
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
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from torch.nn import functional

from icsbench.data.batches import SIDE, generator
from icsbench.errors import IcsbenchError

# torchvision and scikit-learn are imported where they are used: each takes a second or two, and few runs need both.
if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

DIGITS_TEST_SIZE = 360
SPLIT_SEED = 0  # of the splits that every run shares, whatever its own seed


@dataclass(frozen=True)
class Split:
    """Images, uint8 ``(N, 32, 32, 3)`` in RGB order, and their labels, int64 ``(N,)``."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def _take(self, index: Tensor) -> Split:
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits of CPU tensors, each in a fixed shuffled order.

    ``label`` names it in captions, ``fingerprint`` is the start of the SHA-256 (16 hex digits) of all its images and
    labels as they were read.
    """

    name: str
    label: str
    num_classes: int
    train: Split
    val: Split
    test: Split
    fingerprint: str


@dataclass(frozen=True)
class _Source:
    """What was read: a caption and the two splits in the order of the files."""

    label: str
    train: Split
    test: Split


_CIFAR = {
    "cifar10": ("CIFAR-10", 10, "cifar-10-batches-py"),
    "cifar100": ("CIFAR-100", 100, "cifar-100-python"),
}


@lru_cache(maxsize=2)
def load_dataset(name: str, root: str | None, val_size: int) -> Dataset:
    """Return the data set ``name``: ``digits``, ``cifar10`` or ``cifar100``.

    ``digits`` comes with scikit-learn and ignores ``root``. The two others are read from the folder ``root``, which
    holds one of: torchvision's ``cifar-10-batches-py`` (``cifar-100-python``), Hugging Face parquet files
    (``train-*.parquet``, ``test-*.parquet``), or class folders of images (``train/<class>/``, ``test/<class>/``);
    where it holds none of them, torchvision's archive is downloaded into it. No byte of an archive is unpickled
    before its checksum is verified.

    The ``val_size`` validation images are taken out of the training images by a fixed draw that no run's seed moves,
    and validation and test images are in a fixed shuffled order. The result is kept for the life of the process.

    Raises IcsbenchError for an unknown name, a missing ``root``, files that cannot be read or do not hold the data
    set, a failed download, and a ``val_size`` that leaves no training image.
    """
    if name == "digits":
        source, num_classes = _read_digits(), 10
    elif name in _CIFAR:
        if root is None:
            raise IcsbenchError(f"data.root is not set: {name} needs a folder to be read from or downloaded into")
        num_classes = _CIFAR[name][1]
        try:
            source = _read_cifar(name, Path(os.path.abspath(os.path.expanduser(root))))
        except OSError as error:
            raise IcsbenchError(f"cannot read data.root={root}: {_reason(error)}") from error
    else:
        raise IcsbenchError(f"unknown data set {name!r}: choose one of digits, {', '.join(_CIFAR)}")
    available = len(source.train)
    if not 0 <= val_size < available:
        raise IcsbenchError(
            f"data.val_size={val_size} does not fit {name}, which has {available} training images: "
            f"choose one from 0 to {available - 1}"
        )
    order = torch.randperm(available, generator=generator(SPLIT_SEED, name, "validation"))
    test_order = torch.randperm(len(source.test), generator=generator(SPLIT_SEED, name, "test"))
    return Dataset(
        name=name,
        label=_label(name, source),
        num_classes=num_classes,
        train=source.train._take(order[val_size:]),
        val=source.train._take(order[:val_size]),
        test=source.test._take(test_order),
        fingerprint=_fingerprint(source),
    )


def _fingerprint(source: _Source) -> str:
    digest = hashlib.sha256()
    for split in (source.train, source.test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_digits() -> _Source:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)
    large = functional.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False).round().byte()
    every = Split(large.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous(), torch.from_numpy(labels).long())
    order = torch.randperm(len(every), generator=generator(SPLIT_SEED, "digits", "split"))
    return _Source(
        "Digits (8x8, upsampled)", every._take(order[DIGITS_TEST_SIZE:]), every._take(order[:DIGITS_TEST_SIZE])
    )


def _read_cifar(name: str, root: Path) -> _Source:
    label, num_classes, archive_folder = _CIFAR[name]
    if root.exists() and not root.is_dir():
        raise IcsbenchError(f"data.root is not a folder: {root}")
    for folder in (root / archive_folder, root):
        if folder.name == archive_folder and folder.is_dir():
            return _read_archive(folder, label, _archive(name))
    if parquet := _parquet_folder(root):
        return _read_parquet(parquet, label, num_classes)
    if (root / "train").is_dir() or (root / "test").is_dir():
        return _read_image_folder(root, label, num_classes)
    _download(root, _archive(name))
    return _read_archive(root / archive_folder, label, _archive(name))


# --- torchvision's archive -------------------------------------------------------------------------------------------


def _archive(name: str) -> type[CIFAR10]:
    from torchvision.datasets import CIFAR10, CIFAR100

    return {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]


def _read_archive(folder: Path, label: str, archive: type[CIFAR10]) -> _Source:
    from torchvision.datasets.utils import check_integrity

    for filename, md5 in (*archive.train_list, *archive.test_list, (archive.meta["filename"], archive.meta["md5"])):
        path = folder / filename
        if not check_integrity(path, md5):
            fault = "corrupt (its checksum is wrong)" if path.exists() else "missing"
            raise IcsbenchError(f"{path} is {fault}: delete the folder {folder} to download it again")

    def read(train: bool) -> Split:
        with warnings.catch_warnings():
            # NumPy 2.4 complains about how the archive's arrays were pickled, long ago.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            data = archive(folder.parent, train=train)
        return Split(torch.from_numpy(np.ascontiguousarray(data.data)), torch.tensor(data.targets))

    return _Source(label, read(train=True), read(train=False))


def _download(root: Path, archive: type[CIFAR10]) -> None:
    """Put the archive's folder into ``root``, whole or not at all."""
    from torchvision.datasets.utils import download_url

    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"), tempfile.TemporaryDirectory(dir=root, prefix=".extract-") as staging:
            if (root / archive.base_folder).is_dir():
                return
            with contextlib.redirect_stdout(sys.stderr):
                download_url(archive.url, root, archive.filename, archive.tgz_md5)
            with tarfile.open(root / archive.filename) as tar:
                tar.extractall(staging, filter="data")
            os.replace(Path(staging) / archive.base_folder, root / archive.base_folder)
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, EOFError) as error:
        # The one RuntimeError of torchvision's downloader is about the checksum.
        reason = "what came has the wrong checksum" if type(error) is RuntimeError else _reason(error)
        raise IcsbenchError(
            f"cannot download {archive.url} into data.root={root} ({reason}): instead, put there one of "
            f"torchvision's folder {archive.base_folder}, Hugging Face parquet files (train-*.parquet, "
            "test-*.parquet), or an ImageFolder tree (train/<class>/, test/<class>/)"
        ) from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- Hugging Face parquet files --------------------------------------------------------------------------------------


def _parquet_folder(root: Path) -> Path | None:
    """Return ``root`` or the first of its sub-folders that holds a split's parquet files."""
    if not root.is_dir():
        return None
    for folder in (root, *(path for path in _listed(root) if path.is_dir())):
        if any(folder.glob("train-*.parquet")) or any(folder.glob("test-*.parquet")):
            return folder
    return None


def _label(name: str, source: _Source) -> str:
    """The caption; images in CIFAR's layout that are not as many as CIFAR's do not pass for it."""
    sizes = len(source.train), len(source.test)
    if name not in _CIFAR or sizes == (50_000, 10_000):
        return source.label
    return f"{source.label} layout with {sizes[0]:,} + {sizes[1]:,} images"


def _read_parquet(folder: Path, label: str, num_classes: int) -> _Source:
    splits, jpeg = [], False
    for name in ("train", "test"):
        files = sorted(folder.glob(f"{name}-*.parquet"))
        if not files:
            raise IcsbenchError(f"{folder} has no {name}-*.parquet: both splits are needed, train and test")
        if (shards := re.search(r"-of-(\d+)", files[0].name)) and int(shards[1]) != len(files):
            raise IcsbenchError(f"{folder} has {len(files)} of the {int(shards[1])} files {name}-*.parquet")
        images, labels = [], []
        for path in files:
            encoded, targets = _read_parquet_file(path, num_classes)
            pixels, has_jpeg = _decode((f"image {row} of {path}", data) for row, data in enumerate(encoded))
            images.append(pixels)
            labels.append(targets)
            jpeg |= has_jpeg
        splits.append(Split(torch.cat(images), torch.cat(labels)))
    train, test = splits
    if (present := len(train.labels.unique())) != num_classes:
        raise IcsbenchError(f"{folder}/train-*.parquet has {present} classes: {label} has {num_classes}")
    return _Source(label + " (JPEG copy)" * jpeg, train, test)


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


def _decode(images: Iterable[tuple[str, bytes]], resize: bool = False) -> tuple[Tensor, bool]:
    """Return the encoded ``(where, bytes)`` images as uint8 ``(N, 32, 32, 3)``, and whether any of them is a JPEG.

    Images of another size are an error, unless ``resize`` scales them.
    """
    pixels, jpeg = [], False
    for where, data in images:
        try:
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            size = image.size
            image = image.convert("RGB")
        except Exception as error:  # Whatever a decoder makes of foreign bytes.
            raise IcsbenchError(f"{where} cannot be decoded as PNG or JPEG: replace it") from error
        if size != (SIDE, SIDE):
            if not resize:
                raise IcsbenchError(f"{where} is {size[0]}x{size[1]} pixels: it needs to be {SIDE}x{SIDE}")
            image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels.append(image.tobytes())
        jpeg |= data.startswith(b"\xff\xd8")
    return torch.frombuffer(bytearray().join(pixels), dtype=torch.uint8).view(-1, SIDE, SIDE, 3), jpeg


# --- class folders of images -----------------------------------------------------------------------------------------


def _read_image_folder(root: Path, label: str, num_classes: int) -> _Source:
    classes = {name: _class_names(root / name) for name in ("train", "test")}
    for name, found in classes.items():
        if len(found) != num_classes:
            raise IcsbenchError(f"{root / name} has {len(found)} class folders: {label} has {num_classes}")
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
        pixels, has_jpeg = _decode(((str(path), path.read_bytes()) for path in files), resize=True)
        splits.append(Split(pixels, torch.tensor(labels)))
        jpeg |= has_jpeg
    return _Source(label + " (JPEG copy)" * jpeg, *splits)


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise IcsbenchError(f"{folder} is missing: an ImageFolder tree needs train/<class>/ and test/<class>/")
    return [path.name for path in _listed(folder) if path.is_dir()]


def _listed(folder: Path) -> list[Path]:
    """Return what is in ``folder``, sorted, without the hidden entries that file managers leave."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
