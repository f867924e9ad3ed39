"""Many random networks at once: tensors with the networks in front, so that one call serves all of them.

Signals are ``(networks, batch, width)``, weights ``(networks, rows, columns)``; a layer maps ``x`` to ``x W'``.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench.streams import stream_seed

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "leaky": F.leaky_relu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "gelu": F.gelu,
    "silu": F.silu,
}
"""By name, as in :data:`icsbench.theory.activations.ACTIVATIONS`."""


def stream(seed: int, *name: str | int) -> torch.Generator:
    """The random stream ``name`` of a run."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))


def parts(networks: int, numbers: int, at_once: int) -> Iterator[range]:
    """The networks in ranges, each of as many as hold ``at_once`` numbers, of ``numbers`` each, and at least of one."""
    most = max(1, at_once // numbers)
    return (range(first, min(first + most, networks)) for first in range(0, networks, most))


def gaussian(generator: torch.Generator, *shape: int, std: float = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent normal numbers with mean 0 and standard deviation ``std``."""
    return torch.randn(*shape, generator=generator, dtype=dtype).mul_(std)


def orthogonal(
    generator: torch.Generator, networks: int, width: int, *, gain: float = 1, dtype: torch.dtype = torch.float32
) -> Tensor:
    """``gain`` times matrices of the Haar measure on the orthogonal group, ``(networks, width, width)``.

    Q of the QR decomposition of Gaussian matrices, with the signs of R's diagonal (Mezzadri 2007).
    """
    q, r = torch.linalg.qr(gaussian(generator, networks, width, width, dtype=dtype))
    return gain * q * r.diagonal(dim1=-2, dim2=-1).sgn()[:, None, :]


def square_weights(
    kind: str,
    generator: torch.Generator,
    networks: int,
    width: int,
    *,
    gain: float = 1,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Weights ``(networks, width, width)`` that keep, times ``gain``, the length of a vector (on average).

    ``kind``: ``gaussian``, N(0, gain^2 / width), or ``orthogonal``.

    :raises ValueError: another kind.
    """
    if kind == "orthogonal":
        return orthogonal(generator, networks, width, gain=gain, dtype=dtype)
    if kind != "gaussian":
        raise ValueError(f"weights are gaussian or orthogonal (got {kind!r})")
    return gaussian(generator, networks, width, width, std=gain / math.sqrt(width), dtype=dtype)


def batch_norm(
    x: Tensor, *, gamma: float = 1, beta: float = 0, eps: float = 0, centre: bool = True, rescale: bool = True
) -> Tensor:
    """Batch normalization over the batch of each network, ``gamma (x - mu) / sqrt(var + eps) + beta``.

    :param x: ``(networks, batch, width)``; mean and biased variance are per network and feature.
    :param centre: whether mu is subtracted; without it, var is the mean square.
    :param rescale: whether it is divided.
    """
    if centre:
        x = x - x.mean(1, keepdim=True)
    if rescale:
        x = x / (x.square().mean(1, keepdim=True) + eps).sqrt()
    return gamma * x + beta
