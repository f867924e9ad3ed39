"""Batch renormalization: by the batch, corrected towards the running statistics (Ioffe 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from icsbench.norms.affine import affine_map
from icsbench.norms.batch_norm import BatchNormOptions
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.running import RunningNorm, mean_and_variance
from icsbench.options import in_range


@dataclass
class RenormOptions(BatchNormOptions):
    """``r_max`` and ``d_max`` bound the correction. They begin at 1 and 0, which is batch normalization, for ``hold``
    batches, and grow linearly over the ``ramp`` batches after these.

    The paper holds 5,000 batches; r_max is 3 after 40,000 and d_max is 5 after 25,000.
    """

    r_max: float = 3.0
    d_max: float = 5.0
    hold: int = 100
    ramp: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.r_max", self.r_max, 1)
        in_range("norm.d_max", self.d_max, 0)
        in_range("norm.hold", self.hold, 0)
        in_range("norm.ramp", self.ramp, 0)


class BatchRenorm(RunningNorm):
    """``gamma (r (x - mu_B) / sigma_B + d) + beta`` (Ioffe 2017), sigma_B = sqrt(variance + eps).

    r = sigma_B / sigma, kept within 1 / r_max and r_max, and d = (mu_B - mu) / sigma, within -d_max and d_max, are
    constants for the backward pass; mu and sigma are the running mean of mu_B and of sigma_B, as they are ahead of the
    batch. Where nothing is cut off, the result is that of eval mode: gamma (x - mu) / sigma + beta.
    """

    keeps: ClassVar[dict[str, float]] = {"running_mean": 0.0, "running_std": 1.0}

    def __init__(self, features: int, options: RenormOptions) -> None:
        super().__init__(features, options)
        self.options = options

    def by_batch(self, x: Tensor) -> Tensor:
        """Normalize by the batch, and correct."""
        mean, var = mean_and_variance(x.detach())
        std = (var + self.eps).sqrt()
        r, d = self._correction(mean, std)
        self.follow(mean, std)
        weight, bias, fast = self.weight * r, self.weight * d + self.bias, torch.backends.cudnn.enabled
        return torch.batch_norm(x, weight, bias, None, None, True, 0.0, self.eps, fast)

    def by_population(self, x: Tensor) -> Tensor:
        """Normalize by the running statistics."""
        mean, std = map(self.get_buffer, self.keeps)
        slope = self.weight / std
        return affine_map(x, slope, self.bias - mean * slope)

    @torch.no_grad()
    def _correction(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        options, (running_mean, running_std) = self.options, map(self.get_buffer, self.keeps)
        since = self.get_buffer("num_batches_tracked") + 1 - options.hold
        grown = (since.to(std.dtype) / max(options.ramp, 1)).clamp(0, 1)
        r_max, d_max = 1 + grown * (options.r_max - 1), grown * options.d_max
        r = torch.minimum(torch.maximum(std / running_std, 1 / r_max), r_max)
        d = torch.minimum(torch.maximum((mean - running_mean) / running_std, -d_max), d_max)
        return r, d


def _layer(options: RenormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return transform, BatchRenorm(place.features, options)


BATCH_RENORM = Norm(
    "batch_renorm",
    Look("Standard + batch renorm", 34, "#2E8B77", (0, (4, 1.2, 1.2, 1.2)), "H"),
    _layer,
    RenormOptions,
    keeps_statistics=True,
)
