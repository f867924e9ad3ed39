"""The numbers that the figures draw: seeds condensed to means and intervals, step by step.

Each function raises NotMeasured where the group holds nothing for its figure, IcsbenchError for a damaged record.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.groups import Condition, Group, NotMeasured
from icsbench.analysis.statistics import Band, Floats, Interval, geometric_band, mean_band, mean_interval
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Layer, Run

TRAIN_LOSS = "train/loss"
TRAIN_ACCURACY = "train/accuracy"
TEST_ACCURACY = "test/accuracy"
TEST_ACCURACY_BATCH_ON = "test/accuracy/batch-on"
MEAN_PER_STEP = "mean_raw"
VARIANCE_PER_STEP = "variance_raw"
MEAN_FROM_START = "mean_from_start_raw"
VARIANCE_FROM_START = "variance_from_start_raw"
W1_PER_STEP = "w1"
W1_FROM_START = "w1_from_start"
DRIFT = "drift"
PERCENTILES = (15, 50, 85)

_RIDGES = 10


@dataclass(frozen=True, eq=False)
class Curve:
    """One quantity over the steps: the mean over ``seeds`` with its 95 % t-interval, arrays of shape (m,).

    Of a loss it is the geometric mean, with the interval of the mean logarithm.

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

    @property
    def x(self) -> NDArray[np.int64]:
        """The steps, as what the curve is drawn against."""
        return self.steps

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
class Tracks:
    """Percentiles of the pre-activation of every unit of a layer over the steps (m,), of one seed.

    ``values`` has shape (m, 3, units): the 15th, 50th and 85th percentile over the probe batch.
    """

    regime: str
    lr: float
    seed: int
    layer: Layer
    steps: NDArray[np.int64]
    values: Floats

    def band(self, share: float) -> tuple[Floats, Floats]:
        """Between which values the middle ``share`` of the units lies, of each step and percentile: two of (m, 3)."""
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(self.values, [(1 - share) / 2, (1 + share) / 2], axis=2)
        return low, high

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per percentile and step: the median over the units, and their middle 50 and 90 %."""
        (middle, _), (low_50, high_50), (low_90, high_90) = self.band(0), self.band(0.5), self.band(0.9)
        for position, percentile in enumerate(PERCENTILES):
            for at, step in enumerate(self.steps):
                yield {
                    "quantity": f"percentile-{percentile}",
                    "regime": self.regime,
                    "lr": self.lr,
                    "layer": self.layer.path,
                    "depth": self.layer.depth,
                    "seeds": str(self.seed),
                    "step": int(step),
                    "units": self.values.shape[2],
                    "median": float(middle[at, position]),
                    "low-50": float(low_50[at, position]),
                    "high-50": float(high_50[at, position]),
                    "low-90": float(low_90[at, position]),
                    "high-90": float(high_90[at, position]),
                }


@dataclass(frozen=True, eq=False)
class Drift:
    """How far the percentiles of a layer's units are from where they end: the curve, and what is behind it by seed.

    ``averages``: the mean over time, by the trapezoidal rule over the steps from the first probe to the last; NaN
    where they are one.
    ``left_out``: the number of units, of ``units``, whose final range is zero.
    """

    curve: Curve
    averages: dict[int, float]
    left_out: dict[int, int]
    units: int

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per point of the curve, then one per seed with its average over time."""
        yield from self.curve.rows()
        for seed, average in self.averages.items():
            yield {
                "quantity": f"{DRIFT}/average",
                "regime": self.curve.regime,
                "lr": self.curve.lr,
                "layer": self.curve.layer.path if self.curve.layer else "",
                "depth": self.curve.layer.depth if self.curve.layer else "",
                "seeds": str(seed),
                "mean": average,
                "units": self.units,
                "left_out": self.left_out[seed],
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


def loss_curves(group: Group) -> list[Curve]:
    """Training loss: the geometric mean over the seeds, and the curves of diverged runs."""
    curves: list[Curve] = []
    for condition in group.single_conditions:
        if _measured(condition.trained, TRAIN_LOSS):
            curves.append(_mean_curve(condition, condition.trained, TRAIN_LOSS, TRAIN_LOSS, average=geometric_band))
        alone = (_diverged_curve(condition, run, TRAIN_LOSS) for run in condition.diverged)
        curves += [curve for curve in alone if len(curve.steps)]
    if not curves:
        raise NotMeasured("no run has a finite train/loss in its metrics.jsonl")
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
    drawn: list[Ridge] = []
    for condition, run in _one_seed(_probed(group)):
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


def last_hidden_layer(group: Group) -> Layer:
    """The last of the ``chosen_layers`` among those probed."""
    return chosen_layers(_probed(group)[0].runs[0].layers)[-1]


def percentile_tracks(group: Group, layer: Layer) -> list[Tracks]:
    """The percentiles of every unit of a probed layer over the steps, of one seed per regime, that of ``ridges``.

    Of a pair of probes (t - 1, t) only the second counts. Ioffe & Szegedy (2015), Fig. 1 (b, c), have one unit.
    """
    return [
        Tracks(condition.regime, condition.lr, run.seed, layer, *_percentiles(run, layer))
        for condition, run in _one_seed(_probed(group))
    ]


def percentile_drift(group: Group, layer: Layer) -> list[Drift]:
    """Drift of the percentiles of a probed layer to the end, in units of the final 15-85 range; of each regime.

    D(t) = mean over units u and p in {15, 50, 85} of |q_p(u, t) - q_p(u, T)| / (q_85(u, T) - q_15(u, T)), where q_p is
    the p-th percentile of the unit's pre-activation over the probe batch and T the last probe, so that D(T) = 0. Units
    whose range at T is zero are left out; where all of them are, D is NaN. Of a pair of probes only the second
    counts. Runs that diverged are left out.
    """
    drifts: list[Drift] = []
    for condition in _probed(group):
        seeds = tuple(run.seed for run in condition.runs)
        found = [_percentiles(run, layer) for run in condition.runs]
        steps, first = found[0]
        for run, (own, _) in zip(condition.runs, found, strict=True):
            if not np.array_equal(own, steps):
                raise IcsbenchError(f"{run.path}: not probed at the steps of the other seeds; run it again")
        values, left_out = zip(*(_drift(quantiles) for _, quantiles in found), strict=True)
        duration = float(steps[-1] - steps[0]) or np.nan
        averages = np.asarray(np.trapezoid(values, steps, axis=1)) / duration
        band = mean_band(values)
        ends = (band.mean, band.low, band.high)
        curve = Curve(DRIFT, condition.regime, condition.lr, seeds, steps, *ends, layer, values=np.array(values))
        by_seed = (dict(zip(seeds, part, strict=True)) for part in (averages.tolist(), left_out))
        drifts.append(Drift(curve, *by_seed, units=first.shape[2]))
    return drifts


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
    """Three of the convolutions: at a sixth of the depth, at half of it, the last.

    Of n they are number max(1, round(n / 6)), ceil(n / 2) and n: 2, 7 and 13 of VGG16. Where there are no convolutions,
    of all layers but the output: 4, 12 and 24 of 25, 1, 2 and 3 of 4.
    """
    candidates = [layer for layer in layers if "conv" in layer.path] or list(layers[:-1] or layers)
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


def _one_seed(conditions: Sequence[Condition]) -> Iterator[tuple[Condition, Run]]:
    """Of each condition the run of the lowest seed that all have; where there is none, of its own lowest."""
    common = set.intersection(*({run.seed for run in condition.runs} for condition in conditions))
    for condition in conditions:
        yield condition, next(run for run in condition.runs if not common or run.seed == min(common))


def _percentiles(run: Run, layer: Layer) -> tuple[NDArray[np.int64], Floats]:
    """The probed steps that count, (m,), and there the percentiles of the units of a layer, (m, 3, units)."""
    steps = np.array(run.probe_steps)[_second_of_pairs(run.probe_steps)]
    return steps, np.stack([run.quantiles(int(step), layer.path) for step in steps])


def _drift(quantiles: Floats) -> tuple[Floats, int]:
    """D(t) of ``percentile_drift`` from (m, 3, units), and the number of units left out."""
    with np.errstate(invalid="ignore"):
        span = quantiles[-1, 2] - quantiles[-1, 0]
        kept = span != 0
        distance = np.abs(quantiles - quantiles[-1])[:, :, kept] / span[kept]
    drift = distance.mean(axis=(1, 2)) if kept.any() else np.full(len(quantiles), np.nan)
    return drift, int((~kept).sum())


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
    average: Callable[[Floats], Band] = mean_band,
) -> Curve:
    """The mean over the runs of what their rows hold at ``key``."""
    series = [run.metrics.series(key, interval) for run in runs]
    return mean_curve(condition, runs, quantity, series, layer, average)


def mean_curve(
    condition: Condition,
    runs: Sequence[Run],
    quantity: str,
    series: Sequence[tuple[NDArray[np.int64], Floats]],
    layer: Layer | None = None,
    average: Callable[[Floats], Band] = mean_band,
) -> Curve:
    """The mean over the runs, each with its series of steps and values, at the steps that all of them have.

    Raises IcsbenchError where they have none in common.
    """
    steps = reduce(np.intersect1d, [own for own, _ in series])
    if not len(steps):
        lacking = next((run for run, (own, _) in zip(runs, series, strict=True) if not len(own)), runs[0])
        what = f"{quantity} of {layer.path}" if layer else quantity
        raise IcsbenchError(f"{lacking.path / 'metrics.jsonl'}: no {what} at a step of the other seeds; run it again")
    values = np.array([values[np.isin(own, steps)] for own, values in series])
    band = average(values)
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
