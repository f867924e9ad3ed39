"""Random networks whose signals are followed through the layers, and the gradients of their first layer.

A layer maps the signals Q of a batch, one sample a row, to ``norm(phi(Q) W')``, and a skip layer to
``norm(Q + gamma Q W')``. Nothing that is measured depends on the scale of Q, which without a norm is set after each
layer.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from icsbench import random_networks as rn
from icsbench.errors import IcsbenchError

F64 = torch.float64


class System(NamedTuple):
    """What the layers of a random network are.

    ``layers``: ``plain`` or ``skip``. ``norm``: ``none``; ``rescale``, BN without centring, as in the theory; ``bn``.
    ``weights``: ``gaussian``, N(0, 1/d); ``orthogonal``; ``positive``, uniform on (0, 2 / sqrt(d)), the "broken" start
    of Daneshmand et al. (2020), under which BN does not keep the rank. ``start``: the batch before the first layer,
    see :func:`start`.
    """

    layers: str = "plain"
    activation: str = "linear"
    norm: str = "rescale"
    weights: str = "gaussian"
    start: str = "gaussian"


def weights(kind: str, generator: torch.Generator, networks: int, width: int) -> Tensor:
    """Weights ``(networks, width, width)`` of one layer, see :class:`System`."""
    if kind == "positive":
        return torch.rand(networks, width, width, generator=generator, dtype=F64) * (2 / math.sqrt(width))
    return rn.square_weights(kind, generator, networks, width, dtype=F64)


def start(kind: str, generator: torch.Generator, networks: int, batch: int, width: int) -> Tensor:
    """The batch ``(networks, batch, width)`` before the first layer.

    ``gaussian``: independent normal numbers; ``aligned``: samples that are one normal vector but for a tenth of their
    own; ``identity``: the identity matrix but for 0.0022 times normal numbers (Meterez et al. 2024 start near it).
    """
    noise = rn.gaussian(generator, networks, batch, width, dtype=F64)
    if kind == "aligned":
        return rn.gaussian(generator, networks, 1, width, dtype=F64) + 0.1 * noise
    return torch.eye(batch, width, dtype=F64) + 0.0022 * noise if kind == "identity" else noise


def signals(
    systems: Sequence[System], seed: int, networks: int, batch: int, width: int, depth: int, gamma: float
) -> Iterator[list[Tensor]]:
    """The batch of each system before the first layer, then after each: ``(networks, batch, width)``.

    :param systems: of one kind of weights, which they share.
    :raises IcsbenchError: a feature is constant over a batch, and cannot be normalized.
    """
    (kind,) = {system.weights for system in systems}
    draw = rn.stream(seed, "rank", "weights", kind, batch, width)
    every = [
        start(system.start, rn.stream(seed, "rank", "start", batch, width), networks, batch, width)
        for system in systems
    ]
    yield every
    for _ in range(depth):
        w = weights(kind, draw, networks, width).mT
        every = [_layer(system, x, w, gamma) for system, x in zip(systems, every, strict=True)]
        yield every


def _layer(system: System, x: Tensor, w: Tensor, gamma: float) -> Tensor:
    if system.layers == "skip":
        return normalized(x + gamma * x @ w, system.norm)
    return normalized(rn.ACTIVATIONS[system.activation](x) @ w, system.norm)


def normalized(x: Tensor, norm: str) -> Tensor:
    """The batch with a norm; without one, divided by its root mean square, unless all is 0.

    :raises IcsbenchError: a feature is constant over a batch.
    """
    if norm == "none":
        size = x.square().mean((1, 2), keepdim=True).sqrt()
        return x / torch.where(size > 0, size, 1)
    x = rn.batch_norm(x, centre=norm == "bn")
    if not x.isfinite().all():
        raise IcsbenchError(
            "a feature is constant over a batch, and cannot be normalized with eps 0: take a larger one"
        )
    return x


def log_gradients(system: System, seed: int, networks: int, width: int, depth: int, classes: int = 10) -> Tensor:
    """``ln ||dL / dW_1||_F`` of each network, ``(networks,)``: L the mean cross-entropy over a batch of ``width``.

    ``depth`` linear layers of a norm, and a last one, N(0, 1 / width), to the classes; inputs are normal numbers,
    classes are drawn (Meterez et al. 2024, Fig. 1 and 2; W_1 is that of the first layer).
    """
    draw = rn.stream(seed, "rank", "gradient", system.weights, width, depth)
    x = rn.gaussian(draw, networks, width, width, dtype=F64)
    targets = torch.randint(classes, (networks, width), generator=draw)
    head = rn.gaussian(draw, networks, classes, width, std=1 / math.sqrt(width), dtype=F64)
    first = weights(system.weights, draw, networks, width).requires_grad_()
    for layer in range(depth):
        w = weights(system.weights, draw, networks, width) if layer else first
        x = x @ w.mT if system.norm == "none" else normalized(x @ w.mT, system.norm)
    losses = torch.nn.functional.cross_entropy((x @ head.mT).flatten(0, 1), targets.flatten(), reduction="sum") / width
    (gradient,) = torch.autograd.grad(losses, first)
    return gradient.square().sum((1, 2)).log() / 2
