"""Fixup (Zhang, Dauphin & Ma 2019): no normalization, but an initialization by depth, scalar biases and multipliers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.norms.contract import Branch, Look, Norm, Place
from icsbench.options import Options, in_range


@dataclass
class FixupOptions(Options):
    """``scalar_lr`` is the learning rate of scalar biases and multipliers, in that of the weights."""

    scalar_lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.scalar_lr", self.scalar_lr, 0, 1)


class ScalarBias(nn.Module):
    """``x + bias``, or ``scale x + bias``; bias starts at 0, scale at 1."""

    def __init__(self, *, scale: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0)) if scale else None
        self.bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift."""
        return (x if self.scale is None else self.scale * x) + self.bias


class Shifted(nn.Module):
    """``inside(x + bias)``: a transform with a scalar bias ahead of it."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.ahead = ScalarBias(scale=False)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        """Shift, then transform."""
        return self.inside(self.ahead(x))


def _layer(options: FixupOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    branch = place.branch
    behind = nn.Identity() if place.output else ScalarBias(scale=branch is not None and branch.last)
    if branch is not None or place.output:
        _initialize(transform, branch)
        transform = Shifted(transform)
    for module in (*transform.modules(), behind):
        if isinstance(module, ScalarBias):
            for scalar in module.parameters():
                setattr(scalar, "lr_scale", options.scalar_lr)  # noqa: B010
    return transform, behind


def _initialize(transform: nn.Module, branch: Branch | None) -> None:
    """Draw a transform inside a branch; one at the end of a branch, or at the output (no branch), is zero.

    In a branch of m layers, one of L, the others are ``N(0, 2 / (C_out k^2))`` times ``L^(-1 / (2m - 2))``, for a
    kernel of k x k: He's initialization by fan-out, made smaller. (Exponent and fan-out as in the authors' code.)

    :raises IcsbenchError: the branch has one layer.
    """
    weight = transform.get_parameter("weight")
    for parameter in transform.parameters():
        nn.init.zeros_(parameter)
    if branch is not None and branch.layers < 2:
        raise IcsbenchError("norm fixup needs two layers or more in every residual branch (got 1)")
    if branch is not None and not branch.last:
        fan_out = weight.shape[0] * weight[0][0].numel()
        nn.init.normal_(weight, std=math.sqrt(2 / fan_out) * branch.blocks ** (-1 / (2 * branch.layers - 2)))


FIXUP = Norm(
    "fixup",
    Look("Fixup", 8, "#882255", (0, (1.2, 1.2, 4, 1.2)), "h"),
    _layer,
    FixupOptions,
    at_output=True,
    residual=True,
)
"""The authors' network for CIFAR has the same parameters: 4 biases and 1 multiplier a basic block, one bias behind the
stem, one ahead of the output layer; with ``model.bias=true`` the biases of the convolutions come on top.

One thing differs. In the 2 blocks with a stride the authors' shortcut starts from ``x + b`` too, where b is the bias
ahead of the branch's first convolution; here it starts from ``x``, as in every other block. A norm is applied to
layers, and a shortcut is none. The two are the same while b is 0, as it is at the start."""
