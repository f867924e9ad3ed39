"""The deep linear network of Santurkar et al. 2018."""

from collections import OrderedDict

from torch import nn

from icsbench.models.block import Block, MakeNorm, Network


class DeepLinear(Network, nn.Sequential):
    """A product of square matrices, ``W_depth ... W_1 x``, with a norm after each but the last; ``(N, features)``.

    Santurkar et al. train 25 Glorot-initialised matrices of 10 x 10 to a random linear map (Figures 3b, 9, 10); they do
    not state whether a norm follows the last one. No biases, no nonlinearity. The layers are ``fc1`` to ``fc<depth>``.

    :param make_norm: builds the normaliser from ``features`` and 1, the dimensions.
    :param depth: number of matrices.
    :param init: as in :class:`icsbench.models.VGG`, and so are ``init_std`` and ``seed``. Values are float32 ones; for
        a network in float64 use ``.double()``.
    """

    def __init__(
        self,
        features: int,
        make_norm: MakeNorm,
        *,
        depth: int = 25,
        init: str = "glorot",
        init_std: float = 0.1,
        seed: int = 0,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(1, depth + 1):
            norm = make_norm(features, 1) if index < depth else nn.Identity()
            layers[f"fc{index}"] = Block(nn.Linear(features, features, bias=False), norm, nn.Identity())
        super().__init__(layers)
        self._initialise(init, init_std, seed)
