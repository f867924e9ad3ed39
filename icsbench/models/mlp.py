"""The sigmoid network of Ioffe & Szegedy 2015, section 4.1."""

from collections import OrderedDict

from torch import nn

from icsbench.models.block import Block, MakeNorm, Network


class MLP(Network, nn.Sequential):
    """Hidden layers of sigmoid units, each normalised before the sigmoid, and a linear output.

    Input ``(N, ...)`` with ``in_features`` values a sample, which are flattened; output ``(N, num_classes)``. Ioffe &
    Szegedy take 784 binary pixels, 3 hidden layers of 100 units and "small random Gaussian" weights whose standard
    deviation they do not state. Hidden layers keep their biases with BN too, where they have no effect, so that every
    regime has the same parameters. The layers are ``fc1`` to ``fc<depth + 1>``.

    :param make_norm: builds the normaliser of a hidden layer from its number of features and 1, the dimensions.
    :param depth: number of hidden layers; the output layer, which has no normaliser, comes after them.
    :param init: as in :class:`icsbench.models.VGG`, and so are ``init_std`` and ``seed``.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        make_norm: MakeNorm,
        *,
        depth: int = 3,
        units: int = 100,
        init: str = "gaussian",
        init_std: float = 0.1,
        seed: int = 0,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for index in range(1, depth + 1):
            layers[f"fc{index}"] = Block(nn.Linear(in_features, units), make_norm(units, 1), nn.Sigmoid())
            in_features = units
        layers[f"fc{depth + 1}"] = Block(nn.Linear(in_features, num_classes), nn.Identity(), nn.Identity())
        super().__init__(layers)
        self._initialise(init, init_std, seed)
