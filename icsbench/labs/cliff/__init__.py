"""The trainability cliff (Yang et al. 2019, section 5, Fig. 2): accuracy after training, by depth and batch size.

A network of depth L is ``h^1 = W^1 x``, ``h^l = W^l relu(n(h^(l-1)))`` for l = 2 ... L and logits ``V relu(n(h^L))``,
without biases or skip connections; n is BN with gamma = 1 and beta = 0, which are not trained, or nothing. Weights are
drawn from N(0, 2 / inputs of the layer) (He et al. 2015) with BN and without: network i of a seed has the same first
weights and the same order of images at every depth and batch size, with BN and without it.

All are trained with plain SGD on the cross entropy for the same number of epochs. The learning rate is
``lr_per_sample`` times the batch size, so that learning rate times updates is the same for all. In the paper that
product is 1e-5 times 10 epochs of 60,000 images = 6; digits have 1,437 images, and 10 epochs at 4e-4 make 5.7.

Accuracy is that on whole batches of the size of training, in a fixed order, with the statistics of each batch: of the
training images, as in the paper, and of the test images. A network whose logits or weights are not finite at the end
has diverged; its accuracies are that of chance, its loss is NaN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range, one_of

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config
    from icsbench.data.sources import Dataset

NORMS = ("bn", "none")
DATA = {"digits": "digits8", "cifar10": "cifar10", "mnist": "mnist"}
"""From the values of ``lab.data`` to the names of data sets."""
LIMIT = 16
"""Depth scales beyond which networks are said to be untrainable."""


@dataclass
class CliffOptions(Options):
    """``root``: the folder of CIFAR-10 or MNIST. ``eps``: that of BN, for which 0 could mean a division by 0."""

    depths: list[int] = field(default_factory=lambda: [4, 16, 32, 64])
    batches: list[int] = field(default_factory=lambda: [8, 32, 128])
    width: int = 64
    epochs: int = 10
    lr_per_sample: float = 4e-4
    eps: float = 1e-3
    networks: int = 3
    data: str = "digits"
    root: str | None = None

    def __post_init__(self) -> None:
        for key, values, fewest in (("lab.depths", self.depths, 1), ("lab.batches", self.batches, 4)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key} must be a list of different numbers (got {values})")
            for value in values:
                in_range(key, value, fewest)
        in_range("lab.width", self.width, 2)
        in_range("lab.epochs", self.epochs, 1)
        in_range("lab.lr_per_sample", self.lr_per_sample, 0, open_low=True)
        in_range("lab.eps", self.eps, 0, open_low=True)
        in_range("lab.networks", self.networks, 1)
        one_of("lab.data", self.data, tuple(DATA))


def _rows(options: CliffOptions, seed: int) -> Iterator[Row]:
    """A row for each network, by norm, batch size and depth (``step``); ``theory_cliff`` is 16 xi, of BN alone."""
    from icsbench.labs.cliff.training import outcomes, standardised
    from icsbench.theory.mean_field import depth_scale

    dataset = _dataset(options)
    images = standardised(dataset)
    about = {"data": dataset.label, "chance": 1 / images.classes}
    for norm in NORMS:
        for batch in options.batches:
            limit = {"theory_cliff": LIMIT * depth_scale("relu", batch)} if norm == "bn" else {}
            for depth in options.depths:
                for network, found in enumerate(outcomes(options, seed, images, norm, batch, depth)):
                    setting = {"step": depth, "norm": norm, "batch": batch, "network": network}
                    yield setting | found._asdict() | limit | about


def _dataset(options: CliffOptions) -> "Dataset":
    from icsbench.data.sources import load_dataset

    try:
        dataset = load_dataset(DATA[options.data], options.root, 0)
    except IcsbenchError as error:
        raise IcsbenchError(str(error).replace("data.root", "lab.root")) from error
    most = min(len(dataset.train), len(dataset.test))
    if max(options.batches) > most:
        raise IcsbenchError(
            f"lab.batches: {max(options.batches)} images make no batch of {dataset.label}; the most are {most}"
        )
    return dataset


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print the mean training accuracy of the networks by depth, batch size and norm."""
    from rich.table import Table

    of_setting: dict[tuple[str, int, int], list[float]] = {}
    for row in rows:
        of_setting.setdefault((row["norm"], row["batch"], row["step"]), []).append(row["accuracy_train"])
    depths = sorted({depth for _, _, depth in of_setting})
    table = Table(
        "norm", "batch", "16 xi", *map(str, depths), title=f"Training accuracy in % by depth, {config.run_name}"
    )
    limits = {(row["norm"], row["batch"]): row.get("theory_cliff") for row in rows}
    for (norm, batch), limit in limits.items():
        accuracies = [of_setting[norm, batch, depth] for depth in depths]
        said = "" if limit is None else f"{limit:.1f}"
        table.add_row(norm, str(batch), said, *(f"{100 * sum(of) / len(of):.0f}" for of in accuracies))
    console.print(table)


LAB = Lab(
    name="cliff",
    label="The trainability cliff: accuracy by depth and batch size, with and without BN",
    rows=_rows,
    options=CliffOptions,
    show=_show,
    help="Plain ReLU networks of several depths are trained at several batch sizes, with BN and without, and their "
    "accuracy is set beside 16 depth scales of mean-field theory. CIFAR-10 or MNIST need lab.root, their folder.",
)
