"""The deep linear network of Santurkar et al. 2018."""

from collections import OrderedDict

import torch
from torch import nn

from icsbench.models.block import Block, Network, NormPlace, StackOptions
from icsbench.models.contract import Model
from icsbench.norms import NormLayer


class DeepLinear(Network, nn.Sequential):
    """A product of square matrices, ``W_depth ... W_1 x``, with a norm after each but the last; ``(N, units)``.

    Santurkar et al. train 25 Glorot-initialized matrices of 10 x 10 to a random linear map (Figures 3b, 9, 10); they do
    not state whether a norm follows the last one. No biases, no nonlinearity. The layers are ``fc1`` to ``fc<depth>``.

    It is trained in float64, because the smallest moves along its gradient drown in rounding otherwise. The initial
    values are float32 ones.
    """

    def __init__(
        self, options: StackOptions, norm: NormLayer, *, shape: tuple[int, ...], num_classes: int | None, seed: int
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        size = options.units
        for index in range(1, options.depth + 1):
            behind = NormPlace(size, 1, output=index == options.depth)
            layers[f"fc{index}"] = Block(nn.Linear(size, size, bias=False), behind, nn.Identity())
        super().__init__(layers)
        self.finish(norm, options, seed)


MODEL = Model(
    "dln",
    DeepLinear,
    lambda options: f"deep linear network, {options.depth} layers of {options.units} x {options.units}",
    takes="data=gaussian alone",
    fits=lambda shape, classes: not classes and len(shape) == 1,
    options=StackOptions,
    units=True,
    dtype=torch.float64,
    scales={"paper": {"data.name": "gaussian", "model.depth": 25, "model.units": 10, "steps": 10_000}},
)
