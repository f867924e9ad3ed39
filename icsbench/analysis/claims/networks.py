"""From the runs of a lab to one number per random network, for the measures of claims."""

import math
from collections.abc import Callable, Iterable

from icsbench.analysis.claims.contract import Measure, Measured
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.record.reader import Run

NETWORK = "network"
"""The key of a row that numbers the random networks of a run from 0."""
PROBLEM = "problem"
"""That of a lab of random problems, which are no networks."""


def networks_of(group: Group, key: str = NETWORK) -> list[LabRows]:
    """The rows of each network (or problem, see ``key``), of all seeds in a row: its place is its number.

    :raises NotMeasured: the study has several settings, or no rows of networks.
    """
    if len(group.conditions) > 1:
        raise NotMeasured(f"{group.name} has {len(group.conditions)} settings, which must not be pooled")
    return [rows for run in lab_rows(group) for rows in run.by(key).values()]


def runs_behind(networks: Iterable[LabRows]) -> dict[int, tuple[Run, ...]]:
    """The run that drew each network, by its number."""
    return {number: (rows.run,) for number, rows in enumerate(networks)}


def per_network(value: Callable[[LabRows], float], key: str = NETWORK) -> Measure:
    """The measure ``value(rows of a network)``, for a part that is ``of="networks"`` (``key``: or ``"problems"``).

    One whose value is not finite is left out.
    """

    def measure(group: Group) -> Measured:
        networks = networks_of(group, key)
        numbers = {number: value(rows) for number, rows in enumerate(networks)}
        return Measured(
            {number: found for number, found in numbers.items() if math.isfinite(found)},
            {number: "no finite value" for number, found in numbers.items() if not math.isfinite(found)},
            behind=runs_behind(networks),
        )

    return measure
