"""Whoever starts the runs of a sweep watches them: one live display on a terminal, a line a minute elsewhere."""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.live import Live

from icsbench.app.display import Tally, live, on_terminal
from icsbench.app.progress import say
from icsbench.app.reports import Inbox

_LOOK_EVERY, _SAY_EVERY = 0.5, 60.0  # seconds


class Watch:
    """Reads what runs tell in a folder, and shows it.

    :param planned: the studies, and how many runs each has; None where nobody knows.
    :param shown: the live display; None for lines on stderr.
    :param clock: seconds, from whenever.
    """

    def __init__(
        self,
        folder: Path,
        planned: Mapping[str, int | None],
        shown: Live | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = Inbox(folder)
        self._shown = shown
        self._clock = clock
        self._tally = Tally(planned, clock())
        self._next = clock() + _SAY_EVERY

    def look(self) -> None:
        """Read what is new, print what was printed, and bring the display up to date."""
        now = self._clock()
        for line in self._inbox.printed():
            if self._shown is None:
                say(line)
            else:
                self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
        for report in self._inbox.reports():
            self._tally.hear(report, now)
        if self._shown is not None:
            self._shown.update(self._tally.picture(now), refresh=True)
        elif now >= self._next:
            self._next = now + _SAY_EVERY
            say(self._tally.line(now))

    def close(self) -> None:
        """Look once more, end the display, and say how many runs there are."""
        self.look()
        if self._shown is not None:
            self._shown.stop()
        if self._tally.begun:
            say(self._tally.counts(self._clock()))


@contextlib.contextmanager
def watching(planned: Mapping[str, int | None], folder: Path | None = None) -> Iterator[Path]:
    """Watch runs for as long as this lasts; gives the folder where they tell, which is gone behind it.

    :param folder: a folder to make for it, which every machine that makes runs can write; by default one of this.
    """
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="icsbench-"))
    else:
        folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(folder, planned, live() if on_terminal() else None)
    over = threading.Event()

    def look_on() -> None:
        while not over.wait(_LOOK_EVERY):
            watch.look()

    thread = threading.Thread(target=look_on, daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        over.set()
        thread.join()
        watch.close()
        shutil.rmtree(folder, ignore_errors=True)
