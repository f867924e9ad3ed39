"""What a network with BN knows by which statistics, in random batches and in batches by class (Wu & Johnson 2021).

A training, with its norm and its order of images (``data.order``), is made step by step; at 1, 2, 5, 10, ... steps the
accuracy on the first ``images`` test images is measured

=========  ============================================================================================================
running    with BN's moving averages; the only row of a norm that keeps no statistics
precise    with population statistics of the weights as they are, from ``recalibration_batches`` random training batches
           (the paper's PreciseBN; Ioffe & Szegedy 2015, Algorithm 2)
batch      with the statistics of the evaluated batch, as in training: of ``random`` images, and ``by_class``, of at
           most ``data.classes_per_batch`` classes, each of ``size`` images; both on the same images
=========  ============================================================================================================

A network that is trained on batches of one class can tell the class by what the batch has in common, which is leaked
through BN's statistics; it then is right in such batches alone. ``batch`` is measured at the size of the
training's batches along the way, and at all of ``sizes`` after the last step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from icsbench.labs.contract import Lab, Row
from icsbench.labs.network import Network
from icsbench.options import Options, in_range

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config


@dataclass
class BatchStatisticsOptions(Options):
    """``images``: of the test set; ``sizes``: of the evaluated batches, besides that of the training's."""

    images: int = 1000
    sizes: list[int] = field(default_factory=lambda: [8, 32])

    def __post_init__(self) -> None:
        in_range("lab.images", self.images, 2)
        for size in self.sizes:
            in_range("lab.sizes", size, 2)


def _rows(options: BatchStatisticsOptions, seed: int, network: Network) -> Iterator[Row]:
    from icsbench.labs.batch_statistics.measure import rows

    return rows(options, network)


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print the accuracies in %, a line for each recorded step, those of batches at the training's size."""
    from rich.table import Table

    columns: dict[tuple[str, str], None] = {}
    lines: dict[int, dict[tuple[str, str], float]] = {}
    for row in rows:
        if row["size"] == config.batch_size:
            key = (row["statistics"], row["batches"])
            columns[key] = None
            lines.setdefault(row["step"], {})[key] = row["accuracy"]
    table = Table(title=f"{config.run_name}, seed {config.seed}: test accuracy (%)", title_justify="left", box=None)
    for name in ("step", *(f"{statistics} ({batches})" for statistics, batches in columns)):
        table.add_column(name, justify="right")
    for step, found in lines.items():
        table.add_row(str(step), *(f"{100 * found[key]:.1f}" for key in columns))
    console.print(table)


LAB = Lab(
    name="batch_statistics",
    label="Test accuracy by BN's statistics, in random batches and in batches by class",
    rows=_rows,
    options=BatchStatisticsOptions,
    network=True,
    show=_show,
    help="Wu & Johnson 2021: a training is followed, and its network tested with running, precise and batch "
    "statistics; the latter in random batches and in batches of few classes. data.order=by_class trains on such ones.",
)
