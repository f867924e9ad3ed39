"""What an update does to the loss and its gradient: internal covariate shift by Definition 2.1, and the landscape.

Santurkar et al. 2018, Definition 2.1 (``ics``) and section 3.1 (``landscape``), measured on the batch of an update and
the weights before it. ``G`` is the gradient of the loss in the weights ``W`` of a layer, ``G'`` the same once all
layers before it are updated; ``g`` is the gradient in all parameters ``theta``, ``g'`` that at ``theta - alpha g``.

Quantities are averaged over seeds by their logarithm (geometric mean, and its t-interval raised), but for accuracy and
cosine. Runs that diverged are left out. Each function raises NotMeasured where the group holds nothing for its figure,
IcsbenchError for a damaged record.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.groups import Condition, Group, NotMeasured, group_runs
from icsbench.analysis.quantities.curves import TRAIN_ACCURACY, TRAIN_LOSS, Curve, mean_curve
from icsbench.analysis.statistics import (
    FEWEST_FOR_AN_INTERVAL,
    Band,
    Floats,
    Interval,
    geometric_band,
    mean_band,
)
from icsbench.analysis.tables import flat_row, markdown_table, rich_table, setting_of
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Layer, Run

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
GRADIENT_NORM = "landscape/gradient_norm"
"""``||g||``."""
BETA = "landscape/beta"
"""Effective beta-smoothness ``max over alpha of ||g' - g|| / (alpha ||g||)``."""
BETA_LR = "landscape/beta_lr_half"
"""``beta lr / 2``: 1 at the edge of stability, where an update flips the sign of the gradient."""

ARITHMETIC = (TRAIN_ACCURACY, ICS_COSINE)
"""What is averaged as it is; all else by its logarithm."""

MATCHED = (LOSS_WIDTH, DIFFERENCE_RELATIVE, BETA_LR, ICS_RELATIVE, ICS_COSINE, ICS_SCALED)

_LOSS = "landscape/loss"
_ALPHAS = "landscape/alphas"
_LOSSES = "landscape/losses"
_DIFFERENCES = "landscape/gradient_differences"
_LANDSCAPE = (
    *(LOSS_LOW, LOSS_HIGH, DIFFERENCE_LOW, DIFFERENCE_HIGH, BETA),
    *(LOSS_WIDTH, DIFFERENCE_RELATIVE, GRADIENT_NORM),
)
_PROFILES = 6
_BINS = 8
_WHOLE: dict[str, tuple[float, float]] = {"whole": (0.0, 1.0)}
_WINDOWS: dict[str, tuple[float, float]] = {"first tenth": (0.0, 0.1), "second half": (0.5, 1.0)}
_MATCHED = "matched loss"
_HOW_MATCHED = (
    " At matched loss: the median over the measurements of a run in a bin of training loss, and the mean over those "
    "bins that at least half of the seeds of every regime reached."
)
_SUMMARY = {
    ICS_RELATIVE: "ICS / ‖G‖",
    ICS_COSINE: "cos(G, G′)",
    ICS_SCALED: "ICS · ‖W‖",
    BETA_LR: "β lr / 2",
    LOSS_WIDTH: "log₁₀ width of the loss",
    DIFFERENCE_RELATIVE: "max ‖g′ − g‖ / ‖g‖",
    DIFFERENCE_HIGH: "max ‖g′ − g‖",
}

_Series = tuple[NDArray[np.int64], Floats]
Measurements = dict[str, _Series]
"""What the updates of one run measured: steps (m,) and values (m,) of each quantity."""


@dataclass(frozen=True, eq=False)
class Profile:
    """``||g' - g||`` against the step size alpha at one step: the mean over ``seeds``, arrays of shape (K,)."""

    regime: str
    lr: float
    seeds: tuple[int, ...]
    step: int
    x: Floats
    """The step sizes, ascending."""
    mean: Floats
    low: Floats
    high: Floats
    values: Floats
    """The single seeds behind the mean, (n, K)."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per step size."""
        for alpha, mean, low, high in zip(self.x, self.mean, self.low, self.high, strict=True):
            yield {
                "regime": self.regime,
                "lr": self.lr,
                "seeds": " ".join(map(str, self.seeds)),
                "step": self.step,
                "alpha": float(alpha),
                "mean": float(mean),
                "low": float(low),
                "high": float(high),
            }


@dataclass(frozen=True, eq=False)
class MatchedCurve:
    """One quantity against the training loss: the mean over the seeds with a median there, arrays of shape (bins,)."""

    quantity: str
    regime: str
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
            }


def has_ics(runs: Iterable[Run]) -> bool:
    """Whether a run has recorded the internal covariate shift of Definition 2.1."""
    return any(
        f"ics/{layer.path}/l2" in row for run in runs for layer in run.ics_layers[:1] for row in run.metrics.rows
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


def ics_curves(group: Group) -> list[Curve]:
    """Training accuracy (the loss of a regression), ``beta lr / 2`` where recorded, and the ICS of ``third_layers``."""
    conditions = _measured(group, has_ics, "the internal covariate shift of Definition 2.1")
    progress = TRAIN_LOSS if group.regression else TRAIN_ACCURACY
    curves = [_curve(c, progress, [run.metrics.series(progress) for run in c.runs]) for c in conditions]
    for condition in conditions:
        if all(has_landscape([run]) for run in condition.runs):
            curves.append(_curve(condition, BETA_LR, [_landscape(run)[BETA_LR] for run in condition.runs]))
    for layer in third_layers(conditions[0].runs[0].ics_layers):
        for quantity in (ICS_L2, ICS_RELATIVE, ICS_COSINE, ICS_SCALED):
            for condition in conditions:
                series = [
                    (steps, values[:, 0]) for steps, values in (_ics(r, quantity, [layer]) for r in condition.runs)
                ]
                curves.append(_curve(condition, quantity, series, layer))
    return curves


def third_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Of n layers those number ``ceil(n / 3)`` and ``ceil(2 n / 3)``; the second for the first, which never has ICS.

    They are 5 and 10 of the 14 of VGG16, 9 and 17 of 25: those that the paper shows.
    """
    n = len(layers)
    numbers = {min(n, max(2, -(-n * part // 3))) for part in (1, 2)}
    return [layers[number - 1] for number in sorted(numbers)]


def landscape_curves(group: Group) -> list[Curve]:
    """The ends of the bands of loss and of gradient difference, their relative versions, ``||g||``, and beta."""
    step_sizes(group)
    found = [(condition, [_landscape(run) for run in condition.runs]) for condition in _with_landscape(group)]
    return [
        _curve(condition, quantity, [of_run[quantity] for of_run in of_runs])
        for quantity in _LANDSCAPE
        for condition, of_runs in found
    ]


def step_sizes(group: Group) -> Floats:
    """The step sizes alpha along the gradient, in learning rates of the update: (K,), ascending.

    Raises NotMeasured where they differ among the runs or within one.
    """
    found = []
    for run in (run for condition in _with_landscape(group) for run in condition.runs):
        along = _along(run)
        found.append((run, along.alphas / _learning_rate(run, along.steps)[:, None]))
    first = found[0][1][0]
    for run, multiples in found:
        if multiples.shape[1] != len(first) or not np.allclose(multiples, first, rtol=1e-6, atol=0):
            raise NotMeasured(f"{run.path}: its step sizes along the gradient are not those of {found[0][0].path}")
    return first


def edge_of_stability(group: Group) -> tuple[NDArray[np.int64], Floats]:
    """``2 / lr`` at the steps where a run of the group measured the landscape: steps and values, of shape (m,)."""
    run = _with_landscape(group)[0].runs[0]
    steps = _along(run).steps
    return steps, 2 / _learning_rate(run, steps)


def profiles(group: Group) -> list[Profile]:
    """``||g' - g||`` against the step size, at up to 6 steps spread evenly over those that all runs measured.

    The first and the last are always among them.
    """
    multiples = step_sizes(group)
    found = {condition: [_along(run) for run in condition.runs] for condition in _with_landscape(group)}
    steps = reduce(np.intersect1d, [along.steps for of_runs in found.values() for along in of_runs])
    if not len(steps):
        raise NotMeasured("no step at which all runs measured the landscape")
    wanted = np.linspace(steps[0], steps[-1], _PROFILES)
    drawn = []
    for step in sorted({int(steps[np.abs(steps - one).argmin()]) for one in wanted}):
        for condition, of_runs in found.items():
            alphas = multiples * _learning_rate(condition.runs[0], np.array([step]))
            values = _positive(np.concatenate([along.differences[along.steps == step] for along in of_runs]))
            band = geometric_band(values)
            seeds = tuple(run.seed for run in condition.runs)
            ends = (band.mean, band.low, band.high)
            drawn.append(Profile(condition.regime, condition.lr, seeds, step, alphas, *ends, values))
    return drawn


def matched_curves(group: Group) -> list[MatchedCurve]:
    """The quantities ``MATCHED``, as far as recorded, at matched training loss instead of matched step.

    The loss is that of the measured batch at the current weights, ``landscape/loss``, which must be recorded. Its
    common bins are 8, equal in log loss, between the 1 % and the 99 % quantile of log loss over all measurements of
    all runs; the last contains its upper end, and what lies outside is in none. Of each run it is the median over its
    measurements in a bin, the ICS of each being the median over layers, the first (which has none by definition)
    excluded; both over what is a number. A median that is not finite, or not positive where the mean is geometric,
    counts as none; a bin is left out where less than half of the seeds have one.
    """
    found = [(condition, [measurements(run) for run in condition.runs]) for condition in _with_landscape(group)]
    losses = _positive(np.concatenate([of_run[_LOSS][1] for _, of_runs in found for of_run in of_runs]))
    logarithms = np.log(losses[np.isfinite(losses)])
    low, high = np.quantile(logarithms, [0.01, 0.99]) if len(logarithms) else (0.0, 0.0)
    if not low < high:
        raise NotMeasured("the loss is the same at all measurements")
    edges = np.linspace(low, high, _BINS + 1)
    return [
        _matched_curve(condition, quantity, edges, [_binned(of_run, quantity, edges) for of_run in of_runs])
        for quantity in MATCHED
        for condition, of_runs in found
        if all(quantity in of_run for of_run in of_runs)
    ]


def _matched_curve(condition: Condition, quantity: str, edges: Floats, medians: Sequence[Floats]) -> MatchedCurve:
    """``edges`` are in log loss; ``medians`` has the bins of each seed."""
    values = np.array(medians)
    values = np.where(np.isfinite(values), values, np.nan) if quantity in ARITHMETIC else _positive(values)
    values[:, 2 * np.isfinite(values).sum(axis=0) < len(values)] = np.nan
    n = np.isfinite(values).sum(axis=0)
    mean, low, high = np.full((3, _BINS), np.nan)
    for number in np.flatnonzero(n):
        present = values[np.isfinite(values[:, number]), number]
        band = averaged(quantity, present[:, None])
        mean[number], low[number], high[number] = band.mean[0], band.low[0], band.high[0]
    seeds = tuple(run.seed for run in condition.runs)
    return MatchedCurve(quantity, condition.regime, condition.lr, seeds, np.exp(edges), n, mean, low, high, values)


def _binned(of_run: dict[str, _Series], quantity: str, edges: Floats) -> Floats:
    """The median of a quantity of one run in each bin of log loss: (bins,)."""
    _, at_loss, at_value = np.intersect1d(of_run[_LOSS][0], of_run[quantity][0], return_indices=True)
    logarithms = np.log(_positive(of_run[_LOSS][1][at_loss]))
    bins = np.searchsorted(edges, logarithms, "right") - 1
    bins[logarithms == edges[-1]] = _BINS - 1
    values = of_run[quantity][1][at_value]
    return np.array([_median(values[bins == number]) for number in range(_BINS)])


def measurements(run: Run) -> Measurements:
    """Steps (m,) and values (m,) of all that one run recorded: landscape quantities, and the ICS over layers.

    ``ics/relative``, ``ics/cosine`` and ``ics/scaled`` are the median over those layers from the second on where it is
    a number. What was not recorded is not among the keys.
    """
    found = _landscape(run)
    if has_ics([run]) and (layers := run.ics_layers[1:]):
        for quantity in (ICS_RELATIVE, ICS_COSINE, ICS_SCALED):
            steps, values = _ics(run, quantity, layers)
            found[quantity] = steps, _median(values, axis=1)
    return found


def matched_ratio(run: Measurements, other: Measurements, quantity: str) -> float:
    """A quantity of one run over that of another at matched training loss; NaN where they share no loss.

    As in ``matched_curves``, with the bins of these two runs alone, of which those count in which both have a positive
    median; the ratio is the geometric mean of theirs.
    """
    found = (run, other)
    if any(quantity not in of_run for of_run in found):
        return float("nan")
    losses = _positive(np.concatenate([of_run[_LOSS][1] for of_run in found]))
    logarithms = np.log(losses[np.isfinite(losses)])
    low, high = np.quantile(logarithms, [0.01, 0.99]) if len(logarithms) else (0.0, 0.0)
    if not low < high:
        return float("nan")
    edges = np.linspace(low, high, _BINS + 1)
    mine, theirs = (_positive(_binned(of_run, quantity, edges)) for of_run in found)
    shared = np.isfinite(mine) & np.isfinite(theirs)
    return float(np.exp(np.log(mine[shared] / theirs[shared]).mean())) if shared.any() else float("nan")


def _landscape(run: Run) -> dict[str, _Series]:
    if not has_landscape([run]):
        return {}
    steps, _, losses, differences = _along(run)
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
            BETA_LR: beta * _learning_rate(run, steps) / 2,
        }
    return {quantity: (steps, of_quantity) for quantity, of_quantity in values.items()}


class _Along(NamedTuple):
    """What one run measured along its gradient: steps (m,), the rest (m, K)."""

    steps: NDArray[np.int64]
    alphas: Floats
    losses: Floats
    differences: Floats


def _along(run: Run) -> _Along:
    (steps, alphas), *others = (run.metrics.lists(key) for key in (_ALPHAS, _LOSSES, _DIFFERENCES))
    if not all(np.array_equal(own, steps) and values.shape == alphas.shape for own, values in others):
        raise _lacks_a_part(run)
    return _Along(steps, alphas, *(values for _, values in others))


def _lacks_a_part(run: Run) -> IcsbenchError:
    return IcsbenchError(f"{run.path / 'metrics.jsonl'}: a measurement of the landscape lacks a part; run it again")


def _learning_rate(run: Run, steps: NDArray[np.int64]) -> Floats:
    """That of the update after so many updates."""
    lr = np.full(len(steps), run.lr)
    if run.setting("optim.schedule") == "cosine":
        lr *= (1 + np.cos(np.pi * steps / int(run.setting("steps")))) / 2
    return lr


def _ics(run: Run, quantity: str, layers: Sequence[Layer]) -> tuple[NDArray[np.int64], Floats]:
    """Steps (m,) and the values of the layers, (m, layers)."""
    names = ("l2", "weight_norm") if quantity == ICS_SCALED else (quantity.removeprefix("ics/"),)
    steps, values = run.metrics.table([f"ics/{layer.path}/{name}" for name in names for layer in layers])
    return steps, values.reshape(len(steps), len(names), len(layers)).prod(axis=1)


def _measured(group: Group, has: Callable[[Iterable[Run]], bool], what: str) -> list[Condition]:
    """The conditions, with only those runs that recorded it and did not diverge."""
    conditions = [
        Condition(condition.regime, condition.lr, runs)
        for condition in group.single_conditions
        if (runs := tuple(run for run in condition.trained if has([run])))
    ]
    if not conditions:
        raise NotMeasured(f"no run that finished without diverging has {what}")
    return conditions


def _with_landscape(group: Group) -> list[Condition]:
    return _measured(group, has_landscape, "the loss landscape along its gradient")


def _curve(condition: Condition, quantity: str, series: Sequence[_Series], layer: Layer | None = None) -> Curve:
    if quantity in ARITHMETIC:
        return mean_curve(condition, condition.runs, quantity, series, layer)
    positive = [(steps, _positive(values)) for steps, values in series]
    return mean_curve(condition, condition.runs, quantity, positive, layer, geometric_band)


def _positive(values: Floats) -> Floats:
    return np.where((values > 0) & np.isfinite(values), values, np.nan)


def _median(values: Floats, axis: int = 0) -> Any:
    """The median of what is a number; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=axis)


def optimisation_table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per group, learning rate, regime and window.

    Windows: ``first tenth`` and ``second half`` of the updates; where there are several regimes, ``matched loss``.
    Keys: ``group``, ``facts``, ``provenance``, ``regime``, ``setting`` and ``lr`` as in ``result_table``; ``window``;
    ``n`` and ``diverged``, how many runs are measured and how many more are left out because they diverged; and each
    recorded quantity of ``measurements`` that the table shows, as Interval over the runs, geometric but for the cosine.

    Of a run it is the median over the window, and NaN where a run has none, or, if geometric, none that is positive.
    At matched loss it is the mean, geometric again, over those bins of ``matched_curves`` that no regime leaves out,
    and over the runs that have a median in one; ``bins`` is their number, ``loss_low`` and ``loss_high`` the ends.
    """
    return [row for group in group_runs(runs) for lr in group.lrs for row in _rows(group, lr)]


def _rows(group: Group, lr: float) -> list[dict[str, Any]]:
    part, rows = group.at(lr), []
    conditions, matched = part.conditions, _at_matched_loss(part)
    for condition in conditions:
        measured = [run for run in condition.runs if has_ics([run]) or has_landscape([run])]
        if not measured:
            continue
        found = {run: measurements(run) for run in measured if run.status != "diverged"}
        row: dict[str, Any] = {
            "group": group.name,
            "facts": group.facts,
            "provenance": group.provenance,
            "regime": condition.regime,
            "setting": setting_of(condition, conditions),
            "lr": lr,
            "n": len(found),
            "diverged": len(measured) - len(found),
        }
        for window in _WINDOWS:
            intervals = {}
            for quantity in _SUMMARY:
                if found and all(quantity in of_run for of_run in found.values()):
                    medians = [window_median(run, of_run[quantity], window) for run, of_run in found.items()]
                    intervals[quantity] = _interval_of(quantity, np.array(medians))
            rows.append(row | {"window": window} | intervals)
        if condition.regime in matched:
            rows.append(row | {"window": _MATCHED} | matched[condition.regime])
    return rows


def _at_matched_loss(group: Group) -> dict[str, dict[str, Any]]:
    """What the rows of each regime hold at matched loss; empty where there is none that several regimes reached."""
    try:
        curves = matched_curves(group)
    except NotMeasured:
        return {}
    shared = np.flatnonzero(np.all([curve.n > 0 for curve in curves], axis=0))
    regimes = dict.fromkeys(curve.regime for curve in curves)
    if not len(shared) or len(regimes) == 1:
        return {}
    low, high = float(curves[0].edges[shared[0]]), float(curves[0].edges[shared[-1] + 1])
    rows: dict[str, dict[str, Any]] = {
        regime: {"bins": len(shared), "loss_low": low, "loss_high": high} for regime in regimes
    }
    for curve in curves:
        there = curve.values[:, shared]
        there = there[np.isfinite(there).any(axis=1)]
        means = np.nanmean(there, axis=1) if curve.quantity in ARITHMETIC else np.exp(np.nanmean(np.log(there), axis=1))
        rows[curve.regime][curve.quantity] = _interval_of(curve.quantity, means)
    return rows


def _interval_of(quantity: str, values: Floats) -> Interval:
    mean, low, high, n = averaged(quantity, values[:, None])
    return Interval(float(mean[0]), float(low[0]), float(high[0]), n)


def window_median(run: Run, series: _Series, window: str) -> float:
    """The median of what is a number over the ``first tenth``, ``second half`` or ``whole`` of a run's updates."""
    first, end = (part * int(run.setting("steps")) for part in (_WINDOWS | _WHOLE)[window])
    steps, values = series
    return float(_median(values[(steps >= first) & (steps < end)]))


def write_optimisation_tables(runs: Sequence[Run], out: Path) -> list[Path]:
    """Write ``optimisation.csv`` and ``.md``, the rows of ``optimisation_table``; nothing where there are none.

    Raises IcsbenchError where a file cannot be written.
    """
    rows = optimisation_table(runs)
    if not rows:
        return []
    text = "\n".join(
        f"{title}\n\n" + "\n".join(f"{heading}\n\n{markdown_table(*table)}" for heading, table in tables)
        for title, tables in _tables(rows)
    )
    contents = {"optimisation.csv": csv_bytes([flat_row(row) for row in rows]), "optimisation.md": text.encode()}
    for name, content in contents.items():
        write_file(out / name, lambda file, content=content: file.write(content))
    return [out / name for name in contents]


def print_optimisation(console: Console, runs: Sequence[Run]) -> None:
    """Print ``optimisation_table``, a column per regime; nothing where it has no rows."""
    for title, tables in _tables(optimisation_table(runs)):
        console.print(title, markup=False, highlight=False)
        for heading, (header, body) in tables:
            console.print(heading, markup=False, highlight=False)
            console.print(rich_table(header, body, left={header[0]}))
            console.print()


def _tables(
    rows: Sequence[dict[str, Any]],
) -> Iterator[tuple[str, list[tuple[str, tuple[list[str], list[list[str]]]]]]]:
    """Each group's title, and heading, header and cells of its tables, one per learning rate and window."""
    for name in dict.fromkeys(row["group"] for row in rows):
        group = [row for row in rows if row["group"] == name]
        tables = []
        for lr, window in dict.fromkeys((row["lr"], row["window"]) for row in group):
            shown = [row for row in group if (row["lr"], row["window"]) == (lr, window)]
            header = ["", *(row["regime"] + (f" ({row['setting']})" if row["setting"] else "") for row in shown)]
            quantities = [quantity for quantity in _SUMMARY if any(quantity in row for row in shown)]
            body = [["seeds", *(_seeds(row) for row in shown)]]
            body += [[_SUMMARY[quantity], *(_interval(row.get(quantity)) for row in shown)] for quantity in quantities]
            tables.append((f"lr {lr:g}, {_heading(shown[0])}:", (header, body)))
        yield (
            f"{name}: {group[0]['facts']}. Median over the measurements of a run, of the ICS after the median over "
            "layers (the first excluded); then geometric mean over seeds (of the cosine the mean), empty "
            "where a run has none or, if geometric, none that is positive and finite"
            + (" [95 % t-interval]." if any(row["n"] >= FEWEST_FOR_AN_INTERVAL for row in group) else ".")
            + (_HOW_MATCHED if any(row["window"] == _MATCHED for row in group) else ""),
            tables,
        )


def _heading(row: dict[str, Any]) -> str:
    if row["window"] != _MATCHED:
        return f"{row['window']} of the updates"
    return f"at matched training loss, {row['loss_low']:.3g} to {row['loss_high']:.3g} ({row['bins']} of {_BINS} bins)"


def _seeds(row: dict[str, Any]) -> str:
    return f"{row['n']}" + (f" ({row['diverged']} diverged, left out)" if row["diverged"] else "")


def _interval(interval: Interval | None) -> str:
    if interval is None or np.isnan(interval.mean):
        return ""
    bounds = f" [{interval.low:.3g}, {interval.high:.3g}]" if interval.n >= FEWEST_FOR_AN_INTERVAL else ""
    return f"{interval.mean:.3g}{bounds}"
