"""No normalization: the network as it is."""

from torch import nn

from icsbench.norms.contract import Look, Norm

NONE = Norm(
    "none",
    Look("Standard", 0, "#D55E00", "-", "o"),
    lambda options, transform, place: (transform, nn.Identity()),
)
