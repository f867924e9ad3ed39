"""Batch normalization with noise behind it, which brings covariate shift back (Santurkar et al. 2018, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icsbench.norms.batch_norm import BatchNormOptions
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.conversion import NotForSyncBatchNorm
from icsbench.norms.noise import NoiseModule, NoiseOptions


class _NoisyBatchNorm(NoiseModule, _BatchNorm):
    """Batch normalization followed, after the affine map, by the noise of ``ActivationNoise``."""

    qconfig: Any = NotForSyncBatchNorm(
        "has no noise; convert a plain batch normalization and put an ActivationNoise behind it"
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        n_mu: float = 0.5,
        n_sigma: float = 1.25,
        r_mu: float = 0.1,
        r_sigma: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        arguments: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **arguments)
        self._configure(n_mu, n_sigma, r_mu, r_sigma, generator)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize, scale and shift as batch normalization does; then disturb, where the noise is on."""
        normalized = super().forward(input)
        return self._inject(normalized) if self._noise_is_on else normalized


class NoisyBatchNorm1d(_NoisyBatchNorm, nn.BatchNorm1d):
    """Noisy batch normalization of (N, C) or (N, C, L) input: ``torch.nn.BatchNorm1d``, then ``ActivationNoise``.

    The arguments, the state dict and the running statistics (those of the undisturbed input) are ``BatchNorm1d``'s;
    the further arguments, ``noise`` and ``generator`` are ``ActivationNoise``'s. The noise follows the affine map and
    so comes before the nonlinearity (Santurkar et al. 2018, Algorithm 1). Where it is off, the result is
    ``BatchNorm1d``'s, bit for bit.

    ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` would drop the noise, and so raises IcsbenchError. For batch
    statistics over several processes, convert a network with plain batch normalization, then put an ActivationNoise
    behind each layer: ``Sequential(SyncBatchNorm(C), ActivationNoise(generator=generator))`` is the same function.
    Generators of one seed in all processes give them one mu_j and sigma_j, but also the same m and s in each share.
    """


class NoisyBatchNorm2d(_NoisyBatchNorm, nn.BatchNorm2d):
    """Noisy batch normalization of (N, C, H, W) input: ``torch.nn.BatchNorm2d``, then ``ActivationNoise``.

    As ``NoisyBatchNorm1d``; height and width count as part of the batch, so mu_j and sigma_j are one per channel.
    """


@dataclass
class NoisyBatchNormOptions(NoiseOptions, BatchNormOptions):
    """Those of batch normalization and of the noise behind it."""


_MODULES = {1: NoisyBatchNorm1d, 2: NoisyBatchNorm2d}


def _layer(options: NoisyBatchNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    module = _MODULES[place.dimensions]
    return transform, module(place.features, options.eps, options.momentum, **options.constants)


NOISY_BATCH_NORM = Norm(
    "noisy_bn",
    Look("Standard + 'Noisy' BatchNorm", 2, "#009E73", (0, (5, 1.2, 1.2, 1.2)), "^"),
    _layer,
    NoisyBatchNormOptions,
    keeps_statistics=True,
    draws_noise=True,
)
