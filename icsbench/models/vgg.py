"""VGG (Simonyan & Zisserman 2015, Table 1) for 32x32 images, with a place for a norm before every nonlinearity."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from icsbench.models.block import Block, Network, NormPlace, WidthOptions, output_layer
from icsbench.models.contract import Model
from icsbench.norms import NormLayer
from icsbench.options import one_of

_STAGES = {  # convolutions per stage; every stage ends in a 2x2 max-pool
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_CHANNELS = (64, 128, 256, 512, 512)


@dataclass
class VGGOptions(WidthOptions):
    """``width`` multiplies every channel count, and the hidden layers of the head; rounded, at least 1.

    ``head`` is ``linear`` (512 -> classes), ``512-512`` or ``4096-4096`` (two hidden layers with ReLU); with
    ``head_norm`` its hidden layers have places for a norm too.
    """

    head: str = "linear"
    head_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("model.head", self.head, ("linear", "512-512", "4096-4096"))


class VGG(Network):
    """VGG 11, 13, 16 or 19 with 3x3 convolutions, padding 1: ``(N, 3, 32, 32)`` to ``(N, num_classes)``.

    The layers are ``features.conv1`` to ``features.conv<depth>`` and ``head.fc1`` to ``head.fc3``, or ``head.fc1``
    alone.
    """

    def __init__(
        self, options: VGGOptions, norm: NormLayer, *, shape: tuple[int, ...], num_classes: int | None, seed: int
    ) -> None:
        super().__init__()
        features: OrderedDict[str, nn.Module] = OrderedDict()
        channels, depth = shape[0], 0
        for stage, (repeats, base) in enumerate(zip(_STAGES[options.name], _CHANNELS, strict=True), start=1):
            for _ in range(repeats):
                depth += 1
                out = options.channels(base)
                convolution = nn.Conv2d(channels, out, kernel_size=3, padding=1)
                features[f"conv{depth}"] = Block(convolution, NormPlace(out, 2), nn.ReLU(inplace=True))
                channels = out
            features[f"pool{stage}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(features)

        sizes = [] if options.head == "linear" else options.head.split("-")
        hidden = [options.channels(int(size)) for size in sizes]
        classifier: OrderedDict[str, nn.Module] = OrderedDict()
        for index, size in enumerate(hidden, start=1):
            behind = NormPlace(size, 1) if options.head_norm else nn.Identity()
            classifier[f"fc{index}"] = Block(nn.Linear(channels, size), behind, nn.ReLU(inplace=True))
            channels = size
        classifier[f"fc{len(hidden) + 1}"] = output_layer(channels, num_classes)
        self.head = nn.Sequential(classifier)
        self.finish(norm, options, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, 32, 32)`` to logits ``(N, num_classes)``."""
        return self.head(self.features(x).flatten(1))


def _label(options: VGGOptions) -> str:
    return f"{options.name.upper()} at {options.width_label}"


def _vgg(name: str) -> Model:
    return Model(
        name,
        VGG,
        _label,
        takes="32x32 colour images",
        fits=lambda shape, classes: classes and shape == (3, 32, 32),
        options=VGGOptions,
        scales={
            "demo": {"data.name": "digits", "model.width": 0.125, "batch_size": 32},
            "cpu": {"data.name": "cifar10", "model.width": 0.25, "batch_size": 128},
            "paper": {"data.name": "cifar10", "model.width": 1.0, "steps": 15_000, "batch_size": 128},
        },
    )


VGG11, VGG13, VGG16, VGG19 = map(_vgg, _STAGES)
