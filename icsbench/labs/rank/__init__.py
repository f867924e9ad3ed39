"""Rank, orthogonality and isometry of the signals of random networks, with and without BN (four parts, ``part``).

================  =====================================================================================================
``rank``          Batch n = width d: the soft rank against depth and d (Daneshmand et al. 2020)
``orthogonality`` A small batch of nearly equal inputs: the orthogonality gap (Daneshmand et al. 2021)
``isometry``      n = d, Gaussian and orthogonal weights: the isometry gap (Joudaki et al. 2023, Meterez et al. 2024)
``gradient``      n = d: the gradient of the first layer's weights against the depth of the network (Meterez et al.)
================  =====================================================================================================
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range
from icsbench.theory.isometry import isometry_gap_with_depth, orthogonality_gap_bound

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from icsbench.config import Config
    from icsbench.labs.rank.systems import System

_POINTS = 24  # depths that are measured, evenly on a logarithmic axis


@dataclass
class RankOptions(Options):
    """Sizes of the parts: ``widths`` and ``depth`` of ``rank``, ``wide_`` of ``orthogonality``, then as they are named.

    ``gamma``: the weight of the random matrix in a skip layer. ``batch``: that of ``orthogonality``.
    """

    networks: int = 4
    widths: list[int] = field(default_factory=lambda: [16, 32, 64])
    depth: int = 300
    gamma: float = 0.3
    batch: int = 4
    wide_widths: list[int] = field(default_factory=lambda: [16, 32, 64, 128, 256])
    wide_depth: int = 60
    isometry_width: int = 50
    isometry_depth: int = 400
    gradient_width: int = 100
    gradient_depths: list[int] = field(default_factory=lambda: [5, 20, 50, 100, 200])

    def __post_init__(self) -> None:
        for key in ("networks", "depth", "wide_depth", "isometry_depth"):
            in_range(f"lab.{key}", getattr(self, key), 1)
        for key in ("isometry_width", "gradient_width", "batch"):
            in_range(f"lab.{key}", getattr(self, key), 4)
        in_range("lab.gamma", self.gamma, 0, open_low=True)
        for key, fewest, low in (("widths", 2, 4), ("wide_widths", 2, self.batch), ("gradient_depths", 2, 1)):
            values = getattr(self, key)
            if len(set(values)) < max(fewest, len(values)):
                raise ValueError(f"lab.{key} must be at least {fewest} different numbers (got {values})")
            for value in values:
                in_range(f"lab.{key}", value, low)


def _rows(options: RankOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.rank.systems import System

    skips = [System("skip", norm=norm) for norm in ("none", "rescale")]
    broken = [System(norm=norm, weights="positive") for norm in ("rescale", "bn")]
    plain = [System(activation=phi, norm=norm) for phi in ("linear", "relu") for norm in ("none", "rescale", "bn")]
    for width, systems in itertools.product(options.widths, ([*plain, *skips], broken)):
        yield from _of_signals("rank", options, seed, systems, width, width, options.depth)

    aligned = [system._replace(start="aligned") for system in plain]
    for width in options.wide_widths:
        yield from _of_signals("orthogonality", options, seed, aligned, options.batch, width, options.wide_depth)

    for kind in ("orthogonal", "gaussian"):
        systems = [System(norm=norm, weights=kind) for norm in ("none", "rescale", "bn")]
        systems.append(System(weights=kind, start="identity"))
        width = options.isometry_width
        yield from _of_signals("isometry", options, seed, systems, width, width, options.isometry_depth)
        for system in systems[:3]:
            yield from _of_gradients(options, seed, system)


def depths(last: int) -> list[int]:
    """The depths that are measured: 0, 1, and on to ``last``."""
    return [0, *sorted({round(depth) for depth in np.geomspace(1, last, _POINTS)})]


def _of_signals(
    part: str, options: RankOptions, seed: int, systems: "list[System]", batch: int, width: int, depth: int
) -> Iterator[Row]:
    """A row for each system, network and measured depth. A network whose signals are all 0 has no more rows."""
    from icsbench.labs.rank.systems import signals

    measured = set(depths(depth))
    layers = enumerate(signals(systems, seed, options.networks, batch, width, depth, options.gamma))
    found = {
        step: [_measures(x, system.norm == "bn") for system, x in zip(systems, every, strict=True)]
        for step, every in layers
        if step in measured
    }
    for (number, system), network in itertools.product(enumerate(systems), range(options.networks)):
        of = {"network": network, "part": part, **system._asdict(), "batch": batch, "width": width}
        values = {step: every[number][network] for step, every in found.items()}
        values = {step: value for step, value in values.items() if value["soft_rank"] > 0}
        theory = _theory(part, system, values, batch, width)
        for step, value in values.items():
            yield {"step": step, **of, **value, **theory.get(step, {})}


def _measures(x: "Tensor", centred: bool) -> list[Row]:
    """Of each network. ``singular``: directions were lost, and the isometry gap is a lower bound."""
    from icsbench.labs.rank import measures

    directions = min(x.shape[1] - centred, x.shape[2])
    of = measures.spectrum(x)
    rank = measures.numerical_rank(of)
    columns = {
        "soft_rank": measures.soft_rank(x).nan_to_num(0),
        "stable_rank": measures.stable_rank(of),
        "numerical_rank": rank,
        "orthogonality_gap": measures.orthogonality_gap(x),
        "isometry_gap": measures.isometry_gap(of, directions),
        "singular": rank < directions,
        "smallest_share": measures.smallest_share(of),
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]


def _theory(part: str, system: "System", found: dict[int, Row], batch: int, width: int) -> dict[int, Row]:
    """What theory says of one network, by depth, where it says something."""
    if system.activation != "linear" or system.norm != "rescale" or system.layers != "plain":
        return {}
    steps = [step for step in found if step]
    if part == "rank" and system.weights == "gaussian":
        return {step: {"theory_soft_rank": math.sqrt(width)} for step in steps}
    if part == "orthogonality":
        alpha = math.sqrt(min(found[step]["smallest_share"] for step in steps))
        bound = orthogonality_gap_bound(alpha, np.array(steps) - 1, batch, width)
        return {step: {"bound_orthogonality_gap": float(value)} for step, value in zip(steps, bound, strict=True)}
    if part == "isometry" and system.weights == "orthogonal":
        decay = isometry_gap_with_depth(found[0]["isometry_gap"], [*found], width)
        return {step: {"theory_isometry_gap": float(value)} for step, value in zip(found, decay, strict=True)}
    return {}


def _of_gradients(options: RankOptions, seed: int, system: "System") -> Iterator[Row]:
    from icsbench.labs.rank.systems import log_gradients

    of = {"part": "gradient", **system._asdict(), "batch": options.gradient_width, "width": options.gradient_width}
    for depth in options.gradient_depths:
        found = log_gradients(system, seed, options.networks, options.gradient_width, depth)
        for network, value in enumerate(found.tolist()):
            yield {"step": depth, "network": network, **of, "log_gradient": value}


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print what is left at the last depth and the largest width of each system: means over the networks."""
    from rich.table import Table

    factors = ("part", "layers", "activation", "norm", "weights", "start")
    table = Table("signals", "start, weights, norm", "depth", "soft rank", "orth. gap", "iso. gap")
    signals = sorted((row for row in rows if "soft_rank" in row), key=lambda row: [row[key] for key in factors])
    for of, found in itertools.groupby(signals, lambda row: [row[key] for key in factors]):
        last = max(found := list(found), key=lambda row: (row["width"], row["step"]))
        found = [row for row in found if (row["width"], row["step"]) == (last["width"], last["step"])]
        rank, *gaps = (
            np.mean([row[key] for row in found]) for key in ("soft_rank", "orthogonality_gap", "isometry_gap")
        )
        part, layers, activation, norm, weights, start = of
        bound = "> " if any(row["singular"] for row in found) else ""
        name = f"{part}: {layers} {activation}, d = {last['width']}"
        numbers = (f"{rank:.3g}", f"{gaps[0]:.2g}", f"{bound}{gaps[1]:.2g}")
        table.add_row(name, f"{start}, {weights}, {norm}", str(last["step"]), *numbers)
    console.print(table)


LAB = Lab(
    name="rank",
    label="Rank, orthogonality and isometry of random networks",
    rows=_rows,
    options=RankOptions,
    show=_show,
    help="How many directions a batch keeps through random layers with and without BN, over depth and width, and the "
    "gradient of the first layer. Linear and ReLU layers, Gaussian, orthogonal and positive weights.",
)
