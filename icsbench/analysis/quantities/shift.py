"""How the distribution of pre-activations moves: curves per layer, and the drift of percentiles.

Units of ``shift/<layer>/<quantity>``: a change of the mean is in the unit of the pre-activation, a change of the
variance in the square of that unit. ``w1`` is in units of the scale of the distribution that it is compared with.

A function that does not say otherwise raises NotMeasured where the group holds nothing of what it returns, and
IcsbenchError where a record is damaged.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.groups import Condition, Group, NotMeasured
from icsbench.analysis.quantities.curves import Curve, recorded_curve
from icsbench.analysis.statistics import Floats, mean_band
from icsbench.errors import IcsbenchError
from icsbench.record import schema
from icsbench.record.reader import Layer, Run

SHIFT = "shift"
"""The probe, and its folder in a record."""
MEAN_PER_STEP = "mean_raw"
VARIANCE_PER_STEP = "variance_raw"
MEAN_IN_UNITS = "mean"
"""The change of the mean in units of the standard deviation of the layer, ``sqrt(mean_c var_c)``, before the step."""
VARIANCE_IN_UNITS = "variance"
"""That of the variance in units of the square of it."""
DRIFT = "drift"
PERCENTILES = (15, 50, 85)


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


def last_hidden_layer(group: Group) -> Layer:
    """The last of the ``chosen_layers`` among those probed."""
    return chosen_layers(probed(group)[0].runs[0].layers_of(SHIFT))[-1]


def percentile_drift(group: Group, layer: Layer) -> list[Drift]:
    """Drift of the percentiles of a probed layer to the end, in units of the final 15-85 range; of each regime.

    D(t) = mean over units u and p in {15, 50, 85} of |q_p(u, t) - q_p(u, T)| / (q_85(u, T) - q_15(u, T)), where q_p is
    the p-th percentile of the unit's pre-activation over the probe batch and T the last probe, so that D(T) = 0. Units
    whose range at T is zero are left out; where all of them are, D is NaN. Of a pair of probes only the second
    counts. Runs that diverged are left out.
    """
    drifts: list[Drift] = []
    for condition in probed(group):
        seeds = tuple(run.seed for run in condition.runs)
        found = [percentiles(run, layer) for run in condition.runs]
        steps, first = found[0]
        for run, (own, _) in zip(condition.runs, found, strict=True):
            if not np.array_equal(own, steps):
                raise IcsbenchError(f"{run.path}: not probed at the steps of the other seeds; run it again")
            if run.at_step not in (None, int(own[-1])):
                raise NotMeasured(f"{run.path} has no {SHIFT} probe at step {run.at_step:,}, where it would end")
        values, left_out = zip(*(_drift(quantiles) for _, quantiles in found), strict=True)
        duration = float(steps[-1] - steps[0]) or np.nan
        averages = np.asarray(np.trapezoid(values, steps, axis=1)) / duration
        band = mean_band(values)
        ends = (band.mean, band.low, band.high)
        curve = Curve(DRIFT, condition.regime, condition.lr, seeds, steps, *ends, layer, values=np.array(values))
        by_seed = (dict(zip(seeds, part, strict=True)) for part in (averages.tolist(), left_out))
        drifts.append(Drift(curve, *by_seed, units=first.shape[2]))
    return drifts


def chosen_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Three of the convolutions: at a sixth of the depth, at half of it, the last.

    Of n they are number max(1, round(n / 6)), ceil(n / 2) and n: 2, 7 and 13 of VGG16. Where there are no convolutions,
    of all layers but the output: 4, 12 and 24 of 25, 1, 2 and 3 of 4.
    """
    candidates = [layer for layer in layers if "conv" in layer.path] or list(layers[:-1] or layers)
    n = len(candidates)
    return [candidates[number - 1] for number in sorted({max(1, round(n / 6)), (n + 1) // 2, n})]


def second_of_pairs(steps: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the steps are the first of all, or not followed by the very next one: of a pair (t - 1, t) only t."""
    present = set(map(int, steps))
    return np.array([position == 0 or int(step) + 1 not in present for position, step in enumerate(steps)], np.bool_)


def probed(group: Group) -> list[Condition]:
    """The conditions, with only those runs that recorded the shift and did not diverge."""
    conditions = [
        replace(condition, runs=runs)
        for condition in group.single_conditions
        if (runs := tuple(run for run in condition.trained if run.layers_of(SHIFT) and run.steps_of(SHIFT)))
    ]
    if not conditions:
        raise NotMeasured("no run that finished without diverging has shift probes")
    return conditions


def one_seed(conditions: Sequence[Condition]) -> Iterator[tuple[Condition, Run]]:
    """Of each condition the run of the lowest seed that all have; where there is none, of its own lowest."""
    common = set.intersection(*({run.seed for run in condition.runs} for condition in conditions))
    for condition in conditions:
        yield condition, next(run for run in condition.runs if not common or run.seed == min(common))


def percentiles(run: Run, layer: Layer) -> tuple[NDArray[np.int64], Floats]:
    """The probed steps that count, (m,), and there the percentiles of the units of a layer, (m, 3, units)."""
    probed_at = run.steps_of(SHIFT)
    steps = np.array(probed_at)[second_of_pairs(probed_at)]
    of_steps = [run.channels_of(SHIFT, int(step), "quantiles_preactivation", layer.path, (3,)) for step in steps]
    return steps, np.stack(of_steps)


def _drift(quantiles: Floats) -> tuple[Floats, int]:
    """D(t) of ``percentile_drift`` from (m, 3, units), and the number of units left out."""
    with np.errstate(invalid="ignore"):
        span = quantiles[-1, 2] - quantiles[-1, 0]
        kept = span != 0
        distance = np.abs(quantiles - quantiles[-1])[:, :, kept] / span[kept]
    drift = distance.mean(axis=(1, 2)) if kept.any() else np.full(len(quantiles), np.nan)
    return drift, int((~kept).sum())


def shift_curve(condition: Condition, quantity: str, layer: Layer) -> Curve:
    """The mean over the runs of a shift of a layer.

    Per step: of every pair of probes. From step 0: of every probe, of a pair only the second.
    """
    key = schema.shift(layer.path, quantity)
    if "from_start" not in quantity:
        return recorded_curve(condition, condition.runs, key, quantity, layer, interval=1)
    curve = recorded_curve(condition, condition.runs, key, quantity, layer)
    kept = second_of_pairs(curve.steps)
    ends = {"mean": curve.mean[kept], "low": curve.low[kept], "high": curve.high[kept]}
    values = None if curve.values is None else curve.values[:, kept]
    return replace(curve, steps=curve.steps[kept], **ends, values=values)


def step_shift(run: Run, moment: str, first: float | None = None) -> float:
    """Change of a moment in one step: mean over the probes, geometric mean over the ``chosen_layers``.

    The probes are those from the step ``first`` on; without it, of the second half. NaN where there is none, and of a
    run that diverged, as what it recorded is not that of a whole run.

    :raises NotMeasured: the run has no shift probes.
    """
    if not run.layers_of(SHIFT):
        raise NotMeasured(f"{run.path} has no shift probes")
    if run.status == "diverged":
        return math.nan
    first = int(run.setting("steps")) / 2 if first is None else first
    series = [run.metrics.series(schema.shift(layer.path, moment), 1) for layer in chosen_layers(run.layers_of(SHIFT))]
    counted = [values[steps >= first] for steps, values in series]
    means = np.array([values.mean() if len(values) else math.nan for values in counted])
    return float(np.exp(np.log(means).mean())) if (means > 0).all() else math.nan
