"""Claims on learning rates: which ones a network bears, how it does at its best one, and what they do to beta."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import Runs, difference, paired, runs_of
from icsbench.analysis.claims.texts import (
    A_FIFTH,
    BJORCK,
    BROCK,
    BY_A_FIFTH,
    COHEN,
    IOFFE,
    MATCHED_LR,
    SANTURKAR,
)
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities import updates
from icsbench.analysis.quantities.protocols import CUSTOMARY, accuracy_under, final_accuracy
from icsbench.analysis.quantities.training import largest_rate, trains
from icsbench.analysis.quantities.updates import window_of
from icsbench.analysis.statistics import geometric_mean, slope
from icsbench.record.reader import Run

_FACTOR = 4.0


def grid_of(group: Group, norm: str, **settings: Any) -> dict[float, Runs]:
    """The runs of a norm, by learning rate; ``settings``: as of :func:`icsbench.analysis.claims.paired.runs_of`.

    :raises NotMeasured: there are fewer than three rates.
    """
    rates = sorted({run.lr for run in group.runs if run.regime == norm})
    if len(rates) < 3:
        raise NotMeasured(f"{group.name} has {norm} at {len(rates)} learning rates; a grid needs three")
    return {lr: runs_of(group, norm, lr=lr, **settings) for lr in rates}


def by_seed(grid: dict[float, Runs]) -> dict[int, dict[float, Run]]:
    """What each seed has on the grid; a seed that lacks a rate is left out."""
    seeds = set.intersection(*(set(runs) for runs in grid.values()))
    return {seed: {lr: runs[seed] for lr, runs in grid.items()} for seed in sorted(seeds)}


def largest_rates(one: dict[float, Runs], other: dict[float, Runs], names: tuple[str, str]) -> Measured:
    """Largest learning rate of a grid at which a seed trains, of one kind of runs / of another."""
    grids = dict(zip(names, map(by_seed, (one, other)), strict=True))
    values: dict[int, float] = {}
    left_out: dict[int, str] = {}
    for seed in sorted(set().union(*grids.values())):
        if not all(seed in grid for grid in grids.values()):
            left_out[seed] = "not finished at every learning rate"
            continue
        largest = {name: largest_rate(grid[seed].values()) for name, grid in grids.items()}
        nowhere = [name for name in reversed(names) if not largest[name]]
        if nowhere:
            left_out[seed] = f"{nowhere[0]} trains at no rate of the grid"
        else:
            values[seed] = largest[names[0]] / largest[names[1]]
    return Measured(values, left_out)


def _four_times(group: Group, factor: float = _FACTOR) -> Measured:
    """Whether BN's largest rate off chance is so many times that without BN (1 or 0).

    Where BN trains at the top of the grid the ratio is a lower bound: one below the factor says nothing.
    """
    grids = grid_of(group, "bn"), grid_of(group, "none")
    found = largest_rates(*grids, ("bn", "none"))
    bn, top = by_seed(grids[0]), max(grids[0])
    bounds = {seed for seed in found.values if largest_rate(bn[seed].values()) == top}
    open_ = {
        seed: f"BN trains at the largest rate of the grid, {top:g}: its ratio is {ratio:g} at least"
        for seed, ratio in found.values.items()
        if seed in bounds and not _at_least(ratio, factor)
    }
    values = {seed: float(_at_least(ratio, factor)) for seed, ratio in found.values.items() if seed not in open_}
    ratios = (f"{seed}: {ratio:g}{' at least' * (seed in bounds)}" for seed, ratio in found.values.items())
    return Measured(values, found.left_out | open_, note=f"ratios {', '.join(ratios)}" if found.values else "")


def _at_least(ratio: float, factor: float) -> bool:
    """Rates are decimal fractions: 1e-9 less is rounding."""
    return ratio >= factor * (1 - 1e-9)


def _test_at_best_lr(group: Group) -> Measured:
    """Test accuracy, BN minus none, each at the rate of its best mean validation accuracy.

    :raises NotMeasured: a best rate is at the edge of the grid, and a better one may lie outside.
    """
    best: dict[str, Runs] = {}
    notes = []
    for norm in ("bn", "none"):
        grid = grid_of(group, norm)
        validated = {lr: np.mean([final_accuracy(run, "val") for run in runs.values()]) for lr, runs in grid.items()}
        lr = max(validated, key=lambda lr: validated[lr])
        best[norm] = grid[lr]
        if lr in (min(grid), max(grid)):
            raise NotMeasured(f"{group.name}: the best rate of {norm}, {lr:g}, is the edge of the grid; extend it")
        trained = sum(map(trains, grid[lr].values()))
        notes.append(f"{norm} at {lr:g} ({trained} of {len(grid[lr])} seeds end off chance)")
    return _test_difference(best["bn"], best["none"], "; ".join(notes))


def _test_difference(bn: Runs, none: Runs, note: str) -> Measured:
    found = paired({"bn": bn, "none": none}, lambda one, other: 100 * (final_accuracy(one) - final_accuracy(other)))
    return found._replace(note=note)


def over_rates(
    summary: Callable[[dict[float, float]], float], curvature: Callable[[Run], float], norm: str, group: Group
) -> Measured:
    """``summary`` of {rate: curvature} of a norm's runs, over the learning rates at which a seed trained."""
    values: dict[int, float] = {}
    left_out: dict[int, str] = {}
    for seed, runs in by_seed(grid_of(group, norm)).items():
        found = {lr: curvature(run) for lr, run in runs.items() if trains(run)}
        found = {lr: value for lr, value in found.items() if value > 0 and math.isfinite(value)}
        if len(found) < 3:
            left_out[seed] = f"trains, with a positive curvature, at {len(found)} of the learning rates; it takes three"
        else:
            values[seed] = summary(found)
    return Measured(values, left_out, tuple(run for run in group.runs if run.regime == norm))


def slope_on_rates(curvatures: dict[float, float]) -> float:
    """The slope of log curvature on log(1 / lr): 1 where the rate sets it, 0 where it does not."""
    return slope([-math.log(lr) for lr in curvatures], [math.log(value) for value in curvatures.values()])


def level_at_edge(curvatures: dict[float, float]) -> float:
    """The geometric mean of curvature lr / 2 over the rates: 1 at the edge of stability."""
    return geometric_mean(value * lr / 2 for lr, value in curvatures.items())


def _beta(run: Run) -> float:
    """The median of effective beta over the second half."""
    return window_of(run, updates.BETA)


HIGHER_AT_ITS_BEST_RATE = Claim(
    id="1b",
    statement="BN ends at a higher test accuracy even where each network has its own best learning rate.",
    by=f"{IOFFE}; {SANTURKAR}",
    where="I&S section 4.2; S section 2",
    disputed_by=BROCK,
    parts=(
        Part(
            "test_at_best_lr",
            _test_at_best_lr,
            "final test accuracy with BN minus without, each at that learning rate of the grid whose validation "
            "accuracy is best over the seeds",
            ("lr_grid",),
            unit="points",
            low=0,
        ),
    ),
    margin="Any gain counts.",
    fairness=("The rate is chosen on validation images; the test set only reports.",),
    figures=("scan",),
)

BETA_FOLLOWS_THE_RATE = Claim(
    id="12b",
    statement="Effective beta is set by the learning rate, 2/lr, with BN as without.",
    by=f"{COHEN} (an inference)",
    where="S Fig. 4 (c) and 10; Cohen et al. section 3",
    disputed_by=SANTURKAR,
    parts=tuple(
        part
        for regime, name in (("bn", "with BN"), ("none", "without BN"))
        for part in (
            Part(
                f"beta_slope_{regime}",
                partial(over_rates, slope_on_rates, _beta, regime),
                f"slope of log beta on log(1/lr), {name}: medians over the second half of training of the learning "
                "rates at which the seed trained, three at least",
                ("lr_grid",),
                low=0.8,
                high=1.2,
            ),
            Part(
                f"beta_level_{regime}",
                partial(over_rates, level_at_edge, _beta, regime),
                f"beta x lr / 2, {name}: geometric mean of the same",
                ("lr_grid",),
                kind="ratio",
                low=A_FIFTH,
                high=1 / A_FIFTH,
            ),
        )
    ),
    margin=f"Slope 1 within a fifth, and a level of 1. {BY_A_FIFTH}",
    fairness=(
        "Short runs may not have reached the edge of stability.",
        "The step sizes of beta scale with the rate, which by itself makes for a slope towards 1.",
        "Cohen et al. train on the full batch; along the gradient of a mini-batch it is batch sharpness that "
        "settles at 2/lr (Andreyev & Beneventano 2024).",
    ),
    figures=("scan",),
)

BEARS_LARGER_RATES = Claim(
    id="14",
    statement="BN tolerates learning rates at least four times as large.",
    by=f"{IOFFE}; {SANTURKAR}; {BJORCK}",
    where="I&S section 3.3; S section 2, Fig. 1; B section 3",
    parts=(
        Part(
            "four_times_the_rate",
            _four_times,
            "share of the seeds in which the largest learning rate of the grid at which a run ends off chance "
            "(training accuracy at least twice it) is at least four times as large with BN as without",
            ("lr_grid",),
            kind="count",
            low=0.5,
            variants={
                "at least twice": partial(_four_times, factor=2.0),
                "at least 8": partial(_four_times, factor=8.0),
            },
        ),
    ),
    margin="S: 0.5 works with BN and not without, 0.1 with both. More seeds than not: exact binomial test.",
    fairness=(
        "At a short budget an accuracy of 50 % (the usual bar) measures speed; being off chance measures training.",
        "Where BN trains at the largest rate of the grid its ratio is a lower bound: four or more counts as it is, and "
        "with less the seed is left out.",
        "A network may train at a rate and not at a smaller one: the largest counts.",
    ),
    figures=("scan",),
)

THE_RATE_IS_THE_BENEFIT = Claim(
    id="15",
    statement="At a rate that both bear, trained to the end, BN is no better.",
    by=BJORCK,
    where="B section 3, Fig. 1: the benefit of BN is the learning rate",
    disputed_by=f"{IOFFE}; {SANTURKAR}",
    parts=(
        Part(
            "test_bn_minus_none",
            difference("bn", "none", final_accuracy),
            "final test accuracy with BN (population statistics recomputed after training) minus without",
            ("long",),
            unit="points",
            low=-1,
            high=1,
            above=f"{IOFFE}; {SANTURKAR}",
            variants={
                "running statistics": difference("bn", "none", partial(accuracy_under, protocol=CUSTOMARY)),
            },
        ),
    ),
    margin="As good as: within one point; Bjorck's own curves differ by 0.7 (81.3 and 82 %).",
    fairness=("This is the measurement of claim 1 (part 2), with another region.", MATCHED_LR),
    figures=("accuracy",),
)
