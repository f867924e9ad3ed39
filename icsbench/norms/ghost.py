"""Ghost batch normalization: the statistics of small parts of the batch (Hoffer, Hubara & Soudry 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icsbench.norms.batch_norm import BatchNormOptions
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.running import RunningNorm, normalize, unbiased
from icsbench.options import in_range


@dataclass
class GhostOptions(BatchNormOptions):
    """``ghost_size`` samples in a row have statistics of their own; it divides the batch of training."""

    ghost_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.ghost_size", self.ghost_size, 2)


class GhostBatchNorm(RunningNorm):
    """Batch normalization of every ``ghost_size`` samples in a row on their own (Hoffer et al. 2017).

    A batch of B samples is B / ghost_size ghost batches, in the order of its samples; all share gamma and beta. Each
    updates the running statistics, one after the other, as in the authors' code, where each is a forward pass of its
    own. In eval mode it is batch normalization.

    A batch that is no multiple of ``ghost_size`` (evaluation by batch cuts a split into nearly equal batches) is cut
    the way the split is: into nearly equal ghost batches of at most ``ghost_size`` samples, and none of one sample out
    of several. A run whose ``batch_size`` is no multiple is refused.
    """

    def __init__(self, features: int, options: GhostOptions) -> None:
        super().__init__(features, options)
        self.ghost_size = options.ghost_size

    def by_batch(self, x: Tensor) -> Tensor:
        """Normalize each ghost batch by its own statistics."""
        ghosts = min(math.ceil(len(x) / self.ghost_size), len(x) // 2) or 1
        size, longer = divmod(len(x), ghosts)
        if longer:  # so many ghost batches of size + 1 samples, then those of size samples
            ends = (longer * (size + 1), (ghosts - longer) * size)
            found = [self._each(*part) for part in zip(x.split(ends), (longer, ghosts - longer), strict=True)]
            out, means, variances = map(torch.cat, zip(*found, strict=True))
        else:
            out, means, variances = self._each(x, ghosts)
        self.follow(means, variances)
        return out

    def _each(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize so many equal parts of x: the result, and their means and unbiased variances, ``(ghosts, C)``."""
        out, means, variances = normalize(x, self.weight, self.bias, self.eps, batches=ghosts)
        return out, means, unbiased(variances, x)


def _layer(options: GhostOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return transform, GhostBatchNorm(place.features, options)


def _check(options: GhostOptions, batch_size: int) -> None:
    if batch_size % options.ghost_size:
        raise ValueError(
            f"norm.ghost_size must divide batch_size (got {options.ghost_size} and {batch_size}); "
            "the last ghost batch would be smaller"
        )


GHOST = Norm(
    "ghost",
    Look("Standard + ghost BN", 30, "#3B2F8F", (0, (5, 1.2, 1.2, 1.2)), "8"),
    _layer,
    GhostOptions,
    keeps_statistics=True,
    check=_check,
)
