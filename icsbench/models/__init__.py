"""Networks: plain modules whose layers have the same paths in every regime."""

from icsbench.models.vgg import VGG, Block

__all__ = ["VGG", "Block"]
