"""Length and direction of weights apart: the Rayleigh quotient and halfspaces of Gaussian data (Kohler et al. 2019).

A sample x with the class y of -1 or 1 is the vector ``z = -y x``, and ``f(w) = E phi(z'w)`` the loss of the weights w.
With ``u = E z`` and ``S = E zz'``, the eigenvalues of which lie between mu and L, weights of the length g along v are

    w = g v / |v|_S,    |v|_S = sqrt(v'Sv),

which is what BN without centring does to a linear unit; weight normalization has I in the place of S. All arrays may
have any number of problems in front: u is (..., d), S is (..., d, d), weights are (..., d).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from icsbench.theory.activations import Floats


class Loss(NamedTuple):
    """A loss phi of ``z'w``, minus the margin of a sample; ``steepest`` is the largest absolute second derivative."""

    value: Callable[[Floats], Floats]
    first: Callable[[Floats], Floats]
    second: Callable[[Floats], Floats]
    steepest: float


def _sigmoid_first(t: Floats) -> Floats:
    rising = expit(t)
    return rising * (1 - rising)


LOSSES: dict[str, Loss] = {
    "square": Loss(lambda t: (1 + t) ** 2, lambda t: 2 * (1 + t), lambda t: np.full_like(t, 2), 2),
    "softplus": Loss(lambda t: np.logaddexp(0, t), expit, _sigmoid_first, 1 / 4),
    "sigmoid": Loss(expit, _sigmoid_first, lambda t: _sigmoid_first(t) * (1 - 2 * expit(t)), 3**-0.5 / 6),
}
"""By name. ``square`` is least squares: ``(1 + z'w)^2 = (y - x'w)^2``. ``sigmoid`` is not convex."""


def times(matrix: Floats, vector: Floats) -> Floats:
    """The products of matrices (..., a, b) and vectors (..., b)."""
    return np.matmul(matrix, vector[..., None])[..., 0]


def dot(a: Floats, b: Floats) -> Floats:
    """The inner products of vectors, (..., d) and (..., d)."""
    return np.einsum("...i,...i->...", a, b)


@dataclass(frozen=True, eq=False)
class Moments:
    """``mean``: u. ``second``: S. ``smallest``, ``largest``: mu and L, of S."""

    mean: Floats
    second: Floats
    smallest: Floats
    largest: Floats

    @property
    def rate(self) -> Floats:
        """1 - mu / L: by Theorem 2 the gradient's norm shrinks at least by this factor in a step."""
        return 1 - self.smallest / self.largest

    @property
    def lowest(self) -> Floats:
        """The minimum of the Rayleigh quotient, ``rho* = -u' S^-1 u``; it is at the direction ``S^-1 u``."""
        best = np.linalg.solve(self.second, self.mean[..., None])[..., 0]
        return -dot(self.mean, best.astype(np.float64))

    def length(self, w: Floats) -> Floats:
        """|w|_S."""
        return np.sqrt(dot(w, times(self.second, w)))

    def rayleigh(self, w: Floats) -> Floats:
        """``rho(w) = -(u'w)^2 / w'Sw``: the least-squares loss at the best length of w, but for a constant."""
        return -(dot(self.mean, w) ** 2) / self.length(w) ** 2

    def rayleigh_gradient(self, w: Floats) -> Floats:
        """``-2 / |w|_S^2 (u u'w + rho(w) S w)``."""
        pulled = self.mean * dot(self.mean, w)[..., None] + self.rayleigh(w)[..., None] * times(self.second, w)
        return -2 / self.length(w)[..., None] ** 2 * pulled

    def step_size(self, w: Floats) -> Floats:
        """The step of Theorem 1, ``w'Sw / (2 L |rho(w)|)``, for which rho(w) must not be 0."""
        return self.length(w) ** 2 / (2 * self.largest * np.abs(self.rayleigh(w)))

    def descend(self, w: Floats) -> Floats:
        """One step of gradient descent on rho. After t of them, by Theorem 1,

        ``rho(w_t) - rho* <= (1 - mu/L)^(2t) (rho(w_0) - rho*)``.
        """
        return w - self.step_size(w)[..., None] * self.rayleigh_gradient(w)


def moments(second: Floats, mean: Floats) -> Moments:
    """The moments S and u of problems, with the extreme eigenvalues.

    :raises ValueError: S is no symmetric positive definite matrix of the size of u, or u is 0.
    """
    if not mean.shape[-1] or second.shape != (*mean.shape, mean.shape[-1]):
        raise ValueError(f"u and S must be of d and d x d numbers with d > 0 (got {mean.shape} and {second.shape})")
    if not np.allclose(second, np.swapaxes(second, -1, -2), rtol=1e-12, atol=0):
        raise ValueError("S must be symmetric")
    eigenvalues = np.linalg.eigvalsh(second).astype(np.float64)
    smallest, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    if (smallest <= np.finfo(float).eps * mean.shape[-1] * largest).any():
        raise ValueError("the covariance of the inputs is singular to rounding: some direction has no variance")
    if not mean.any(-1).all():
        raise ValueError("the mean u is 0: no direction is better than another")
    return Moments(mean, second, smallest, largest)


@cache
def normal_nodes(count: int = 80, end: float = 9.0) -> tuple[Floats, Floats]:
    """Nodes and weights of the trapezoidal rule for expectations over N(0, 1), from -end to end.

    Its error falls geometrically in ``count`` for analytic functions; with the poles of tanh and of the logistic
    function near the real axis faster than that of Gauss-Hermite quadrature.
    """
    nodes = np.linspace(-end, end, count)
    weights = np.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Halfspace:
    """The loss ``f(w) = E phi(z'w) + ridge/2 |w|_S^2`` of Gaussian z.

    The ridge gives the sigmoid loss a minimum: without one it falls for ever along every ray. The length of the best
    weights, in the norm of S, is taken to be at most ``reach``.
    """

    moments: Moments
    loss: Loss
    ridge: float = 0.0
    reach: float = 30.0

    @property
    def smoothness(self) -> float:
        """zeta: no second derivative of f along a unit vector is larger than zeta L in absolute value."""
        return self.loss.steepest + self.ridge

    def value(self, w: Floats) -> Floats:
        """f(w)."""
        [expected] = self._expected(w, self.loss.value)
        return expected + self.ridge / 2 * self.moments.length(w) ** 2

    def slopes(self, w: Floats) -> tuple[Floats, Floats]:
        """``E phi'(z'w)`` and ``E phi''(z'w)``."""
        first, second = self._expected(w, self.loss.first, self.loss.second)
        return first, second

    def pull(self, w: Floats) -> Floats:
        """What of the gradient is not along Sw: ``c1 u`` with ``c1 = E phi' - E phi'' u'w``."""
        return self._pull(w, *self.slopes(w))

    def gradient(self, w: Floats) -> Floats:
        """``c1 u + c2 S w`` with ``c2 = E phi'' + ridge``, by Stein's lemma."""
        first, second = self.slopes(w)
        return self._pull(w, first, second) + (second + self.ridge)[..., None] * times(self.moments.second, w)

    def _pull(self, w: Floats, first: Floats, second: Floats) -> Floats:
        return (first - second * dot(self.moments.mean, w))[..., None] * self.moments.mean

    def along(self, direction: Floats) -> Callable[[Floats], Floats]:
        """df/dg at g times a direction, as a function of g (...,): ``E phi'(g t) t + ridge g |direction|_S^2``."""
        t, weights, square = *self._projected(direction), self.moments.length(direction) ** 2
        return lambda g: (self.loss.first(g[..., None] * t) * t) @ weights + self.ridge * g * square

    def _projected(self, w: Floats) -> tuple[Floats, Floats]:
        """Nodes (..., count) of ``z'w``, which is ``N(u'w, w'Sw - (u'w)^2)``, and their weights."""
        nodes, weights = normal_nodes()
        mean = dot(self.moments.mean, w)
        variance = np.maximum(self.moments.length(w) ** 2 - mean**2, 0)
        return mean[..., None] + np.sqrt(variance)[..., None] * nodes, weights

    def _expected(self, w: Floats, *functions: Callable[[Floats], Floats]) -> list[Floats]:
        t, weights = self._projected(w)
        return [function(t) @ weights for function in functions]
