"""Files that are there whole or not at all, and read the same whoever wrote them."""

import contextlib
import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from icsbench.atomic import write_atomically
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.schema import CONFIG, ENVIRONMENT, FAILURE, METRICS, PROBES, SUMMARY
from icsbench.record.strict_json import dumps, loads

_RECORD = (CONFIG, ENVIRONMENT, METRICS, SUMMARY, FAILURE)
_CODE = ("analysis", "figures", "record", "report")


def write_file(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Have ``write`` fill a file that then takes the place of ``path``; returns ``path``.

    :raises IcsbenchError: the file cannot be written.
    """
    try:
        write_atomically(path, write)
    except OSError as error:
        raise IcsbenchError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
    return path


def csv_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows as CSV, columns in order of appearance, floats with 8 significant digits, a missing value empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        writer.writerow([f"{cell:.8g}" if isinstance(cell, float) else cell for cell in cells])
    return text.getvalue().encode()


class Drawn:
    """What was drawn into a folder and from what, so that figures of unchanged records are not drawn again.

    The files are up to date while all of them are there and what they are made of is the same: the records (of the
    arrays of probes, which are large, name and size), the code that reads records, figures of other packages, and
    matplotlib.
    """

    def __init__(self, out: Path, root: Path, runs: Sequence[Run]) -> None:
        self._path = out / ".drawn.json"
        self._out = out
        digest = hashlib.sha256(version("matplotlib").encode())
        for source in _sources():
            digest.update(source.read_bytes())
        for point in sorted(entry_points(group="icsbench.figures"), key=lambda point: (point.name, point.value)):
            digest.update(f"{point.name} = {point.value} of {point.dist and point.dist.version}".encode())
        for run in runs:
            digest.update(f"{run.path.relative_to(root)} {run.at_step}".encode())
            for name in _RECORD:
                file = run.path / name
                digest.update(file.read_bytes() if file.exists() else b"")
            for file in sorted(file for file in (run.path / PROBES).rglob("*") if file.is_file()):
                digest.update(f"{file.relative_to(run.path).as_posix()} {file.stat().st_size}".encode())
                digest.update(b"" if file.suffix == ".npz" else file.read_bytes())
        self._inputs = digest.hexdigest()

    def read(self) -> tuple[list[Path], list[str]] | None:
        """The files, and the lines said when they were drawn; None where they must be drawn (again)."""
        try:
            noted = loads(self._path.read_text(encoding="utf-8"))
            files, said = [self._out / name for name in noted["files"]], list(noted["said"])
            fresh = noted["inputs"] == self._inputs and all(file.is_file() for file in files)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (files, said) if fresh else None

    def note(self, files: Sequence[Path], said: Sequence[str]) -> None:
        """Note what has just been drawn; files that were drawn before and not now are removed."""
        names = [file.relative_to(self._out).as_posix() for file in files]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for name in set(loads(self._path.read_text(encoding="utf-8"))["files"]) - set(names):
                if (self._out / name).resolve().is_relative_to(self._out.resolve()):
                    (self._out / name).unlink(missing_ok=True)
        content = {"inputs": self._inputs, "files": names, "said": list(said)}
        write_file(self._path, lambda file: file.write(dumps(content).encode()))


def _sources() -> Iterator[Path]:
    """The modules that read records: those of this package, and those of other packages that have figures."""
    package = Path(__file__).resolve().parent.parent
    for folder in _CODE:
        yield from sorted((package / folder).rglob("*.py"))
    for name in sorted({point.module.partition(".")[0] for point in entry_points(group="icsbench.figures")}):
        spec = find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or []:
            yield from sorted(Path(folder).rglob("*.py"))
        if spec and spec.origin and not spec.submodule_search_locations:
            yield Path(spec.origin)
