"""What all networks share: the layer, the places for norms, and initial weights from named random streams."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from icsbench.norms import Branch, NormLayer, Place
from icsbench.options import Options, in_range, one_of
from icsbench.streams import stream_seed

INITS = ("glorot", "he", "torch", "gaussian")


@dataclass(kw_only=True)
class InitOptions(Options):
    """How a network's weights start.

    ``init`` is one of:

    - ``glorot``: uniform, Glorot & Bengio 2010, eq. 16; biases are zero.
    - ``he``: normal by fan-in, He et al. 2015, eq. 10; biases are zero.
    - ``gaussian``: normal with standard deviation ``init_std``, the "small random Gaussian" of Ioffe & Szegedy 2015,
      section 4.1; biases are zero.
    - ``torch``: weights and biases uniform between -1/sqrt(fan-in) and its opposite, PyTorch's default.
    """

    init: str = "glorot"
    init_std: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("model.init", self.init, INITS)
        in_range("model.init_std", self.init_std, 0, open_low=True)


@dataclass(kw_only=True)
class StackOptions(InitOptions):
    """``depth`` equal layers of ``units`` units each; of a network with an output layer, its hidden ones."""

    depth: int
    units: int

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("model.depth", self.depth, 1)
        in_range("model.units", self.units, 1)


@dataclass(kw_only=True)
class WidthOptions(InitOptions):
    """``width`` multiplies every channel count of a convolutional network; rounded, at least 1."""

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("model.width", self.width, 1 / 64, 16)

    @property
    def folder_name(self) -> str:
        """``vgg16-w0.25``; without the width where it is 1."""
        return self.name if self.width == 1 else f"{self.name}-w{self.width:g}"

    @property
    def width_label(self) -> str:
        """``width 1/4``."""
        return f"width {Fraction(self.width).limit_denominator(64)}"

    def channels(self, base: int) -> int:
        """``base`` channels, multiplied."""
        return max(1, round(base * self.width))


class NormPlace(nn.Identity):
    """Marks the place for a norm, until :meth:`Network.finish` puts one there.

    :param features: channels of the transform ahead of it.
    :param dimensions: 1 for vectors, 2 for feature maps.
    :param output: whether the layer is the network's output, where most norms do not stand.
    """

    def __init__(self, features: int, dimensions: int, *, output: bool = False) -> None:
        super().__init__()
        self.features = features
        self.dimensions = dimensions
        self.output = output


class Block(nn.Module):
    """One layer, ``activation(norm(transform(x)))``: Ioffe & Szegedy 2015, section 3.2, ``z = g(BN(W u))``.

    The output of ``norm`` is the *pre-activation* of the layer in every regime (``norm`` is the identity where none
    stands behind the transform).
    """

    def __init__(self, transform: nn.Module, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.norm = norm
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return self.activation(self.norm(self.transform(x)))


def dense_layer(features: int, units: int, activation: nn.Module) -> Block:
    """A fully connected layer with a place for a norm: ``(N, features)`` to ``(N, units)``."""
    return Block(nn.Linear(features, units), NormPlace(units, 1), activation)


def output_layer(features: int, num_classes: int | None) -> Block:
    """The output layer of a classifier: ``(N, features)`` to ``(N, num_classes)``.

    :param num_classes: that of :class:`icsbench.models.contract.Build`; not None, which ``Model.fits`` refuses.
    """
    assert num_classes is not None
    return Block(nn.Linear(features, num_classes), NormPlace(num_classes, 1, output=True), nn.Identity())


class Residual(nn.Module):
    """A residual block, ``activation(shortcut(x) + branch(x))``; the branch is a chain of layers.

    :param branch: the layers by their names, in forward order; the last one has no activation of its own.
    """

    def __init__(self, branch: Mapping[str, Block], shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self._names = [*branch]
        for name, layer in branch.items():
            self.add_module(name, layer)
        self.shortcut = shortcut
        self.activation = activation

    @property
    def branch(self) -> list[Block]:
        """The layers of the branch, in forward order."""
        return [getattr(self, name) for name in self._names]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        value = x
        for layer in self.branch:
            value = layer(value)
        return self.activation(self.shortcut(x) + value)


class Network(nn.Module):
    """A network of blocks. Its constructor builds plain layers, with a :class:`NormPlace` wherever a norm may stand."""

    def layers(self) -> list[tuple[str, Block]]:
        """The layers that own weights as ``(path, block)``, in forward order: the same in every regime."""
        return [(path, module) for path, module in self.named_modules() if isinstance(module, Block)]

    def finish(self, norm: NormLayer, options: InitOptions, seed: int) -> None:
        """Draw the initial weights, then apply the norm at every place; for the end of a constructor.

        Every parameter of a block's ``transform`` is drawn from the stream of ``seed`` named after it, before a norm
        may wrap it. So the parameters that two regimes share start equal. A norm that draws numbers of its own takes
        them from torch's default stream, which is a function of ``seed`` here.

        The parameters ahead of a place for a norm get the attribute ``ahead_of_norm``, those of the output layer
        ``output``: by these optimizers know them.
        """
        for path, block in self.layers():
            _initialize(f"{path}.transform", block.transform, options, seed)
        torch.default_generator.manual_seed(stream_seed(seed, "norm"))
        places = [(path, block, block.norm) for path, block in self.layers() if isinstance(block.norm, NormPlace)]
        count = sum(not at.output for *_, at in places)
        branches = self._branches()
        for index, (path, block, at) in enumerate(places):
            for parameter in block.transform.parameters():
                setattr(parameter, "output" if at.output else "ahead_of_norm", True)
            branch = branches.get(block)
            place = Place(index, count, at.features, at.dimensions, branch, at.output, path, block.activation)
            block.transform, block.norm = norm(block.transform, place)

    def _branches(self) -> dict[nn.Module, Branch]:
        """Where the layers of residual branches are."""
        found = [module for module in self.modules() if isinstance(module, Residual)]
        first = [not number or not isinstance(block.shortcut, nn.Identity) for number, block in enumerate(found)]
        starts = [number for number, begins in enumerate(first) if begins]
        stages = tuple(end - start for start, end in itertools.pairwise([*starts, len(found)]))
        return {
            layer: Branch(number, len(found), position, len(block.branch), stages)
            for number, block in enumerate(found)
            for position, layer in enumerate(block.branch)
        }


def _initialize(path: str, transform: nn.Module, options: InitOptions, seed: int) -> None:
    """Draw weights and biases of a plain transform, in the parameters' dtype; see :class:`InitOptions`."""
    weight = transform.get_parameter("weight")
    receptive_field = weight[0][0].numel()
    fan_in, fan_out = weight.shape[1] * receptive_field, weight.shape[0] * receptive_field
    for name, parameter in transform.named_parameters(path):
        generator = torch.Generator().manual_seed(stream_seed(seed, "init", name))
        with torch.no_grad():
            if options.init == "torch":
                bound = 1 / math.sqrt(fan_in)
                parameter.uniform_(-bound, bound, generator=generator)
            elif parameter is not weight:
                parameter.zero_()
            elif options.init == "glorot":
                bound = math.sqrt(6 / (fan_in + fan_out))
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                std = options.init_std if options.init == "gaussian" else math.sqrt(2 / fan_in)
                parameter.normal_(0, std, generator=generator)
