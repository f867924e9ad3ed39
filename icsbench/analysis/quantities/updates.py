"""What an update does to the loss and its gradient: internal covariate shift by Definition 2.1, and the landscape.

Santurkar et al. 2018, Definition 2.1 (``ics``) and section 3.1 (``landscape``), measured on the batch of an update and
the weights before it. ``G`` is the gradient of the loss in the weights ``W`` of a layer, ``G'`` the same once all
layers before it are updated; ``g`` is the gradient in all parameters ``theta``, ``g'`` that at ``theta - alpha g``.

The mean over seeds is the geometric one, with the t-interval of the mean logarithm; of accuracy and cosine it is the
arithmetic one. Runs that diverged are left out.

A function that does not say otherwise raises NotMeasured where the group holds nothing of what it returns, and
IcsbenchError where a record is damaged.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.groups import Condition, Group, NotMeasured
from icsbench.analysis.quantities.curves import Curve, Series, mean_curve
from icsbench.analysis.statistics import Band, Floats, geometric_band, mean_band
from icsbench.errors import IcsbenchError
from icsbench.record import schema
from icsbench.record.reader import Layer, Run
from icsbench.record.regime import Regime

ICS = "ics"
"""The probe of Definition 2.1, and its folder in a record."""
ICS_L2 = "ics/l2"
"""``||G - G'||``, the paper's ICS."""
ICS_RELATIVE = "ics/relative"
"""``||G - G'|| / ||G||``."""
ICS_COSINE = "ics/cosine"
"""``cos(G, G')``."""
ICS_SCALED = "ics/scaled"
"""``||G - G'|| ||W||``, which does not change when the weights that BN follows are rescaled."""
LOSS_LOW = "landscape/loss_min"
"""``min over alpha of L(theta - alpha g)``."""
LOSS_HIGH = "landscape/loss_max"
"""``max over alpha of L(theta - alpha g)``."""
LOSS_WIDTH = "landscape/loss_log10_width"
"""``log10(max over alpha / min over alpha)`` of the loss."""
DIFFERENCE_LOW = "landscape/difference_min"
"""``min over alpha of ||g' - g||``."""
DIFFERENCE_HIGH = "landscape/difference_max"
"""``max over alpha of ||g' - g||``: the larger, the less the gradient predicts."""
DIFFERENCE_RELATIVE = "landscape/difference_relative"
"""``max over alpha of ||g' - g|| / ||g||``."""
GRADIENT_NORM = schema.landscape("gradient_norm")
"""``||g||``."""
BETA = schema.landscape("beta")
"""Effective beta-smoothness ``max over alpha of ||g' - g|| / (alpha ||g||)``."""
BETA_LR = "landscape/beta_lr_half"
"""``beta lr / 2``: 1 at the edge of stability, where an update flips the sign of the gradient."""

ARITHMETIC = (schema.TRAIN_ACCURACY, ICS_COSINE)
"""What is averaged as it is; all else by its logarithm."""

MATCHED = (LOSS_WIDTH, DIFFERENCE_RELATIVE, BETA_LR, ICS_RELATIVE, ICS_COSINE, ICS_SCALED)

_LOSS = schema.landscape("loss")
_ALPHAS = schema.landscape("alphas")
_LOSSES = schema.landscape("losses")
_DIFFERENCES = schema.landscape("gradient_differences")
BINS = 8
"""How many bins of training loss there are at matched loss."""

WINDOWS: dict[str, tuple[float, float]] = {
    "first tenth": (0.0, 0.1),
    "first quarter": (0.0, 0.25),
    "second half": (0.5, 1.0),
    "whole": (0.0, 1.0),
}
"""Parts of the updates of a run, from which share of its steps to which."""

Measurements = dict[str, Series]
"""What the updates of one run measured: steps (m,) and values (m,) of each quantity."""


@dataclass(frozen=True, eq=False)
class MatchedCurve:
    """One quantity against the training loss: the mean over the seeds with a median there, arrays of shape (bins,)."""

    quantity: str
    regime: Regime
    lr: float
    seeds: tuple[int, ...]
    edges: Floats
    n: NDArray[np.int64]
    """How many seeds each mean is of."""
    mean: Floats
    low: Floats
    high: Floats
    values: Floats
    """The medians of the single seeds, (n, bins), NaN where there is none or the bin is left out."""

    @property
    def x(self) -> Floats:
        """The geometric centres of the bins."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per bin."""
        for place, n in enumerate(self.n):
            yield {
                "quantity": self.quantity,
                "regime": self.regime,
                "lr": self.lr,
                "loss_low": float(self.edges[place]),
                "loss_high": float(self.edges[place + 1]),
                "n": int(n),
                "mean": float(self.mean[place]),
                "low": float(self.low[place]),
                "high": float(self.high[place]),
                "average": average_of(self.quantity),
            }


def has_ics(runs: Iterable[Run]) -> bool:
    """Whether a run has recorded the internal covariate shift of Definition 2.1."""
    return any(
        schema.ics(layer.path, "l2") in row
        for run in runs
        for layer in run.layers_of(ICS)[:1]
        for row in run.metrics.rows
    )


def has_landscape(runs: Iterable[Run]) -> bool:
    """Whether a run has recorded the landscape along its gradient."""
    return any(_ALPHAS in row for run in runs for row in run.metrics.rows)


def average_of(quantity: str) -> str:
    """How a quantity is averaged over seeds: ``arithmetic`` or ``geometric``."""
    return "arithmetic" if quantity in ARITHMETIC else "geometric"


def averaged(quantity: str, values: Floats) -> Band:
    """The mean of a quantity over seeds, (n, m), and its interval: geometric but for accuracy and cosine."""
    return mean_band(values) if quantity in ARITHMETIC else geometric_band(values)


def step_sizes(group: Group) -> Floats:
    """The step sizes alpha along the gradient, in learning rates of the update: (K,), ascending.

    :raises NotMeasured: they differ among the runs, or within one.
    """
    found = []
    for run in (run for condition in with_landscape(group) for run in condition.runs):
        along = along_gradient(run)
        found.append((run, along.alphas / learning_rate(run, along.steps)[:, None]))
    first = found[0][1][0]
    for run, multiples in found:
        if multiples.shape[1] != len(first) or not np.allclose(multiples, first, rtol=1e-6, atol=0):
            raise NotMeasured(f"{run.path}: its step sizes along the gradient are not those of {found[0][0].path}")
    return first


def matched_curves(group: Group) -> list[MatchedCurve]:
    """The quantities ``MATCHED``, as far as recorded, at matched training loss instead of matched step.

    The loss is that of the measured batch at the current weights, ``landscape/loss``, which must be recorded. Its
    common bins are 8, equal in log loss, between the 1 % and the 99 % quantile of log loss over all measurements of
    all runs; the last contains its upper end, and what lies outside is in none. Of each run it is the median over its
    measurements in a bin, the ICS of each being the median over layers, the first (which has none by definition)
    excluded; both over what is a number. A median that is not finite, or not positive where the mean is geometric,
    counts as none; a bin is left out where less than half of the seeds have one.
    """
    found = [(condition, [measurements(run) for run in condition.runs]) for condition in with_landscape(group)]
    losses = positive(np.concatenate([of_run[_LOSS][1] for _, of_runs in found for of_run in of_runs]))
    logarithms = np.log(losses[np.isfinite(losses)])
    low, high = np.quantile(logarithms, [0.01, 0.99]) if len(logarithms) else (0.0, 0.0)
    if not low < high:
        raise NotMeasured("the loss is the same at all measurements")
    edges = np.linspace(low, high, BINS + 1)
    return [
        _matched_curve(condition, quantity, edges, [_binned(of_run, quantity, edges) for of_run in of_runs])
        for quantity in MATCHED
        for condition, of_runs in found
        if all(quantity in of_run for of_run in of_runs)
    ]


def _matched_curve(condition: Condition, quantity: str, edges: Floats, medians: Sequence[Floats]) -> MatchedCurve:
    """``edges`` are in log loss; ``medians`` has the bins of each seed."""
    values = np.array(medians)
    values = np.where(np.isfinite(values), values, np.nan) if quantity in ARITHMETIC else positive(values)
    values[:, 2 * np.isfinite(values).sum(axis=0) < len(values)] = np.nan
    n = np.isfinite(values).sum(axis=0)
    mean, low, high = np.full((3, BINS), np.nan)
    for number in np.flatnonzero(n):
        present = values[np.isfinite(values[:, number]), number]
        band = averaged(quantity, present[:, None])
        mean[number], low[number], high[number] = band.mean[0], band.low[0], band.high[0]
    seeds = tuple(run.seed for run in condition.runs)
    return MatchedCurve(quantity, condition.regime, condition.lr, seeds, np.exp(edges), n, mean, low, high, values)


def _binned(of_run: dict[str, Series], quantity: str, edges: Floats) -> Floats:
    """The median of a quantity of one run in each bin of log loss: (bins,)."""
    _, at_loss, at_value = np.intersect1d(of_run[_LOSS][0], of_run[quantity][0], return_indices=True)
    logarithms = np.log(positive(of_run[_LOSS][1][at_loss]))
    bins = np.searchsorted(edges, logarithms, "right") - 1
    bins[logarithms == edges[-1]] = BINS - 1
    values = of_run[quantity][1][at_value]
    return np.array([median(values[bins == number]) for number in range(BINS)])


def measurements(run: Run) -> Measurements:
    """Steps (m,) and values (m,) of all that one run recorded: landscape quantities, and the ICS over layers.

    ``ics/relative``, ``ics/cosine`` and ``ics/scaled`` are the median over those layers from the second on where it is
    a number. What was not recorded is not among the keys.
    """
    found = landscape_of(run)
    if has_ics([run]) and (layers := run.layers_of(ICS)[1:]):
        for quantity in (ICS_RELATIVE, ICS_COSINE, ICS_SCALED):
            steps, values = ics_of(run, quantity, layers)
            found[quantity] = steps, median(values, axis=1)
    return found


def window_median(run: Run, series: Series, window: str) -> float:
    """The median of what is a number over the ``WINDOWS`` of a run's updates."""
    first, end = (part * int(run.setting("steps")) for part in WINDOWS[window])
    steps, values = series
    return float(median(values[(steps >= first) & (steps < end)]))


def window_of(run: Run, quantity: str, window: str = "second half") -> float:
    """The median of a quantity of ``measurements`` over a window of the updates.

    :raises NotMeasured: the run did not measure it.
    """
    found = measurements(run)
    if quantity not in found:
        raise NotMeasured(f"{run.path} has no {quantity}")
    return window_median(run, found[quantity], window)


def matched_ratio(run: Measurements, other: Measurements, quantity: str) -> float:
    """A quantity of one run over that of another at matched training loss; NaN where they share no loss.

    As in ``matched_curves``, with the bins of these two runs alone, of which those count in which both have a positive
    median; the ratio is the geometric mean of theirs.
    """
    found = (run, other)
    if any(quantity not in of_run for of_run in found):
        return float("nan")
    losses = positive(np.concatenate([of_run[_LOSS][1] for of_run in found]))
    logarithms = np.log(losses[np.isfinite(losses)])
    low, high = np.quantile(logarithms, [0.01, 0.99]) if len(logarithms) else (0.0, 0.0)
    if not low < high:
        return float("nan")
    edges = np.linspace(low, high, BINS + 1)
    mine, theirs = (positive(_binned(of_run, quantity, edges)) for of_run in found)
    shared = np.isfinite(mine) & np.isfinite(theirs)
    return float(np.exp(np.log(mine[shared] / theirs[shared]).mean())) if shared.any() else float("nan")


def landscape_of(run: Run) -> Measurements:
    """What one run measured along its gradient, by quantity; empty where it measured nothing there."""
    if not has_landscape([run]):
        return {}
    steps, _, losses, differences = along_gradient(run)
    own, scalars = run.metrics.table([_LOSS, GRADIENT_NORM, BETA])
    if not np.array_equal(own, steps):
        raise _lacks_a_part(run)
    loss, gradient_norm, beta = scalars.T
    low, high, difference = losses.min(axis=1), losses.max(axis=1), differences.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            _LOSS: loss,
            LOSS_LOW: low,
            LOSS_HIGH: high,
            LOSS_WIDTH: np.log10(high) - np.log10(low),
            DIFFERENCE_LOW: differences.min(axis=1),
            DIFFERENCE_HIGH: difference,
            DIFFERENCE_RELATIVE: difference / gradient_norm,
            GRADIENT_NORM: gradient_norm,
            BETA: beta,
            BETA_LR: beta * learning_rate(run, steps) / 2,
        }
    return {quantity: (steps, of_quantity) for quantity, of_quantity in values.items()}


class Along(NamedTuple):
    """What one run measured along its gradient: steps (m,), the rest (m, K)."""

    steps: NDArray[np.int64]
    alphas: Floats
    losses: Floats
    differences: Floats


def along_gradient(run: Run) -> Along:
    """What one run measured at each step size along its gradient."""
    (steps, alphas), *others = (run.metrics.lists(key) for key in (_ALPHAS, _LOSSES, _DIFFERENCES))
    if not all(np.array_equal(own, steps) and values.shape == alphas.shape for own, values in others):
        raise _lacks_a_part(run)
    return Along(steps, alphas, *(values for _, values in others))


def _lacks_a_part(run: Run) -> IcsbenchError:
    return IcsbenchError(f"{run.path / schema.METRICS}: a measurement of the landscape lacks a part; run it again")


def learning_rate(run: Run, steps: NDArray[np.int64]) -> Floats:
    """The learning rate of the update after so many updates: (m,)."""
    lr, schedule, warmup = np.full(len(steps), run.lr), run.setting("optim.schedule"), run.setting("optim.warmup", 0)
    if schedule == "cosine":
        lr *= (1 + np.cos(np.pi * steps / int(run.setting("steps")))) / 2
    elif schedule == "exponential":
        lr *= float(run.setting("optim.growth")) ** steps
    if warmup:
        first = steps + 1 if run.setting("optim.warmup_shape") == "linear" else 1
        lr *= np.where(steps < warmup, first / warmup, 1)
    return lr


def ics_of(run: Run, quantity: str, layers: Sequence[Layer]) -> tuple[NDArray[np.int64], Floats]:
    """Steps (m,) and the values of the layers, (m, layers)."""
    names = ("l2", "weight_norm") if quantity == ICS_SCALED else (quantity.removeprefix("ics/"),)
    steps, values = run.metrics.table([schema.ics(layer.path, name) for name in names for layer in layers])
    return steps, values.reshape(len(steps), len(names), len(layers)).prod(axis=1)


def measured(group: Group, has: Callable[[Iterable[Run]], bool], what: str) -> list[Condition]:
    """The conditions, with only those runs that recorded it and did not diverge."""
    conditions = [
        replace(condition, runs=runs)
        for condition in group.single_conditions
        if (runs := tuple(run for run in condition.trained if has([run])))
    ]
    if not conditions:
        raise NotMeasured(f"no run that finished without diverging has {what}")
    return conditions


def with_landscape(group: Group) -> list[Condition]:
    """The conditions, with only those runs that measured the landscape and did not diverge."""
    return measured(group, has_landscape, "the loss landscape along its gradient")


def curve_of(condition: Condition, quantity: str, series: Sequence[Series], layer: Layer | None = None) -> Curve:
    """The mean of a quantity over the runs of a condition, ``averaged``; its rows say how."""
    if quantity in ARITHMETIC:
        curve = mean_curve(condition, condition.runs, quantity, series, layer)
    else:
        valid = [(steps, positive(values)) for steps, values in series]
        curve = mean_curve(condition, condition.runs, quantity, valid, layer, geometric_band)
    return replace(curve, average=average_of(quantity))


def positive(values: Floats) -> Floats:
    """NaN for what is not positive or not finite."""
    return np.where((values > 0) & np.isfinite(values), values, np.nan)


def median(values: Floats, axis: int = 0) -> Any:
    """The median of what is a number; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=axis)
