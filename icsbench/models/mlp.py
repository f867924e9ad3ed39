"""The sigmoid network of Ioffe & Szegedy 2015, section 4.1."""

import math
from collections import OrderedDict

from torch import nn

from icsbench.models.block import Block, Network, NormPlace, StackOptions
from icsbench.models.contract import Model
from icsbench.norms import NormLayer


class MLP(Network, nn.Sequential):
    """Hidden layers of sigmoid units, each normalized before the sigmoid, and a linear output.

    Input ``(N, ...)`` with ``in_features`` values a sample, which are flattened; output ``(N, num_classes)``. Ioffe &
    Szegedy take 784 binary pixels, 3 hidden layers of 100 units and "small random Gaussian" weights whose standard
    deviation they do not state. Hidden layers keep their biases with BN too, where they have no effect, so that every
    regime has the same parameters. The layers are ``fc1`` to ``fc<depth + 1>``.
    """

    def __init__(self, options: StackOptions, norm: NormLayer, in_features: int, num_classes: int, seed: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for index in range(1, options.depth + 1):
            transform = nn.Linear(in_features, options.units)
            layers[f"fc{index}"] = Block(transform, NormPlace(options.units, 1), nn.Sigmoid())
            in_features = options.units
        output = NormPlace(num_classes, 1, output=True)
        layers[f"fc{options.depth + 1}"] = Block(nn.Linear(in_features, num_classes), output, nn.Identity())
        super().__init__(layers)
        self.finish(norm, options, seed)


def _build(
    options: StackOptions, norm: NormLayer, *, shape: tuple[int, ...], num_classes: int | None, seed: int
) -> Network:
    return MLP(options, norm, math.prod(shape), num_classes or 0, seed)


MODEL = Model(
    "mlp",
    _build,
    lambda options: f"MLP, {options.depth} x {options.units} sigmoid units",
    takes="inputs with classes",
    fits=lambda shape, classes: classes,
    options=StackOptions,
    units=True,
    scales={
        "paper": {
            "data.name": "mnist",
            "data.binary": True,
            "model.depth": 3,
            "model.units": 100,
            "steps": 50_000,
            "batch_size": 60,
        }
    },
)
