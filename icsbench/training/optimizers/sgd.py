"""Stochastic gradient descent, with momentum and weight decay."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from icsbench.config import OptimConfig
from icsbench.options import in_range
from icsbench.training.optimizers.contract import Optimizer


@dataclass
class SGDOptions(OptimConfig):
    """Those of ``torch.optim.SGD``: v <- momentum v + g + weight_decay w, then w <- w - lr v."""

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("optim.momentum", self.momentum, 0, 0.9999)
        in_range("optim.weight_decay", self.weight_decay, 0)


def _build(parameters: Iterable[nn.Parameter], options: SGDOptions) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, options.lr, options.momentum, weight_decay=options.weight_decay)


SGD = Optimizer("sgd", _build, SGDOptions)
