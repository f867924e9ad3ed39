"""Shattered gradients (Balduzzi et al. 2017): how alike the gradients of two inputs are, by the depth of the network.

Every condition has its own curve: whether there are skips, whether there is BN, and whether its statistics are
constants of the backward pass. What theory says: :mod:`icsbench.theory.residual`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range
from icsbench.theory.activations import Floats
from icsbench.theory.residual import Block, blocks, correlation_through_statistics, gradient_correlation

HELD = {"plain": "plain", "plain_bn_held": "plain_bn", "residual": "residual", "residual_bn_held": "residual_bn"}
"""Conditions, by the kind of their blocks; statistics, where there are any, are constants of the backward pass."""
THROUGH = {"plain_bn": "plain_bn", "residual_bn": "residual_bn"}
"""Conditions whose gradients go through the statistics."""
LOOKS_LINEAR = "looks_linear"


@dataclass
class ShatteredOptions(Options):
    """``networks`` of ``width`` units, cut off at each of ``depths``, on a ``batch`` of independent N(0, 1) inputs."""

    width: int = 256
    batch: int = 64
    networks: int = 34
    depths: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 80])

    def __post_init__(self) -> None:
        in_range("lab.width", self.width, 2)
        in_range("lab.batch", self.batch, 4)
        in_range("lab.networks", self.networks, 1)
        if not self.depths or list(self.depths) != sorted(set(self.depths)) or self.depths[0] < 1:
            raise ValueError(f"lab.depths must be numbers from 1 up, each larger than the last (got {self.depths})")


def _rows(options: ShatteredOptions, seed: int) -> Iterator[Row]:
    """A row per network, condition and depth: the mean correlation over pairs of inputs, uncentred."""
    from icsbench.labs.residual.tensors import draw
    from icsbench.labs.shattered.correlation import by_depth, looks_linear_by_depth

    depth = options.depths[-1]
    kinds = blocks(depth)
    theory = {one: _theory(one, kinds, depth, options.batch) for one in (*HELD, *THROUGH, LOOKS_LINEAR)}
    sizes = (options.networks, depth, options.width, options.batch)
    for numbers, x, weights, streams in draw(seed, "shattered", *sizes):
        found = {
            condition: by_depth(x, weights, kinds[kind], options.depths, streams, held=condition in HELD)
            for condition, kind in (HELD | THROUGH).items()
        }
        found[LOOKS_LINEAR] = looks_linear_by_depth(x, options.depths, streams)
        for place, network in enumerate(numbers):
            for condition, correlations in found.items():
                said = theory[condition]
                for row, at in enumerate(options.depths):
                    yield {
                        "step": at,
                        "network": network,
                        "condition": condition,
                        "correlation": correlations[row, place].item(),
                        "theory_correlation": float(said[at - 1]),
                    }


def _theory(condition: str, kinds: dict[str, Block], depth: int, batch: int) -> Floats:
    if condition in THROUGH:
        return correlation_through_statistics(kinds[THROUGH[condition]], depth, batch)
    return np.ones(depth) if condition == LOOKS_LINEAR else gradient_correlation(kinds[HELD[condition]], depth, batch)


LAB = Lab(
    name="shattered",
    label="Correlation of gradients between inputs, by depth",
    rows=_rows,
    options=ShatteredOptions,
    help="Random ReLU networks of growing depth with one common gradient at the output: the mean correlation of the "
    "gradients at the inputs, with and without skips and BN, and from the looks-linear start. Uncentred, over pairs of "
    "independent inputs.",
)
