"""Adaptive gradient clipping (Brock et al. 2021b), around any optimizer: ``+optim.wrap.agc.clipping=0.01``.

The gradient G of a unit with weights W is scaled down to  ``clipping max(||W||, eps)``  where it is longer. It is
clipped ahead of the optimizer, so that weight decay and momentum come after it, as in the authors' SGD.

A parameter near 0 can hardly leave it: a scalar that starts at 0 moves by ``lr clipping eps`` an update, 1e-6 at the
defaults and lr 0.1, and needs thousands of updates to 1. So ``scalars=false`` exempts scalars, such as SkipInit's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from icsbench.errors import IcsbenchError
from icsbench.options import in_range, one_of
from icsbench.training.optimizers.contract import Wrapper

_SHORTEST = 1e-6
"""What the length of a gradient is at least where it is divided by."""


@dataclass
class AgcOptions:
    """``clipping``: lambda; ``eps``: what the length of a weight is at least; ``exempt``: what is never clipped.

    ``exempt`` is ``classifier_weight`` (the authors' code: the weight of the output layer, and not its bias),
    ``classifier`` (timm's: both) or ``none``. ``scalars``: whether parameters of one number are clipped.
    """

    clipping: float = 0.01
    eps: float = 1e-3
    exempt: str = "classifier_weight"
    scalars: bool = True

    def __post_init__(self) -> None:
        in_range("optim.wrap.agc.clipping", self.clipping, 0, open_low=True)
        in_range("optim.wrap.agc.eps", self.eps, 0, open_low=True)
        one_of("optim.wrap.agc.exempt", self.exempt, ("classifier_weight", "classifier", "none"))


def unit_norms(x: Tensor) -> Tensor:
    """The length of each unit of a weight or its gradient, of a shape that broadcasts against it.

    A unit is an output's row of a matrix (out, in), and its kernel of a convolution (out, in, height, width). What has
    one dimension at most, those of size 1 apart, is one unit: a scalar, a bias, gains of the shape (out, 1, 1, 1). Of
    three dimensions the first is summed over, as in the authors' code and in optax; timm sums over the others. No model
    here has such a weight.

    :raises IcsbenchError: it has five dimensions or more.
    """
    if x.squeeze().dim() <= 1:
        return x.norm()
    if x.dim() > 4:
        raise IcsbenchError(f"optim.wrap.agc knows no units of a parameter of {x.dim()} dimensions")
    return torch.linalg.vector_norm(x, dim=0 if x.dim() == 3 else tuple(range(1, x.dim())), keepdim=True)


def clip(weight: Tensor, gradient: Tensor, clipping: float, eps: float) -> None:
    """Clip a gradient in place, unit by unit; one of length 0 stays 0.

    :raises IcsbenchError: see :func:`unit_norms`.
    """
    length, longest = unit_norms(gradient), clipping * unit_norms(weight).clamp_min(eps)
    gradient.mul_(torch.where(length > longest, longest / length.clamp_min(_SHORTEST), 1.0))


def _is_clipped(parameter: nn.Parameter, options: AgcOptions) -> bool:
    if parameter.numel() == 1 and not options.scalars:
        return False
    if options.exempt == "none" or not getattr(parameter, "output", False):
        return True
    return options.exempt == "classifier_weight" and parameter.dim() == 1


@torch.no_grad()
def _before(optimizer: Optimizer, options: AgcOptions) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and _is_clipped(parameter, options):
                clip(parameter, parameter.grad, options.clipping, options.eps)


AGC = Wrapper("agc", AgcOptions, before=_before)
