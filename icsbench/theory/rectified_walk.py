"""A unit along residual blocks that end with a ReLU: a random walk that cannot fall below 0.

A block of infinite width maps the value x of a unit to  ``max(x + s z, 0)``  with z ~ N(0, 1) independent of x, where s
is the standard deviation of what the branch adds (Lindley's recursion, of the theory of queues). So mean and variance
of a channel after each block follow from the distribution of x, which is normal nowhere.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import ndtr

from icsbench.theory.activations import Floats

_POINTS = 8192
_REACH = 10
"""How many standard deviations of all that is added up the grid goes."""


def channel_moments(start: float, blocks: int, size: Callable[[int, float], float]) -> Floats:
    """The squared mean and the variance of a unit ahead of the first block and behind each: shape (blocks + 1, 2).

    The first block gets ``start max(z, 0)``, z ~ N(0, 1). By convolution on a grid, to three digits or better.

    :param size: ``size(block, std)``: s of a block, counted from 0, where its input has the standard deviation ``std``.
    :raises ValueError: more than a thousandth of the probability has left the grid, which is laid out for branches of
        the sizes ``size(block, start)``.
    """
    width = _REACH * math.hypot(start, *(size(block, start) for block in range(blocks))) / _POINTS
    index = np.arange(_POINTS)
    probability = _cells(index, start, width)
    probability[0] = 1 - probability[1:].sum()  # what ReLU has set to 0
    found = [_moments(index * width, probability)]
    for block in range(blocks):
        s = size(block, math.sqrt(found[-1][1]))
        moved = fftconvolve(probability, _cells(np.arange(1 - _POINTS, _POINTS), s, width))
        probability = moved[_POINTS - 1 : 2 * _POINTS - 1].copy()
        probability[0] += moved[: _POINTS - 1].sum()
        if probability.sum() < 1 - 1e-3:
            raise ValueError(f"the walk has left its grid in block {block}")
        found.append(_moments(index * width, probability))
    return np.array(found)


def _cells(index: Floats, std: float, width: float) -> Floats:
    """The probability that ``N(0, std^2)`` gives each cell, ``width`` wide and ``index width`` in the middle."""
    if std == 0:
        return (index == 0).astype(float)
    return ndtr((index + 0.5) * width / std) - ndtr((index - 0.5) * width / std)


def _moments(x: Floats, probability: Floats) -> tuple[float, float]:
    mean = float(probability @ x)
    return mean**2, float(probability @ (x - mean) ** 2)
