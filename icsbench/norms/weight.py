"""Weight normalization (Salimans & Kingma 2016): length and direction of every unit's weights are trained apart.

The weights of a unit are ``w = g v / ||v||``, with the norm over all inputs of the unit (the dimensions 1, 2, 3 of a
convolution's weights). For the gradient ``dw`` of the loss in w::

    dg = dw . v / ||v||
    dv = (g / ||v||) dw - (g dg / ||v||^2) v        which is orthogonal to v

v starts as the network draws its weights, so that directions are the same in every regime; the authors draw it from
N(0, 0.05^2).

Data-dependent start: a layer's output t on the first training batch gets mean 0 and variance 1 in every
channel, by ``g / sd`` in the place of g and ``(bias - mean) / sd`` in that of the bias, with the biased standard
deviation sd over samples and positions. Layer after layer in forward order, each on what those before it then give.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from icsbench.norms.contract import Look, Norm, Place
from icsbench.options import Options


@dataclass
class WeightNormOptions(Options):
    """``from_data``: whether g and bias start from the data; if not, g starts as ``||v||`` and w as it was drawn."""

    from_data: bool = True


class StartFromData(nn.Module):
    """The identity behind a transform with weight normalization and a bias, whose g and bias start from the data."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self._transform = (transform,)  # in a tuple: its parameters are not this module's

    def forward(self, x: Tensor) -> Tensor:
        """Nothing."""
        return x

    @torch.no_grad()
    def start_from(self, output: Tensor) -> Tensor:
        """Set g and bias so that ``output``, (N, C) or (N, C, H, W), is standardized by channel; return it so.

        A channel that is constant over the batch keeps its g, and gets mean 0.
        """
        (transform,) = self._transform
        axes, shape = (0, *range(2, output.dim())), (-1, *[1] * (output.dim() - 2))
        sd, mean = torch.std_mean(output, axes, correction=0)
        sd = torch.where(sd > 0, sd, 1)
        g, bias = transform.get_parameter("parametrizations.weight.original0"), transform.get_parameter("bias")
        g.div_(sd.view(-1, *[1] * (g.dim() - 1)))
        bias.sub_(mean).div_(sd)
        return (output - mean.view(shape)) / sd.view(shape)


def _layer(options: WeightNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    if transform.bias is None:
        transform.bias = nn.Parameter(torch.zeros(place.features))
    return weight_norm(transform), StartFromData(transform) if options.from_data else nn.Identity()


WEIGHT_NORM = Norm(
    "weight_norm",
    Look("Standard + weight norm", 15, "#117733", (0, (3, 1.2, 3, 1.2, 1.2, 1.2)), "P"),
    _layer,
    WeightNormOptions,
)
"""As every norm but Fixup, it leaves the output layer as it is; the authors' networks normalize that too."""
