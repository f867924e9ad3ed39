"""What a model is: the contract of its members."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from icsbench.models.block import Network
from icsbench.norms import NormLayer
from icsbench.options import Options


class Build(Protocol):
    """Builds the network of a model, on the CPU and in float32; a class of networks with such a constructor is one."""

    def __call__(
        self, options: Any, norm: NormLayer, *, shape: tuple[int, ...], num_classes: int | None, seed: int
    ) -> Network:
        """Build it.

        :param options: an instance of the model's ``options``.
        :param norm: what is applied at each place for a norm.
        :param shape: that of one input, ``(channels, height, width)`` of an image.
        :param num_classes: size of a classifier's output; None for a regression.
        :param seed: of the initial weights.
        """
        ...


@dataclass(frozen=True)
class Model:
    """A network that can be trained."""

    name: str
    build: Build
    label: Callable[[Any], str]
    """``options -> `` what a caption calls the network, with its size."""
    takes: str
    """The data that it takes, in words that follow "which takes"."""
    fits: Callable[[tuple[int, ...], bool], bool]
    """``(shape of one input, whether there are classes) -> `` whether it takes them."""
    options: type[Options] = Options
    units: bool = False
    """Whether all channels of every layer are single units, as in an MLP."""
    residual: bool = False
    """Whether it has residual branches (:class:`icsbench.models.Residual`), which some norms are of."""
    dtype: torch.dtype = torch.float32
    """What it is trained in: float32, for which autocast may stand in, or float64. The inputs of data=gaussian are
    float64, images are float32: a network in float64 casts those itself."""
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a scale stands for with this network, as dotted keys and their values: a run with others is "altered"."""

    @property
    def precision(self) -> str:
        """``float32`` or ``float64``."""
        return str(self.dtype).removeprefix("torch.")
