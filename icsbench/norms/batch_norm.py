"""Batch normalization (Ioffe & Szegedy 2015).

The norm ``bn`` is PyTorch's; the functions are the definition, to be read and to check faster ones against.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icsbench.norms.contract import Look, Norm, Place
from icsbench.options import Options, in_range


class BatchNormCache(NamedTuple):
    """What the backward pass needs: x, gamma and eps as given; x_hat of x's shape; mean and biased variance, (C,)."""

    x: Tensor
    x_hat: Tensor
    mean: Tensor
    var: Tensor
    gamma: Tensor
    eps: float


class BatchNormGradients(NamedTuple):
    """Derivatives of the loss: dx and dxhat of x's shape; dgamma, dbeta, dvar and dmean of shape (C,)."""

    dx: Tensor
    dgamma: Tensor
    dbeta: Tensor
    dxhat: Tensor
    dvar: Tensor
    dmean: Tensor


def _batch_axes(x: Tensor) -> tuple[int, ...]:
    if x.dim() < 2:
        raise ValueError(f"expected (N, C) or (N, C, ...) input, got the shape {tuple(x.shape)}")
    return (0, *range(2, x.dim()))


def _batch_size(x: Tensor) -> int:
    return math.prod(x.shape[axis] for axis in _batch_axes(x))


def _like(per_feature: Tensor, x: Tensor) -> Tensor:
    return per_feature.reshape(1, -1, *[1] * (x.dim() - 2))


def batch_norm_forward(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, BatchNormCache]:
    """Normalize every feature over the batch: y = gamma x_hat + beta, x_hat = (x - mean) / sqrt(var + eps).

    ``x`` is (N, C) or (N, C, ...); in the latter all values of a feature map, over samples and positions, form the
    batch (Ioffe & Szegedy 2015, sections 3 and 3.2, Algorithm 1). ``gamma`` and ``beta`` are (C,). var is the biased
    variance, the mean of (x - mean)^2. Returns y, of x's shape, and the cache for ``batch_norm_backward``.

    :raises ValueError: x has no feature dimension.
    """
    axes = _batch_axes(x)
    mean = x.mean(axes)
    centred = x - _like(mean, x)
    var = centred.square().mean(axes)
    x_hat = centred / _like((var + eps).sqrt(), x)
    return _like(gamma, x) * x_hat + _like(beta, x), BatchNormCache(x, x_hat, mean, var, gamma, eps)


def batch_norm_backward(dy: Tensor, cache: BatchNormCache) -> BatchNormGradients:
    """Back-propagate dy = dl/dy through ``batch_norm_forward``, by the chain rule's six equations.

    Ioffe & Szegedy (2015), section 3, with sums over the m values of a feature:

    - dxhat = dy gamma
    - dvar = sum dxhat (x - mean) (-1/2) (var + eps)^(-3/2)
    - dmean = sum dxhat (-1 / sqrt(var + eps)) + dvar sum(-2 (x - mean)) / m
    - dx = dxhat / sqrt(var + eps) + dvar 2 (x - mean) / m + dmean / m
    - dgamma = sum dy x_hat
    - dbeta = sum dy
    """
    x, x_hat, mean, var, gamma, eps = cache
    axes, m = _batch_axes(x), _batch_size(x)
    centred = x - _like(mean, x)
    scale = 1 / (var + eps).sqrt()
    dxhat = dy * _like(gamma, x)
    dvar = (dxhat * centred).sum(axes) * -0.5 * (var + eps) ** -1.5
    dmean = -dxhat.sum(axes) * scale + dvar * (-2 * centred).sum(axes) / m
    dx = dxhat * _like(scale, x) + _like(dvar, x) * 2 * centred / m + _like(dmean, x) / m
    return BatchNormGradients(dx, (dy * x_hat).sum(axes), dy.sum(axes), dxhat, dvar, dmean)


def population_statistics(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Estimate each feature's mean E[mu_B] and variance m/(m-1) E[var_B] from batches of one size m.

    The batches are inputs of ``batch_norm_forward``; mu_B and var_B are their means and biased variances. Ioffe &
    Szegedy (2015), section 3.1, Algorithm 2. Returns two (C,) tensors.

    :raises ValueError: there are no batches, they differ in size, or m = 1, where no variance can be estimated.
    """
    statistics = [(_batch_size(x), x.mean(_batch_axes(x)), x.var(_batch_axes(x), correction=0)) for x in batches]
    sizes = {size for size, _, _ in statistics}
    if len(sizes) != 1 or 1 in sizes:
        raise ValueError(f"expected batches of one size above 1, got the sizes {sorted(sizes)}")
    (m,) = sizes
    mean = torch.stack([mean for _, mean, _ in statistics]).mean(0)
    var = torch.stack([var for _, _, var in statistics]).mean(0)
    return mean, var * m / (m - 1)


def batch_norm_inference(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Normalize with fixed statistics, as one affine map of (N, C) or (N, C, ...) input.

    y = a x + (beta - a mean), a = gamma / sqrt(var + eps), with ``mean`` and ``var`` (both (C,)) from
    ``population_statistics``. Ioffe & Szegedy (2015), section 3.1, Algorithm 2.
    """
    slope = gamma / (var + eps).sqrt()
    return _like(slope, x) * x + _like(beta - slope * mean, x)


@dataclass
class BatchNormOptions(Options):
    """``eps`` is added to the variance; ``momentum`` is the share of a batch in the running statistics."""

    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.eps", self.eps, 0, open_low=True)
        in_range("norm.momentum", self.momentum, 0, 1, open_low=True)


_MODULES = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def batch_norm_module(options: BatchNormOptions, place: Place) -> nn.Module:
    """PyTorch's batch normalization for a place."""
    return _MODULES[place.dimensions](place.features, options.eps, options.momentum)


BATCH_NORM = Norm(
    "bn",
    Look("Standard + BatchNorm", 1, "#0072B2", (0, (5, 1.2)), "s"),
    lambda options, transform, place: (transform, batch_norm_module(options, place)),
    BatchNormOptions,
    keeps_statistics=True,
)
