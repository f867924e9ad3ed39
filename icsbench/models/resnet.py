"""The CIFAR ResNets (He et al. 2015, "Deep Residual Learning", section 4.2), with a place for a norm in every layer."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from icsbench.models.block import Block, Network, NormPlace, Residual, WidthOptions, output_layer
from icsbench.models.contract import Model
from icsbench.norms import NormLayer

_BLOCKS = {"resnet20": 3, "resnet56": 9, "resnet110": 18}
"""n, residual blocks per stage; the depth is 6n + 2."""


@dataclass
class ResNetOptions(WidthOptions):
    """``width`` multiplies every channel count; ``bias``: whether convolutions have one, which BN would cancel."""

    bias: bool = False
    init: str = "he"


class Subsampling(nn.Module):
    """The shortcut without parameters ("option A"): every ``stride``-th row and column, new channels zero.

    :param channels: channels of the output, the first of which are those of the input.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, channels, H / stride, W / stride)``, rounded up."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class ResNet(Network):
    """ResNet-20, 56 or 110: ``(N, 3, 32, 32)`` to ``(N, num_classes)``.

    A 3x3 convolution, 3 stages of n basic blocks ``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))`` with 3x3
    convolutions of 16, 32 and 64 channels, the mean over positions, and a linear layer. Stages 2 and 3 begin with
    stride 2. The layers are ``stem``, ``stage1.block1.conv1`` to ``stage3.block<n>.conv2``, and ``fc``.
    """

    def __init__(
        self, options: ResNetOptions, norm: NormLayer, *, shape: tuple[int, ...], num_classes: int | None, seed: int
    ) -> None:
        super().__init__()
        n, bias = _BLOCKS[options.name], options.bias
        first, second, third = map(options.channels, (16, 32, 64))
        self.stem = _layer(shape[0], first, 1, bias, nn.ReLU(inplace=True))
        self.stage1 = _stage(n, first, first, 1, bias)
        self.stage2 = _stage(n, first, second, 2, bias)
        self.stage3 = _stage(n, second, third, 2, bias)
        self.fc = output_layer(third, num_classes)
        self.finish(norm, options, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, 32, 32)`` to logits ``(N, num_classes)``."""
        features = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.fc(features.mean((2, 3)))


def _layer(channels: int, out: int, stride: int, bias: bool, activation: nn.Module) -> Block:
    convolution = nn.Conv2d(channels, out, kernel_size=3, stride=stride, padding=1, bias=bias)
    return Block(convolution, NormPlace(out, 2), activation)


def _stage(count: int, channels: int, out: int, stride: int, bias: bool) -> nn.Sequential:
    blocks: OrderedDict[str, nn.Module] = OrderedDict(block1=_basic_block(channels, out, stride, bias))
    blocks |= {f"block{number}": _basic_block(out, out, 1, bias) for number in range(2, count + 1)}
    return nn.Sequential(blocks)


def _basic_block(channels: int, out: int, stride: int, bias: bool) -> Residual:
    branch = {
        "conv1": _layer(channels, out, stride, bias, nn.ReLU(inplace=True)),
        "conv2": _layer(out, out, 1, bias, nn.Identity()),
    }
    same = stride == 1 and channels == out
    return Residual(branch, nn.Identity() if same else Subsampling(out, stride), nn.ReLU(inplace=True))


def _resnet(name: str) -> Model:
    return Model(
        name,
        ResNet,
        lambda options: f"ResNet-{name.removeprefix('resnet')} at {options.width_label}",
        takes="32x32 colour images",
        fits=lambda shape, classes: classes and shape == (3, 32, 32),
        options=ResNetOptions,
        residual=True,
        scales={
            "demo": {"data.name": "digits", "model.width": 0.25, "batch_size": 64},
            "cpu": {"data.name": "cifar10", "model.width": 0.5, "batch_size": 128},
            "paper": {"data.name": "cifar10", "model.width": 1.0, "steps": 15_000, "batch_size": 128},
        },
    )


RESNET20, RESNET56, RESNET110 = map(_resnet, _BLOCKS)
