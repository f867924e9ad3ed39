"""What the claims are about: one number per seed, out of the run records of one study.

A measure takes the comparable runs of its study and returns a value for each seed that has all it needs, and for the
others why they have none. Ratios are ratios, accuracies in percentage points. A run that diverged has the accuracy of
chance from then on; what it has no value of leaves its seed out, which is said. Each raises NotMeasured where the study
does not hold what it needs, IcsbenchError for a damaged record.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities import updates
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.shift import (
    MEAN_PER_STEP,
    VARIANCE_PER_STEP,
    last_hidden_layer,
    percentile_drift,
    step_shift,
)
from icsbench.analysis.quantities.training import accuracy_to_the_end, chance_of, last_tenth
from icsbench.analysis.quantities.updates import window_of
from icsbench.analysis.statistics import Floats
from icsbench.record.reader import Layer, Run
from icsbench.record.schema import LEFT_CHANCE, TRAIN_LOSS

_PAPERS_LR = 0.1
_PAPERS_DLN_LR = 1e-7
_FIRST_OF_LAST = 0.9
_VGG_LAYERS = (3, 11)
_SHORT_STEP = 0.5


class Measured(NamedTuple):
    """A number per seed, and for each seed that has none the reason.

    ``runs``: those that the numbers are of, all of the study where it is empty. ``note``: what was found on the way.
    """

    values: dict[int, float]
    left_out: dict[int, str]
    runs: tuple[Run, ...] = ()
    note: str = ""


Measure = Callable[[Group], Measured]
_Runs = dict[int, Run]


def _seeds(group: Group, regime: str, lr: float | None = None, strength: float | None = None) -> _Runs:
    """The runs of one configuration, by seed; raises NotMeasured where there is none, or more than one."""
    found = [
        condition
        for condition in group.conditions
        if condition.regime == regime
        and (lr is None or condition.lr == lr)
        and (strength is None or condition.runs[0].setting("norm.strength", 1.0) == strength)
    ]
    what = regime + ("" if lr is None else f" at learning rate {lr:g}")
    if not found:
        raise NotMeasured(f"{group.name} has no finished run of {what}")
    if len(found) > 1:
        raise NotMeasured(f"{group.name} has {len(found)} settings of {what}, which must not be pooled")
    return {run.seed: run for run in found[0].runs}


def _main(group: Group, regime: str) -> _Runs:
    """The runs of a regime at the paper's learning rate; at the only one where there is one."""
    return _seeds(group, regime, group.lrs[0] if len(group.lrs) == 1 else _PAPERS_LR)


def _combined(parts: Mapping[str, _Runs], value: Callable[..., float]) -> Measured:
    """``value(*runs)`` of every seed that all parts have; a value that is not finite leaves the seed out."""
    values: dict[int, float] = {}
    left_out: dict[int, str] = {}
    for seed in sorted(set().union(*parts.values())):
        lacking = [name for name, runs in parts.items() if seed not in runs]
        if lacking:
            left_out[seed] = f"no finished run of {', '.join(lacking)}"
            continue
        runs = [of_part[seed] for of_part in parts.values()]
        number = value(*runs)
        if math.isfinite(number):
            values[seed] = number
        else:
            wrong = [
                f"{name} diverged at step {run.summary.get('diverged_at')}"
                if run.status == "diverged"
                else f"{name} ended at chance"
                for name, run in zip(parts, runs, strict=True)
                if run.status in ("diverged", "chance")
            ]
            left_out[seed] = ", ".join(wrong) or "no finite value"
    return Measured(values, left_out, tuple(run for runs in parts.values() for run in runs.values()))


# --- accuracy --------------------------------------------------------------------------------------------------------


def _whole_mean(run: Run) -> float:
    return float(accuracy_to_the_end(run)[1].mean())


def _difference(a: str, b: str, of_run: Callable[[Run], float], group: Group) -> Measured:
    return _combined({a: _main(group, a), b: _main(group, b)}, lambda one, other: 100 * (of_run(one) - of_run(other)))


def _speed_up(group: Group) -> Measured:
    def ratio(bn: Run, none: Run) -> float:
        goal = max(min(last_tenth(bn), last_tenth(none)), LEFT_CHANCE * chance_of(none))
        return _steps_to(none, goal) / _steps_to(bn, goal)

    return _combined({"bn": _main(group, "bn"), "none": _main(group, "none")}, ratio)


def _steps_to(run: Run, goal: float) -> float:
    steps, accuracy = accuracy_to_the_end(run)
    there = steps[accuracy >= goal]
    return float(there[0] if len(there) else run.setting("steps"))


def _noise_alone(group: Group) -> Measured:
    noise, none = _main(group, "noise"), _main(group, "none")
    trained = {seed for seed, run in none.items() if _trains(run)}
    values = {seed: last_tenth(run) / chance_of(run) for seed, run in noise.items() if seed in trained}
    left_out = {
        seed: "does not train without noise" if seed in none else "no finished run of none"
        for seed in sorted(noise.keys() - trained)
    }
    return Measured(values, left_out, tuple(run for run in group.runs if run.regime in ("noise", "none")))


# --- distributions ---------------------------------------------------------------------------------------------------


def _drift_ratio(group: Group, layers: Callable[[Group], Iterable[Layer]]) -> Measured:
    part = group.at(group.lrs[0] if len(group.lrs) == 1 else _PAPERS_LR)
    by_layer = [{d.curve.regime: d.averages for d in percentile_drift(part, layer)} for layer in layers(part)]
    parts = {"bn": _main(group, "bn"), "none": _main(group, "none")}

    def ratio(bn: Run, none: Run) -> float:
        pairs = [tuple(of.get(run.regime, {}).get(run.seed, math.nan) for run in (bn, none)) for of in by_layer]
        return _geometric(mine / theirs if theirs else math.nan for mine, theirs in pairs)

    return _combined(parts, ratio)


def _vgg_layers(group: Group) -> list[Layer]:
    convolutions = [layer for layer in group.runs[0].layers if "conv" in layer.path]
    if len(convolutions) < max(_VGG_LAYERS):
        raise NotMeasured(f"{group.name} has no shift probes of convolutions {_VGG_LAYERS[0]} and {_VGG_LAYERS[1]}")
    return [convolutions[number - 1] for number in _VGG_LAYERS]


def _shift_ratio(moment: str, group: Group) -> Measured:
    parts = {"noisy_bn": _main(group, "noisy_bn"), "none": _main(group, "none")}
    return _combined(parts, lambda noisy, none: _ratio(step_shift(noisy, moment), step_shift(none, moment)))


def _dose_slope(group: Group) -> Measured:
    strengths = sorted({float(run.setting("norm.strength", 1.0)) for run in group.runs if run.regime == "noisy_bn"})
    if len(strengths) < 3:
        raise NotMeasured(f"{group.name} has noise of {len(strengths)} strengths; a slope needs three")
    parts = {f"noisy_bn x{strength:g}": _seeds(group, "noisy_bn", strength=strength) for strength in strengths}

    def slope(*runs: Run) -> float:
        return _slope([math.log10(step_shift(run, MEAN_PER_STEP)) for run in runs], [100 * last_tenth(r) for r in runs])

    return _combined(parts, slope)


# --- updates ---------------------------------------------------------------------------------------------------------


def _unless_diverged(value: Callable[..., float]) -> Callable[..., float]:
    """``value(*runs)``; NaN where one of them diverged, as its updates are not those of a whole run."""
    return lambda *runs: math.nan if any(run.status == "diverged" for run in runs) else value(*runs)


def _bn_to_none(ratio: Callable[[str, Run, Run], float], quantity: str, group: Group) -> Measured:
    parts = {"bn": _main(group, "bn"), "none": _main(group, "none")}
    return _combined(parts, _unless_diverged(partial(ratio, quantity)))


def _second_half(quantity: str, bn: Run, none: Run) -> float:
    return _ratio(window_of(bn, quantity), window_of(none, quantity))


def _off_chance(quantity: str, bn: Run, none: Run) -> float:
    left = max(map(_left_chance, (bn, none)))
    return _ratio(*(_median(_measured_from(run, left), quantity) for run in (bn, none)))


def _matched(quantity: str, bn: Run, none: Run) -> float:
    mine, theirs = (_measured_from(run, _left_chance(run)) for run in (bn, none))
    return updates.matched_ratio(mine, theirs, quantity)


def _left_chance(run: Run) -> float:
    """The step at which training accuracy first was ``LEFT_CHANCE`` times chance; infinite where it never was."""
    steps, accuracy = accuracy_to_the_end(run)
    there = steps[accuracy >= LEFT_CHANCE * chance_of(run)]
    return float(there[0]) if len(there) else math.inf


def _measured_from(run: Run, first: float) -> updates.Measurements:
    found = updates.measurements(run).items()
    return {name: (steps[steps >= first], values[steps >= first]) for name, (steps, values) in found}


def _median(found: updates.Measurements, quantity: str) -> float:
    if quantity not in found:
        raise NotMeasured(f"there is no {quantity}")
    values = found[quantity][1]
    return float(np.median(values)) if len(values) else math.nan


def _dln_cosine(regime: str, group: Group) -> Measured:
    return _combined(
        {regime: _seeds(group, regime, _PAPERS_DLN_LR)},
        _unless_diverged(lambda run: window_of(run, updates.ICS_COSINE, "whole")),
    )


def _final_loss(run: Run) -> float:
    """Training loss, the geometric mean over the rows of the last tenth of the steps; NaN where it diverged."""
    steps, loss = run.metrics.series(TRAIN_LOSS)
    late = loss[steps > _FIRST_OF_LAST * int(run.setting("steps"))]
    return math.nan if run.status == "diverged" else _geometric(map(float, late))


def _loss_ratio(a: str, b: str, lr: float | None, group: Group) -> Measured:
    parts = {a: _seeds(group, a, lr), b: _seeds(group, b, lr)}
    return _combined(parts, lambda one, other: _ratio(_final_loss(one), _final_loss(other)))


def _of_all_rates(value: Callable[[Floats, Floats], float], group: Group) -> Measured:
    """``value`` of the cosine and of beta x lr / 2 over all measurements of the BN runs of a seed."""
    parts = {f"bn at lr {lr:g}": _seeds(group, "bn", lr) for lr in group.lrs}

    def of_seed(*runs: Run) -> float:
        cosines, betas = [], []
        for run in runs:
            found = updates.measurements(run)
            if updates.ICS_COSINE not in found or updates.BETA_LR not in found:
                raise NotMeasured(f"{run.path} has no ICS and landscape")
            cosine, beta = found[updates.ICS_COSINE], found[updates.BETA_LR]
            _, left, right = np.intersect1d(cosine[0], beta[0], return_indices=True)
            cosines.append(cosine[1][left])
            betas.append(beta[1][right])
        cosine, beta = np.concatenate(cosines), np.concatenate(betas)
        kept = np.isfinite(cosine) & np.isfinite(beta)
        return value(cosine[kept], beta[kept])

    return _combined(parts, _unless_diverged(of_seed))


def _cosine_of_short_steps(cosine: Floats, beta: Floats) -> float:
    short = beta < _SHORT_STEP
    return float(np.median(cosine[short])) if short.any() else math.nan


def _rank_correlation(a: Floats, b: Floats) -> float:
    from scipy.stats import rankdata

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


# --- grids -----------------------------------------------------------------------------------------------------------


def _grid(group: Group, regime: str) -> dict[float, _Runs]:
    """The runs of a regime, by learning rate; raises NotMeasured for fewer than three rates."""
    rates = [lr for lr in group.lrs if any(c.regime == regime and c.lr == lr for c in group.conditions)]
    if len(rates) < 3:
        raise NotMeasured(f"{group.name} has {regime} at {len(rates)} learning rates; a grid needs three")
    return {lr: _seeds(group, regime, lr) for lr in rates}


def _trains(run: Run) -> bool:
    return run.status != "diverged" and last_tenth(run) >= LEFT_CHANCE * chance_of(run)


def _by_seed(grid: dict[float, _Runs]) -> dict[int, dict[float, Run]]:
    """What each seed has on the grid; a seed that lacks a rate is left out."""
    seeds = set.intersection(*(set(runs) for runs in grid.values()))
    return {seed: {lr: runs[seed] for lr, runs in grid.items()} for seed in sorted(seeds)}


def _largest_lr(group: Group) -> Measured:
    bn, none = (_by_seed(_grid(group, regime)) for regime in ("bn", "none"))
    values: dict[int, float] = {}
    left_out: dict[int, str] = {}
    for seed in sorted(bn.keys() | none.keys()):
        if seed not in bn or seed not in none:
            left_out[seed] = "not finished at every learning rate"
            continue
        largest = [max((lr for lr, run in of[seed].items() if _trains(run)), default=None) for of in (bn, none)]
        if largest[1] is None:
            left_out[seed] = "none trains at no rate of the grid"
        elif largest[0] is None:
            left_out[seed] = "bn trains at no rate of the grid"
        else:
            values[seed] = largest[0] / largest[1]
    return Measured(values, left_out)


def _test_at_small_lr(group: Group) -> Measured:
    none = _grid(group, "none")
    lr = max((lr for lr, runs in none.items() if all(map(_trains, runs.values()))), default=None)
    if lr is None:
        raise NotMeasured(f"{group.name}: at no learning rate of the grid does the network without BN train every time")
    found = _combined(
        {"bn": _seeds(group, "bn", lr), "none": none[lr]},
        lambda bn, other: 100 * (final_accuracy(bn) - final_accuracy(other)),
    )
    return found._replace(note=f"at learning rate {lr:g}")


def _test_at_best_lr(group: Group) -> Measured:
    best: dict[str, _Runs] = {}
    notes = []
    for regime in ("bn", "none"):
        grid = _grid(group, regime)
        validated = {lr: np.mean([final_accuracy(run, "val") for run in runs.values()]) for lr, runs in grid.items()}
        lr = max(validated, key=lambda lr: validated[lr])
        best[regime] = grid[lr]
        if lr in (min(grid), max(grid)):
            raise NotMeasured(f"{group.name}: the best rate of {regime}, {lr:g}, is the edge of the grid; extend it")
        trained = sum(map(_trains, grid[lr].values()))
        notes.append(f"{regime} at {lr:g} ({trained} of {len(grid[lr])} seeds end off chance)")
    found = _combined(best, lambda bn, none: 100 * (final_accuracy(bn) - final_accuracy(none)))
    return found._replace(note="; ".join(notes))


def _of_betas(value: Callable[[dict[float, float]], float], regime: str, group: Group) -> Measured:
    """``value`` of beta at the learning rates at which a seed trained, {rate: median over the second half}."""
    values: dict[int, float] = {}
    left_out: dict[int, str] = {}
    for seed, runs in _by_seed(_grid(group, regime)).items():
        betas = {lr: window_of(run, updates.BETA) for lr, run in runs.items() if _trains(run)}
        betas = {lr: beta for lr, beta in betas.items() if beta > 0 and math.isfinite(beta)}
        if len(betas) < 3:
            left_out[seed] = f"trains at {len(betas)} of the learning rates; it takes three"
        else:
            values[seed] = value(betas)
    return Measured(values, left_out, tuple(run for run in group.runs if run.regime == regime))


def _beta_slope(betas: dict[float, float]) -> float:
    return _slope([-math.log(lr) for lr in betas], [math.log(beta) for beta in betas.values()])


def _beta_level(betas: dict[float, float]) -> float:
    return _geometric(beta * lr / 2 for lr, beta in betas.items())


def _gap_slope(group: Group) -> Measured:
    sizes = sorted({int(run.setting("batch_size")) for run in group.runs if run.regime == "bn"})
    if len(sizes) < 3:
        raise NotMeasured(f"{group.name} has BN at {len(sizes)} batch sizes; a slope needs three")
    parts: dict[str, _Runs] = {}
    for size in sizes:
        same = [c for c in group.conditions if c.regime == "bn" and c.runs[0].setting("batch_size") == size]
        if len(same) > 1:
            raise NotMeasured(f"{group.name} has {len(same)} settings of BN at batch size {size}")
        parts[f"batch {size}"] = {run.seed: run for run in same[0].runs}

    def slope(*runs: Run) -> float:
        gaps = [100 * (last_tenth(run) - final_accuracy(run)) for run in runs]
        return _slope([math.log2(size) for size in sizes], gaps)

    return _combined(parts, slope)


def _slope(x: list[float], y: list[float]) -> float:
    """Least-squares slope of y on x; NaN where a value is not finite or x is the same throughout."""
    if not np.isfinite([*x, *y]).all() or np.ptp(x) == 0:
        return math.nan
    across = np.asarray(x) - np.mean(x)
    return float(across @ np.asarray(y) / (across @ across))


def _ratio(a: float, b: float) -> float:
    """Return a / b, NaN where one of them is not positive or not finite."""
    return a / b if min(a, b) > 0 and math.isfinite(a) and math.isfinite(b) else math.nan


def _geometric(values: Iterable[float]) -> float:
    """The geometric mean; NaN where a value is not finite and positive, or there is none."""
    numbers = np.array([*values])
    return float(np.exp(np.log(numbers).mean())) if numbers.size and (numbers > 0).all() else math.nan


MEASURES: dict[str, Measure] = {
    "speed_up": _speed_up,
    "test_bn_minus_none": partial(_difference, "bn", "none", final_accuracy),
    "test_at_best_lr": _test_at_best_lr,
    "drift_last_hidden": partial(_drift_ratio, layers=lambda group: [last_hidden_layer(group)]),
    "drift_vgg": partial(_drift_ratio, layers=_vgg_layers),
    "train_noisy_minus_bn": partial(_difference, "noisy_bn", "bn", last_tenth),
    "mean_train_noisy_minus_none": partial(_difference, "noisy_bn", "none", _whole_mean),
    "shift_mean_noisy_to_none": partial(_shift_ratio, MEAN_PER_STEP),
    "shift_variance_noisy_to_none": partial(_shift_ratio, VARIANCE_PER_STEP),
    "train_noise": _noise_alone,
    "ics_relative": partial(_bn_to_none, _second_half, updates.ICS_RELATIVE),
    "ics_relative_matched": partial(_bn_to_none, _matched, updates.ICS_RELATIVE),
    "dln_cosine_none": partial(_dln_cosine, "none"),
    "dln_cosine_bn": partial(_dln_cosine, "bn"),
    "dln_loss": partial(_loss_ratio, "bn", "none", _PAPERS_DLN_LR),
    "dln_cosine_short": partial(_of_all_rates, _cosine_of_short_steps),
    "dln_cosine_beta_correlation": partial(_of_all_rates, _rank_correlation),
    "loss_width": partial(_bn_to_none, _off_chance, updates.LOSS_WIDTH),
    "loss_width_matched": partial(_bn_to_none, _matched, updates.LOSS_WIDTH),
    "predictiveness": partial(_bn_to_none, _second_half, updates.DIFFERENCE_HIGH),
    "predictiveness_matched": partial(_bn_to_none, _matched, updates.DIFFERENCE_RELATIVE),
    "beta": partial(_bn_to_none, _second_half, updates.BETA),
    "beta_slope_bn": partial(_of_betas, _beta_slope, "bn"),
    "beta_slope_none": partial(_of_betas, _beta_slope, "none"),
    "beta_level_bn": partial(_of_betas, _beta_level, "bn"),
    "beta_level_none": partial(_of_betas, _beta_level, "none"),
    "train_l1_minus_bn": partial(_difference, "l1", "bn", last_tenth),
    "train_l2_minus_bn": partial(_difference, "l2", "bn", last_tenth),
    "train_linf_minus_bn": partial(_difference, "linf", "bn", last_tenth),
    "dln_loss_l1": partial(_loss_ratio, "l1", "bn", None),
    "largest_lr": _largest_lr,
    "test_at_small_lr": _test_at_small_lr,
    "dose_slope": _dose_slope,
    "gap_slope": _gap_slope,
}
"""Every measure that a part of a claim may name."""
