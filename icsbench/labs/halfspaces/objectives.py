"""What the methods minimise beside halfspaces of Gaussian data: a unit of a small network, and samples of real data."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from icsbench.theory.activations import Floats
from icsbench.theory.largest_margin import largest_margin
from icsbench.theory.length_direction import LOSSES, Loss, Moments, dot, moments, normal_nodes, times

_SOFTPLUS = LOSSES["softplus"]
_END = 6.5
"""Standard deviations that the quadrature of a unit covers on either side."""
_SPACING = 0.3
"""Of its nodes, in ``z'w``: as softplus of tanh has poles about 1.2 off the axis, the error is exp(-2 pi 1.2 / 0.3)."""


def gaussian_problems(random: np.random.Generator, count: int, inputs: int, condition: float) -> Moments:
    """Random halfspaces: ``z ~ N(u, C)``, ``S = C + uu'``, C with geometric eigenvalues from 1/condition to 1.

    u is Gaussian, scaled to ``u' C^-1 u = 1/4``. C is diagonal, as no method depends on the axes.

    :raises ValueError: C is singular to rounding.
    """
    eigenvalues = np.geomspace(1 / condition, 1, inputs)
    mean = random.standard_normal((count, inputs))
    mean /= 2 * np.sqrt(dot(mean, mean / eigenvalues))[:, None]
    return moments(np.diag(eigenvalues) + mean[:, :, None] * mean[:, None, :], mean)


@dataclass(frozen=True, eq=False)
class Unit:
    """One of two tanh units of a network on Gaussian data, the other of which has the weights ``other``.

    ``f(w) = E softplus(tanh(z'w) + tanh(z'other))``: as tanh is odd, minus the margin of the network
    ``F(x) = tanh(x'w) + tanh(x'other)`` is the same function of z.
    """

    moments: Moments
    other: Floats
    reach: float = 8.0

    @property
    def smoothness(self) -> float:
        """zeta: 1/4 from the loss, and the largest second derivative of tanh, ``4 / 3^(3/2)``, times its slope 1."""
        return _SOFTPLUS.steepest + 4 / 3**1.5

    def pull(self, w: Floats) -> Floats:
        """What of the gradient is not along Sw, a sum of multiples of u and of S times the other weights."""
        return self._pull(w, *self._expected(w))

    def gradient(self, w: Floats) -> Floats:
        """By Stein's lemma, as for a halfspace."""
        slope, own, cross = self._expected(w)
        return self._pull(w, slope, own, cross) + own[..., None] * times(self.moments.second, w)

    def _pull(self, w: Floats, slope: Floats, own: Floats, cross: Floats) -> Floats:
        u, other = self.moments.mean, self.other
        along_u = slope - own * dot(u, w) - cross * dot(u, other)
        return along_u[..., None] * u + cross[..., None] * times(self.moments.second, other)

    def slopes(self, w: Floats) -> tuple[Floats, Floats]:
        """Of the loss as a function of ``z'w``: the means of its first and second derivatives."""
        slope, own, _ = self._expected(w)
        return slope, own

    def along(self, direction: Floats) -> Callable[[Floats], Floats]:
        """df/dg along a direction."""

        def slope(g: Floats) -> Floats:
            t, other, weights = self._projected(direction, float(np.abs(g).max()))
            bent = np.tanh(g[..., None, None] * t)
            return (expit(bent + other) * (1 - bent**2) * t * weights).sum((-1, -2))

        return slope

    def _expected(self, w: Floats) -> tuple[Floats, Floats, Floats]:
        """Means of ``G = df/dp`` and of its derivatives for p and r, where ``p = z'w`` and ``r = z'other``."""
        p, other, weights = self._projected(w)
        bent = np.tanh(p)
        steep, loss, curved = 1 - bent**2, expit(bent + other), expit(bent + other) * expit(-bent - other)
        own = curved * steep**2 - 2 * loss * bent * steep
        cross = curved * steep * (1 - other**2)
        return tuple((values * weights).sum((-1, -2)) for values in (loss * steep, own, cross))

    def _projected(self, w: Floats, length: float = 1.0) -> tuple[Floats, Floats, Floats]:
        """Nodes of ``z'w`` (..., n, 1) and of ``tanh(z'other)`` (..., n, m), and their weights (n, m).

        They are for functions of ``length z'w``: the longer the weights, the steeper tanh, and the closer the nodes.
        Beyond ``reach``, where no best weights are looked for, they do not come closer.
        """
        u, second, other = self.moments.mean, self.moments.second, self.other
        steepness = float(self.moments.length(other).max())
        steepest = max(steepness, min(self.reach, length * float(self.moments.length(w).max())))
        (nodes, weights), (nodes_of_other, weights_of_other) = _nodes(steepest), _nodes(steepness)
        means = dot(u, w), dot(u, other)
        variance = np.maximum(dot(w, times(second, w)) - means[0] ** 2, np.finfo(float).tiny)
        covariance = dot(w, times(second, other)) - means[0] * means[1]
        rest = np.maximum(dot(other, times(second, other)) - means[1] ** 2 - covariance**2 / variance, 0)
        first, cross, left = (
            part[..., None, None] for part in (np.sqrt(variance), covariance / np.sqrt(variance), np.sqrt(rest))
        )
        p = means[0][..., None, None] + first * nodes[:, None]
        r = means[1][..., None, None] + cross * nodes[:, None] + left * nodes_of_other
        return p, np.tanh(r), weights[:, None] * weights_of_other


def _nodes(steepness: float) -> tuple[Floats, Floats]:
    """Nodes and weights for N(0, 1), close enough for tanh of so many times the variable."""
    return normal_nodes(math.ceil(2 * _END * max(1.0, steepness) / _SPACING) + 1, _END)


@dataclass(frozen=True, eq=False)
class Samples:
    """The mean loss over samples ``z = -y x``, (n, m, d), without an assumption on their distribution."""

    z: Floats
    moments: Moments
    loss: Loss = _SOFTPLUS
    reach: float = 50.0

    @property
    def smoothness(self) -> float:
        """As of a halfspace."""
        return self.loss.steepest

    def slopes(self, w: Floats) -> tuple[Floats, Floats]:
        """Means of ``phi'(z'w)`` and ``phi''(z'w)``."""
        t = times(self.z, w)
        return self.loss.first(t).mean(-1), self.loss.second(t).mean(-1)

    def pull(self, w: Floats) -> Floats:
        """``c1 u``, as if z were Gaussian."""
        first, second = self.slopes(w)
        return (first - second * dot(self.moments.mean, w))[..., None] * self.moments.mean

    def gradient(self, w: Floats) -> Floats:
        """The mean of ``phi'(z'w) z``."""
        slope = self.loss.first(times(self.z, w))
        return np.einsum("...m,...md->...d", slope, self.z) / slope.shape[-1]

    def along(self, direction: Floats) -> Callable[[Floats], Floats]:
        """df/dg along a direction."""
        t = times(self.z, direction)
        return lambda g: (self.loss.first(g[..., None] * t) * t).mean(-1)


def samples(x: Floats, y: Floats) -> Samples:
    """The softplus loss on samples x, (n, m, d), of the classes y, -1 or 1, (n, m).

    :raises ValueError: the classes can be separated, so that there is no best length; or a moment is singular.
    """
    for inputs, classes in zip(x, y, strict=True):
        if _separable(inputs, classes):
            raise ValueError(
                f"{len(inputs)} samples of {inputs.shape[1]} inputs can be separated without an error, so that the "
                "loss has no minimum: take fewer inputs or more samples"
            )
    z = -y[..., None] * x
    return Samples(z, moments(np.matmul(np.swapaxes(z, -1, -2), z) / z.shape[-2], z.mean(-2)))


def _separable(x: Floats, y: Floats) -> bool:
    try:
        largest_margin(x, y)
    except ValueError:
        return False
    return True


def breast_cancer(random: np.random.Generator, count: int, components: int, share: float) -> tuple[Floats, Floats]:
    """Random shares of the 569 samples of Wisconsin breast cancer in scikit-learn: inputs and classes of ``count``.

    The 30 features are standardised, and replaced by their first principal components, both over all samples.
    """
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    chosen = [random.permutation(len(x))[: round(share * len(x))] for _ in range(count)]
    return np.stack([(x @ axes[:components].T)[of] for of in chosen]), np.stack([2.0 * y[of] - 1 for of in chosen])
