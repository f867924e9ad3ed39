"""What all networks share: the layer, the list of layers, and initial weights from named random streams."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.streams import stream_seed

MakeNorm = Callable[[int, int], nn.Module]
"""``(num_features, dimensions) -> module``, with dimensions 2 for feature maps and 1 for vectors."""

INITS = ("glorot", "he", "torch", "gaussian")


class Block(nn.Module):
    """One layer, ``activation(norm(transform(x)))``: Ioffe & Szegedy 2015, section 3.2, ``z = g(BN(W u))``.

    The output of ``norm`` is the *pre-activation* of the layer in every regime (``norm`` is the identity without BN).
    """

    def __init__(self, transform: nn.Module, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return self.activation(self.norm(self.transform(x)))


class Network(nn.Module):
    """A network of blocks."""

    def layers(self) -> list[tuple[str, Block]]:
        """The layers that own weights as ``(path, block)``, in forward order: the same in every regime."""
        return [(path, module) for path, module in self.named_modules() if isinstance(module, Block)]

    def _initialise(self, init: str, init_std: float, seed: int) -> None:
        """Draw weights and biases of every block's ``transform``, in the parameters' dtype.

        ``glorot``: uniform, Glorot & Bengio 2010, eq. 16. ``he``: normal by fan-in, He et al. 2015, eq. 10.
        ``gaussian``: normal with standard deviation ``init_std``. Biases are zero in all three. ``torch``: weights and
        biases uniform between -1/sqrt(fan-in) and its opposite, PyTorch's default.

        Every parameter is drawn from the stream of ``seed`` named after it, so parameters that two regimes share are
        equal. Raises IcsbenchError for another ``init``.
        """
        if init not in INITS:
            raise IcsbenchError(f"unknown init {init!r}; the known ones are {', '.join(INITS)}")
        for path, block in self.layers():
            weight = block.transform.get_parameter("weight")
            receptive_field = weight[0][0].numel()
            fan_in, fan_out = weight.shape[1] * receptive_field, weight.shape[0] * receptive_field
            for name, parameter in block.transform.named_parameters(f"{path}.transform"):
                generator = torch.Generator().manual_seed(stream_seed(seed, "init", name))
                with torch.no_grad():
                    if init == "torch":
                        bound = 1 / math.sqrt(fan_in)
                        parameter.uniform_(-bound, bound, generator=generator)
                    elif parameter is not weight:
                        parameter.zero_()
                    elif init == "glorot":
                        bound = math.sqrt(6 / (fan_in + fan_out))
                        parameter.uniform_(-bound, bound, generator=generator)
                    else:
                        std = init_std if init == "gaussian" else math.sqrt(2 / fan_in)
                        parameter.normal_(0, std, generator=generator)
