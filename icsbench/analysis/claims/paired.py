"""From the runs of a study to one number per seed, for the measures of claims."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from icsbench.analysis.claims.contract import Measure, Measured
from icsbench.analysis.groups import Group
from icsbench.record.reader import Run

Runs = dict[int, Run]
"""The runs of one configuration, by seed."""

_PAPERS_LR = 0.1


class LeftOut(Exception):
    """A seed has no number; the text says why."""


def runs_of(group: Group, norm: str, **settings: Any) -> Runs:
    """The runs of a norm with these settings: ``lr``, or dotted keys of the config (``**{"norm.strength": 2.0}``).

    :raises NotMeasured: there is none, or there are several configurations that fit.
    """
    return {run.seed: run for run in group.select(norm=norm, **settings).runs}


def papers_rate(group: Group) -> float:
    """The learning rate that counts: the only one of the study, or the paper's, 0.1."""
    return group.lrs[0] if len(group.lrs) == 1 else _PAPERS_LR


def at_papers_rate(group: Group, norm: str) -> Runs:
    """The runs of a norm at :func:`papers_rate`.

    :raises NotMeasured: there is none, or there are several configurations.
    """
    return runs_of(group, norm, lr=papers_rate(group))


def paired(parts: Mapping[str, Runs], value: Callable[..., float]) -> Measured:
    """``value(*runs)`` for every seed that all parts have, one run of each part in their order.

    A seed that a part lacks is left out, and so is one whose value is not finite, or raises :class:`LeftOut`. ``parts``
    are the runs by the name that the reason for leaving a seed out gives them.
    """
    values: dict[int, float] = {}
    left_out: dict[int, str] = {}
    for seed in sorted(set().union(*parts.values())):
        lacking = [name for name, runs in parts.items() if seed not in runs]
        if lacking:
            left_out[seed] = f"no finished run of {', '.join(lacking)}"
            continue
        runs = {name: of_part[seed] for name, of_part in parts.items()}
        try:
            number = value(*runs.values())
        except LeftOut as reason:
            left_out[seed] = str(reason)
            continue
        if math.isfinite(number):
            values[seed] = number
        else:
            wrong = [why for name, run in runs.items() if (why := _wrong(name, run))]
            left_out[seed] = ", ".join(wrong) or "no finite value"
    return Measured(values, left_out, tuple(run for runs in parts.values() for run in runs.values()))


def _wrong(name: str, run: Run) -> str:
    if run.status == "diverged":
        return f"{name} diverged at step {run.summary.get('diverged_at')}"
    return f"{name} ended at chance" if run.status == "chance" else ""


def difference(a: str, b: str, of_run: Callable[[Run], float]) -> Measure:
    """The measure ``100 (of_run(a) - of_run(b))``: percentage points between two norms at :func:`papers_rate`."""
    return lambda group: paired(
        {a: at_papers_rate(group, a), b: at_papers_rate(group, b)},
        lambda one, other: 100 * (of_run(one) - of_run(other)),
    )


def unless_diverged(value: Callable[..., float]) -> Callable[..., float]:
    """``value(*runs)``, but NaN where one of them diverged: what it recorded is not that of a whole run."""
    return lambda *runs: math.nan if any(run.status == "diverged" for run in runs) else value(*runs)
