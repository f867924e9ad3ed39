"""The numbers that the figures draw: seeds condensed to means and intervals, step by step.

Each function raises NotMeasured where the group holds nothing for its figure, IcsbenchError for a damaged record.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.groups import Condition, Group, NotMeasured
from icsbench.analysis.results import Layer, Run
from icsbench.analysis.statistics import Floats, Interval, mean_band, mean_interval
from icsbench.errors import IcsbenchError

TRAIN_ACCURACY = "train/accuracy"
TEST_ACCURACY = "test/accuracy"
TEST_ACCURACY_BATCH_ON = "test/accuracy/batch-on"
MEAN_PER_STEP = "mean_raw"
VARIANCE_PER_STEP = "variance_raw"
MEAN_FROM_START = "mean_from_start_raw"
VARIANCE_FROM_START = "variance_from_start_raw"
W1_PER_STEP = "w1"
W1_FROM_START = "w1_from_start"

_RIDGES = 10


@dataclass(frozen=True, eq=False)
class Curve:
    """One quantity over the steps: the mean over ``seeds`` with its 95 % t-interval, arrays of shape (m,).

    For a diverged run, which no mean contains, the curve is that of its single seed up to ``diverged_at``. Accuracies
    are fractions; shifts are in the unit of the pre-activation (its square for a variance), except for ``w1``, which
    is in units of the reference distribution's scale.
    """

    quantity: str
    regime: str
    lr: float
    seeds: tuple[int, ...]
    steps: NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats
    layer: Layer | None = None
    diverged_at: int | None = None
    values: Floats | None = None
    """The single seeds behind the mean, (n, m)."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per point."""
        for step, mean, low, high in zip(self.steps, self.mean, self.low, self.high, strict=True):
            yield {
                "quantity": self.quantity,
                "regime": self.regime,
                "lr": self.lr,
                "layer": self.layer.path if self.layer else "",
                "depth": self.layer.depth if self.layer else "",
                "seeds": " ".join(map(str, self.seeds)),
                "diverged_at": "" if self.diverged_at is None else self.diverged_at,
                "step": int(step),
                "mean": float(mean),
                "low": float(low),
                "high": float(high),
            }


@dataclass(frozen=True, eq=False)
class Ridge:
    """Pre-activations of a layer at one step, of one seed: a density, shape (bins,), over ``edges``, (bins + 1,)."""

    regime: str
    lr: float
    seed: int
    layer: Layer
    step: int
    edges: Floats
    density: Floats

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per bin."""
        for left, right, density in zip(self.edges[:-1], self.edges[1:], self.density, strict=True):
            yield {
                "regime": self.regime,
                "lr": self.lr,
                "seed": self.seed,
                "layer": self.layer.path,
                "depth": self.layer.depth,
                "step": self.step,
                "left": float(left),
                "right": float(right),
                "density": float(density),
            }


@dataclass(frozen=True, eq=False)
class ProtocolAccuracy:
    """Final test accuracy (fraction) of a regime under one protocol: every seed, and their interval."""

    regime: str
    lr: float
    protocol: str
    interval: Interval
    seeds: dict[int, float]
    diverged: frozenset[int] = field(default_factory=frozenset)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per seed, with the interval repeated."""
        for seed, accuracy in self.seeds.items():
            yield {
                "regime": self.regime,
                "lr": self.lr,
                "protocol": self.protocol,
                "seed": seed,
                "diverged": seed in self.diverged,
                "test/accuracy": accuracy,
                "mean": self.interval.mean,
                "low": self.interval.low,
                "high": self.interval.high,
                "n": self.interval.n,
            }


def accuracy_curves(group: Group) -> list[Curve]:
    """Training accuracy, test accuracy, and test accuracy on batch statistics with noise on, where it was measured."""
    curves: list[Curve] = []
    for condition in group.single_conditions:
        for quantity in (TRAIN_ACCURACY, TEST_ACCURACY, TEST_ACCURACY_BATCH_ON):
            if _measured(condition.trained, quantity):
                curves.append(_mean_curve(condition, condition.trained, quantity, quantity))
            for run in condition.diverged:
                curve = _diverged_curve(condition, run, quantity)
                if len(curve.steps):
                    curves.append(curve)
    if not curves:
        raise NotMeasured("no run has an accuracy in its metrics.jsonl")
    return curves


def moment_curves(group: Group) -> list[Curve]:
    """Raw shifts of mean and variance, per step and from step 0, of the ``chosen_layers``; diverged runs left out."""
    conditions = _probed(group)
    return [
        _shift_curve(condition, quantity, layer)
        for layer in chosen_layers(conditions[0].runs[0].layers)
        for quantity in (MEAN_PER_STEP, VARIANCE_PER_STEP, MEAN_FROM_START, VARIANCE_FROM_START)
        for condition in conditions
    ]


def w1_curves(group: Group) -> list[Curve]:
    """Normalised Wasserstein-1 shift per step and from step 0, of every layer; runs that diverged left out."""
    conditions = _probed(group)
    return [
        _shift_curve(condition, quantity, layer)
        for quantity in (W1_FROM_START, W1_PER_STEP)
        for condition in conditions
        for layer in conditions[0].runs[0].layers
    ]


def ridges(group: Group) -> list[Ridge]:
    """Densities of the ``chosen_layers`` of one seed per regime, at up to 10 steps spread evenly over the probes.

    The seed is the lowest one that finished without diverging in every regime; where there is none, the lowest of each
    regime. The first and the last probe are always among the steps. Probes come in pairs (t - 1, t), of which only the
    second is considered.
    """
    conditions = _probed(group)
    common = set.intersection(*({run.seed for run in condition.runs} for condition in conditions))
    drawn: list[Ridge] = []
    for condition in conditions:
        run = next(run for run in condition.runs if not common or run.seed == min(common))
        positions = {layer.path: position for position, layer in enumerate(run.layers)}
        for step in spread_steps(run.probe_steps, _RIDGES):
            counts, edges = run.histogram(step)
            for layer in chosen_layers(run.layers):
                row = positions[layer.path]
                if row >= len(counts):
                    raise IcsbenchError(
                        f"{run.path}: probe at step {step} has {len(counts)} layers, not {len(positions)}"
                    )
                width = np.diff(edges[row])
                area = counts[row].sum() * width
                density = np.divide(counts[row], area, out=np.zeros_like(area), where=area > 0)
                drawn.append(Ridge(condition.regime, condition.lr, run.seed, layer, step, edges[row], density))
    return drawn


def protocol_accuracies(group: Group) -> list[ProtocolAccuracy]:
    """Final test accuracy by regime and protocol, diverged runs included with the accuracy they have."""
    accuracies: list[ProtocolAccuracy] = []
    for condition in group.single_conditions:
        for protocol in protocols(condition.runs):
            seeds = {run.seed: run.test_accuracy.get(protocol, float("nan")) for run in condition.runs}
            diverged = frozenset(run.seed for run in condition.diverged)
            interval = mean_interval(list(seeds.values()))
            accuracies.append(ProtocolAccuracy(condition.regime, condition.lr, protocol, interval, seeds, diverged))
    if not accuracies:
        raise NotMeasured("no run has a test/accuracy in its summary.json")
    return accuracies


def protocols(runs: Iterable[Run]) -> list[str]:
    """The evaluation protocols found among the runs, in ``protocol_order``."""
    return sorted({protocol for run in runs for protocol in run.test_accuracy}, key=protocol_order)


def protocol_order(protocol: str) -> tuple[bool, int, str]:
    """Sort key: noise off first, then running, recalibrated, batch statistics."""
    order = ("running", "recalibrated", "batch")
    statistics, _, noise = protocol.partition("-")
    return noise != "off", order.index(statistics) if statistics in order else len(order), protocol


def chosen_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Three of the convolutions (of all layers where there is none): at a sixth of the depth, at half of it, the last.

    Of n layers these are number max(1, round(n / 6)), ceil(n / 2) and n: 2, 7 and 13 of VGG16.
    """
    candidates = [layer for layer in layers if "conv" in layer.path] or list(layers)
    n = len(candidates)
    return [candidates[number - 1] for number in sorted({max(1, round(n / 6)), (n + 1) // 2, n})]


def spread_steps(steps: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the ascending probe steps, evenly spread from the first to the last.

    Of a pair (t - 1, t) only t is a candidate, except for the first.
    """
    candidates = np.array(steps)[_second_of_pairs(steps)]
    wanted = np.linspace(candidates[0], candidates[-1], count)
    return sorted({int(candidates[np.abs(candidates - step).argmin()]) for step in wanted})


def _second_of_pairs(steps: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the steps are the first of all or not followed by the very next one."""
    present = set(map(int, steps))
    return np.array([position == 0 or int(step) + 1 not in present for position, step in enumerate(steps)], np.bool_)


def _probed(group: Group) -> list[Condition]:
    """The conditions, with only those runs that recorded the shift and did not diverge."""
    conditions = [
        Condition(condition.regime, condition.lr, runs)
        for condition in group.single_conditions
        if (runs := tuple(run for run in condition.trained if run.layers and run.probe_steps))
    ]
    if not conditions:
        raise NotMeasured("no run that finished without diverging has shift probes")
    return conditions


def _shift_curve(condition: Condition, quantity: str, layer: Layer) -> Curve:
    """Per step: of every pair of probes. From step 0: at every probe, of a pair only at the second."""
    key = f"shift/{layer.path}/{quantity}"
    if "from_start" not in quantity:
        return _mean_curve(condition, condition.runs, key, quantity, layer, interval=1)
    curve = _mean_curve(condition, condition.runs, key, quantity, layer)
    kept = _second_of_pairs(curve.steps)
    ends = {"mean": curve.mean[kept], "low": curve.low[kept], "high": curve.high[kept]}
    values = None if curve.values is None else curve.values[:, kept]
    return replace(curve, steps=curve.steps[kept], **ends, values=values)


def _mean_curve(
    condition: Condition,
    runs: Sequence[Run],
    key: str,
    quantity: str,
    layer: Layer | None = None,
    interval: int | None = None,
) -> Curve:
    """The mean over the runs at the steps that all of them have."""
    series = [run.metrics.series(key, interval) for run in runs]
    steps = reduce(np.intersect1d, [own for own, _ in series])
    if not len(steps):
        lacking = next((run for run, (own, _) in zip(runs, series, strict=True) if not len(own)), runs[0])
        raise IcsbenchError(f"{lacking.path / 'metrics.jsonl'}: no {key} at a step of the other seeds; run it again")
    values = np.array([values[np.isin(own, steps)] for own, values in series])
    band = mean_band(values)
    seeds = tuple(run.seed for run in runs)
    ends = (band.mean, band.low, band.high)
    return Curve(quantity, condition.regime, condition.lr, seeds, steps, *ends, layer, values=values)


def _diverged_curve(condition: Condition, run: Run, quantity: str) -> Curve:
    steps, values = run.metrics.series(quantity)
    end = run.summary.get("diverged_at")
    end = run.metrics.last_step if end is None else int(end)
    kept = (steps <= end) & np.isfinite(values)
    steps, values = steps[kept], values[kept]
    missing = np.full(len(steps), np.nan)
    seeds = (run.seed,)
    return Curve(quantity, condition.regime, condition.lr, seeds, steps, values, missing, missing, diverged_at=end)


def _measured(runs: Iterable[Run], key: str) -> bool:
    return any(key in row for run in runs for row in run.metrics.rows)
