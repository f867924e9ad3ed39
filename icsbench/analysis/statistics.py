"""Intervals over paired seeds, and tests of where their mean lies."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icsbench.errors import IcsbenchError

Floats = NDArray[np.float64]
FEWEST_FOR_AN_INTERVAL = 3  # seeds: with two, t = 12.7, and the interval says nothing
MOST_FOR_SIGN_FLIPS = 40


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
    infinite value makes its interval NaN; n = 1 gives NaN for ``low`` and ``high``.

    :raises IcsbenchError: there are no rows.
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
    """The pointwise geometric mean of n curves and its interval: ``exp`` of the ``mean_band`` of the logarithms.

    ``values`` has shape (n, m). A value that is not finite and positive makes its point NaN.
    """
    matrix = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        logarithms = np.log(np.where((matrix > 0) & np.isfinite(matrix), matrix, np.nan))
        mean, low, high, n = mean_band(logarithms, level)
        return Band(np.exp(mean), np.exp(low), np.exp(high), n)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """The interval of the mean of ``a - b``, pair by pair: both of shape (n,), in the same order of seeds.

    :raises IcsbenchError: the two are not of one length.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise IcsbenchError(
            f"paired values of unequal number: {first.size} and {second.size}; give one of each per seed"
        )
    return mean_interval(first - second, level)


def paired_ratio(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """The geometric mean of ``a / b``, pair by pair, and its interval: ``exp`` of that of the log differences.

    Both of shape (n,), positive, in the same order of seeds.

    :raises IcsbenchError: the two are not of one length.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, low, high, n = paired_difference(np.log(a), np.log(b), level)
        return Interval(float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)), n)


class Place(NamedTuple):
    """One-sided p-values of three statements on a mean mu and a region: low < mu < high, mu <= low, mu >= high.

    Each is small where the data support the statement. ``inside`` comes from two one-sided tests: it is the larger of
    the p-values of mu > low and mu < high, where the bounds are finite.
    """

    inside: float
    below: float
    above: float


def student_t_test(values: ArrayLike, low: float, high: float) -> Place:
    """One-sided t-tests of where the mean mu of a normal distribution lies, from n values of it, (n,).

    For a bound b, with the mean m and the standard deviation s of the sample (n - 1 in the denominator),
    ``p(mu > b) = P(T >= (m - b) sqrt(n) / s)`` and ``p(mu < b) = P(T <= (m - b) sqrt(n) / s)``, where T has Student's
    t-distribution with n - 1 degrees of freedom; each tail is computed as such, so that small p-values are exact.

    Values that are all equal (on a grid they can be) have no spread to judge by. Then p is that of sign flips, 2^-n or
    1 - 2^-n, and 1/2 at the bound itself. With fewer than two values every p is 1.

    :raises IcsbenchError: a value is not finite, or the region is empty.
    """
    sample = _sample(values, low, high)
    n = len(sample)
    if n < 2:
        return Place(1.0, 1.0, 1.0)
    mean, error = float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(n)

    def beyond(bound: float, side: int) -> float:
        """One-sided p of mu > bound (side 1) or mu < bound (side -1)."""
        distance = side * (mean - bound)
        if math.isinf(bound):
            return 0.0 if distance > 0 else 1.0
        if error == 0:
            return 0.5 if distance == 0 else 2.0**-n if distance > 0 else 1 - 2.0**-n
        from scipy.special import stdtr

        return float(stdtr(n - 1, -distance / error))

    return Place(max(beyond(low, 1), beyond(high, -1)), beyond(low, -1), beyond(high, 1))


def sign_flip_test(values: ArrayLike, low: float, high: float) -> Place:
    """Exact permutation tests of where the centre of a symmetric distribution lies, from n values of it, (n,).

    Like :func:`student_t_test`, without a normal distribution: ``p(mu > b)`` is the share of the 2^n ways to flip the
    signs of ``x_i - b`` whose sum is at least the one observed, ``p(mu < b)`` the share of those whose sum is at most
    the one observed. The smallest value of both is 2^-n.

    The two halves of the values are flipped apart, and the sums of one found among those of the other.

    :raises IcsbenchError: there are more than 40 values, a value is not finite, or the region is empty.
    """
    sample = _sample(values, low, high)
    n = len(sample)
    if n > MOST_FOR_SIGN_FLIPS:
        raise IcsbenchError(f"{n} seeds: the exact permutation test is for {MOST_FOR_SIGN_FLIPS} at most")
    if n < 1:
        return Place(1.0, 1.0, 1.0)

    def beyond(bound: float, side: int) -> float:
        if math.isinf(bound):
            return 0.0 if side * bound < 0 else 1.0
        centred = side * (sample - bound)
        observed = centred.sum() - 1e-9 * np.abs(centred).sum()
        one, other = (_signs(len(half)) @ half for half in np.array_split(centred, 2))
        as_large = len(other) - np.searchsorted(np.sort(other), observed - one)
        return float(as_large.sum() / 2.0**n)

    return Place(max(beyond(low, 1), beyond(high, -1)), beyond(low, -1), beyond(high, 1))


@cache
def _signs(n: int) -> NDArray[np.int8]:
    """All ways to give n numbers a sign, (2^n, n)."""
    return (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)).astype(np.int8)


def binomial_test(values: ArrayLike, low: float, high: float) -> Place:
    """Exact tests of where the share of ones lies in a population, from n zeros and ones of it, (n,).

    With k ones, ``p(share > b)`` is the chance of k or more ones where the share is b, and ``p(share < b)`` that of k
    or fewer (Clopper & Pearson 1934).

    :raises IcsbenchError: a value is neither 0 nor 1, or the region is empty.
    """
    sample = _sample(values, low, high)
    if not np.isin(sample, (0, 1)).all():
        raise IcsbenchError("a share is tested on zeros and ones")
    from scipy.stats import binom

    n, ones = len(sample), sample.sum()

    def beyond(bound: float, side: int) -> float:
        if not 0 <= bound <= 1:
            return 0.0 if side * (bound - 0.5) < 0 else 1.0
        return float(binom.sf(ones - 1, n, bound) if side == 1 else binom.cdf(ones, n, bound))

    return Place(max(beyond(low, 1), beyond(high, -1)), beyond(low, -1), beyond(high, 1))


def binomial_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The share of ones among n zeros and ones, (n,), and its exact interval (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    sample = np.asarray(values, dtype=np.float64)
    low, high = binomtest(int(sample.sum()), len(sample)).proportion_ci(level)
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def positive_ratio(a: float, b: float) -> float:
    """Return a / b, NaN where one of them is not positive or not finite."""
    return a / b if min(a, b) > 0 and math.isfinite(a) and math.isfinite(b) else math.nan


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean; NaN where a value is not positive, or there is none."""
    numbers = np.array([*values])
    return float(np.exp(np.log(numbers).mean())) if numbers.size and (numbers > 0).all() else math.nan


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of y on x; NaN where a value is not finite or x is the same throughout."""
    if not np.isfinite([*x, *y]).all() or np.ptp(x) == 0:
        return math.nan
    across = np.asarray(x) - np.mean(x)
    return float(across @ np.asarray(y) / (across @ across))


def _sample(values: ArrayLike, low: float, high: float) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise IcsbenchError("a value that is not finite cannot be tested; leave its seed out, and say so")
    if not low < high:
        raise IcsbenchError(f"the region from {low} to {high} is empty")
    return sample


@cache
def _t_quantile(degrees: int, probability: float) -> float:
    from scipy.special import stdtrit  # a tenth of a second that listing runs does not need

    return float(stdtrit(degrees, probability))
