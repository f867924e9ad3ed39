"""Correlations of gradients in random networks, by depth."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench.labs.residual.tensors import run_block
from icsbench.random_networks import gaussian, orthogonal
from icsbench.theory.residual import Block


def mean_correlation(gradients: Tensor) -> Tensor:
    """Mean product of the gradients of two different samples over the mean squared norm, per network.

    ``sum_{i != j} <g_i, g_j> / ((B - 1) sum_i ||g_i||^2)``, uncentred, from -1 / (B - 1) to 1.

    :param gradients: ``(networks, batch, width)``; the result is in float64.
    """
    gradients = gradients.double()
    own = gradients.square().sum((1, 2))
    return (gradients.sum(1).square().sum(1) - own) / ((gradients.shape[1] - 1) * own)


def by_depth(
    x: Tensor,
    weights: Tensor,
    block: Block,
    depths: Sequence[int],
    streams: Sequence[torch.Generator],
    *,
    held: bool,
) -> Tensor:
    """The correlation of the gradients at the input of the first so many blocks, ``(depths, networks)``.

    At the output of each there is one random gradient that all samples share. ``held``: whether the statistics of BN
    are constants.

    :param x: inputs ``(networks, batch, width)``; ``weights``: ``(blocks, networks, width, width)``.
    """
    first = x.detach().requires_grad_()
    x, found = first, []
    for number, weight in enumerate(weights, 1):
        x, _ = run_block(x, weight, block, held=held)
        if number in depths:
            found.append(_at_the_input(x, first, _common(streams, x)))
    return torch.stack(found)


def looks_linear_by_depth(x: Tensor, depths: Sequence[int], streams: Sequence[torch.Generator]) -> Tensor:
    """The same for the looks-linear start (Balduzzi et al. 2017), which makes a ReLU network linear.

    The hidden units are ``relu(h)`` and ``relu(-h)``, and a layer maps them to  ``W (relu(h) - relu(-h)) = W h``  with
    an orthogonal W.
    """
    first = x.detach().requires_grad_()
    hidden, found = first, []
    for number in range(1, depths[-1] + 1):
        weight = torch.cat([orthogonal(one, 1, x.shape[-1], dtype=x.dtype) for one in streams])
        hidden = (F.relu(hidden) - F.relu(-hidden)) @ weight.mT
        if number in depths:
            found.append(_at_the_input(hidden, first, _common(streams, hidden)))
    return torch.stack(found)


def _common(streams: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """One random gradient per network, the same for all samples."""
    one = torch.stack([gaussian(stream, 1, like.shape[-1], dtype=like.dtype) for stream in streams])
    return one.expand_as(like)


def _at_the_input(output: Tensor, first: Tensor, top: Tensor) -> Tensor:
    [gradients] = torch.autograd.grad(output, first, top, retain_graph=True)
    return mean_correlation(gradients)
