"""The nonlinearities of random networks, each with its derivative: numpy arrays in float64."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, ndtr

Floats = NDArray[np.float64]


class Activation(NamedTuple):
    """A nonlinearity phi and its derivative, elementwise."""

    value: Callable[[Floats], Floats]
    derivative: Callable[[Floats], Floats]


def _density(x: Floats) -> Floats:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x: x, np.ones_like),
    "relu": Activation(lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(float)),
    "leaky": Activation(lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01)),
    "tanh": Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "erf": Activation(erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
    "gelu": Activation(lambda x: x * ndtr(x), lambda x: ndtr(x) + x * _density(x)),
    "silu": Activation(lambda x: x * expit(x), lambda x: expit(x) * (1 + x * (1 - expit(x)))),
}
"""By name. ``leaky`` has slope 0.01 below 0; ``gelu`` is the exact one, with the normal distribution function."""
