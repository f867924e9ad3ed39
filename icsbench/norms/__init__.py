"""The normalization layers of the regimes, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from icsbench.errors import IcsbenchError
from icsbench.norms.lp import LpNorm1d, LpNorm2d
from icsbench.norms.noisy import ActivationNoise, NoisyBatchNorm1d, NoisyBatchNorm2d

__all__ = [
    "NORMS",
    "ActivationNoise",
    "LpNorm1d",
    "LpNorm2d",
    "NoisyBatchNorm1d",
    "NoisyBatchNorm2d",
    "batch_norms",
    "build_norm",
    "noise_modules",
]

_BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_NOISY_BATCH_NORMS = {1: NoisyBatchNorm1d, 2: NoisyBatchNorm2d}
_LP_NORMS = {1: LpNorm1d, 2: LpNorm2d}

NORMS: dict[str, Callable[[int, int, dict[str, Any], dict[str, Any]], nn.Module]] = {
    "none": lambda features, dimensions, bn, noise: nn.Identity(),
    "bn": lambda features, dimensions, bn, noise: _BATCH_NORMS[dimensions](features, **bn),
    "noisy_bn": lambda features, dimensions, bn, noise: _NOISY_BATCH_NORMS[dimensions](features, **bn, **noise),
    "noise": lambda features, dimensions, bn, noise: ActivationNoise(**noise),
    "l1": lambda features, dimensions, bn, noise: _LP_NORMS[dimensions](features, 1, **bn),
    "l2": lambda features, dimensions, bn, noise: _LP_NORMS[dimensions](features, 2, **bn),
    "linf": lambda features, dimensions, bn, noise: _LP_NORMS[dimensions](features, math.inf, **bn),
}
"""Name -> builder(num_features, dimensions, batch-norm options, noise constants); a new layer is one entry."""


def build_norm(
    name: str,
    num_features: int,
    dimensions: int,
    *,
    eps: float,
    momentum: float | None,
    n_mu: float,
    n_sigma: float,
    r_mu: float,
    r_sigma: float,
    strength: float = 1.0,
) -> nn.Module:
    """Build the layer that ``NORMS`` calls ``name``, for (N, C) or (N, C, L) input (1) or (N, C, H, W) input (2).

    ``momentum=None`` keeps the plain average of the batch statistics; ``n_mu`` to ``r_sigma`` are Algorithm 1's
    constants, of which ``strength`` multiplies ``n_mu``, ``n_sigma - 1``, ``r_mu`` and ``r_sigma``: 0 is no noise.
    Raises IcsbenchError for an unknown name and ValueError for constants out of range.
    """
    if name not in NORMS:
        raise IcsbenchError(f"unknown norm {name!r}; the known ones are {', '.join(NORMS)}")
    noise = {
        "n_mu": strength * n_mu,
        "n_sigma": 1 + strength * (n_sigma - 1),
        "r_mu": strength * r_mu,
        "r_sigma": strength * r_sigma,
    }
    return NORMS[name](num_features, dimensions, {"eps": eps, "momentum": momentum}, noise)


def noise_modules(model: nn.Module) -> list[ActivationNoise | NoisyBatchNorm1d | NoisyBatchNorm2d]:
    """The modules of ``model`` that inject noise (those with ``noise`` and ``generator``), in module order."""
    return [m for m in model.modules() if isinstance(m, (ActivationNoise, NoisyBatchNorm1d, NoisyBatchNorm2d))]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The modules of ``model`` that normalize by batch statistics and keep running ones, in module order.

    All have ``momentum`` and ``reset_running_stats``, and use the running statistics in eval mode.
    """
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]
