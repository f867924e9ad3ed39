"""How likely n values are to decide, and how many are needed, if what was found so far is the truth."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from icsbench.analysis.statistics import MOST_FOR_SIGN_FLIPS

POWER = 0.8
"""A number of values is enough where it decides with this probability."""

MOST = 1000
"""No more values are looked for."""

_SAWTOOTH = 8  # a binomial test of a few values less can be the stronger one


def chance_of_mean(n: int, found: Sequence[float], bounds: tuple[float, float], level: float, exact: bool) -> float:
    """How likely tests at a one-sided ``level`` find that a mean lies on that side of its ``bounds`` where it does.

    The n values are normal, with the mean m and the standard deviation s of those ``found``. Student's t has the power
    ``P(T' > t_{1 - level, n - 1})``, where T' has the noncentral t-distribution with n - 1 degrees of freedom and the
    shift ``|m - bound| sqrt(n) / s``. A mean between two bounds has to be told from both: then this is
    one minus the sum of what each test misses, which is a lower bound.

    ``exact``: sign flips have to agree. Of 2^n sums at most ``K = floor(level 2^n)`` may be as large as the one
    observed: none with fewer than ``log2(1 / level)`` values. With K = 1 all values lie on one side, which has the
    probability ``Phi(|m - bound| / s)^n``. From K = 2 on the power is taken for that of Student's t at the level
    K / 2^n, which is right to within a seed or so.
    """
    low, high = bounds
    mean, spread = float(np.mean(found)), float(np.std(found, ddof=1))
    if low < mean < high:
        missed = sum(
            1 - _beyond(n, abs(mean - bound), spread, level, exact) for bound in bounds if math.isfinite(bound)
        )
        return max(0.0, 1 - missed)
    return _beyond(n, abs(mean - (low if mean <= low else high)), spread, level, exact)


def _beyond(n: int, distance: float, spread: float, level: float, exact: bool) -> float:
    """The chance of one of these tests."""
    if n < 2 or distance == 0:
        return 0.0
    if spread == 0:  # both tests have the p-value 2^-n
        return float(2.0**-n <= level)
    effect = distance / spread
    by_t = _power_of_t(n, effect, level)
    if not exact or n > MOST_FOR_SIGN_FLIPS:
        return by_t
    allowed = math.floor(level * 2.0**n * (1 + 1e-12))
    if allowed < 2:
        return min(by_t, _normal(effect) ** n) if allowed else 0.0
    return _power_of_t(n, effect, allowed / 2.0**n)


def _power_of_t(n: int, effect: float, level: float) -> float:
    from scipy.special import stdtrit
    from scipy.stats import nct

    shift = min(effect * math.sqrt(n), 30.0)  # nct is not reliable further out, where the power is 1
    return float(nct.sf(stdtrit(n - 1, 1 - level), n - 1, shift))


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def chance_of_share(n: int, share: float, bounds: tuple[float, float], level: float) -> float:
    """The same for the share of ones among zeros and ones, by exact binomial tests: the sum of the chances of those
    numbers of ones that decide.
    """
    from scipy.stats import binom

    ones = np.arange(n + 1)
    low, high = bounds
    above = {bound: _share_above(ones, n, bound) <= level for bound in bounds}
    below = {bound: _share_below(ones, n, bound) <= level for bound in bounds}
    inside = above[low] & below[high]
    found = inside if low < share < high else below[low] if share <= low else above[high]
    return float(binom.pmf(ones, n, share)[found].sum())


def _share_above(ones: np.ndarray, n: int, bound: float) -> np.ndarray:
    """p-values of share > bound for each number of ones."""
    from scipy.stats import binom

    return binom.sf(ones - 1, n, bound) if 0 <= bound <= 1 else np.full(n + 1, float(bound > 1))


def _share_below(ones: np.ndarray, n: int, bound: float) -> np.ndarray:
    from scipy.stats import binom

    return binom.cdf(ones, n, bound) if 0 <= bound <= 1 else np.full(n + 1, float(bound < 0))


def fewest(chance: Callable[[int], float]) -> int | None:
    """The smallest n, up to :data:`MOST`, with which ``chance(n)`` reaches :data:`POWER`; None where there is none."""
    if chance(MOST) < POWER:
        return None
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= POWER else (middle, high)
    return next((n for n in range(max(1, high - _SAWTOOTH), high) if chance(n) >= POWER), high)
