"""Accuracy while a network is trained."""

import numpy as np

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.curves import Curve, diverged_curve, has_key, recorded_curve
from icsbench.analysis.statistics import Floats
from icsbench.record import schema
from icsbench.record.reader import Run

TEST_ACCURACY_BATCH_ON = schema.accuracy("test", "batch-on")

_FIRST_OF_LAST = 0.9


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
        raise NotMeasured("no run has an accuracy in its metrics.jsonl")
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
