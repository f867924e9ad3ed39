"""Ghost batch normalization: the statistics of small parts of the batch (Hoffer, Hubara & Soudry 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icsbench.norms.batch_norm import BatchNormOptions
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.running import RunningNorm
from icsbench.options import in_range


@dataclass
class GhostOptions(BatchNormOptions):
    """``ghost_size`` samples in a row have statistics of their own; it divides the batch of training."""

    ghost_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.ghost_size", self.ghost_size, 2)


class GhostBatchNorm(RunningNorm):
    """Batch normalization of every ``ghost_size`` samples in a row on their own (Hoffer et al. 2017, Algorithm 1).

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
        counts = (longer, ghosts - longer)  # of size + 1 samples, and of size samples
        parts = x.split((longer * (size + 1), len(x) - longer * (size + 1)))
        found = [self._each(part, count) for part, count in zip(parts, counts, strict=True) if count]
        out, means, variances = (of[0] if len(of) == 1 else torch.cat(of) for of in zip(*found, strict=True))
        self.follow(means, variances)
        return out

    def _each(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize ``ghosts`` equal parts of x: the result, and their means and unbiased variances, ``(ghosts, C)``.

        Features of different ghost batches are different features: C of each are ``ghosts C`` of one small batch. Laid
        out as an image of height m / ghosts and width 1, features last in memory, which the kernel is fastest with.
        """
        features = x.shape[1]
        channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        rows = x.movedim(1, -1)
        folded = rows.reshape(ghosts, -1, features).transpose(0, 1).reshape(1, -1, 1, ghosts * features).movedim(-1, 1)
        mean, var = x.new_zeros(2, ghosts * features)  # momentum 1: afterwards, those of the batch
        weight, bias = self.weight.repeat(ghosts), self.bias.repeat(ghosts)
        out = torch.batch_norm(folded, weight, bias, mean, var, True, 1.0, self.eps, torch.backends.cudnn.enabled)
        out = out.movedim(1, -1).reshape(-1, ghosts, features).transpose(0, 1).reshape(rows.shape).movedim(-1, 1)
        out = out.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        return out, mean.view(ghosts, features), var.view(ghosts, features)


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
