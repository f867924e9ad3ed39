"""Wide random ReLU networks with He weights: what a layer makes of the cosine of two samples, and their tangent kernel.

Two pre-activations with a normal distribution of unit variance and correlation c (Cho & Saul 2009, sections 2.1, 2.3):

- their ReLUs have the cosine ``J(c) = (sqrt(1 - c^2) + (pi - arccos c) c) / pi``, twice the mean of their product;
- both are positive with the probability ``kappa(c) / 2``, ``kappa(c) = (pi - arccos c) / pi``, the derivative of J.

With BN see :mod:`icsbench.theory.mean_field`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad

from icsbench.theory.activations import Floats


def relu_cosine(correlation: ArrayLike) -> Floats:
    """J(c), elementwise: the cosine after the ReLU. J(0) = 1 / pi, J(1) = 1, J(-1) = 0."""
    c = np.clip(correlation, -1, 1)
    return (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi


def gate_overlap(correlation: ArrayLike) -> Floats:
    """kappa(c), elementwise: the cosine of the two gates of a unit. kappa(0) = 1/2, kappa(1) = 1."""
    return (np.pi - np.arccos(np.clip(correlation, -1, 1))) / np.pi


def cosines_by_layer(layers: int, cosine: float = 0) -> Floats:
    """The cosines of two samples at the input and after each of so many layers without normalization.

    ``c_l = J(c_{l-1})``, from ``c_0 = cosine``; shape (layers + 1,). 1 - c_l falls as (9 pi^2 / 2) / l^2.
    """
    found = [float(cosine)]
    for _ in range(layers):
        found.append(float(relu_cosine(found[-1])))
    return np.array(found)


def cosine_rescaled(batch: int, cosine: float) -> float:
    """The cosine of two samples after each feature is divided by its root mean square over the batch, and ReLU.

    The B pre-activations u of a feature are normal with unit variances and the correlation c = ``cosine``. The mean
    ``2 E[relu(u_1) relu(u_2) / S]``, ``S = |u|^2 / B``, is with ``1 / S = integral of exp(-s S) ds`` over s > 0

    ``integral of det(s) q(s) J(r(s)) ds``, ``det = (1 + 2 s a / B)^(-(B - 1) / 2) (1 + 2 s b / B)^(-1/2)``,

    where a = 1 - c (B - 1 times) and b = 1 - c + B c are the eigenvalues of the covariance of u, and q and r are the
    variance and the correlation that belong to the eigenvalues a / (1 + 2 s a / B) and b / (1 + 2 s b / B).
    """
    values = np.array([1 - cosine, 1 - cosine + batch * cosine])
    times = np.array([batch - 1, 1])

    def at(s: float) -> float:
        shrunk = 1 + 2 * s * values / batch
        a, b = values / shrunk
        variance = ((batch - 1) * a + b) / batch
        weight = math.exp(-(times @ np.log(shrunk)) / 2)
        return weight * variance * float(relu_cosine((b - a) / (batch * variance)))

    return quad(at, 0, math.inf, epsabs=1e-12, epsrel=1e-11)[0]


def rescaled_by_layer(layers: int, batch: int, cosine: float = 0) -> Floats:
    """As :func:`cosines_by_layer`, with :func:`cosine_rescaled` in every layer; for batch 32 it tends to 0.5137."""
    found = [float(cosine)]
    while len(found) <= layers and (len(found) < 3 or abs(found[-1] - found[-2]) > 1e-12):
        found.append(cosine_rescaled(batch, found[-1]))
    return np.array(found + found[-1:] * (layers + 1 - len(found)))


def outlier_share(hidden: int, samples: int, cosine: float = 0) -> float:
    """The largest eigenvalue over the trace of the tangent kernel of a ReLU network without normalization.

    With L = ``hidden`` + 1 matrices of weights, as many inputs as units, one output, and n samples of equal length with
    the cosine c_0 to each other, the kernel is constant off its diagonal, ``rho`` times the diagonal:

    ``rho = (1 / L) sum over l = 1..L of c_{l-1} prod over k = l..L-1 of kappa(c_{k-1})``

    (the matrix l gives the cosine of its inputs times that of the gradients at its outputs), and the share is
    ``(1 + (n - 1) rho) / n``. A recursion as in Jacot et al. 2018, Theorem 1; Karakida et al. 2019 have its sums.
    """
    cosines = cosines_by_layer(hidden, cosine)
    gates = gate_overlap(cosines)
    terms = [cosines[layer] * np.prod(gates[layer:hidden]) for layer in range(hidden + 1)]
    return float((1 + (samples - 1) * np.mean(terms)) / samples)
