"""The rows of a run as columns."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.errors import IcsbenchError
from icsbench.record import schema


class Metrics:
    """The rows of one ``metrics.jsonl``, read as columns.

    Reading a column raises IcsbenchError where a value is not what the column holds.
    """

    def __init__(self, rows: list[dict[str, Any]], path: Path) -> None:
        self.rows = rows
        self._path = path

    @property
    def last_step(self) -> int:
        """The number of updates behind the latest row; 0 where there is none."""
        return max((row[schema.STEP] for row in self.rows), default=0)

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Each key of the m rows as an array of shape (m,): floats, NaN where a row lacks it, or objects, then None."""
        keys = dict.fromkeys(key for row in self.rows for key in row)
        return {key: _column([row.get(key) for row in self.rows]) for key in keys}

    def series(self, key: str, interval: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps, ascending, and values of the rows that hold ``key``: two arrays of shape (m,), m = 0 where none does.

        With ``interval``, only of the probe rows that many steps after the probe before.
        """
        rows = [
            row for row in self.rows if key in row and (interval is None or row.get(schema.SHIFT_INTERVAL) == interval)
        ]
        steps, first = _steps(rows)
        return steps, self._numbers(rows, key)[first]

    def table(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps, ascending, and values of the rows that hold all of n ``keys``: of shapes (m,) and (m, n)."""
        wanted = set(keys)
        rows = [row for row in self.rows if row.keys() >= wanted]
        steps, first = _steps(rows)
        return steps, np.stack([self._numbers(rows, key)[first] for key in keys], axis=1)

    def lists(self, key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps, ascending, and values of the rows that hold a list of K numbers at ``key``: (m,) and (m, K)."""
        rows = [row for row in self.rows if key in row]
        steps, first = _steps(rows)
        return steps, self._numbers(rows, key, "a list of equally many numbers", 2)[first]

    def _numbers(
        self, rows: Sequence[dict[str, Any]], key: str, what: str = "a number", dimensions: int = 1
    ) -> NDArray[np.float64]:
        if not rows:
            return np.empty((0,) * dimensions)
        try:
            values = np.array([row[key] for row in rows], np.float64)
        except (ValueError, TypeError):
            values = np.empty(0)
        if values.ndim != dimensions or not values.size:
            raise IcsbenchError(f"{self._path}: {key} is not {what} at every step; the record is damaged, run it again")
        return values


def _steps(rows: Sequence[dict[str, Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The steps of the rows, ascending, and for each the first row that has it."""
    steps, first = np.unique(np.array([row[schema.STEP] for row in rows], np.int64), return_index=True)
    return steps, first


def _column(values: list[Any]) -> NDArray[Any]:
    if all(value is None or isinstance(value, int | float) for value in values):
        return np.array(values, np.float64)
    column = np.empty(len(values), object)
    column[:] = values
    return column
