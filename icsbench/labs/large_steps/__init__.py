"""Bjorck et al. 2018, section 3: why a network without BN bears small steps only, seen at its initialisation.

Of the untrained network with weights w, on a mini-batch with loss L and gradient g, the network in training mode (BN by
the statistics of the batch at every point):

- *Relative loss* ``L(w - alpha g) / L(w)`` against the step size alpha. The step *diverges* where it is above 1,000 or
  not finite: their criterion. The *divergence step* is the smallest alpha of the grid that does, infinite where none
  does (it may lie beyond the grid). The *useful step* is the largest alpha of the grid before the first at which the
  relative loss is above 1; 0 where that is the first already.
- *Channels*: mean and standard deviation of every channel over batch and positions, at the output of each layer's
  transform. That is ahead of the norm; behind BN the mean is 0 and the deviation 1 whatever the network does. The layer
  that gives the outputs is left out.
- *Gradients at the output*: ``g_ic``, the derivative of the loss of sample i by its logit of class c.
  ``sign_share`` of c is the share of samples that have the commoner sign. For the cross-entropy
  ``g_ic = p_ic - [i is of class c]`` is negative exactly for the samples of the class, so it says nothing of the
  network. ``sign_share_by_size`` is the share of ``sum_i |g_ic|`` with the sign that has more of it, between 1/2 and 1:
  1 where one wrong class is predicted for all. ``common`` is ``||mean_i g_i||^2 / mean_i ||g_i||^2``, the part of the
  gradient that all samples have in common; ``commonest_prediction`` the share of samples for which the class that is
  predicted most often is predicted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab, Row
from icsbench.labs.network import Network
from icsbench.options import Options, in_range
from icsbench.record.schema import STEP_DIVERGES

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config


@dataclass
class LargeStepsOptions(Options):
    """The step sizes are ``per_decade`` a decade from ``lowest`` to ``highest``, on each of the first ``batches``."""

    batches: int = 3
    lowest: float = 1e-7
    highest: float = 10.0
    per_decade: int = 8

    def __post_init__(self) -> None:
        in_range("lab.batches", self.batches, 1)
        in_range("lab.lowest", self.lowest, 0, open_low=True)
        in_range("lab.highest", self.highest, self.lowest, open_low=True)
        in_range("lab.per_decade", self.per_decade, 1)

    @property
    def alphas(self) -> list[float]:
        """The grid of step sizes, ascending, to four digits."""
        intervals = max(1, round(math.log10(self.highest / self.lowest) * self.per_decade))
        return [float(f"{alpha:.4g}") for alpha in np.geomspace(self.lowest, self.highest, intervals + 1)]


def divergence_step(alphas: Sequence[float], relative: Sequence[float]) -> float:
    """The smallest step size whose relative loss is above :data:`STEP_DIVERGES`; infinite where none is."""
    return next((alpha for alpha, loss in zip(alphas, relative, strict=True) if loss > STEP_DIVERGES), math.inf)


def useful_step(alphas: Sequence[float], relative: Sequence[float]) -> float:
    """The largest step size before the first whose relative loss is above 1; 0 where the first one is."""
    before = 0.0
    for alpha, loss in zip(alphas, relative, strict=True):
        if loss > 1:
            break
        before = alpha
    return before


def _rows(options: LargeStepsOptions, seed: int, network: Network) -> Iterator[Row]:
    """Of each batch a row per step size, per layer and per class, and one of the whole.

    ``measure`` says which: ``step_size``, ``layer``, ``class``, ``batch``; ``step`` numbers them.

    :raises IcsbenchError: the data have no classes, or loss or gradient of the untrained network are not finite.
    """
    from icsbench.labs.large_steps import measure

    if network.task.chance is None:
        raise IcsbenchError(
            f"lab large_steps is about a classifier, and data {network.dataset.name} have no classes; "
            "choose data=digits or data=cifar10"
        )
    model, alphas = network.untrained(), options.alphas
    for batch in range(options.batches):
        found = measure.first_step(model, network.task.loss, *network.task.batches(batch), alphas)
        about = {"batch": batch}
        for index, (alpha, relative) in enumerate(zip(alphas, found.relative_losses, strict=True)):
            yield {"step": index, "measure": "step_size", **about, "alpha": alpha, "relative_loss": relative}
        for depth, row in enumerate(found.layers, start=1):
            yield {"step": depth, "measure": "layer", **about, **row}
        for number, row in enumerate(found.classes):
            yield {"step": number, "measure": "class", **about, **row}
        steps = {
            "divergence_step": divergence_step(alphas, found.relative_losses),
            "useful_step": useful_step(alphas, found.relative_losses),
        }
        yield {"step": batch, "measure": "batch", **about, **steps, **found.whole}


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print a line for each batch."""
    from rich.table import Table

    columns = ("divergence_step", "useful_step", "loss", "gradient_norm", "common", "commonest_prediction")
    table = Table(title=f"{config.run_name}, seed {config.seed}", title_justify="left", box=None)
    for name in ("batch", *columns):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        if row["measure"] == "batch":
            table.add_row(str(row["batch"]), *(f"{row[name]:.4g}" for name in columns))
    console.print(table)


LAB = Lab(
    name="large_steps",
    label="Large steps along the first gradient",
    rows=_rows,
    options=LargeStepsOptions,
    network=True,
    show=_show,
    help="Bjorck et al. 2018: how far the loss of the untrained network bears a step along its gradient, the means and "
    "deviations of its channels by depth, and how far the gradients at its output agree. A divergence step of inf is "
    "beyond lab.highest.",
)
