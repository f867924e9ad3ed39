"""A scale and a shift for each channel, for norms that PyTorch has no module of."""

import torch
from torch import Tensor, nn


class ChannelAffine(nn.Module):
    """What has a ``weight`` and a ``bias`` for each of so many channels, which start at 1 and 0, both ``(C,)``."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def affine(self, x: Tensor) -> Tensor:
        """``weight x + bias`` of (N, C) or (N, C, ...) values, in their dtype."""
        shape = (-1, *[1] * (x.dim() - 2))
        return torch.addcmul(self.bias.view(shape), self.weight.view(shape), x).to(x.dtype)
