"""Batch normalization with another estimate of the standard deviation (Hoffer, Banner, Golan & Soudry 2018).

gamma (x - mu) / (s + eps) + beta, where mu is the mean of the batch and s, of the m values of a feature,

- ``l1_bn``: mean |x - mu| times sqrt(pi / 2)
- ``topk_bn``: the mean of the k largest |x - mu| times  1/2 (1 + sqrt(pi ln 4)) / sqrt(2 ln m)
- ``linf_bn``: the same with k = 1: the largest

as in the authors' code. On Gaussian data the first estimates the standard deviation. The others do not: at m = 128,
4,096 and 131,072 they come out at 1.40, 1.44 and 1.46 times it with k = 1, and at 1.06, 1.25 and 1.33 times it with
k = 10. These are not ``l1`` and ``linf`` of Santurkar et al. (2018), which average |x| itself, without the factors.

The authors' running average is of 1 / s, with a momentum that means the share of the old one; here it is of s, with
PyTorch's meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.norms.affine import affine_map
from icsbench.norms.batch_norm import BatchNormOptions
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.running import RunningNorm, batch_axes, normalize, per_feature
from icsbench.options import in_range


@dataclass
class TopkOptions(BatchNormOptions):
    """``k`` is how many of the largest deviations of a feature are averaged."""

    k: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.k", self.k, 1)


class CentredLpNorm(RunningNorm):
    """``gamma (x - mu) / (s + eps) + beta``; see the module. ``k``: of the largest deviations; None for all of them."""

    keeps: ClassVar[dict[str, float]] = {"running_mean": 0.0, "running_scale": 1.0}

    def __init__(self, features: int, options: BatchNormOptions, k: int | None) -> None:
        super().__init__(features, options)
        self.k = k

    def by_batch(self, x: Tensor) -> Tensor:
        """Normalize by the statistics of ``x``.

        :raises IcsbenchError: a feature has fewer values than k.
        """
        if self.k is None:
            out, mean, scale = normalize(x, self.weight, self.bias, self.eps, p=1)
            self.follow(mean, scale)
            return out
        mean = x.mean(batch_axes(x))
        scale = _largest((x - per_feature(mean, x)).abs(), self.k)
        self.follow(mean, scale)
        return self._by(x, mean, scale)

    def by_population(self, x: Tensor) -> Tensor:
        """Normalize by the running statistics."""
        return self._by(x, self.get_buffer("running_mean"), self.get_buffer("running_scale"))

    def _by(self, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        slope = self.weight / (scale + self.eps)
        return affine_map(x, slope, self.bias - mean * slope)


def _largest(deviations: Tensor, k: int) -> Tensor:
    """The mean of the k largest of each feature, ``(C,)``, scaled.

    :raises IcsbenchError: there are fewer.
    """
    values = deviations.transpose(0, 1).flatten(1)
    m = values.shape[1]
    if k > m:
        raise IcsbenchError(f"norm.k must be at most the {m} values that a feature has in a batch (got {k})")
    factor = 0.5 * (1 + math.sqrt(math.pi * math.log(4))) / math.sqrt(2 * math.log(m))
    return values.topk(k, 1, sorted=False).values.mean(1) * factor


def _l1(options: BatchNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return transform, CentredLpNorm(place.features, options, None)


def _linf(options: BatchNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return transform, CentredLpNorm(place.features, options, 1)


def _topk(options: TopkOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return transform, CentredLpNorm(place.features, options, options.k)


L1_BN = Norm(
    "l1_bn",
    Look("Standard + L1 BN", 31, "#C76B1E", (0, (6, 1.2)), "1"),
    _l1,
    BatchNormOptions,
    keeps_statistics=True,
)
LINF_BN = Norm(
    "linf_bn",
    Look("Standard + L∞ BN", 32, "#333366", (0, (8, 2)), "2"),
    _linf,
    BatchNormOptions,
    keeps_statistics=True,
)
TOPK_BN = Norm(
    "topk_bn",
    Look("Standard + top-k BN", 33, "#6B8E9E", (0, (3, 1.2, 1.2, 1.2)), "X"),
    _topk,
    TopkOptions,
    keeps_statistics=True,
)
