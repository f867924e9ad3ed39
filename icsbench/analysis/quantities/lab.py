"""The rows of a lab as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.record import schema
from icsbench.record.reader import Run


@dataclass(frozen=True, eq=False)
class LabRows:
    """The m rows of one run of a lab, a column of shape (m,) for each key, ``step`` among them.

    A column of numbers is of floats, NaN where a row lacks the key; one that holds anything else is of objects, None
    where a row lacks it.
    """

    run: Run
    columns: dict[str, NDArray[Any]]

    def __getitem__(self, key: str) -> NDArray[Any]:
        """A column.

        :raises NotMeasured: no row of the run has the key.
        """
        if key not in self.columns:
            raise NotMeasured(f"{self.run.path / schema.METRICS}: no row has {key}")
        return self.columns[key]

    def where(self, **equal: Any) -> "LabRows":
        """The rows with these values of these keys; possibly none.

        :raises NotMeasured: no row of the run has such a key.
        """
        kept = np.ones(len(self.columns[schema.STEP]), bool)
        for key, value in equal.items():
            kept &= self[key] == value
        return LabRows(self.run, {key: column[kept] for key, column in self.columns.items()})

    def by(self, key: str) -> "dict[Any, LabRows]":
        """The rows of each value of a key, in the order in which the values come.

        :raises NotMeasured: no row of the run has the key.
        """
        return {value: self.where(**{key: value}) for value in dict.fromkeys(self[key].tolist())}

    def rows(self) -> Iterator[dict[str, Any]]:
        """The seed and the keys of each row; what a row lacks is not among them."""
        for row in self.run.metrics.rows:
            yield {"seed": self.run.seed} | row


def rows_of(run: Run) -> LabRows:
    """The rows of one run.

    :raises IcsbenchError: its record is damaged.
    """
    return LabRows(run, run.metrics.columns)


def lab_rows(group: Group) -> list[LabRows]:
    """The rows of each run of a group, in the order of its conditions and seeds.

    :raises NotMeasured: no run has a row.
    :raises IcsbenchError: a record is damaged.
    """
    runs = [run for condition in group.conditions for run in condition.runs if run.metrics.rows]
    if not runs:
        raise NotMeasured(f"{group.name}: no run has a row")
    return [rows_of(run) for run in runs]
