"""The first steps of training deep ReLU networks with batch normalization, layer by layer (Yang et al. 2019, Fig. 3).

A network of depth L is ``h_1 = W_1 x``, ``h_l = W_l relu(BN(h_(l-1)))`` and ``V relu(BN(h_L))``, its outputs for the
ten classes of scikit-learn's digits. Batch normalization has no parameters. Weights are He's, N(0, 2 / width), but for
W_1 and V, which are N(0, 1 / their inputs). Each network is trained by gradient descent on batches of its own. Without
batch normalization (``none``) all else is the same, the weights at the start and the batches included.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range, one_of

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config

NORMS = ("bn", "none")
_DIGITS = 1797


@dataclass
class FirstStepsOptions(Options):
    """``networks``: random networks of a run, for each of ``depths``, trained with each of ``norms`` and of ``lrs``.

    ``lrs``: learning rates. ``eps``: of batch normalization.
    """

    depths: list[int]
    norms: list[str]
    lrs: list[float]
    networks: int
    width: int
    batch: int
    steps: int = 10
    eps: float = 1e-3

    def __post_init__(self) -> None:
        for key in ("depths", "norms", "lrs"):
            if not getattr(self, key):
                raise ValueError(f"lab.{key} must name at least one")
        for depth in self.depths:
            in_range("lab.depths", depth, 3)
        for name in self.norms:
            one_of("lab.norms", name, NORMS)
        in_range("lab.networks", self.networks, 1)
        in_range("lab.width", self.width, 2)
        in_range("lab.batch", self.batch, 2, _DIGITS)
        in_range("lab.steps", self.steps, 1)
        for lr in self.lrs:
            in_range("lab.lrs", lr, 0, open_low=True)
        in_range("lab.eps", self.eps, 0)


def _rows(options: FirstStepsOptions, seed: int) -> Iterator[Row]:
    """One row per step, random network, depth, norm and learning rate."""
    from icsbench.labs.first_steps.training import rows

    return rows(options, seed)


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print the means over networks at each step."""
    import numpy as np
    from rich.table import Table

    table = Table("depth", "norm", "lr", "step", "gradient slope", "gradient range", "growth of weights", box=None)
    keys = ("depth", "norm", "lr", "step")
    for setting in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        of = [row for row in rows if tuple(row[key] for key in keys) == setting]
        means = [np.mean([row[key] for row in of]) for key in ("gradient_slope", "gradient_range", "weight_growth")]
        table.add_row(*map(str, setting), *(f"{mean:.4f}" for mean in means))
    console.print(table)


LAB = Lab(
    name="first_steps",
    label="The first steps of deep networks by layer, with BN and without",
    rows=_rows,
    options=FirstStepsOptions,
    show=_show,
    help="Squared gradients and weights of every layer over the first steps of gradient descent. The slope is that of "
    "the log squared gradient, per layer towards the input; the growth is the factor from the last layer to the "
    "second, by the line through the log squared norms of the weights.",
)
