"""The user's folders and files: what is looked at, what is passed over, and how a file is read."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

from icsbench.errors import IcsbenchError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "validation"),
}
"""What folders and files of a split are called, in lower case."""

# What file managers, archivers and file servers leave in folders, beside hidden files.
_LEFTOVERS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_NOTES = {".txt", ".md", ".rst"}
_NOTE_NAMES = {"readme", "license", "licence", "copying"}


def listed(folder: Path) -> list[Path]:
    """Return what is in ``folder``, sorted, without hidden entries and what file managers leave."""
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in paths if path.name.lower() not in _LEFTOVERS)


def is_note(path: Path) -> bool:
    """Return whether a file is for people to read (``.txt``, ``.md``, ``.rst``, README, LICENSE), and no data."""
    return (path.suffix.lower() in _NOTES or path.name.lower() in _NOTE_NAMES) and path.is_file()


def holds_nothing(path: Path) -> bool:
    """Return whether ``path`` is a note, or a folder without any file but notes and hidden ones."""
    if path.is_dir() and not path.is_symlink():
        return all(holds_nothing(inside) for inside in listed(path))
    return is_note(path)


def called(path: Path) -> str:
    """Return a folder's name in small letters and digits alone: "cifar10" of ``CIFAR-10`` or a hub's ``…--cifar10``."""
    return re.sub("[^a-z0-9]", "", path.name.split("--")[-1].lower())


def names(paths: Sequence[Path]) -> str:
    """Return the first few names of ``paths``, for a message."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(path.name for path in paths[:5]) + more


def check_file(path: Path, largest: int) -> None:
    """Refuse what is not a regular file, or a link to one, of at most ``largest`` bytes.

    :raises IcsbenchError: ``path`` is not such a file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise IcsbenchError(f"{path} is no regular file (but a folder, pipe or device): replace it by a file")
    if status.st_size > largest:
        raise IcsbenchError(f"{path} has {status.st_size:,} bytes: at most {largest:,} are read")


def reason(error: BaseException) -> str:
    """Return what ``error`` says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
