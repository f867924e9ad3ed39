"""Networks: plain modules whose layers have the same paths in every regime."""

from icsbench.models.block import Block, InitOptions, Network, NormPlace, Residual
from icsbench.models.contract import Model

__all__ = ["Block", "InitOptions", "Model", "Network", "NormPlace", "Residual"]
