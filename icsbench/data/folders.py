"""Class folders of images: ``train/<class>/…`` and ``test/<class>/…``."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import torch

from icsbench.data.files import SPLITS, check_file, is_note, listed, names
from icsbench.data.images import MAX_BYTES, Encoded, decode, formats
from icsbench.data.kinds import Kind, Source, Split
from icsbench.errors import IcsbenchError

_SIDECARS = {".json", ".xml", ".yaml", ".yml"}  # annotations of the images beside them


def find_tree(folder: Path) -> dict[str, list[Path]] | None:
    """Return the folders of each split in ``folder``, or None where there is neither ``train`` nor ``test``."""
    found = defaultdict(list)
    for path in listed(folder):
        if path.name.lower() in SPLITS and path.is_dir():
            found[SPLITS[path.name.lower()]].append(path)
    return found if "train" in found or "test" in found else None


def read_tree(folder: Path, found: dict[str, list[Path]], kind: Kind) -> Source:
    """Read the class folders of ``folder``, in which ``find_tree`` found ``found``.

    A class is a folder right in ``train`` and ``test``; its images may lie in folders below it, as torchvision's
    ``ImageFolder`` has it. The classes are numbered in the order of their names.
    """
    if held_out := found.get("validation"):
        raise IcsbenchError(
            f"{folder} holds {names(held_out)} beside train and test: validation images are taken out of train, so "
            "move what it holds into train, call it test if there is none, or move it elsewhere"
        )
    for split in ("train", "test"):
        folders = found.get(split, [])
        if not folders:
            raise IcsbenchError(f"{folder / split} is missing: an ImageFolder tree needs train/<class>/, test/<class>/")
        if len(folders) > 1:
            raise IcsbenchError(f"{folder} holds {names(folders)}: leave one of them")
    classes = {split: _class_folders(found[split][0], kind) for split in ("train", "test")}
    if odd := sorted({path.name for path in classes["train"]} ^ {path.name for path in classes["test"]}):
        raise IcsbenchError(f"{folder}: train and test need the same class folders, only one has {', '.join(odd)}")
    splits, jpeg = [], False
    for folders in classes.values():
        files, labels = [], []
        for target, class_folder in enumerate(folders):
            inside = sorted(_images(class_folder))
            if not inside:
                raise IcsbenchError(f"{class_folder} has no .png, .jpg or other images")
            files += inside
            labels += [target] * len(inside)
        pixels, has_jpeg = decode(map(_encoded, files), kind.shape, resize=True)
        splits.append(Split(pixels, torch.tensor(labels)))
        jpeg |= has_jpeg
    return Source(kind.label + " (JPEG copy)" * jpeg, kind.num_classes, *splits)


def _class_folders(folder: Path, kind: Kind) -> list[Path]:
    classes, others = [], []
    for path in listed(folder):
        if path.is_dir():
            classes.append(path)
        elif not _is_beside(path):
            others.append(path)
    if len(classes) != kind.num_classes:
        beside = f" beside {names(others)}" if others else ""
        raise IcsbenchError(f"{folder} has {len(classes)} class folders{beside}: {kind.label} has {kind.num_classes}")
    if others:
        raise IcsbenchError(f"{folder} holds {names(others)} beside the class folders: move it into one, or elsewhere")
    return classes


def _images(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> list[Path]:
    """Return the images in a class folder and the folders below it."""
    status = folder.stat()
    here = status.st_dev, status.st_ino
    if here in above:
        raise IcsbenchError(f"{folder} is a link to a folder that it lies in: delete it")
    found = []
    for path in listed(folder):
        if path.is_dir():
            found += _images(path, (*above, here))
        elif path.suffix.lower() in formats():
            found.append(path)
        elif not _is_beside(path):
            raise IcsbenchError(
                f"{path} is no image of a kind that is read (.png, .jpg and most that Pillow reads): "
                "save it as .png, or move it elsewhere"
            )
    return found


def _is_beside(path: Path) -> bool:
    return is_note(path) or path.suffix.lower() in _SIDECARS


def _encoded(path: Path) -> Encoded:
    check_file(path, MAX_BYTES)
    return Encoded(os.fspath(path), path.read_bytes(), path.suffix)
