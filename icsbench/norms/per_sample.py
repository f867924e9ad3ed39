"""Norms by the statistics of one sample: layer, group, instance and root-mean-square normalization.

Each sample of a batch is normalized by itself, so training and evaluation compute the same and the size of the batch
does not matter. For a sample's activations x, of C channels with H x W positions each (vectors have one position)::

    y = weight (x - mean) / sqrt(var + eps) + bias

mean and the biased var are taken over a group of channels with all their positions: over all C channels (``layer``; Ba,
Kiros & Hinton 2016), over C / groups channels in a row (``group``; Wu & He 2018), over a single channel (``instance``;
Ulyanov, Vedaldi & Lempitsky 2016). ``rms`` is ``layer`` without the mean,
``y = weight x / sqrt(mean x^2 + eps) + bias`` (Zhang & Sennrich 2019; the bias is the neuron's). weight and bias are
one for each channel, and start at 1 and 0.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.norms.affine import Affine
from icsbench.norms.contract import Look, Norm, Place
from icsbench.options import Options, in_range


@dataclass
class SampleNormOptions(Options):
    """``eps`` is added to the variance, or to the mean square."""

    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.eps", self.eps, 0, open_low=True)


@dataclass
class GroupNormOptions(SampleNormOptions):
    """``groups``: into how many groups the channels of every layer are divided; 32 in the paper."""

    groups: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.groups", self.groups, 1)


class RMSNorm(Affine):
    """Divide each sample of (N, C) or (N, C, H, W) input by its root mean square, then scale and shift its channels."""

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__(features)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize; the result has the input's shape and dtype."""
        return super().forward(F.rms_norm(x, x.shape[1:], eps=self.eps))

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"{self.features}, eps={self.eps}"


def _refuse_single_values(norm: str, groups: int, place: Place) -> None:
    if place.dimensions == 1 and place.features == groups:
        raise IcsbenchError(
            f"norm {norm} would normalize every value by itself in layer {place.path}, whose {place.features} channels "
            "are single units; choose norm=layer"
        )


def _layer(options: SampleNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    if place.dimensions == 1:
        return transform, nn.LayerNorm(place.features, options.eps)
    return transform, nn.GroupNorm(1, place.features, options.eps)


def _group(options: GroupNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    groups = options.groups
    if place.features % groups:
        raise IcsbenchError(
            f"norm.groups must divide the channels of every layer, and {groups} does not divide the {place.features} "
            f"of layer {place.path}"
        )
    _refuse_single_values("group", groups, place)
    return transform, nn.GroupNorm(groups, place.features, options.eps)


def _instance(options: SampleNormOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    _refuse_single_values("instance", place.features, place)
    return transform, nn.GroupNorm(place.features, place.features, options.eps)


LAYER = Norm(
    "layer", Look("Standard + LayerNorm", 10, "#332288", (0, (7, 1.2, 1.2, 1.2)), "d"), _layer, SampleNormOptions
)
GROUP = Norm("group", Look("Standard + GroupNorm", 11, "#44AA99", (0, (4, 1.2)), "X"), _group, GroupNormOptions)
INSTANCE = Norm(
    "instance",
    Look("Standard + InstanceNorm", 12, "#B8860B", (0, (2.5, 1.2, 1.2, 1.2)), "8"),
    _instance,
    SampleNormOptions,
    maps=True,
)
"""Computed as group normalization with a group for each channel, which is the same (torch's ``InstanceNorm2d`` would be
taken for a layer that keeps running statistics)."""
RMS = Norm(
    "rms",
    Look("Standard + RMSNorm", 13, "#CC6677", (0, (7, 1.2, 1.2, 1.2, 1.2, 1.2)), "*"),
    lambda options, transform, place: (transform, RMSNorm(place.features, options.eps)),
    SampleNormOptions,
)
