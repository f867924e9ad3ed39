"""A fully connected network of residual blocks: the structure of the ResNets without convolutions."""

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from icsbench.models.block import Network, Residual, StackOptions, dense_layer, output_layer
from icsbench.models.contract import Model
from icsbench.norms import NormLayer


@dataclass(kw_only=True)
class ResidualMLPOptions(StackOptions):
    """``depth`` residual blocks of two layers with ``units`` units each."""

    init: str = "he"


class ResidualMLP(Network, nn.Sequential):
    """``depth`` blocks ``relu(x + norm(W2 relu(norm(W1 x))))`` between a first layer and a linear output.

    Input ``(N, *shape)``, which is flattened; output ``(N, num_classes)``. The layers are ``stem``, ``block1.fc1`` to
    ``block<depth>.fc2``, and ``fc``.
    """

    def __init__(
        self,
        options: ResidualMLPOptions,
        norm: NormLayer,
        *,
        shape: tuple[int, ...],
        num_classes: int | None,
        seed: int,
    ) -> None:
        units = options.units
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        layers["stem"] = dense_layer(math.prod(shape), units, nn.ReLU(inplace=True))
        for number in range(1, options.depth + 1):
            branch = {
                "fc1": dense_layer(units, units, nn.ReLU(inplace=True)),
                "fc2": dense_layer(units, units, nn.Identity()),
            }
            layers[f"block{number}"] = Residual(branch, nn.Identity(), nn.ReLU(inplace=True))
        layers["fc"] = output_layer(units, num_classes)
        super().__init__(layers)
        self.finish(norm, options, seed)


MODEL = Model(
    "residual_mlp",
    ResidualMLP,
    lambda options: f"residual MLP, {options.depth} blocks of 2 x {options.units} ReLU units",
    takes="inputs with classes",
    fits=lambda shape, classes: classes,
    options=ResidualMLPOptions,
    units=True,
    residual=True,
)
