"""Singular values of the Jacobians of whole layers over a batch, with and without BN, at initialisation.

The conjecture of Ioffe & Szegedy (2015), section 3.3: BN may lead the layer Jacobians to singular values close to 1.
Their layer maps normalized vectors to normalized vectors, ``x -> BN(W phi(x))`` (``normalized``). Yang et al. (2019)
cut the same network elsewhere, ``h -> W phi(BN(h))`` (``signals``). Either maps a whole batch. Its Jacobian, of size
``(B N, B N)``, is written down in closed form; the statistics of BN are differentiated. The weights keep the length of
a signal: variance 1 / N, times 2 in front of ReLU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range, one_of

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config

ACTIVATIONS = ("linear", "relu")
WEIGHTS = ("gaussian", "orthogonal")


@dataclass
class JacobiansOptions(Options):
    """How many random networks of which width, and the settings that each of them is measured in.

    ``width``: N, features of a layer. ``batches``: B, samples that BN normalizes over; the theory needs 4. ``burn_in``:
    layers in front of the one that is measured at the fixed point. ``eps``: of BN.
    """

    width: int = 64
    batches: list[int] = field(default_factory=lambda: [8, 16])
    networks: int = 4
    burn_in: int = 20
    eps: float = 0.0
    activations: list[str] = field(default_factory=lambda: list(ACTIVATIONS))
    weights: list[str] = field(default_factory=lambda: list(WEIGHTS))

    def __post_init__(self) -> None:
        in_range("lab.width", self.width, 2)
        in_range("lab.networks", self.networks, 1)
        in_range("lab.burn_in", self.burn_in, 1)
        in_range("lab.eps", self.eps, 0)
        for key, values in (("batches", self.batches), ("activations", self.activations), ("weights", self.weights)):
            in_range(f"the number of lab.{key}", len(values), 1)
        for batch in self.batches:
            in_range("each of lab.batches", batch, 4)
        for activation in self.activations:
            one_of("each of lab.activations", activation, ACTIVATIONS)
        for kind in self.weights:
            one_of("each of lab.weights", kind, WEIGHTS)


def _rows(options: JacobiansOptions, seed: int) -> Iterator[Row]:
    """A row per setting and network; see :func:`icsbench.labs.jacobians.spectra.rows`."""
    from icsbench.labs.jacobians.spectra import rows

    yield from rows(options, seed)


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print the means over the networks of the run, a line per setting."""
    import numpy as np
    from rich.table import Table

    factors = dict(norm="norm", activation="phi", weights="weights", batch="B", place="place", inputs="inputs")
    measures = {"mean_square": "s²", "dead": "dead", "median": "median", "near": "near 1"}
    settings: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        settings.setdefault(tuple(str(row[factor]) for factor in factors), []).append(row)
    table = Table(*factors.values(), *measures.values(), box=None, pad_edge=False, collapse_padding=True)
    for setting, found in settings.items():
        table.add_row(*setting, *(f"{np.mean([row[measure] for row in found]):.3f}" for measure in measures))
    console.print(table)


LAB = Lab(
    name="jacobians",
    label="Singular values of layer Jacobians over a batch, with and without BN",
    rows=_rows,
    options=JacobiansOptions,
    show=_show,
    help="The Jacobian of a whole layer of random networks over a batch, in closed form, and its singular values: the "
    "share that is exactly zero, the share between 0.9 and 1.1, their median, quantiles and mean square. With and "
    "without BN, for linear and ReLU layers, Gaussian and orthogonal weights.",
)
