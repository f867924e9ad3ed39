"""SkipInit (De & Smith 2020): no normalization, but a scalar at the end of every residual branch that starts at 0."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icsbench.norms.contract import Look, Norm, Place
from icsbench.options import Options, in_range


@dataclass
class SkipInitOptions(Options):
    """``gain`` is what the scalars start from: 0, or small beside 1 / sqrt(number of blocks)."""

    gain: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.gain", self.gain, -1, 1)


class ScalarGain(nn.Module):
    """``gain x``, with a gain that is trained."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return self.gain * x


def _layer(options: SkipInitOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    at_the_end = place.branch is not None and place.branch.last
    return transform, ScalarGain(options.gain) if at_the_end else nn.Identity()


SKIPINIT = Norm(
    "skipinit",
    Look("SkipInit", 7, "#999933", (0, (4, 1.2, 1.2, 1.2)), "p"),
    _layer,
    SkipInitOptions,
    residual=True,
)
