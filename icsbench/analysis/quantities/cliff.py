"""The depth at which accuracy falls, of one network after another: the rows of lab ``cliff``."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.quantities.lab import LabRows
from icsbench.analysis.statistics import Floats
from icsbench.record import schema

ACCURACY = "accuracy_train"
LEARNED = 0.1
"""Accuracy above chance that the best of all depths has at least, where anything was learned."""


class Fit(NamedTuple):
    """``chance + (plateau - chance) / (1 + exp((depth - cliff) / scale))``; ``scale`` in layers."""

    chance: float
    plateau: float
    cliff: float
    scale: float

    def accuracy(self, depth: NDArray[Any]) -> Floats:
        """The fitted accuracy at some depths."""
        return _logistic(np.asarray(depth, float), self.plateau, self.cliff, self.scale, self.chance)


class Range(NamedTuple):
    """What is known of a number: where it was measured, ``low`` and ``high`` are both that number."""

    low: float
    high: float

    @property
    def measured(self) -> bool:
        """Whether it is a number, not a bound of one."""
        return self.low == self.high


@dataclass(frozen=True)
class Cliff:
    """Where the accuracy of one network falls half-way from its plateau to chance.

    ``depth``: from 0 to the shallowest depth where the fall is before that, from the deepest on where there is none,
    and anything where nothing was learned at any depth. ``fit``: None where there is no fall within the depths.
    """

    depth: Range
    fit: Fit | None
    why: str = ""
    """What there is instead of a measured depth."""


def cliff(depths: NDArray[Any], accuracy: NDArray[Any], chance: float) -> Cliff:
    """Fit a logistic curve to the accuracy (fractions, one for each depth, in any order) by least squares.

    Plateau, cliff and scale are fitted, chance is given. Between two depths from the plateau to chance, the cliff is
    known no better than by those two.
    """
    order = np.argsort(depths)
    x, y = np.asarray(depths, float)[order], np.asarray(accuracy, float)[order]
    shallowest, deepest, best = x[0], x[-1], y.max()
    if best < chance + LEARNED:
        return Cliff(Range(0, np.inf), None, "nothing learned at any depth")
    half = (chance + best) / 2
    if y[-1] > half:
        return Cliff(Range(float(deepest), np.inf), None, f"no fall within {deepest:g} layers")
    fit = _fitted(x, y, chance, half)
    if fit.cliff < shallowest:
        return Cliff(Range(0, float(shallowest)), None, f"fallen before {shallowest:g} layers")
    return Cliff(Range(fit.cliff, fit.cliff), fit)


def cliffs(rows: LabRows) -> Iterator[tuple[str, int, int, Cliff]]:
    """Norm, batch size, number of the network and the cliff, of each network of a run at each setting.

    :raises NotMeasured: the rows are not of this lab.
    """
    for norm, of_norm in rows.by("norm").items():
        for batch, of_batch in of_norm.by("batch").items():
            for network, one in of_batch.by("network").items():
                yield norm, int(batch), int(network), cliff(one[schema.STEP], one[ACCURACY], float(one["chance"][0]))


def _fitted(x: Floats, y: Floats, chance: float, half: float) -> Fit:
    from scipy.optimize import curve_fit

    last_above = np.flatnonzero(y > half)[-1]
    start = (x[last_above] + x[min(last_above + 1, len(x) - 1)]) / 2
    span = x[-1]
    best, _ = curve_fit(
        partial(_logistic, chance=chance),
        x,
        y,
        p0=(min(y.max(), 1), start, span / 20),
        bounds=([chance, 0, span / 1000], [1, span, span]),
        max_nfev=10_000,
    )
    return Fit(chance, *map(float, best))


def _logistic(depth: Floats, plateau: float, middle: float, scale: float, chance: float) -> Floats:
    from scipy.special import expit

    return chance + (plateau - chance) * expit((middle - depth) / scale)
