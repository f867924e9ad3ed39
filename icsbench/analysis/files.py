"""Files that are there whole or not at all, and read the same whoever wrote them."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from icsbench.analysis.results import Run
from icsbench.errors import IcsbenchError


def write_file(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Have ``write`` fill a file that then takes the place of ``path``; returns ``path``.

    Raises IcsbenchError where the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
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
    """What was drawn into a folder and from which runs, so that figures of unchanged records are not drawn again.

    As with make: the files are up to date while all of them are there, the runs are the same, and nothing of the
    records, nor of the code that draws them, is newer than the oldest file.
    """

    def __init__(self, out: Path, runs: Sequence[Run]) -> None:
        self._path = out / ".drawn.json"
        self._out = out
        self._runs = [str(run.path.resolve()) for run in runs]
        code = Path(__file__).resolve().parent.parent
        records = [path for run in runs for path in (*run.path.iterdir(), run.path / "probes" / "shift")]
        inputs = [*records, *(code / "analysis").glob("*.py"), *(code / "figures").glob("*.py")]
        self._inputs = [path for path in inputs if path.exists() and path.name not in ("run.lock", "wandb")]

    def read(self) -> tuple[list[Path], list[str]] | None:
        """The files, and the lines said when they were drawn; None where they must be drawn (again)."""
        try:
            noted = json.loads(self._path.read_text())
            files = [self._out / name for name in noted["files"]]
            oldest = min(file.stat().st_mtime_ns for file in files)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        changed = noted["runs"] != self._runs or any(path.stat().st_mtime_ns > oldest for path in self._inputs)
        return None if changed else (files, noted["said"])

    def note(self, files: Sequence[Path], said: Sequence[str]) -> None:
        """Note what has just been drawn."""
        names = [str(file.relative_to(self._out)) for file in files]
        content = {"runs": self._runs, "files": names, "said": list(said)}
        write_file(self._path, lambda file: file.write(json.dumps(content).encode()))
