"""Signals and gradients of random residual networks, block by block: exponential or polynomial growth.

What a block is, and what theory says: :mod:`icsbench.theory.residual`. Of every network the same weights make all
kinds, so that kinds are paired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range
from icsbench.theory.residual import Block, blocks, log_gradient, signals

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config


@dataclass
class ResidualOptions(Options):
    """``networks`` of ``depth`` blocks of ``width`` units, on a ``batch`` of independent N(0, 1) inputs.

    ``gain``: that of SkipInit's branch.
    """

    depth: int = 100
    width: int = 256
    batch: int = 128
    networks: int = 34
    gain: float = 0.0

    def __post_init__(self) -> None:
        in_range("lab.depth", self.depth, 1, 1000)
        in_range("lab.width", self.width, 2)
        in_range("lab.batch", self.batch, 4)  # with BN and fewer, gradients have no mean (Yang et al. 2019)
        in_range("lab.networks", self.networks, 1)
        in_range("lab.gain", self.gain, 0, 1)


def recorded(depth: int) -> list[int]:
    """The blocks that have rows, counted from 1: the first ten and every fifth."""
    return [number for number in range(1, depth + 1) if number <= 10 or number % 5 == 0]


def _rows(options: ResidualOptions, seed: int) -> Iterator[Row]:
    """A row per network, kind and recorded block: what comes into the block, and the gradient there.

    ``log_gradient``: ln of the squared norm, over that at the output. ``branch_ratio``: the batch variance of the
    branch over that of the skip.
    """
    from icsbench.labs.residual.networks import profile, top_gradients
    from icsbench.labs.residual.tensors import draw

    kinds = blocks(options.depth, options.gain)
    theory = {kind: _theory(block, options) for kind, block in kinds.items()}
    at = [number - 1 for number in recorded(options.depth)]
    sizes = (options.networks, options.depth, options.width, options.batch)
    for numbers, x, weights, streams in draw(seed, "residual", *sizes):
        top = top_gradients(streams, x)
        found = {
            kind: profile(x, weights, block, top, at).columns(skip=bool(block.skip)) for kind, block in kinds.items()
        }
        for place, network in enumerate(numbers):
            for kind, columns in found.items():
                for row, block in enumerate(at):
                    measured = {name: column[row, place].item() for name, column in columns.items()}
                    said = {f"theory_{name}": float(theory[kind][name][block]) for name in measured}
                    yield {"step": block + 1, "network": network, "kind": kind, **measured, **said}


def _theory(block: Block, options: ResidualOptions) -> dict[str, np.ndarray]:
    expected = signals(block, options.depth, options.batch)
    return {
        "second_moment": expected.second_moment,
        "batch_variance": expected.batch_variance,
        "branch_ratio": expected.branch_batch_variance / expected.batch_variance,
        "log_gradient": log_gradient(block, options.depth, options.batch),
    }


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """The last recorded block of each kind: means over networks, and theory."""
    from rich.table import Table

    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    title = f"What comes into block {rows[-1]['step']}"
    table = Table("kind", "second moment", "theory", "batch variance", "theory", title=title, box=None)
    for kind in dict.fromkeys(row["kind"] for row in last):
        of_kind = [row for row in last if row["kind"] == kind]
        numbers = [
            number
            for name in ("second_moment", "batch_variance")
            for number in (np.mean([row[name] for row in of_kind]), of_kind[0][f"theory_{name}"])
        ]
        table.add_row(kind, *(f"{number:.4g}" for number in numbers))
    console.print(table)


LAB = Lab(
    name="residual",
    label="Signals and gradients of random residual networks",
    rows=_rows,
    options=ResidualOptions,
    show=_show,
    help="Random ReLU networks with and without skips and BN, SkipInit, Fixup, and scaled sums: the second moment, the "
    "batch variance and the gradient at every block, beside theory. The same weights make every kind.",
)
