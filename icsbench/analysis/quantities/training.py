"""Accuracy and loss while a network is trained."""

import math
from collections.abc import Iterable

import numpy as np

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.curves import Curve, diverged_curve, has_key, recorded_curve
from icsbench.analysis.statistics import Floats, geometric_mean
from icsbench.record import schema
from icsbench.record.reader import Run

TEST_ACCURACY_BATCH_ON = schema.accuracy("test", "batch-on")

_FIRST_OF_LAST = 0.9

SPAN = 100
"""Training accuracy has reached a level where its mean over so many steps has."""
NEARLY_ALL = 0.95
"""The training accuracy at which there is little left to learn."""


def accuracy_curves(group: Group) -> list[Curve]:
    """Training accuracy, test accuracy, and test accuracy on batch statistics with noise on, where it was measured."""
    curves: list[Curve] = []
    for condition in group.single_conditions:
        for quantity in (schema.TRAIN_ACCURACY, schema.TEST_ACCURACY, TEST_ACCURACY_BATCH_ON):
            if has_key(condition.trained, quantity):
                curves.append(recorded_curve(condition, condition.trained, quantity, quantity))
            for run in condition.diverged:
                curve = diverged_curve(condition, run, quantity)
                if len(curve.steps):
                    curves.append(curve)
    if not curves:
        raise NotMeasured(f"no run has an accuracy in its {schema.METRICS}")
    return curves


def chance_of(run: Run) -> float:
    """Accuracy of guessing, a fraction.

    :raises NotMeasured: the run has no classes.
    """
    if run.regression:
        raise NotMeasured("a regression has no accuracy")
    return run.chance


def accuracy_to_the_end(run: Run) -> tuple[Floats, Floats]:
    """Steps and training accuracy of one run, to its last step; from where it diverged on, that of chance.

    :raises NotMeasured: the run has no training accuracy.
    """
    steps, accuracy = run.metrics.series(schema.TRAIN_ACCURACY)
    if not len(steps):
        raise NotMeasured(f"{run.path} has no {schema.TRAIN_ACCURACY}")
    diverged = run.summary.get("diverged_at")
    if diverged is None:
        return steps.astype(float), accuracy
    total, every = int(run.setting("steps")), int(run.setting("log_every", 10))
    after = np.arange(steps[-1] + every, total + 1, every, dtype=float)
    accuracy = np.where(steps > diverged, chance_of(run), accuracy)
    return np.concatenate([steps, after]), np.concatenate([accuracy, np.full(len(after), chance_of(run))])


def last_tenth(run: Run) -> float:
    """Training accuracy, the mean over the rows of the last tenth of the steps; from where it diverged on, chance."""
    steps, accuracy = accuracy_to_the_end(run)
    return float(accuracy[steps > _FIRST_OF_LAST * int(run.setting("steps"))].mean())


def first_step(run: Run, accuracy: float) -> float:
    """The step at which training accuracy, a fraction, first was at least this; infinite where it never was.

    :raises NotMeasured: the run has no training accuracy.
    """
    steps, values = accuracy_to_the_end(run)
    there = steps[values >= accuracy]
    return float(there[0]) if len(there) else math.inf


def left_chance(run: Run) -> float:
    """The step at which training accuracy first was ``LEFT_CHANCE`` times chance; infinite where it never was.

    :raises NotMeasured: the run has no training accuracy.
    """
    return first_step(run, schema.LEFT_CHANCE * chance_of(run))


def first_mean(run: Run, accuracy: float) -> float:
    """The step at which the mean training accuracy of ``SPAN`` steps first was at least this; infinite if it never was.

    It is the mean over the rows that end in the last ``SPAN`` steps, from the step ``SPAN`` on; 1e-9 less is rounding.

    :raises NotMeasured: the run has no training accuracy.
    """
    steps, values = accuracy_to_the_end(run)
    before = np.searchsorted(steps, steps - SPAN, "right")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(steps) + 1)
    means = (sums[ends] - sums[before]) / (ends - before)
    there = steps[(means >= accuracy - 1e-9) & (steps >= SPAN)]
    return float(there[0]) if len(there) else math.inf


def learning_window(run: Run, other: Run) -> tuple[float, float]:
    """From the step at which both runs have left chance to the :func:`first_mean` of ``NEARLY_ALL`` of either.

    The end is not part of it. It is infinite where neither gets so far, and may lie before the beginning.

    :raises NotMeasured: a run has no training accuracy.
    """
    pair = (run, other)
    return max(map(left_chance, pair)), min(first_mean(one, NEARLY_ALL) for one in pair)


def trains(run: Run) -> bool:
    """Whether a run ends off chance: it did not diverge, and its last tenth is ``LEFT_CHANCE`` times chance or more.

    :raises NotMeasured: the run has no training accuracy.
    """
    return run.status != "diverged" and last_tenth(run) >= schema.LEFT_CHANCE * chance_of(run)


def largest_rate(runs: Iterable[Run]) -> float:
    """The largest learning rate at which one of the runs ends off chance, see :func:`trains`; 0 where none does.

    :raises NotMeasured: a run has no training accuracy.
    """
    return max((run.lr for run in runs if trains(run)), default=0.0)


def final_loss(run: Run) -> float:
    """Training loss, the geometric mean over the rows of the last tenth of the steps; NaN where the run diverged."""
    steps, loss = run.metrics.series(schema.TRAIN_LOSS)
    late = loss[steps > _FIRST_OF_LAST * int(run.setting("steps"))]
    return math.nan if run.status == "diverged" else geometric_mean(map(float, late))
