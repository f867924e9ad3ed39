"""Exploding gradients of random networks with batch normalization (Yang et al. 2019), beside networks without it.

A network of depth L is ``h_l = W_l phi(BN(h_(l-1)))``, l = 1, ..., L, with weights of variance 1 / width; ``h_0`` is
independent standard normal, so that a batch starts at the fixed point of mean-field theory, and so is the gradient
``dL/dh_L`` of a random linear loss. Without batch normalization it is ``h_l = gain_l W_l phi(h_(l-1))``, with the gains
of :func:`icsbench.theory.mean_field.plain_layer`. All networks of a run share their weights between the settings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range, one_of

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config

NORMS = ("bn", "none-signals", "none-gradients")
"""With batch normalization, and without it, with weights that keep the size of signals or of gradients."""
_FEWEST_LAYERS = 3  # for a slope with an error


@dataclass
class ExplosionOptions(Options):
    """Settings are all of ``activations`` with all of ``norms`` and ``batches``; without BN only with the first batch
    size, as a sample then does not depend on the others.

    ``networks``: random networks of a run. ``weights``: gaussian or orthogonal. ``gamma``, ``beta``, ``eps``: of batch
    normalization. ``burn_in``, ``top``: the slope is over the layers from ``burn_in`` to ``depth - top``.
    """

    activations: list[str]
    norms: list[str]
    batches: list[int]
    networks: int
    width: int
    depth: int
    weights: str = "gaussian"
    gamma: float = 1.0
    beta: float = 0.0
    eps: float = 0.0
    burn_in: int = 5
    top: int = 5

    def __post_init__(self) -> None:
        from icsbench.theory.activations import ACTIVATIONS

        for key in ("activations", "norms", "batches"):
            if not getattr(self, key):
                raise ValueError(f"lab.{key} must name at least one")
        for name in self.activations:
            one_of("lab.activations", name, tuple(ACTIVATIONS))
        for name in self.norms:
            one_of("lab.norms", name, NORMS)
        for batch in self.batches:
            in_range("lab.batches", batch, 4)
        one_of("lab.weights", self.weights, ("gaussian", "orthogonal"))
        in_range("lab.networks", self.networks, 1)
        in_range("lab.width", self.width, 2)
        in_range("lab.gamma", self.gamma, 0, open_low=True)
        in_range("lab.beta", self.beta, float("-inf"))
        in_range("lab.eps", self.eps, 0)
        in_range("lab.burn_in", self.burn_in, 0)
        in_range("lab.top", self.top, 0)
        in_range("lab.depth", self.depth, max(1, self.burn_in + self.top + _FEWEST_LAYERS - 1))


def _rows(options: ExplosionOptions, seed: int) -> Iterator[Row]:
    """One row per random network and setting: its rate, what theory says, and the profile of its gradients."""
    from icsbench.labs.explosion.networks import rows

    return rows(options, seed)


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print the mean rate of each setting beside that of theory."""
    import numpy as np
    from rich.table import Table

    table = Table("activation", "norm", "batch", "networks", "rate", "standard error", "theory", box=None)
    settings = dict.fromkeys((row["activation"], row["norm"], row["batch"]) for row in rows)
    for setting in settings:
        of = [row for row in rows if (row["activation"], row["norm"], row["batch"]) == setting]
        rates = np.array([row["rate"] for row in of])
        error = f"{rates.std(ddof=1) / np.sqrt(len(rates)):.4f}" if len(rates) > 1 else ""
        said = of[0].get("theory_rate")
        table.add_row(
            *map(str, setting), str(len(of)), f"{rates.mean():.4f}", error, "" if said is None else f"{said:.4f}"
        )
    console.print(table)


LAB = Lab(
    name="explosion",
    label="Gradients of random networks by depth, with BN and without",
    rows=_rows,
    options=ExplosionOptions,
    show=_show,
    help="Random networks with batch normalization, and without it at the same weights: the factor per layer by which "
    "the squared gradient grows towards the input, beside that of mean-field theory. Also how the samples of a batch "
    "come to the fixed point of the forward pass.",
)
