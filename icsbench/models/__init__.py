"""Networks: plain modules whose layers have the same paths in every regime."""

from icsbench.models.block import Block
from icsbench.models.dln import DeepLinear
from icsbench.models.mlp import MLP
from icsbench.models.vgg import VGG

__all__ = ["MLP", "VGG", "Block", "DeepLinear"]
