"""Singular values of the Jacobian of batch normalization, and of a whole layer of a random network over a batch.

The Jacobian is that of a training pass: the statistics depend on the batch, so it maps all B samples of a batch of N
features to all of them, ``(B N, B N)``.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.stats import chi2

from icsbench.theory.activations import Floats
from icsbench.theory.arc_cosine import relu_cosine

Distribution = Callable[[Floats], Floats]
"""The share of singular values at or below s."""
ACTIVE = {"linear": 1.0, "relu": 0.5}
"""The share of derivatives that are 1, and not 0, at signals that are as often negative as positive."""
_GRID = 20_001


def batch_norm_singular_values(x: Floats, gamma: float = 1, eps: float = 0) -> Floats:
    """Singular values of ``x -> gamma (x - mean) / sqrt(v + eps) + beta`` of one feature, descending: (m,).

    The Jacobian is ``gamma / sigma (I - 11'/m - (v / (v + eps)) uu')`` with ``sigma = sqrt(v + eps)``, v the biased
    variance and u the unit vector along ``x - mean``: gamma / sigma, m - 2 times, ``gamma / sigma eps / (v + eps)``
    along u, and 0 along the constant vector. With eps = 0 two directions are dead.

    :raises ValueError: there are fewer than two values, or they are equal while eps is 0.
    """
    if len(x) < 2:
        raise ValueError(f"batch normalization needs 2 values or more (got {len(x)})")
    variance = x.var() + eps
    if variance == 0:
        raise ValueError("a feature is the same in all samples, and eps is 0: its Jacobian would divide by zero")
    scale = abs(gamma) / np.sqrt(variance)
    return np.sort(np.r_[np.full(len(x) - 2, scale), scale * eps / variance, 0.0])[::-1]


def fixed_point_cosine(activation: str, batch: int) -> float:
    """Cosine c* between two samples behind BN and ``activation`` in a wide random network (Yang et al. 2019, Thm 5).

    Behind BN two samples of B have the cosine c = -1 / (B - 1), and ReLU makes of it ``J(c)``
    (:func:`icsbench.theory.arc_cosine.relu_cosine`).
    """
    c = -1 / (batch - 1)
    return c if activation == "linear" else float(relu_cosine(c))


def signal_variance(activation: str, batch: int, normalized: bool) -> float:
    """Variance over samples (the unbiased one) of the features that BN normalizes, in expectation.

    Of Gaussian inputs it is 1. ``normalized``: of ``W phi(BN(h))`` in a wide network, whose weights keep the length of
    a signal, it is ``1 - c*``.
    """
    return 1 - fixed_point_cosine(activation, batch) if normalized else 1.0


def mean_square(norm: str, activation: str, batch: int, variance: float) -> float:
    """Mean squared singular value of a wide layer whose weights keep the length of a signal.

    Without BN 1. With BN ``(B - 2) / ((B - 3) variance)`` with the :func:`signal_variance`: the mean of ``1 / sigma^2``
    is ``B / ((B - 3) variance)``, and BN keeps B - 2 of B directions. With the two parts of the gradient's rate by Yang
    et al. 2019, Thm 7, it is the first: that of gradients which are independent from sample to sample.
    """
    return (batch - 2) / ((batch - 3) * variance) if norm == "bn" else 1.0


def dead_share(norm: str, active: NDArray[np.bool_], eps: float, place: Literal["signals", "normalized"]) -> float:
    """The share of exactly dead directions of a layer with a generic square W.

    :param active: ``(B, N)``, where the derivative of the activation is not zero.
    :param place: ``signals``, of ``h -> W phi(BN(h))``: of B samples of a feature, k active ones keep
        ``min(k, B - d)`` directions, with d = 2 directions that BN kills (1 where eps > 0). ``normalized``, of
        ``x -> BN(W phi(x))``: beside the inactive ones BN kills d directions of each of N features, as far as they can
        be reached; the scale of all of x can always be, so one is dead at least where eps = 0.
    """
    batch, width = active.shape
    killed = 2 if eps == 0 else 1
    if norm != "bn":
        return float(1 - active.mean())
    if place == "signals":
        return float(1 - np.minimum(active.sum(0), batch - killed).sum() / active.size)
    inactive = active.size - active.sum()
    return float((inactive + max(killed - 1, killed * width - inactive)) / active.size)


def distribution(norm: str, activation: str, weights: str, batch: int, variance: float) -> Distribution | None:
    """The distribution of singular values of a wide layer with eps = 0, where it has a closed form; else None.

    - BN, linear, orthogonal weights: 2 of B are 0, all others ``1 / sigma`` of a feature, with ``B sigma^2 / variance``
      chi-squared with B - 1 degrees of freedom.
    - No BN, orthogonal weights: 0 where the activation is flat, and the gain ``1 / sqrt(active)`` elsewhere.
    - No BN, Gaussian weights: 0 where it is flat, and elsewhere square roots of the law of Marchenko & Pastur (1967)
      between ``(1 / sqrt(active) - 1)^2`` and ``(1 / sqrt(active) + 1)^2``.
    """
    active = ACTIVE[activation]
    if norm == "bn" and (activation, weights) == ("linear", "orthogonal"):
        return lambda s: np.where(
            s < 0, 0, 2 / batch + (1 - 2 / batch) * chi2.sf(batch / (variance * np.maximum(s, 1e-100) ** 2), batch - 1)
        )
    if norm == "bn":
        return None
    if weights == "orthogonal":
        return lambda s: np.where(s < 0, 0, np.where(s < 1 / np.sqrt(active), 1 - active, 1))
    return _marchenko_pastur(active)


def _marchenko_pastur(active: float) -> Distribution:
    """Of ``W D``, where W has entries of variance ``1 / (active N)`` and D keeps a share ``active`` of N columns."""
    low, high = 1 / np.sqrt(active) - 1, 1 / np.sqrt(active) + 1
    s = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, _GRID))) / 2
    with np.errstate(invalid="ignore"):
        density = np.sqrt(np.maximum((high**2 - s**2) * (s**2 - low**2), 0)) / (np.pi * np.maximum(s, 1e-300))
    if low == 0:
        density[0] = high / np.pi
    below = cumulative_trapezoid(density, s, initial=0)
    return lambda at: np.where(at < 0, 0, 1 - active + active * np.interp(at, s, below / below[-1]))


def quantiles(below: Distribution, shares: Floats) -> Floats:
    """The quantiles at ``shares``, between 0 and 1, of a distribution of singular values, to about 1e-4."""
    s = np.linspace(0, 10, 200_001)
    return s[np.minimum(np.searchsorted(below(s), shares - 1e-12), len(s) - 1)]
