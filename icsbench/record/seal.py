"""Checksums of a finished record, by which a later change of any of its files is noticed."""

import hashlib
from pathlib import Path

from icsbench.record.schema import CONFIG, ENVIRONMENT, METRICS, PROBES, SEAL, SUMMARY
from icsbench.record.strict_json import loads

_SEALED = (CONFIG, ENVIRONMENT, METRICS)


def checksums(folder: Path, summary: bytes) -> dict[str, str]:
    """The SHA-256 of each file of a record that holds its numbers, by name; that of the summary from ``summary``.

    The files of the probes share one checksum. ``run`` is the folder that the record belongs in. ``checkpoint.pt`` and
    ``timing.json`` are not covered.

    :raises OSError: a file cannot be read.
    """
    sums = {name: _sha256((folder / name).read_bytes()) for name in _SEALED}
    probes = hashlib.sha256()
    for path in sorted((folder / PROBES).rglob("*.*")):
        if not path.name.startswith("."):
            probes.update(f"{path.relative_to(folder).as_posix()} {_sha256(path.read_bytes())}\n".encode())
    run = "/".join(folder.resolve().parts[-2:])
    return {"run": run, **sums, PROBES: probes.hexdigest(), SUMMARY: _sha256(summary)}


def broken(folder: Path) -> str | None:
    """What has changed in a record since it was finished; None where nothing has.

    It is the name of a file or folder, or ``run`` where the record does not lie in the folder that it was made in.

    :raises OSError: a file cannot be read.
    """
    try:
        noted = loads((folder / SEAL).read_text(encoding="utf-8"))
        found = checksums(folder, (folder / SUMMARY).read_bytes())
    except FileNotFoundError as error:
        return Path(error.filename).name
    except ValueError:
        return SEAL
    if not isinstance(noted, dict):
        return SEAL
    return next((name for name, checksum in found.items() if noted.get(name) != checksum), None)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
