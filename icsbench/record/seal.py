"""Checksums of a finished record, by which a later change of any of its files is noticed."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from icsbench.record.schema import CONFIG, ENVIRONMENT, METRICS, PROBES, SEAL, SUMMARY
from icsbench.record.strict_json import loads

_SEALED = (CONFIG, ENVIRONMENT, METRICS)
_FOLDER = "run"


class Check(NamedTuple):
    """What a seal notes of one part of a record, and what that part is now; None where there is nothing."""

    sealed: str | None
    now: str | None

    @property
    def holds(self) -> bool:
        """Whether the two are the same."""
        return self.sealed is not None and self.sealed == self.now


def checksums(folder: Path, summary: bytes) -> dict[str, str]:
    """The SHA-256 of each file of a record that holds its numbers, by name; that of the summary from ``summary``.

    The files of the probes share one checksum. ``run`` is the folder that the record belongs in. ``checkpoint.pt`` and
    ``timing.json`` are not covered.

    :raises OSError: a file cannot be read.
    """
    sums = {name: _sha256((folder / name).read_bytes()) for name in _SEALED}
    return {_FOLDER: _place(folder), **sums, PROBES: _of_probes(folder), SUMMARY: _sha256(summary)}


def checks(folder: Path) -> dict[str, Check]:
    """What the seal of a record notes of each of its parts, and what they are now: the names of :func:`checksums`.

    Empty where the seal is missing, or is no JSON object.

    :raises OSError: a file is there and cannot be read.
    """
    try:
        noted = loads((folder / SEAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(noted, dict):
        return {}
    now = {_FOLDER: _place(folder), **{name: _of_file(folder / name) for name in _SEALED}}
    now |= {PROBES: _of_probes(folder), SUMMARY: _of_file(folder / SUMMARY)}
    return {name: Check(_text(noted.get(name)), checksum) for name, checksum in now.items()}


def broken(folder: Path) -> str | None:
    """What has changed in a record since it was finished; None where nothing has.

    It is the name of a file or folder, or ``run`` where the record does not lie in the folder that it was made in.

    :raises OSError: a file is there and cannot be read.
    """
    found = checks(folder)
    return next((name for name, check in found.items() if not check.holds), None) if found else SEAL


def _place(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])


def _of_file(path: Path) -> str | None:
    try:
        return _sha256(path.read_bytes())
    except FileNotFoundError:
        return None


def _of_probes(folder: Path) -> str:
    probes = hashlib.sha256()
    for path in sorted((folder / PROBES).rglob("*.*")):
        if not path.name.startswith("."):
            probes.update(f"{path.relative_to(folder).as_posix()} {_sha256(path.read_bytes())}\n".encode())
    return probes.hexdigest()


def _text(noted: Any) -> str | None:
    return noted if isinstance(noted, str) else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
