"""Intervals over paired seeds."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icsbench.errors import IcsbenchError

Floats = NDArray[np.float64]
FEWEST_FOR_AN_INTERVAL = 3  # seeds: with two, t = 12.7, and the interval says nothing


class Interval(NamedTuple):
    """A mean and its two-sided t-interval over ``n`` values; ``low`` and ``high`` are NaN for n = 1."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval, in the unit of the values."""
        return (self.high - self.low) / 2


class Band(NamedTuple):
    """Pointwise means and t-intervals of ``n`` curves with ``m`` points each: three arrays of shape (m,)."""

    mean: Floats
    low: Floats
    high: Floats
    n: int


def mean_band(values: ArrayLike, level: float = 0.95) -> Band:
    """The pointwise interval  mean ± t_{(1 + level)/2, n - 1} s / sqrt(n)  of n curves.

    ``values`` has shape (n, m): one row per seed. ``s`` is the sample standard deviation (n - 1 in the denominator).
    The interval holds point by point, not for the curve as a whole. A NaN among the values makes that point NaN, an
    infinite value its interval; n = 1 gives NaN for ``low`` and ``high``. Raises IcsbenchError for no rows.
    """
    matrix = np.asarray(values, dtype=np.float64)
    n = len(matrix)
    if n == 0:
        raise IcsbenchError("no values to average: an interval needs at least one seed")
    mean = matrix.mean(axis=0)
    if n == 1:
        missing = np.full_like(mean, np.nan)
        return Band(mean, missing, missing, 1)
    with np.errstate(invalid="ignore"):
        half = _t_quantile(n - 1, (1 + level) / 2) * matrix.std(axis=0, ddof=1) / np.sqrt(n)
        return Band(mean, mean - half, mean + half, n)


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The interval of ``mean_band`` for n single values, shape (n,)."""
    band = mean_band(np.asarray(values, dtype=np.float64)[:, None], level)
    return Interval(float(band.mean[0]), float(band.low[0]), float(band.high[0]), band.n)


def geometric_band(values: ArrayLike, level: float = 0.95) -> Band:
    """The pointwise geometric mean of n curves and its interval: ``mean_band`` of the logarithms, raised.

    ``values`` has shape (n, m). A value that is not finite and positive makes its point NaN.
    """
    matrix = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        logarithms = np.log(np.where((matrix > 0) & np.isfinite(matrix), matrix, np.nan))
        mean, low, high, n = mean_band(logarithms, level)
        return Band(np.exp(mean), np.exp(low), np.exp(high), n)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """The interval of the mean of ``a - b``, pair by pair: both of shape (n,), in the same order of seeds.

    Raises IcsbenchError when the two are not of one length.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise IcsbenchError(
            f"paired values of unequal number: {first.size} and {second.size}; give one of each per seed"
        )
    return mean_interval(first - second, level)


def paired_ratio(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """The geometric mean of ``a / b``, pair by pair, and its interval: ``paired_difference`` of the logarithms, raised.

    Both of shape (n,), positive, in the same order of seeds. Raises IcsbenchError when the two are not of one length.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, low, high, n = paired_difference(np.log(a), np.log(b), level)
        return Interval(float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)), n)


@cache
def _t_quantile(degrees: int, probability: float) -> float:
    from scipy.special import stdtrit  # a tenth of a second that listing runs does not need

    return float(stdtrit(degrees, probability))
