"""What ends a run early is noted in its record."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from icsbench.errors import IcsbenchError
from icsbench.record.schema import FAILURE
from icsbench.record.writer import Record


@contextmanager
def noted(record: Record) -> Iterator[None]:
    """While this lasts, an exception is noted in ``failure.json``, which is removed at the start; Ctrl-C is not.

    :raises IcsbenchError: in place of an OSError, in one line that says what to put right.
    """
    try:
        (record.path / FAILURE).unlink(missing_ok=True)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space" if full else "put that right"
        line = f"{error.filename or record.path}: {error.strerror or error}; {advice} and run the same command again"
        _note(record, line)
        raise IcsbenchError(line) from error
    except Exception as error:
        _note(record, str(error) if isinstance(error, IcsbenchError) else f"{type(error).__name__}: {error}")
        raise


def _note(record: Record, line: str) -> None:
    try:
        record.write_json(FAILURE, {"error": line})
    except OSError:
        print(f"icsbench: {record.path}: the failure could not be noted there", file=sys.stderr)
