"""VGG (Simonyan & Zisserman 2015, Table 1) for 32x32 images, with a place for a norm before every nonlinearity."""

from collections import OrderedDict

from torch import Tensor, nn

from icsbench.models.block import Block, MakeNorm, Network

_STAGES = {  # convolutions per stage; every stage ends in a 2x2 max-pool
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_CHANNELS = (64, 128, 256, 512, 512)


class VGG(Network):
    """VGG 11, 13, 16 or 19 with 3x3 convolutions, padding 1, for inputs of shape ``(N, 3, 32, 32)``.

    :param name: ``vgg11``, ``vgg13``, ``vgg16`` or ``vgg19``.
    :param num_classes: size of the output.
    :param make_norm: builds the normaliser of a layer from its number of features and 1 or 2 dimensions.
    :param width: multiplier of every channel count (and of hidden layers of the head), rounded, at least 1.
    :param head: ``linear`` (512 -> classes), ``512-512`` or ``4096-4096`` (two hidden layers with ReLU).
    :param head_norm: whether the hidden layers of the head have the normaliser too.
    :param init: ``glorot`` (uniform, zero biases: Glorot & Bengio 2010, eq. 16), ``he`` (normal, fan-in, zero biases:
        He et al. 2015, eq. 10), ``gaussian`` (normal, zero biases: the "small random Gaussian" of Ioffe & Szegedy 2015,
        section 4.1) or ``torch`` (PyTorch's default of its layers).
    :param init_std: standard deviation of the init ``gaussian``.
    :param seed: every parameter is drawn from a stream named after it, so parameters that two regimes share are equal.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        make_norm: MakeNorm,
        *,
        width: float = 1.0,
        head: str = "linear",
        head_norm: bool = False,
        init: str = "glorot",
        init_std: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        features: OrderedDict[str, nn.Module] = OrderedDict()
        channels, depth = 3, 0
        for stage, (repeats, base) in enumerate(zip(_STAGES[name], _CHANNELS, strict=True), start=1):
            for _ in range(repeats):
                depth += 1
                out = max(1, round(base * width))
                convolution = nn.Conv2d(channels, out, kernel_size=3, padding=1)
                features[f"conv{depth}"] = Block(convolution, make_norm(out, 2), nn.ReLU(inplace=True))
                channels = out
            features[f"pool{stage}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(features)

        hidden = [] if head == "linear" else [max(1, round(int(size) * width)) for size in head.split("-")]
        classifier: OrderedDict[str, nn.Module] = OrderedDict()
        for index, size in enumerate(hidden, start=1):
            norm = make_norm(size, 1) if head_norm else nn.Identity()
            classifier[f"fc{index}"] = Block(nn.Linear(channels, size), norm, nn.ReLU(inplace=True))
            channels = size
        classifier[f"fc{len(hidden) + 1}"] = Block(nn.Linear(channels, num_classes), nn.Identity(), nn.Identity())
        self.head = nn.Sequential(classifier)
        self._initialise(init, init_std, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, 32, 32)`` to logits ``(N, num_classes)``."""
        return self.head(self.features(x).flatten(1))
