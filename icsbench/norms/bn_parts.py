"""Batch normalization in parts: one of its two steps, without a gradient through its statistics, at one place only.

y = gamma (x - mu) / sigma + beta  is batch normalization, with mean mu and sigma = sqrt(variance + eps) of the batch.

- ``bn_mean``: gamma (x - mu) + beta
- ``bn_var``: gamma x / sigma + beta; the variance is that about the mean
- ``bn_detached``: as batch normalization, but mu and sigma are constants for the backward pass. Ioffe & Szegedy (2015,
  section 2) warn of it: steps that ignore what they do to the statistics may grow weights without an effect
- ``bn_frozen``: mu and sigma are those of the first batch of training, and stay
- ``affine``: gamma x + beta
- ``bn_first``, ``bn_last``: batch normalization at one place of the network, and nothing at the others (Bjorck et al.
  2018 put it at the last)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from icsbench.norms.affine import Affine, affine_map
from icsbench.norms.batch_norm import BatchNormOptions, batch_norm_module
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.running import RunningNorm, batch_axes, mean_and_variance, normalize, unbiased
from icsbench.options import Options, in_range, one_of


class MeanOnly(RunningNorm):
    """``gamma (x - mu) + beta``."""

    keeps: ClassVar[dict[str, float]] = {"running_mean": 0.0}

    def by_batch(self, x: Tensor) -> Tensor:
        """Subtract the mean of ``x``."""
        mean = x.mean(batch_axes(x))
        self.follow(mean)
        return affine_map(x, self.weight, self.bias - mean * self.weight)

    def by_population(self, x: Tensor) -> Tensor:
        """Subtract the running mean."""
        return affine_map(x, self.weight, self.bias - self.get_buffer("running_mean") * self.weight)


class VarianceOnly(RunningNorm):
    """``gamma x / sigma + beta``, sigma about the mean, which is not subtracted."""

    keeps: ClassVar[dict[str, float]] = {"running_var": 1.0}

    def by_batch(self, x: Tensor) -> Tensor:
        """Divide by the standard deviation of ``x``."""
        out, _, var = normalize(x, self.weight, self.bias, self.eps, centre=False)
        self.follow(unbiased(var, x))
        return out

    def by_population(self, x: Tensor) -> Tensor:
        """Divide by the root of the running variance."""
        return affine_map(x, self.weight * (self.get_buffer("running_var") + self.eps).rsqrt(), self.bias)


class DetachedBatchNorm(RunningNorm):
    """Batch normalization whose statistics are constants for the backward pass."""

    def by_batch(self, x: Tensor) -> Tensor:
        """Normalize by the statistics of ``x``."""
        mean, var = mean_and_variance(x.detach())
        self.follow(mean, unbiased(var, x))
        return torch.batch_norm(x, self.weight, self.bias, mean, var, False, 0.0, self.eps, False)


class FrozenBatchNorm(nn.Module):
    """Batch normalization by the mean and biased variance of one batch, the first that it sees in training mode.

    They are constants from then on, in eval mode and for the backward pass too: it is an affine map. Until there was a
    batch they are 0 and 1. They are buffers, and so is whether they are known: a run that is resumed keeps them.
    """

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))
        self.register_buffer("known", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, scale and shift; take the statistics first, where there are none."""
        mean, var, known = map(self.get_buffer, ("mean", "var", "known"))
        if self.training and not known:
            with torch.no_grad():
                for kept, value in zip((mean, var), mean_and_variance(x.to(mean.dtype)), strict=True):
                    kept.copy_(value)
                known.fill_(True)
        return torch.batch_norm(x, self.weight, self.bias, mean, var, False, 0.0, self.eps, False)


@dataclass
class FrozenOptions(Options):
    """``eps`` is added to the variance."""

    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.eps", self.eps, 0, open_low=True)


@dataclass
class LastOptions(BatchNormOptions):
    """``at``: ``hidden`` is the last place ahead of a nonlinearity, ``output`` the logits."""

    at: str = "hidden"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("norm.at", self.at, ("hidden", "output"))


def _at(here: Callable[[Any, Place], bool]) -> Any:
    """A norm's ``layer``: batch normalization at the places that are ``here``."""

    def layer(options: BatchNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
        return transform, batch_norm_module(options, place) if here(options, place) else nn.Identity()

    return layer


BN_MEAN = Norm(
    "bn_mean",
    Look("Standard + BN's mean only", 20, "#1B6E8C", (0, (4, 1.2)), "_"),
    lambda options, transform, place: (transform, MeanOnly(place.features, options)),
    BatchNormOptions,
    keeps_statistics=True,
)
BN_VAR = Norm(
    "bn_var",
    Look("Standard + BN's variance only", 21, "#A67C00", (0, (1.2, 1.2)), "|"),
    lambda options, transform, place: (transform, VarianceOnly(place.features, options)),
    BatchNormOptions,
    keeps_statistics=True,
)
BN_DETACHED = Norm(
    "bn_detached",
    Look("Standard + BN, statistics detached", 22, "#A8324A", "-.", "+"),
    lambda options, transform, place: (transform, DetachedBatchNorm(place.features, options)),
    BatchNormOptions,
    keeps_statistics=True,
)
BN_FROZEN = Norm(
    "bn_frozen",
    Look("Standard + BN of the first batch", 23, "#4A7A3A", (0, (2.5, 1.2)), "4"),
    lambda options, transform, place: (transform, FrozenBatchNorm(place.features, options.eps)),
    FrozenOptions,
)
AFFINE = Norm(
    "affine",
    Look("Standard + BN's gamma and beta", 24, "#8C8C8C", (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)), "."),
    lambda options, transform, place: (transform, Affine(place.features)),
)
BN_FIRST = Norm(
    "bn_first",
    Look("Standard + BN at the first layer", 25, "#7FA6D6", ":", "3"),
    _at(lambda options, place: place.first),
    BatchNormOptions,
    keeps_statistics=True,
)
BN_LAST = Norm(
    "bn_last",
    Look("Standard + BN at the last layer", 26, "#5D2E8C", "--", "d"),
    _at(lambda options, place: place.output if options.at == "output" else place.last),
    LastOptions,
    keeps_statistics=True,
    at_output=True,
)
