"""Files that are there whole or not at all, and read the same whoever wrote them."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

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
