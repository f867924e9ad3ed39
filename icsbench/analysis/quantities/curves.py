"""A quantity of the runs over the steps: the mean over the seeds, with its interval."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.groups import Condition
from icsbench.analysis.statistics import Band, Floats, mean_band
from icsbench.errors import IcsbenchError
from icsbench.record import schema
from icsbench.record.reader import Layer, Run
from icsbench.record.regime import Regime

Series = tuple[NDArray[np.int64], Floats]
"""Steps, ascending, and values of one run: two arrays of shape (m,)."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One quantity over the steps: the mean over ``seeds`` with its 95 % t-interval, arrays of shape (m,).

    A run that diverged is in no mean: its curve is of that one seed, up to ``diverged_at``. Accuracies are fractions.
    """

    quantity: str
    regime: Regime
    lr: float
    seeds: tuple[int, ...]
    steps: NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats
    layer: Layer | None = None
    diverged_at: int | None = None
    values: Floats | None = None
    """The single seeds behind the mean, (n, m)."""
    average: str = ""
    """``arithmetic`` or ``geometric``, where the rows are to say it."""

    @property
    def x(self) -> NDArray[np.int64]:
        """What the curve is drawn against."""
        return self.steps

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per point."""
        for step, mean, low, high in zip(self.steps, self.mean, self.low, self.high, strict=True):
            row = {
                "quantity": self.quantity,
                "regime": self.regime,
                "lr": self.lr,
                "layer": self.layer.path if self.layer else "",
                "depth": self.layer.depth if self.layer else "",
                "seeds": " ".join(map(str, self.seeds)),
                "diverged_at": "" if self.diverged_at is None else self.diverged_at,
                "step": int(step),
                "mean": float(mean),
                "low": float(low),
                "high": float(high),
            }
            yield row | ({"average": self.average} if self.average else {})


def recorded_curve(
    condition: Condition,
    runs: Sequence[Run],
    key: str,
    quantity: str,
    layer: Layer | None = None,
    interval: int | None = None,
    average: Callable[[Floats], Band] = mean_band,
) -> Curve:
    """The mean over the runs of what their rows hold at ``key``; with ``interval``, as of :meth:`Metrics.series`."""
    series = [run.metrics.series(key, interval) for run in runs]
    return mean_curve(condition, runs, quantity, series, layer, average)


def mean_curve(
    condition: Condition,
    runs: Sequence[Run],
    quantity: str,
    series: Sequence[Series],
    layer: Layer | None = None,
    average: Callable[[Floats], Band] = mean_band,
) -> Curve:
    """The mean over the runs, each with its series of steps and values, at the steps that all of them have.

    :raises IcsbenchError: they have no step in common.
    """
    steps = reduce(np.intersect1d, [own for own, _ in series])
    if not len(steps):
        lacking = next((run for run, (own, _) in zip(runs, series, strict=True) if not len(own)), runs[0])
        what = f"{quantity} of {layer.path}" if layer else quantity
        raise IcsbenchError(f"{lacking.path / schema.METRICS}: no {what} at a step of the other seeds; run it again")
    values = np.array([values[np.isin(own, steps)] for own, values in series])
    band = average(values)
    seeds = tuple(run.seed for run in runs)
    ends = (band.mean, band.low, band.high)
    return Curve(quantity, condition.regime, condition.lr, seeds, steps, *ends, layer, values=values)


def diverged_curve(condition: Condition, run: Run, quantity: str) -> Curve:
    """What one run that diverged recorded at the key ``quantity``, up to there, as far as it is finite; no interval."""
    steps, values = run.metrics.series(quantity)
    end = run.summary.get("diverged_at")
    end = run.metrics.last_step if end is None else int(end)
    kept = (steps <= end) & np.isfinite(values)
    steps, values = steps[kept], values[kept]
    missing = np.full(len(steps), np.nan)
    seeds = (run.seed,)
    return Curve(quantity, condition.regime, condition.lr, seeds, steps, values, missing, missing, diverged_at=end)


def has_key(runs: Iterable[Run], key: str) -> bool:
    """Whether a row of one of the runs has the key."""
    return any(key in row for run in runs for row in run.metrics.rows)
