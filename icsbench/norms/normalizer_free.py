"""Networks without normalization (Brock et al. 2021): scaled weight standardization, and residual branches in scale.

``ws`` parametrizes the weight of every layer. The row of an output unit, of N weights with mean m and biased variance
v, becomes  ``gain gamma (w - m) / sqrt(N v)``  with a trained gain of 1 at the start, so that the layer keeps the
variance of its input, and what the input has as a common mean goes. ``gamma`` makes up for the nonlinearity behind the
layer (Brock et al. 2021a, "Characterizing signal propagation..."; 2021b, "High-performance large-scale image
recognition...").

``nf`` is ``ws`` and, in residual branches, ``h + alpha skip_gain f(h / beta)``: f keeps the variance, beta is the
deviation that h should have (:func:`expected_stds`), and skip_gain is SkipInit's, trained from 0.

Where these networks differ from the authors':

- gamma is in the weight of the layer ahead of the nonlinearity (timm's form), not behind the nonlinearity (the
  authors'). For ReLU both are the same function as long as biases are 0; a bias b here is gamma b there. For a
  nonlinearity such as the sigmoid they differ, and here what comes out of it has no variance of 1.
- The authors' blocks begin with the nonlinearity, and what is added up is never rectified. Blocks here end with
  ``relu(shortcut(x) + branch(x))``, so that h is positive: its variance grows by less than alpha^2 per block.
- The authors' shortcut at a change of size is a standardized convolution of h / beta, which sets the variance back to
  1. Here it has no parameters: it skips positions, and its new channels are 0. beta is the authors' all the same, so
  that behind such a block h is smaller than beta says, and so is what the branches add to it.
- The output layer is as in every regime here; the authors draw its weights from N(0, 0.01^2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.skipinit import ScalarGain
from icsbench.options import Options, in_range, one_of

FORMS = {"official": 1e-4, "timm": 1e-6, "lubana": 1e-5}
"""Each public form of the standardization, and its ``eps``."""


@dataclass
class StandardizationOptions(Options):
    """``form``: how a weight of small variance v is kept from blowing up; ``eps``: by how much, null for the form's.

    ``official`` (the authors') divides by ``sqrt(max(N v, eps))``, ``timm`` by ``sqrt(N (v + eps))``, ``lubana`` by
    ``sqrt(N) (sqrt(v) + eps)``.
    """

    form: str = "official"
    eps: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("norm.form", self.form, tuple(FORMS))
        if self.eps is not None:
            in_range("norm.eps", self.eps, 0, 1, open_low=True)


@dataclass
class NormalizerFreeOptions(StandardizationOptions):
    """``alpha``: the scale of residual branches; ``gain``: what the scalar at the end of each starts from."""

    alpha: float = 0.2
    gain: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.alpha", self.alpha, 0, 1, open_low=True)
        in_range("norm.gain", self.gain, -1, 1)


def activation_gain(activation: nn.Module | None) -> float:
    """gamma: ``1 / sqrt(Var phi(z))`` for z ~ N(0, 1), by quadrature, to 1e-11; 1 where no activation is told.

    ReLU has ``sqrt(2 / (1 - 1/pi))`` = 1.7128586. The authors' constants are samples' ones, 0.01 to 0.09 % larger.

    :param activation: elementwise, without parameters; smooth but for kinks at whole numbers.
    """
    if activation is None:
        return 1.0
    nodes, weights = np.polynomial.legendre.leggauss(20)
    z = (np.arange(-12, 12)[:, None] + (nodes + 1) / 2).ravel()
    density = np.tile(weights / 2, 24) * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    with torch.no_grad():
        value = activation(torch.from_numpy(z.copy())).numpy()
    mean = density @ value
    return float(1 / np.sqrt(density @ (value - mean) ** 2))


def expected_stds(stages: Sequence[int], alpha: float) -> list[float]:
    """The beta of each block, in forward order: the standard deviation that is expected of what comes into it.

    1 for the first block. The first block of a stage sets it to 1, and then every block adds ``alpha^2`` to its square;
    so the first block of a later stage still has what the stage before has come to. (The authors' code.)

    :param stages: how many blocks each has.
    """
    found, std = [], 1.0
    for blocks in stages:
        for block in range(blocks):
            found.append(std)
            std = math.hypot(std if block else 1.0, alpha)
    return found


class ScaledStandardization(nn.Module):
    """``scale gain (w - mean) / divisor`` for each unit of a weight ``(units, ...)``; ``gain`` is trained, (units,).

    :param form: the divisor, see :class:`StandardizationOptions`; so is ``eps``.
    """

    def __init__(self, units: int, form: str = "official", eps: float | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(units))
        self.form = form
        self.eps = FORMS[form] if eps is None else eps
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """Standardize a weight; the result has its shape."""
        rows = weight.flatten(1)
        size = rows.shape[1]
        if self.form == "lubana":  # torch's std has gradient 0 where it is 0
            std, mean = torch.std_mean(rows, 1, correction=0, keepdim=True)
            divisor = (std + self.eps) * math.sqrt(size)
        else:
            variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
            timm = self.form == "timm"
            divisor = ((variance + self.eps) * size if timm else (variance * size).clamp_min(self.eps)).sqrt()
        return ((rows - mean) * (self.scale * self.gain[:, None] / divisor)).view_as(weight)


class BranchEnd(ScalarGain):
    """``alpha gain x``, with a gain that is trained."""

    def __init__(self, alpha: float, gain: float) -> None:
        super().__init__(gain)
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return (self.alpha * self.gain) * x


def _standardize(options: StandardizationOptions, transform: nn.Module, place: Place, beta: float = 1.0) -> nn.Module:
    """Parametrize the weight of a transform of ``x / beta``."""
    scale = activation_gain(place.activation) / beta
    standardization = ScaledStandardization(place.features, options.form, options.eps, scale)
    return parametrize.register_parametrization(transform, "weight", standardization)


def _ws(options: StandardizationOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return _standardize(options, transform, place), nn.Identity()


def _nf(options: NormalizerFreeOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    branch = place.branch
    if branch is None:
        return _ws(options, transform, place)
    beta = 1.0 if branch.layer else expected_stds(branch.stages, options.alpha)[branch.block]
    behind = BranchEnd(options.alpha, options.gain) if branch.last else nn.Identity()
    return _standardize(options, transform, place, beta), behind


WS = Norm("ws", Look("Weight standardization", 9.1, "#DDAA33", (0, (2, 1, 1, 1)), "8"), _ws, StandardizationOptions)
NF = Norm("nf", Look("Normalizer-free", 9.2, "#BB5566", (0, (7, 1.5, 2, 1.5)), "H"), _nf, NormalizerFreeOptions)
