"""Mean-field theory of random networks with batch normalization (Yang et al. 2019), in numbers.

The network is ``h_l = W_l phi(BN(h_(l-1)))`` with independent weights of variance 1 / N, in the limit of infinite
width N; batch normalization has eps = 0, gamma = 1 and beta = 0, and acts over a batch of B samples. At its fixed point
all samples play the same part, and the normalized values of one feature over the batch are a uniform point z on the
sphere of radius sqrt(B) in the hyperplane sum z = 0. Everything here is an expectation over two of its coordinates,
``(z1, z2) = r (cos t, c cos t + sqrt(1 - c^2) sin t)`` with c = -1 / (B - 1), where t is uniform on the circle and
``r = sqrt(B - 1) sin psi``, psi of the density proportional to ``sin psi cos^(B - 4) psi``. The limit of large B, two
independent normal numbers, is ``batch = inf``.

The quadrature is Gauss-Legendre in psi, and in t between the angles where z1 or z2 changes its sign, so that a kink at
0 costs nothing: the error is some 1e-12 for every function of :data:`icsbench.theory.activations.ACTIVATIONS`.

Every function takes the name of an activation or an :class:`~icsbench.theory.activations.Activation` (smooth but for a
kink at 0), and raises ValueError where the name is unknown or the batch is below 4, the smallest that theory allows.
"""

import math
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import roots_legendre

from icsbench.theory.activations import ACTIVATIONS, Activation, Floats

_RADII = 160
_ANGLES = 64
_FURTHEST = 9.5  # of r: beyond it are exp(-45) of the density


Kept = Literal["signals", "gradients"]


class ForwardEigenvalues(NamedTuple):
    """Factors per layer by which small deviations of the covariance from its fixed point shrink.

    ``correlations``: lambda_M, of deviations of the correlations between samples that leave the sum over every row of
    the covariance and its diagonal as they are. ``norms``: lambda_L, of differences between the samples' norms.
    """

    correlations: float
    norms: float


class PlainLayer(NamedTuple):
    """A layer ``h -> gain W phi(h)`` without batch normalization, W as above and h normal.

    ``rate``: the factor of the expected squared gradient; ``second_moment``: that of the layer's features.
    """

    gain: float
    rate: float
    second_moment: float


def rate(activation: str | Activation, batch: float) -> float:
    """The factor lambda by which the expected squared gradient ``||dL/dh_l||^2`` grows per layer, towards the input.

    ``{E phi'(z1)^2 (B - 1 - z1^2) + E phi'(z1) phi'(z2) (1 + z1 z2)} / {(B - 3) (E phi(z1)^2 - E phi(z1) phi(z2))}``
    (Yang et al. 2019, Theorem 7), and ``E phi'^2 / Var phi`` of a normal number for ``batch = inf``. It is never below
    ``(B - 2) / (B - 3)``, which is that of linear. For relu it is ``[(B - 1 + J'(c)) / (1 - J(c)) - 1] / (B - 3)``
    with c = -1 / (B - 1) and J of :func:`icsbench.theory.arc_cosine.relu_cosine`; it falls to pi / (pi - 1).
    """
    z1, z2, weights = _pairs(batch)
    phi = _activation(activation)
    slope1, slope2 = phi.derivative(z1), phi.derivative(z2)
    if math.isinf(batch):
        return float(weights @ slope1**2) / _centred_variance(phi, batch)
    forth = weights @ (slope1**2 * (batch - 1 - z1**2) + slope1 * slope2 * (1 + z1 * z2))
    return float(forth) / ((batch - 3) * _centred_variance(phi, batch))


def depth_scale(activation: str | Activation, batch: float) -> float:
    """The depth scale xi = 1 / ln lambda, the layers over which the squared gradient grows by e; inf without growth.

    Networks deeper than some 16 xi could not be trained (Yang et al. 2019, section 5).
    """
    growth = math.log(rate(activation, batch))
    return 1 / growth if growth > 1e-12 else math.inf


def forward_second_moment(activation: str | Activation, batch: float) -> float:
    """q* = E phi(z1)^2, the mean square of a feature of h at the fixed point: 1/2 for relu at every batch size."""
    z1, _, weights = _pairs(batch)
    return float(weights @ _activation(activation).value(z1) ** 2)


def forward_correlation(activation: str | Activation, batch: float) -> float:
    """c* = E phi(z1) phi(z2) / q*, the cosine between two samples of a batch at the fixed point.

    For relu it is J(-1 / (B - 1)), with the same J, and rises to 1 / pi.
    """
    phi = _activation(activation)
    return 1 - _centred_variance(phi, batch) / forward_second_moment(phi, batch)


def forward_eigenvalues(activation: str | Activation, batch: float) -> ForwardEigenvalues:
    """How fast a batch comes to the fixed point (Yang et al. 2019, Theorem 6, with u* = q* (1 - c*) for v*).

    The mean of a function of the direction of a normal vector with covariance ``u G + D`` (G the centring matrix, D
    small, of row sums 0) changes by ``E [(B - 1) / B z' D z - tr D] f(z) / (2 u)``. Of ``f = phi(z_i) phi(z_j)``, a D
    without diagonal is so multiplied by lambda_M, which is ``B J'(c) / (2 (B + 1) u*)`` for relu, and
    ``G diag(v) G``, v of sum 0, by lambda_L.
    """
    z1, z2, weights = _pairs(batch)
    phi = _activation(activation)
    value1, value2 = phi.value(z1), phi.value(z2)
    if math.isinf(batch):  # a third and a fourth coordinate, given z1 and z2
        square_given_one = square = np.ones_like(z1)
        with_third, third_fourth, share = np.zeros_like(z1), np.zeros_like(z1), 1.0
    else:
        square_given_one = (batch - z1**2) / (batch - 1)
        square = (batch - z1**2 - z2**2) / (batch - 2)
        with_third = -z1 * (z1 + z2) / (batch - 2)
        third_fourth = ((z1 + z2) ** 2 / (batch - 2) - square) / (batch - 3)
        share = (batch - 1) / batch
    half = share / (2 * _centred_variance(phi, batch))
    correlations = 2 * half * weights @ ((z1 * z2 - 2 * with_third + third_fourth) * value1 * value2)
    own = weights @ ((z1**2 - square_given_one) * value1**2)
    shared = weights @ ((z1**2 - square) * value1 * value2)
    return ForwardEigenvalues(float(correlations), float(half * (own - 2 * shared)))


def linear_share(activation: str | Activation) -> float:
    """beta_0 = c_1^2 / sum_(k >= 1) c_k^2 of the Hermite coefficients c_k = E phi(z) He_k(z) / sqrt(k!), z normal.

    The share of the variance of phi(z) that its best linear fit has (Joudaki et al. 2023): 1 for linear alone.
    """
    phi = _activation(activation)
    z1, _, weights = _pairs(math.inf)
    return float(weights @ (z1 * phi.value(z1))) ** 2 / _centred_variance(phi, math.inf)


def plain_layer(activation: str | Activation, keeps: Kept, second_moment: float = 1) -> PlainLayer:
    """The layer without batch normalization that keeps the size of one thing, for features of this mean square q.

    ``signals``: ``gain^2 = q / E phi(sqrt(q) z)^2``, and the squared gradient grows by ``q E phi'^2 / E phi^2``. Where
    phi has mean 0, that is what it does with batch normalization and a large batch. ``gradients``:
    ``gain^2 = 1 / E phi'(sqrt(q) z)^2``, which lets the signals shrink where phi saturates. For relu, leaky and linear
    both are He's: 2 for relu, and neither signals nor gradients grow. For gelu and silu, networks of finite width leave
    the q that is kept, as it is no stable one.
    """
    phi = _activation(activation)
    z, _, weights = _pairs(math.inf)
    at = math.sqrt(second_moment) * z
    value, slope = float(weights @ phi.value(at) ** 2), float(weights @ phi.derivative(at) ** 2)
    squared = second_moment / value if keeps == "signals" else 1 / slope
    return PlainLayer(math.sqrt(squared), squared * slope, squared * value)


def _activation(activation: str | Activation) -> Activation:
    if isinstance(activation, Activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]


def _centred_variance(phi: Activation, batch: float) -> float:
    """u* = q* (1 - c*) = E phi(z1)^2 - E phi(z1) phi(z2)."""
    z1, z2, weights = _pairs(batch)
    value1 = phi.value(z1)
    return float(weights @ (value1 * (value1 - phi.value(z2))))


@cache
def _pairs(batch: float) -> tuple[Floats, Floats, Floats]:
    """Nodes z1 and z2 and the weights of the quadrature, of sum 1."""
    if not batch >= 4:
        raise ValueError(f"mean-field theory of batch normalization needs a batch of at least 4 (got {batch})")
    cosine = 0.0 if math.isinf(batch) else -1 / (batch - 1)
    sine = math.sqrt(1 - cosine**2)
    radii, of_radius = _radii(batch)
    nodes, of_node = roots_legendre(_ANGLES)
    edge = -math.atan2(cosine, sine)  # where z2 changes its sign; z1 does at pi / 2
    ends = np.array([-math.pi / 2, edge, math.pi / 2, edge + math.pi, 1.5 * math.pi])
    halves = np.diff(ends)[:, None] / 2
    angles = (ends[:-1, None] + halves * (1 + nodes)).ravel()
    of_angle = (halves * of_node).ravel() / (2 * math.pi)
    z1 = np.outer(radii, np.cos(angles)).ravel()
    z2 = np.outer(radii, cosine * np.cos(angles) + sine * np.sin(angles)).ravel()
    return z1, z2, np.outer(of_radius, of_angle).ravel()


def _radii(batch: float) -> tuple[Floats, Floats]:
    """Nodes of r and their weights, of sum 1: of the density r exp(-r^2 / 2) for an infinite batch, else by psi."""
    nodes, weights = roots_legendre(_RADII)
    finite = math.isfinite(batch)
    furthest = math.asin(min(1.0, _FURTHEST / math.sqrt(batch - 1))) if finite else _FURTHEST
    at = furthest * (1 + nodes) / 2
    density = np.sin(at) * np.cos(at) ** (batch - 4) if finite else at * np.exp(-(at**2) / 2)
    weights = weights * density
    return math.sqrt(batch - 1) * np.sin(at) if finite else at, weights / weights.sum()
