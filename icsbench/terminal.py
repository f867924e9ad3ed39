"""Terminal and environment as they are found: they stop no command, and what could not be shown is said."""

import codecs
import contextlib
import errno
import getpass
import io
import logging
import os
import re
import select
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

NO_HOME = "/nonexistent"  # as for the accounts of services, which have no home either

_NUMBERS = re.compile(r"COLUMNS|LINES|TERMINAL_WIDTH|LOKY_MAX_\w+|\w+_(NUM|MAX)_THREADS")
_NUMBER = re.compile(r"[1-9][0-9]{0,4}(,[1-9][0-9]{0,4})*")
_OF_LIBRARIES = ("HYDRA_", "JOBLIB_", "LOKY_", "POLARS_", "PYTORCH_", "TORCH")  # some break on an empty variable
_PLAIN = str.maketrans(
    {
        **{"−": "-", "–": "-", "—": "-", "×": "x", "±": "+-", "·": "*", "‖": "|", "′": "'", "∞": "inf", "≥": ">="},
        **{"⟨": "<", "⟩": ">", "✓": "+", "✗": "x", "ŷ": "y", "α": "alpha", "β": "beta", "γ": "gamma", "θ": "theta"},
        **{"μ": "mu", "σ": "sigma"},
    }
)


def prepare() -> Callable[[], str | None]:
    """Make stdout, stderr and the environment safe; returns what says at the end why output was lost, if any was.

    A stream that is closed, full or no longer read swallows what is written to it, and the work goes on. Characters
    that an encoding lacks are replaced. Variables that are empty, or no numbers where numbers belong, count as unset.
    Without a home directory ``HOME`` is a folder that is not there. Matplotlib has no settings but its own: neither a
    backend of Jupyter's nor a user's matplotlibrc has a part in the figures.
    """
    for name, value in [*os.environ.items()]:
        no_number = _NUMBERS.fullmatch(name) and not _NUMBER.fullmatch(value)
        if no_number or (name.startswith(_OF_LIBRARIES) and not value):
            del os.environ[name]
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)
        if os.path.expanduser("~") == "~":
            os.environ["HOME"] = NO_HOME
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it cannot write its cache concerns nobody

    for descriptor in range(3):  # or a file that is opened later would become a standard stream
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this
            os.set_inheritable(descriptor, True)
    codecs.register_error("icsbench", _replacement)
    out = _Stream.replace("stdout")
    _Stream.replace("stderr")

    def lost() -> str | None:
        sys.stdout.flush()
        error = out and out.error
        return None if error is None or error.errno == errno.EPIPE else error.strerror

    return lost


def import_matplotlib() -> None:
    """Import matplotlib without what ``prepare`` cannot hide: a ``matplotlibrc`` in the current folder, and styles.

    To be called after ``prepare``, before anything that imports matplotlib.
    """
    before = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = os.devnull
    with contextlib.chdir(os.path.dirname(__file__)) if os.path.exists("matplotlibrc") else contextlib.nullcontext():
        import matplotlib
    matplotlib.get_configdir()  # asked for once; fonts are cached in another folder, which is still the user's
    del os.environ["MPLCONFIGDIR"]
    if before is not None:
        os.environ["MPLCONFIGDIR"] = before


def _replacement(error: UnicodeError) -> tuple[str | bytes, int]:
    """One character in those that every encoding has; what Python made of a byte that is no text is that byte again."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    plain = unicodedata.normalize("NFKC", character).translate(_PLAIN)
    return plain.encode("ascii", "backslashreplace").decode(), error.start + 1


class _Stream(io.RawIOBase):
    """The bottom of a standard stream: a write that fails is kept in ``error``, and later ones are dropped."""

    def __init__(self, descriptor: int, closed: bool) -> None:
        self._descriptor = descriptor
        self._closed = closed
        self.error: OSError | None = None

    @classmethod
    def replace(cls, name: str) -> "_Stream | None":
        """Put ``sys.stdout`` or ``sys.stderr`` on such a stream; None where something has replaced it before."""
        old = getattr(sys, name)
        if old is not getattr(sys, f"__{name}__"):
            return None
        raw = cls({"stdout": 1, "stderr": 2}[name] if old is None else old.fileno(), closed=old is None)
        new = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=old.encoding if old else "utf-8",
            errors="icsbench",
            line_buffering=name == "stderr" or raw.isatty(),
        )
        setattr(sys, name, new)
        return raw

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        while self.error is None:
            try:
                return os.write(-1 if self._closed else self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
        return len(data)
