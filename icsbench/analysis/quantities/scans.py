"""What a network ends with, over the setting that an experiment sweeps: learning rate, noise, or batch size."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from icsbench.analysis.claims.measures import final_accuracy, last_tenth, step_shift, window_of
from icsbench.analysis.groups import Condition, Group, NotMeasured
from icsbench.analysis.quantities import optimisation
from icsbench.analysis.quantities.curves import MEAN_PER_STEP
from icsbench.analysis.statistics import Floats, Interval, mean_interval
from icsbench.record.reader import Run

TRAIN = "train/accuracy"
TEST = "test/accuracy"
GAP = "gap"
BETA = "beta"
LEARNING_RATE = "learning rate"
SHIFT = "change of the mean in one step"
BATCH_SIZE = "batch size"

_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Scan:
    """One quantity of one regime at each value of the setting: ``x`` (m,), and an interval over seeds for each.

    Accuracies are fractions; ``beta``, whose means are geometric, is of the runs that did not diverge.
    """

    setting: str
    quantity: str
    regime: str
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


def sweeps(group: Group) -> bool:
    """Whether the group has a setting with three values or more, and accuracies."""
    try:
        return not group.regression and bool(_setting(group))
    except NotMeasured:
        return False


def scans(group: Group) -> list[Scan]:
    """Training accuracy of the last tenth and final test accuracy of each regime over the setting that is swept.

    Over learning rates also effective beta (median over the second half, where recorded), over batch sizes the
    generalisation gap. Noise is placed by the shift that it makes. Raises NotMeasured where nothing has three values.
    """
    setting, place, label = _setting(group)
    quantities: dict[str, Callable[[Run], float]] = {TRAIN: last_tenth, TEST: final_accuracy}
    if setting == BATCH_SIZE:
        quantities[GAP] = lambda run: last_tenth(run) - final_accuracy(run)
    if setting == LEARNING_RATE and optimisation.has_landscape(group.runs):
        quantities[BETA] = lambda run: window_of(run, optimisation.BETA)
    regimes = dict.fromkeys(condition.regime for condition in group.conditions)
    found = []
    for quantity, value in quantities.items():
        for regime in regimes:
            conditions = [condition for condition in group.conditions if condition.regime == regime]
            points = sorted((place(c), label(c), _interval(c, quantity, value)) for c in conditions)
            points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[2].mean)]
            if points:
                x, labels, intervals = zip(*points, strict=True)
                found.append(Scan(setting, quantity, regime, np.array(x), labels, intervals))
    return found


def _interval(condition: Condition, quantity: str, value: Callable[[Run], float]) -> Interval:
    if quantity != BETA:
        return mean_interval([value(run) for run in condition.runs])
    betas = [value(run) for run in condition.trained]
    if not betas or not all(beta > 0 and math.isfinite(beta) for beta in betas):
        return Interval(math.nan, math.nan, math.nan, len(betas))
    mean, low, high, n = mean_interval(np.log(betas))
    return Interval(math.exp(mean), math.exp(low), math.exp(high), n)


def _setting(group: Group) -> tuple[str, Callable[[Condition], float], Callable[[Condition], str]]:
    """What is swept, its value in a condition, and how that is called."""

    def of(key: str, default: float) -> Callable[[Condition], float]:
        return lambda condition: float(condition.runs[0].setting(key, default))

    strength, size = of("norm.strength", 1.0), of("batch_size", 0)
    if len(set(map(size, group.conditions))) >= _FEWEST:
        return BATCH_SIZE, size, lambda condition: f"{size(condition):g}"
    if len(set(map(strength, group.conditions))) >= _FEWEST:
        return SHIFT, _shift, lambda condition: f"noise × {strength(condition):g}"
    if len(group.lrs) >= _FEWEST:
        return LEARNING_RATE, lambda condition: condition.lr, lambda condition: f"{condition.lr:g}"
    raise NotMeasured("no setting has three values or more")


def _shift(condition: Condition) -> float:
    """Geometric mean over the seeds that did not diverge; NaN where all did."""
    shifts = [step_shift(run, MEAN_PER_STEP) for run in condition.trained]
    return float(np.exp(np.mean(np.log(shifts)))) if shifts else math.nan
