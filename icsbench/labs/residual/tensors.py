"""The blocks of :mod:`icsbench.theory.residual` on tensors, many networks at once."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench.random_networks import batch_norm, gaussian, parts, stream
from icsbench.theory.residual import Block

_WEIGHTS_AT_ONCE = 2**25  # numbers: 128 MiB


def run_block(x: Tensor, weight: Tensor, block: Block, *, held: bool = False) -> tuple[Tensor, Tensor]:
    """The output of a block and its branch, ``gain W relu(norm(x))``.

    :param x: ``(networks, batch, width)``; ``weight``: ``(networks, width, width)``.
    :param held: whether the statistics of the norm are constants of the backward pass.
    """
    normalized = x
    if block.norm:
        normalized = _held_norm(x) if held else batch_norm(x)
    branch = block.gain * F.relu(normalized) @ weight.mT
    if block.fixup:
        branch = F.relu(block.fixup * F.relu(x) @ weight.mT) @ torch.zeros_like(weight)
    return block.scale * (block.skip * x + branch), branch


def _held_norm(x: Tensor) -> Tensor:
    with torch.no_grad():
        mean, deviation = x.mean(1, keepdim=True), x.std(1, unbiased=False, keepdim=True)
    return (x - mean) / deviation


def draw(
    seed: int, lab: str, networks: int, depth: int, width: int, batch: int
) -> Iterator[tuple[range, Tensor, Tensor, list[torch.Generator]]]:
    """Random networks, as many at once as fit: their numbers, inputs, weights, and the streams that drew them.

    Each network has a stream of its own, so that it is the same whatever is drawn beside it.
    """
    for numbers in parts(networks, depth * width**2, _WEIGHTS_AT_ONCE):
        streams = [stream(seed, lab, number) for number in numbers]
        x = torch.stack([gaussian(one, batch, width) for one in streams])
        std = (2 / width) ** 0.5
        weights = torch.stack([gaussian(one, depth, width, width, std=std) for one in streams], 1)
        yield numbers, x, weights, streams
