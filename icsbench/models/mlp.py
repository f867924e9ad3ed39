"""The sigmoid network of Ioffe & Szegedy 2015, section 4.1."""

import math
from collections import OrderedDict

from torch import nn

from icsbench.models.block import Network, StackOptions, dense_layer, output_layer
from icsbench.models.contract import Model
from icsbench.norms import NormLayer


class MLP(Network, nn.Sequential):
    """Hidden layers of sigmoid units, each normalized before the sigmoid, and a linear output.

    Input ``(N, *shape)``, which is flattened; output ``(N, num_classes)``. Ioffe & Szegedy take 784 binary pixels, 3
    hidden layers of 100 units and "small random Gaussian" weights whose standard deviation they do not state. Hidden
    layers keep their biases with BN too, where they have no effect, so that every regime has the same parameters. The
    layers are ``fc1`` to ``fc<depth + 1>``.
    """

    def __init__(
        self, options: StackOptions, norm: NormLayer, *, shape: tuple[int, ...], num_classes: int | None, seed: int
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        features = math.prod(shape)
        for index in range(1, options.depth + 1):
            layers[f"fc{index}"] = dense_layer(features, options.units, nn.Sigmoid())
            features = options.units
        layers[f"fc{options.depth + 1}"] = output_layer(features, num_classes)
        super().__init__(layers)
        self.finish(norm, options, seed)


MODEL = Model(
    "mlp",
    MLP,
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
