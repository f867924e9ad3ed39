"""Hugging Face parquet files, in the places that the hub and its tools put them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from icsbench.data.files import SPLITS, called, check_file, is_note, listed, names, reason
from icsbench.data.images import Encoded, decode
from icsbench.data.kinds import KINDS, Kind, Source, Split
from icsbench.errors import IcsbenchError

MAX_BYTES = 2**30
"""The largest parquet file that is read, and the most bytes of its images: CIFAR-10 has an eighth of that."""

COARSE_CLASSES = 20
"""The classes of CIFAR-100's ``coarse_label``."""

# Folders of other data sets, which may lie beside those of the one that is looked for.
_OTHERS = {*KINDS, "fashionmnist", "kmnist", "emnist", "qmnist", "usps", "svhn", "stl10", "imagenet"}
_CONFIGURATIONS = {"data", "plaintext", "default"}  # what the hub calls a data set's one configuration

# Where a file has several of these columns, the first counts.
_IMAGES = ("img", "image")
_LABELS = ("fine_label", "fine_labels", "label", "labels")
_COARSE_LABELS = ("coarse_label", "coarse_labels")


def find_parquet(root: Path, name: str) -> Path | None:
    """Return the folder of ``root`` that holds the parquet files of the data set ``name``, or None.

    That is ``root`` itself, or the nearest below it: a folder called like the data set comes before others, one
    called like another data set is left alone. Of a hub's cache (``datasets--…/snapshots/…``) it is in the snapshot
    that ``refs/main`` names, or in the only one.
    """
    for places in _places(root, name):
        found = [place for place in places if {"train", "test"} & _split_files(place, name).keys()]
        if len(found) > 1:
            raise IcsbenchError(
                f"{root} holds parquet files in {' and '.join(str(place.relative_to(root)) for place in found)}: "
                "set data.root to one of them"
            )
        if found:
            return found[0]
    return None


def _places(root: Path, name: str) -> Iterator[list[Path]]:
    """The folders that may hold the files, from near to far."""
    root = _snapshot(root)
    yield [root]
    below = [path for path in listed(root) if path.is_dir() and path.name.lower() not in SPLITS]
    named = [path for path in below if called(path) == name]
    others = [path for path in below if called(path) not in _OTHERS | {name} and "--" not in path.name]
    for group in (named, others):
        folders = [_snapshot(path) for path in group]
        yield folders
        inside = [path for folder in folders for path in listed(folder) if path.is_dir()]
        yield [path for path in inside if called(path) in _CONFIGURATIONS | {name}]


def _snapshot(folder: Path) -> Path:
    """Return the files of a data set in a hub's cache, where ``folder`` is one, and ``folder`` itself otherwise."""
    snapshots, current = folder / "snapshots", folder / "refs" / "main"
    if not (snapshots.is_dir() and (folder / "refs").is_dir()):
        return folder
    kept = [path for path in listed(snapshots) if path.is_dir()]
    if current.is_file() and (named := snapshots / current.read_text(errors="replace").strip()) in kept:
        return named
    if len(kept) > 1:
        raise IcsbenchError(f"{snapshots} holds {names(kept)}: set data.root to one of them")
    return kept[0] if kept else folder


def _split_files(folder: Path, name: str) -> dict[str, list[Path]]:
    """The parquet files of each split in ``folder``, in order; those of no known split are "other"."""
    found = defaultdict(list)
    for path in listed(folder):
        if _is_parquet(path):
            words = re.split("[-_.]", path.stem.lower().removeprefix(f"{name}-"))
            found[SPLITS.get(words[0], "other")].append(path)
        elif path.name.lower() in SPLITS and path.is_dir():
            if inside := [below for below in listed(path) if _is_parquet(below)]:
                found[SPLITS[path.name.lower()]] += inside
    return {split: sorted(paths, key=_natural) for split, paths in found.items()}


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and not path.is_dir()


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: part-2 before part-10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"([0-9]+)", str(path))]


def read_parquet(folder: Path, kind: Kind) -> Source:
    """Read the parquet files that ``find_parquet`` found in ``folder``.

    The columns are ``img`` or ``image`` (the encoded bytes, or a struct with ``bytes``), and ``label``, ``labels`` or
    ``fine_label``. Files of CIFAR-100 with ``coarse_label`` alone are read as a data set of twenty classes.
    """
    found = _split_files(folder, kind.name)
    if strange := found.get("validation", []) + found.get("other", []):
        raise IcsbenchError(
            f"{folder} holds {names(strange)} beside the parquet files of train and test: move it elsewhere, or give "
            "it a name that begins with train or test"
        )
    splits, jpeg, coarse = [], False, set()
    for name in ("train", "test"):
        files = found.get(name)
        if not files:
            raise IcsbenchError(f"{folder} has no {name}-*.parquet: both splits are needed, train and test")
        _check_whole(folder, name, files)
        images, labels = [], []
        for path in files:
            encoded, targets, is_coarse = _read_file(path, kind)
            rows = (Encoded(f"image {row} of {path}", data) for row, data in enumerate(encoded))
            pixels, has_jpeg = decode(rows, kind.shape)
            images.append(pixels)
            labels.append(targets)
            jpeg |= has_jpeg
            coarse.add(is_coarse)
        splits.append(Split(torch.cat(images), torch.cat(labels)))
    if len(coarse) > 1:
        raise IcsbenchError(f"{folder}: some files have fine labels, others coarse ones: give all the same column")
    train, test = splits
    num_classes, note = kind.num_classes, ""
    if True in coarse:
        num_classes, note = COARSE_CLASSES, f", {COARSE_CLASSES} coarse classes"
    if (present := len(train.labels.unique())) != num_classes:
        what = f"{present} {'coarse ' if note else ''}classes"
        raise IcsbenchError(f"{folder}/train-*.parquet has {what}: {kind.label} has {num_classes}")
    return Source(kind.label + " (JPEG copy)" * jpeg, num_classes, train, test, note)


def _check_whole(folder: Path, split: str, files: list[Path]) -> None:
    """Refuse a split that is not whole.

    :raises IcsbenchError: it lies there twice, lacks some of its files, or has files of another kind beside them.
    """
    if len({path.parent for path in files}) > 1:
        raise IcsbenchError(f"{folder} holds {split} twice, as {names(files)}: leave one of the two")
    if files[0].parent != folder:
        beside = [path for path in listed(files[0].parent) if path not in files and not is_note(path)]
        if beside:
            raise IcsbenchError(f"{files[0].parent} holds {names(beside)} beside its parquet files: move it elsewhere")
    shards = [re.search(r"-(\d+)-of-(\d+)", path.name) for path in files]
    if any(shards):
        of = {int(shard[2]) for shard in shards if shard}
        numbers = [int(shard[1]) for shard in shards if shard]
        if len(of) > 1 or None in shards or len({*numbers}) < len(numbers):
            raise IcsbenchError(f"{folder} holds {names(files)}, which do not belong together: leave one set of files")
        (total,) = of
        missing = next((number for number in range(total) if number not in numbers), None)
        if missing is not None or len(files) != total:
            fault = "one has too high a number" if missing is None else f"number {missing} is missing"
            raise IcsbenchError(f"{folder} has {len(files)} of the {total} files {split}-*.parquet: {fault}")
    elif all(path.stem.isdecimal() for path in files):
        numbers = [int(path.stem) for path in files]
        if numbers != [*range(numbers[0], numbers[0] + len(files))] or numbers[0] > 1:
            raise IcsbenchError(f"{files[0].parent} holds {names(files)}: one between or before them is missing")


def _read_file(path: Path, kind: Kind) -> tuple[list[bytes], Tensor, bool]:
    """Return the encoded images, their labels, and whether these are coarse."""
    # Only where it is needed: what trains on other data runs without polars.
    import polars as pl

    check_file(path, MAX_BYTES)
    try:
        scanned = pl.scan_parquet(path, glob=False)
        columns = scanned.collect_schema()
        image = next((name for name in _IMAGES if name in columns), None)
        known = _LABELS + _COARSE_LABELS if kind.name == "cifar100" else _LABELS
        target = next((name for name in known if name in columns), None)
        if image is None or target is None:
            raise IcsbenchError(
                f"{path} has the columns {', '.join(columns)}: it needs img or image, and label or fine_label "
                "(or labels, fine_labels; of CIFAR-100 also coarse_label)"
            )
        encoded, dtype = pl.col(image), columns[image]
        if isinstance(dtype, pl.Struct) and dict(dtype).get("bytes") == pl.Binary:
            encoded = encoded.struct.field("bytes")
        elif dtype != pl.Binary:
            raise IcsbenchError(
                f"{path}: column {image} is {dtype}: it needs to be a struct of bytes and path, or bytes"
            )
        if not columns[target].is_integer():
            raise IcsbenchError(f"{path}: column {target} is {columns[target]}: it needs to be integers")
        # A few bytes of file can stand for many: they are counted before they are all in memory.
        if (size := scanned.select(encoded.bin.size().cast(pl.Int64).sum()).collect().item()) > MAX_BYTES:
            raise IcsbenchError(f"{path} holds {size:,} bytes of images: at most {MAX_BYTES:,} are read")
        frame = scanned.select(encoded.alias("image"), pl.col(target).alias("label")).collect()
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise IcsbenchError(f"cannot read {path} as parquet: {reason(error)}") from error
    images, labels = frame["image"], frame["label"]
    if frame.is_empty():
        raise IcsbenchError(f"{path} has no rows")
    if images.null_count() or labels.null_count():
        raise IcsbenchError(f"{path} has rows without image bytes or without a label")
    coarse = target in _COARSE_LABELS
    last = (COARSE_CLASSES if coarse else kind.num_classes) - 1
    if not labels.is_between(0, last).all():
        raise IcsbenchError(
            f"{path}: column {target} runs from {labels.min()} to {labels.max()}: it needs to be 0 to {last}"
        )
    return images.to_list(), torch.tensor(labels.to_list()), coarse
