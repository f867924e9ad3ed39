"""What the processes of a sweep tell the one that watches: lines of JSON, in a file of each process in one folder."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from icsbench.app.progress import Seen, who
from icsbench.config import Config
from icsbench.record.schema import TIMING
from icsbench.record.strict_json import dumps, loads
from icsbench.record.writer import folder_of

EVERY = 1.0  # seconds between two lines on one run
_LINES, _PRINTED = ".jsonl", ".printed"
_watched: set[Path] = set()  # by this process


class Report(NamedTuple):
    """One thing that is told of a run. ``seconds``: the wall time of a finished one, where its record has it."""

    what: Literal["began", "at", "ended", "failed"]
    study: str
    run: str
    key: str
    """Tells it from all other runs."""
    seen: Seen | None = None
    outcome: str | None = None
    seconds: float | None = None


class Reporter:
    """Tells of one run. What cannot be written is left out: it stops no run."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._of = {"study": config.experiment, "run": who(config), "key": str(folder_of(config))}
        self._path = folder / f"{platform.node()}-{os.getpid()}{_LINES}"

    def began(self) -> None:
        """The run begins, or is looked at and found complete."""
        self._write(what="began")

    def at(self, seen: Seen) -> None:
        """The run is so far."""
        self._write(what="at", seen=seen)

    def ended(self, summary: dict[str, Any]) -> None:
        """The run has its summary."""
        seconds = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            seconds = loads((folder_of(self._config) / TIMING).read_text(encoding="utf-8"))["seconds"]
        self._write(what="ended", outcome=summary["outcome"], seconds=seconds)

    def failed(self) -> None:
        """The run ended with an error."""
        self._write(what="failed")

    def _write(self, **said: Any) -> None:
        with contextlib.suppress(OSError), open(self._path, "ab", buffering=0) as file:
            file.write(dumps({**said, **self._of}).encode() + b"\n")


@contextlib.contextmanager
def printing_to(folder: Path | None) -> Iterator[None]:
    """While this lasts, what this process prints on a terminal goes to a file, from which the watcher prints it.

    Not where this process is the watcher itself.
    """
    terminals = [number for number in (1, 2) if os.isatty(number)]
    if folder is None or folder in _watched or not terminals:
        yield
        return
    try:
        path = folder / f"{platform.node()}-{os.getpid()}{_PRINTED}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:  # nobody reads there
        yield
        return
    before = {number: os.dup(number) for number in terminals}
    for number in terminals:
        os.dup2(file, number)
    os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in before.items():
            os.dup2(old, number)
            os.close(old)


class Inbox:
    """The other end: what was told and printed in a folder since the last look."""

    def __init__(self, folder: Path) -> None:
        _watched.add(folder)
        self._folder = folder
        self._read: dict[Path, int] = {}

    def reports(self) -> Iterator[Report]:
        """The reports that are new; a line that cannot be read is passed over."""
        for line in self._lines(_LINES):
            with contextlib.suppress(ValueError, TypeError):
                said = loads(line)
                yield Report(**{**said, "seen": Seen(*said["seen"]) if said.get("seen") else None})

    def printed(self) -> Iterator[str]:
        """The lines that are new."""
        yield from self._lines(_PRINTED)

    def _lines(self, suffix: str) -> Iterator[str]:
        for path in sorted(self._folder.glob(f"*{suffix}")):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                whole = file.read().rpartition(b"\n")
                self._read[path] = self._read.get(path, 0) + len(whole[0] + whole[1])
                if whole[1]:
                    yield from whole[0].decode("utf-8", "replace").split("\n")
