"""How far a matrix is from an isometry, and what random layers and normalization do to it: closed forms.

The isometry gap of a matrix with n singular values s_i is ``log(mean s_i^2) - mean(log s_i^2)``, at least 0, and 0 only
where all s_i are equal (Meterez et al. 2024; Joudaki et al. 2023 speak of the isometry, ``exp(-gap)``).
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from icsbench.theory.activations import Floats

_RATE = 0.015


def mean_log_gap(values: ArrayLike) -> float:
    """``log(mean v_i) - mean(log v_i)`` of positive numbers v_i: at least 0, and 0 only where all are equal.

    Dividing each row of a square matrix by its length lowers the isometry gap by exactly that of the squared lengths.

    :raises ValueError: a value is not positive.
    """
    numbers = np.asarray(values, np.float64)
    if not numbers.size or (numbers <= 0).any():
        raise ValueError("the gap between mean and geometric mean is of positive numbers")
    return float(np.log(numbers.mean()) - np.log(numbers).mean())


def gaussian_isometry_gap(width: int) -> float:
    """What a square Gaussian W, entries N(0, 1 / d), adds to the isometry gap: ``-E log det(W W') / d``, in nats.

    ``log det(W W')`` is the sum of the logarithms of d independent chi-square numbers with 1 to d degrees of freedom,
    over d each: ``log(d / 2) - mean over k = 1..d of digamma(k / 2)``. It tends to 1 as the width d grows.

    :raises ValueError: the width is below 1.
    """
    if width < 1:
        raise ValueError(f"a width is at least 1 (got {width})")
    return float(math.log(width / 2) - digamma(np.arange(1, width + 1) / 2).mean())


def isometry_gap_with_depth(start: float, depth: ArrayLike, width: int) -> Floats:
    """``start exp(-l / (C d^2 (1 + d start)))``: the gap after l layers of BN with orthogonal weights.

    Linear layers of width d, batch of d, BN without centring. The form is that of Theorem 1 of Meterez et al. (2024);
    its constant C, 0.015, is the one that they fitted (in their code).
    """
    return start * np.exp(-np.asarray(depth, np.float64) / (_RATE * width**2 * (1 + width * start)))


def orthogonality_gap_bound(alpha: float, depth: ArrayLike, batch: int, width: int) -> Floats:
    """``2 (1 - 2/3 alpha)^l + 3 n / (alpha sqrt(d))``, which bounds ``E V(H_{l+1})``.

    Theorem 1 of Daneshmand et al. (2021): linear layers with Gaussian weights and BN without centring; ``alpha`` bounds
    the smallest singular value of H_1 to H_l, each of Frobenius norm 1, from below. No V is above sqrt(1 - 1/n).

    :raises ValueError: alpha is not in (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be greater than 0 and at most 1 (got {alpha})")
    layers = np.asarray(depth, np.float64)
    return 2 * (1 - 2 / 3 * alpha) ** layers + 3 * batch / (alpha * math.sqrt(width))
