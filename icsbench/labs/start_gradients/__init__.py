"""How large the gradients of an untrained network are, layer by layer (Lubana, Dick & Tanaka 2021).

Of the network in training mode, on each of the first batches: ``||dL / dy_l||``, the Euclidean norm over samples,
channels and positions of the gradient of the loss L (the mean over the batch) in the output y_l of layer l's
transform. That is ahead of the norm, where the weights are; where a norm stands behind y_l, y_l has the size that the
layer's inputs and initial weights give it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab, Row
from icsbench.labs.network import Network
from icsbench.options import Options, in_range

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config


@dataclass
class StartGradientsOptions(Options):
    """``batches``: how many of the first batches of the run are measured, each by itself."""

    batches: int = 3

    def __post_init__(self) -> None:
        in_range("lab.batches", self.batches, 1)


def _rows(options: StartGradientsOptions, seed: int, network: Network) -> Iterator[Row]:
    """A row for each batch and layer; ``step`` is the depth of the layer, from 1.

    :raises IcsbenchError: a gradient of the untrained network is not finite.
    """
    from icsbench.labs.start_gradients.measure import gradients

    for batch in range(options.batches):
        found = gradients(network.untrained(), network.task.loss, *network.task.batches(batch))
        for depth, (layer, gradient) in enumerate(found.items(), start=1):
            if not gradient < float("inf"):
                raise IcsbenchError(f"the gradient of the untrained network is {gradient:g} at layer {layer}")
            yield {"step": depth, "batch": batch, "layer": layer, "gradient": gradient}


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print a line for each layer, with the gradients of the batches."""
    from rich.table import Table

    table = Table("layer", "gradient by batch", title=f"{config.run_name}, seed {config.seed}", box=None)
    for layer in dict.fromkeys(row["layer"] for row in rows):
        table.add_row(layer, "  ".join(f"{row['gradient']:.4g}" for row in rows if row["layer"] == layer))
    console.print(table)


LAB = Lab(
    name="start_gradients",
    label="Gradients of the untrained network by layer",
    rows=_rows,
    options=StartGradientsOptions,
    network=True,
    show=_show,
    help="Lubana et al. 2021: the norm of the gradient of the loss in the output of each layer's transform, before the "
    "first update, on the first batches.",
)
