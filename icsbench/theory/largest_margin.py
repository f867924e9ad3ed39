"""The linear classifier with the largest margin, to whose direction gradient descent on the logistic loss tends."""

import numpy as np
from scipy.optimize import nnls

from icsbench.theory.activations import Floats


def largest_margin(x: Floats, y: Floats) -> Floats:
    """The shortest w with ``y_i <x_i, w> >= 1`` for all samples: the hard-margin support vector machine without offset.

    Gradient descent on the logistic loss of separable data goes in its direction (Soudry et al. 2018, Theorem 3).
    Solved as least-distance programming, by non-negative least squares (Lawson & Hanson 1974, chapter 23, section 4).

    :param x: samples, (n, d); ``y``: their classes, -1 or 1, (n,).
    :raises ValueError: no hyperplane through 0 separates the classes.
    """
    signed = x * y[:, None]
    system = np.vstack([signed.T, np.ones(len(signed))])
    target = np.append(np.zeros(x.shape[1]), 1.0)
    factors, distance = nnls(system, target)
    if distance < 1e-10:
        raise ValueError("the classes cannot be separated by a hyperplane through 0")
    residual = system @ factors - target
    return -residual[:-1] / residual[-1]
