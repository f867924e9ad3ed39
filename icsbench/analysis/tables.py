"""Results in numbers: one row per group, learning rate and regime, and one per run."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from icsbench.analysis.groups import Condition, Group, group_runs
from icsbench.analysis.quantities.protocols import protocols
from icsbench.analysis.statistics import Interval, mean_interval, paired_difference, paired_ratio
from icsbench.record import schema
from icsbench.record.reader import Run

_BASELINE = "none"
BASELINE_PROTOCOL = "running-off"
_TEST = schema.accuracy("test", "")
_KNOWN = schema.accuracy("train", schema.KNOWN)
DIFFERENCE = "difference/"
LOSS_RATIO = f"ratio/{schema.TRAIN_LOSS}"


def result_table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per cell of each group of trainings, over all its finished seeds, the diverged ones included.

    Keys: ``group``, ``facts``, ``provenance``, ``regime``, ``setting`` (see ``setting_of``), ``lr``, ``n``;
    ``train/accuracy``, ``train/loss`` and ``test/accuracy/<protocol>`` (only protocols that apply) as Interval over the
    seeds, and ``train/accuracy/recalibrated-off`` (on fixed training images) where the records have it;
    ``difference/train/accuracy`` and ``difference/test/accuracy/<protocol>`` as the Interval of the difference, seed by
    seed, to regime ``none`` with the same learning rate and other factors (its one protocol is running-off), over the
    seeds that both have; ``diverged`` and ``chance``, mapping seed to step: of the first NaN, and of the end of a run
    that was at chance then. Accuracies are fractions.

    A regression has no accuracies, nor differences of them, but ``ratio/train/loss``: the geometric mean over the same
    pairs of the ratio to regime ``none``, with its interval. A loss that is not finite makes both NaN.
    """
    return [row for group in group_runs(runs) if group.kind == "training" for row in _group_rows(group)]


def _group_rows(group: Group) -> list[dict[str, Any]]:
    conditions = group.conditions
    rows = []
    for condition in conditions:
        baseline = next(
            (other for other in conditions if other.regime == _BASELINE and _paired(condition, other)), None
        )
        row: dict[str, Any] = {
            "group": group.name,
            "facts": group.facts,
            "provenance": group.provenance,
            "regime": condition.regime,
            "setting": setting_of(condition, conditions),
            "lr": condition.lr,
            "n": len(condition.runs),
        }
        if not group.regression:
            row[schema.TRAIN_ACCURACY] = mean_interval([run.train_accuracy for run in condition.runs])
        if any(_KNOWN in run.summary for run in condition.runs):
            row[_KNOWN] = mean_interval([run.known_training for run in condition.runs])
        row[schema.TRAIN_LOSS] = mean_interval([_number(run, schema.TRAIN_LOSS) for run in condition.runs])
        for protocol in protocols(condition.runs):
            row[_TEST + protocol] = mean_interval([_test(run, protocol) for run in condition.runs])
        if baseline is not None and condition.regime != _BASELINE:
            row |= _compared(condition, baseline, group.regression)
        row["diverged"] = {run.seed: run.summary.get("diverged_at") for run in condition.diverged}
        row["chance"] = {run.seed: run.summary.get("steps") for run in condition.runs if run.status == "chance"}
        rows.append(row)
    return rows


def _compared(condition: Condition, baseline: Condition, regression: bool) -> dict[str, Interval]:
    baseline_runs = {run.seed: run for run in baseline.runs}
    pairs = [(run, baseline_runs[run.seed]) for run in condition.runs if run.seed in baseline_runs]
    if not pairs:
        return {}
    if regression:
        losses = np.array([[_number(run, schema.TRAIN_LOSS) for run in pair] for pair in pairs])
        return {LOSS_RATIO: paired_ratio(*np.where(np.isfinite(losses), losses, np.nan).T)}
    differences = {
        DIFFERENCE + schema.TRAIN_ACCURACY: paired_difference(
            [run.train_accuracy for run, _ in pairs], [other.train_accuracy for _, other in pairs]
        )
    }
    for protocol in protocols(condition.runs):
        differences[DIFFERENCE + _TEST + protocol] = paired_difference(
            [_test(run, protocol) for run, _ in pairs], [_test(other, BASELINE_PROTOCOL) for _, other in pairs]
        )
    return differences


def _paired(one: Condition, other: Condition) -> bool:
    """Whether two cells have the same factors, the norm apart."""
    factors = [{key: value for key, value in of.settings.items() if not key.startswith("norm.")} for of in (one, other)]
    return factors[0] == factors[1]


def setting_of(condition: Condition, conditions: Sequence[Condition]) -> str:
    """In what a cell differs from others of its regime and learning rate.

    That is: options of its norm, and factors that its record names, with their values.
    """
    mine = condition.shown
    others = [
        other.shown
        for other in conditions
        if other is not condition and (other.regime, other.lr) == (condition.regime, condition.lr)
    ]
    different = [key for key in mine if any(other.get(key) != mine[key] for other in others)]
    return ", ".join(f"{key.rpartition('.')[2]} {mine[key]}" for key in different)


def _number(run: Run, key: str) -> float:
    value = run.summary.get(key)
    return math.nan if value is None else float(value)


def _test(run: Run, protocol: str) -> float:
    return run.test_accuracy.get(protocol, math.nan)


def run_row(group: Group, run: Run) -> dict[str, Any]:
    """One finished run of a group: outcome, losses, accuracies by protocol, seconds. Accuracies are fractions."""
    row: dict[str, Any] = {"group": group.name, "regime": run.regime}
    row |= {} if run.kind == "lab" else {"lr": run.lr}
    row |= {"seed": run.seed, "status": run.status}
    row |= {key: run.summary[key] for key in ("steps", "diverged_at", "left_chance_at") if key in run.summary}
    row |= {schema.TRAIN_LOSS: _number(run, schema.TRAIN_LOSS)} if schema.TRAIN_LOSS in run.summary else {}
    row |= {schema.TRAIN_ACCURACY: run.train_accuracy} if schema.TRAIN_ACCURACY in run.summary else {}
    for split in ("test", "val"):
        row |= {schema.accuracy(split, name): value for name, value in run.final_accuracy(split).items()}
    row |= {_KNOWN: run.known_training} if _KNOWN in run.summary else {}
    return row | {"seconds": run.seconds}
