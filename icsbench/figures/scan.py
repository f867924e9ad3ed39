"""What a network ends with, over the setting in which the runs of a study differ."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes

from icsbench.analysis.groups import Condition, Group, NotMeasured
from icsbench.analysis.quantities import updates
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.shift import MEAN_PER_STEP, SHIFT, chosen_layers, step_shift
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import Floats, Interval, mean_interval
from icsbench.figures.caption import caption, seeds
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.style import GUIDE, LEGEND_LINE, Page, above, below, chance_line, regime_legend
from icsbench.record.reader import Run
from icsbench.record.regime import Regime
from icsbench.record.schema import TEST_ACCURACY, TRAIN_ACCURACY

GAP = "gap"
BETA = "beta"
LEARNING_RATE = "learning rate"
BATCH_SIZE = "batch size"
MEAN_SHIFT = "change of the mean in one step"

_AXES = {"optim.lr": LEARNING_RATE, "batch_size": BATCH_SIZE, "norm.strength": MEAN_SHIFT}
"""What is on the axis of a setting; of any other its key. Noise is placed by the shift that it makes."""
_TITLES = {
    TRAIN_ACCURACY: "training accuracy (%)",
    TEST_ACCURACY: "test accuracy (%)",
    GAP: "training − test (points)",
    BETA: "effective β",
}
_LAST = ("norm", "optim.lr")  # what every study may vary: looked at after the factors of its own
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Scan:
    """One quantity of one regime at each value of the setting: ``x`` (m,), and an interval over seeds for each.

    Accuracies are fractions; ``beta``, whose means are geometric, is of the runs that did not diverge.
    """

    setting: str
    quantity: str
    regime: Regime
    x: Floats
    labels: tuple[str, ...]
    intervals: tuple[Interval, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per value of the setting."""
        for x, label, interval in zip(self.x, self.labels, self.intervals, strict=True):
            yield {
                "setting": self.setting,
                "quantity": self.quantity,
                "regime": self.regime,
                "x": float(x),
                "label": label,
                **interval._asdict(),
            }


def swept(group: Group) -> str | None:
    """The key of the setting that is swept: the first number with three values or more; None where there is none.

    The study's own factors come first, then the options of the norms, then the learning rate.
    """
    runs = [condition.runs[0] for condition in group.conditions]
    for factor in sorted(group.factors, key=lambda factor: _LAST.index(factor) + 1 if factor in _LAST else 0):
        values: dict[str, set[float]] = {}
        for run in runs:
            for key, value in _numbers_at(factor, run.setting(factor)):
                values.setdefault(key, set()).add(value)
        for key, found in values.items():
            if len(found) >= _FEWEST:
                return key
    return None


def _numbers_at(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """The number at a key, or all of a group of settings: key and value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers_at(f"{key}.{name}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, float(value)


def scans(group: Group) -> list[Scan]:
    """Training accuracy of the last tenth and final test accuracy of each regime over the setting that is swept.

    Over learning rates also effective beta (median over the second half, where recorded), over batch sizes the
    generalization gap.

    :raises NotMeasured: no setting has three values, they have no finite place on the axis, or a regime differs at one
        of them in something else.
    """
    key = swept(group)
    if key is None:
        raise NotMeasured("no setting has three values or more")
    setting = _AXES.get(key, key)
    quantities: dict[str, Callable[[Run], float]] = {TRAIN_ACCURACY: last_tenth, TEST_ACCURACY: final_accuracy}
    if setting == BATCH_SIZE:
        quantities[GAP] = lambda run: last_tenth(run) - final_accuracy(run)
    if setting == LEARNING_RATE and updates.has_landscape(group.runs):
        quantities[BETA] = lambda run: updates.window_of(run, updates.BETA)
    _refuse_several(group, key)
    cells = [(condition, *_place(condition, key)) for condition in group.conditions]
    cells = [cell for cell in cells if math.isfinite(cell[1])]
    if not cells:
        raise NotMeasured(f"no run has a finite {setting}, where its {key} would be placed")
    found = []
    for quantity, value in quantities.items():
        for regime in dict.fromkeys(condition.regime for condition in group.conditions):
            points = sorted((x, label, _interval(c, quantity, value)) for c, x, label in cells if c.regime == regime)
            points = [point for point in points if math.isfinite(point[2].mean)]
            if points:
                x, labels, intervals = zip(*points, strict=True)
                found.append(Scan(setting, quantity, regime, np.array(x), labels, intervals))
    return found


def _refuse_several(group: Group, key: str) -> None:
    seen: set[tuple[str, Any]] = set()
    for condition in group.conditions:
        place = condition.regime, condition.runs[0].setting(key)
        if place in seen:
            raise NotMeasured(
                f"{condition.runs[0].path.parent}: a second setting of {condition.regime} at {key} {place[1]}; "
                "in this figure each needs an experiment of its own"
            )
        seen.add(place)


def _place(condition: Condition, key: str) -> tuple[float, str]:
    """Where a condition is on the axis, and how it is called there; NaN where it has no such setting."""
    value = condition.runs[0].setting(key)
    name = "" if value is None else f"{float(value):g}"
    if _AXES.get(key) == MEAN_SHIFT:
        return _shift(condition), name and f"noise × {name}"
    return math.nan if value is None else float(value), name


def _shift(condition: Condition) -> float:
    """Geometric mean over the seeds that did not diverge; NaN where all did."""
    shifts = [step_shift(run, MEAN_PER_STEP) for run in condition.trained]
    return float(np.exp(np.mean(np.log(shifts)))) if shifts else math.nan


def _interval(condition: Condition, quantity: str, value: Callable[[Run], float]) -> Interval:
    if quantity != BETA:
        return mean_interval([value(run) for run in condition.runs])
    betas = [value(run) for run in condition.trained]
    if not betas or not all(beta > 0 and math.isfinite(beta) for beta in betas):
        return Interval(math.nan, math.nan, math.nan, len(betas))
    mean, low, high, n = mean_interval(np.log(betas))
    return Interval(math.exp(mean), math.exp(low), math.exp(high), n)


def _caption(group: Group, scans: Sequence[Scan]) -> str:
    what = "Training: the last tenth of the steps; test: statistics of the population, recomputed where there are any."
    details = []
    if any(scan.quantity == BETA for scan in scans):
        details.append("β: median over the second half of training, geometric mean of what did not diverge.")
    if scans[0].setting == MEAN_SHIFT:
        depths = [str(layer.depth) for layer in chosen_layers(group.runs[0].layers_of(SHIFT))]
        details.append(
            f"Noise is placed by the shift in its second half, geometric mean over layers {', '.join(depths)}."
        )
    counts = [(scan.regime, x, of.n) for scan in scans for x, of in zip(scan.x, scan.intervals, strict=True)]
    same = len({n for *_, n in counts}) == 1
    number = seeds(counts) if same else "Mean and 95 % t-interval over the seeds, whose numbers are in the CSV file."
    return caption(group, what, *details, number, "A run that diverged has the accuracy of chance.")


def _draw(group: Group, scans: Sequence[Scan], text: str) -> mpl.Figure:
    """A panel per quantity: means joined by lines, with their intervals."""
    quantities = list(dict.fromkeys(scan.quantity for scan in scans))
    legend = regime_legend(scans)
    top = 0.26 + LEGEND_LINE * len(legend)
    page = Page(top + 2.2, text, top=top, bottom=0.4, left=0.4, right=0.15)
    (row,) = page.axes(1, len(quantities), wspace=0.25)
    everywhere = np.concatenate([scan.x for scan in scans])
    for axes, quantity in zip(row, quantities, strict=True):
        shown = [scan for scan in scans if scan.quantity == quantity]
        scale = 1 if quantity == BETA else 100
        for scan in shown:
            _draw_scan(axes, scan, scale)
        if everywhere.min() > 0:
            log_axis(axes, everywhere.min() / 1.15, everywhere.max() * 1.15, "x", ticks=6)
        if scans[0].setting != MEAN_SHIFT:
            axes.set_xticks(np.unique(everywhere), [f"{x:g}" for x in np.unique(everywhere)])
        below(axes, scans[0].setting)
        above(axes, _TITLES[quantity])
        if quantity == BETA:
            axes.plot(np.unique(everywhere), 2 / np.unique(everywhere), color=GUIDE, linewidth=0.6, zorder=0)
            axes.annotate("2/lr", (everywhere.max(), 2 / everywhere.max()), color=GUIDE, size=6, ha="right", va="top")
            log_axis(axes, *extent(*(_ends(scan) for scan in shown), 2 / everywhere))
        elif quantity in (TRAIN_ACCURACY, TEST_ACCURACY):
            axes.set_ylim(0, 102)
            chance_line(axes, 1 / group.num_classes)
    page.legend(*legend)
    return page.figure


def _ends(scan: Scan) -> np.ndarray:
    return np.array([end for interval in scan.intervals for end in interval[:3]])


def _draw_scan(axes: Axes, scan: Scan, scale: float) -> None:
    look = scan.regime
    mean, low, high = scale * np.array([interval[:3] for interval in scan.intervals]).T
    axes.plot(scan.x, mean, color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=3)
    axes.errorbar(scan.x, mean, [mean - low, high - mean], fmt="none", ecolor=look.color, elinewidth=0.8, capsize=1.5)
    if scan.setting == MEAN_SHIFT and scan.quantity == TRAIN_ACCURACY:
        for place, (x, y, label) in enumerate(zip(scan.x, mean, scan.labels, strict=True), 1):
            beside: dict[str, Any] = (
                {"xytext": (4, 4), "ha": "left"} if place < len(mean) else {"xytext": (-6, -2), "ha": "right"}
            )
            axes.annotate(label, (x, y), textcoords="offset points", size=6, color=GUIDE, **beside)


FIGURE = Figure(
    name="scan",
    order=20,
    numbers=scans,
    caption=_caption,
    draw=_draw,
    applies=lambda group: not group.regression and swept(group) is not None,
    per_lr=False,
)
