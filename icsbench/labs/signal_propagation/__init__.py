"""Signal propagation plots (Brock et al. 2021a): channels of an untrained network by depth.

Of the untrained network in training mode, on inputs drawn from N(0, 1), over samples and positions:

- *squared mean*: the mean over channels of the squared mean of a channel. Behind a ReLU all channels have positive
  means, which a layer of weights hands on: the mean shift.
- *variance*: the mean over channels of the variance of a channel.

Both are taken of the pre-activation of every layer but the last (``layer``), and of what comes out of every residual
block (``block``; ``step`` 0 is what goes into the first).

Of a network with scalars at the ends of its branches (SkipInit's, and those of ``nf``) there are two sets of rows. In
one they are as they start: at 0, where a block is its shortcut alone. In the other they are set to 1.

With ``norm=nf`` and ``norm=bn`` the blocks of the first stage also have what theory says of infinitely wide ones
(:mod:`icsbench.theory.rectified_walk`). Later stages have not: there half of the channels come from a branch alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icsbench.labs.contract import Lab, Row
from icsbench.labs.network import Network
from icsbench.options import Options, in_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from icsbench.config import Config


@dataclass
class SignalPropagationOptions(Options):
    """``samples``: how many inputs there are."""

    samples: int = 64

    def __post_init__(self) -> None:
        in_range("lab.samples", self.samples, 2)


def _rows(options: SignalPropagationOptions, seed: int, network: Network) -> Iterator[Row]:
    """A row for each layer and each block; ``scalars`` is ``one``, or ``start`` where they are as they start."""
    from icsbench.labs.signal_propagation import measure

    x = measure.noise(options.samples, network.config.data.shape, seed)
    model = network.untrained()
    if measure.scalars_of(model):
        for row in measure.signals(model, x):
            yield row | {"scalars": "start"}
    for scalar in measure.scalars_of(model):
        scalar.data.fill_(1.0)
    theory = measure.theory(model, network.config.norm)
    for row in measure.signals(model, x):
        said = theory.get(row["step"], {}) if row["measure"] == "block" else {}
        yield row | said | {"scalars": "one"}


def _show(console: "Console", config: "Config", rows: "Sequence[Row]") -> None:
    """Print a line for each layer and block."""
    from rich.table import Table

    columns = ("squared_mean", "variance", "theory_squared_mean", "theory_variance")
    table = Table(title=f"{config.run_name}, seed {config.seed}", title_justify="left", box=None)
    for name in ("scalars", "measure", "step", *columns):
        table.add_column(name.replace("_", " "), justify="left" if name in ("scalars", "measure") else "right")
    for row in rows:
        numbers = (f"{row[name]:.4g}" if name in row else "" for name in columns)
        table.add_row(row["scalars"], row["measure"], str(row["step"]), *numbers)
    console.print(table)


LAB = Lab(
    name="signal_propagation",
    label="Signal propagation",
    rows=_rows,
    options=SignalPropagationOptions,
    network=True,
    show=_show,
    help="Brock et al. 2021: squared means and variances of the channels of the untrained network by depth, on inputs "
    "drawn from N(0, 1), at the pre-activations of its layers and behind its residual blocks.",
)
