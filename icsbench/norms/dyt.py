"""Dynamic Tanh (Zhu, Chen, He, LeCun & Liu 2025, "Transformers without Normalization"): no statistics at all."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icsbench.norms.affine import Affine
from icsbench.norms.contract import Look, Norm
from icsbench.options import Options, in_range


@dataclass
class DynamicTanhOptions(Options):
    """``alpha`` is what every layer's alpha starts from."""

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.alpha", self.alpha, 0, open_low=True)


class DynamicTanh(Affine):
    """``y = weight tanh(alpha x) + bias``: alpha is one trained number, weight and bias are one for each channel."""

    def __init__(self, features: int, alpha: float = 0.5) -> None:
        super().__init__(features)
        self.alpha = nn.Parameter(torch.tensor(alpha))

    def forward(self, x: Tensor) -> Tensor:
        """Squash, scale and shift (N, C) or (N, C, H, W) input, in its dtype."""
        return super().forward(torch.tanh(self.alpha * x))


DYT = Norm(
    "dyt",
    Look("Standard + DyT", 14, "#AA4499", (0, (1.2, 1.2, 1.2, 1.2, 5, 1.2)), "H"),
    lambda options, transform, place: (transform, DynamicTanh(place.features, options.alpha)),
    DynamicTanhOptions,
)
