"""Whether a quantity grows exponentially or as a power of the depth: two straight lines, compared by AIC."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from icsbench.analysis.groups import NotMeasured

FEWEST_POINTS = 4


class Line(NamedTuple):
    """A least-squares line: its slope with the standard error, its value at 0, and Akaike's criterion.

    ``aic``: ``n ln(RSS / n) + 2 k``, of n points with normal residuals and k = 3 parameters (slope, height, variance).
    """

    slope: float
    error: float
    height: float
    aic: float


class Growth(NamedTuple):
    """ln y of a quantity y at depths l, as a line in l (exponential growth) and as one in ln l (a power of l)."""

    exponential: Line
    polynomial: Line

    @property
    def for_polynomial(self) -> float:
        """AIC of the exponential less that of the polynomial: positive where the polynomial fits better.

        Both have as many parameters, so that it is ``n ln(RSS of the exponential / RSS of the polynomial)``. A
        difference of 10 leaves the worse model essentially no support (Burnham & Anderson 2002, section 2.6).
        """
        return self.exponential.aic - self.polynomial.aic


def growth(depth: ArrayLike, logarithm: ArrayLike) -> Growth:
    """Both models for the logarithms of a quantity at these depths, each of shape (n,).

    The residuals are taken for independent; those of one network are not (its gradient is a random walk in depth), so
    the criterion is a score to compare models by, not a likelihood.

    :raises NotMeasured: there are fewer than four points, or a depth is below 1.
    """
    depths, values = np.asarray(depth, np.float64), np.asarray(logarithm, np.float64)
    if len(depths) < FEWEST_POINTS or depths.min() < 1:
        raise NotMeasured(f"growth needs {FEWEST_POINTS} depths from 1 up (got {len(depths)})")
    return Growth(_line(depths, values), _line(np.log(depths), values))


def _line(x: np.ndarray, y: np.ndarray) -> Line:
    if not np.isfinite(y).all():
        return Line(math.nan, math.nan, math.nan, math.nan)
    n, across = len(x), x - x.mean()
    slope = float(across @ y / (across @ across))
    height = float(y.mean() - slope * x.mean())
    squares = float(np.square(y - height - slope * x).sum())
    error = math.sqrt(squares / (n - 2) / float(across @ across))
    return Line(slope, error, height, n * math.log(squares / n) + 6 if squares else -math.inf)
