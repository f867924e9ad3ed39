"""The measurements of the updates as a table: the median over a window of training, and at matched training loss."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.quantities.updates import (
    ARITHMETIC,
    BETA_LR,
    DIFFERENCE_HIGH,
    DIFFERENCE_RELATIVE,
    ICS_COSINE,
    ICS_RELATIVE,
    ICS_SCALED,
    LOSS_WIDTH,
    averaged,
    has_ics,
    has_landscape,
    matched_curves,
    measurements,
    window_median,
)
from icsbench.analysis.statistics import Floats, Interval
from icsbench.analysis.tables import setting_of
from icsbench.record.reader import Run

_WINDOWS = ("first tenth", "second half")
MATCHED_LOSS = "matched loss"
SUMMARY = {
    ICS_RELATIVE: "ICS / ‖G‖",
    ICS_COSINE: "cos(G, G′)",
    ICS_SCALED: "ICS · ‖W‖",
    BETA_LR: "β lr / 2",
    LOSS_WIDTH: "log₁₀ width of the loss",
    DIFFERENCE_RELATIVE: "max ‖g′ − g‖ / ‖g‖",
    DIFFERENCE_HIGH: "max ‖g′ − g‖",
}


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
            for quantity in SUMMARY:
                if found and all(quantity in of_run for of_run in found.values()):
                    medians = [window_median(run, of_run[quantity], window) for run, of_run in found.items()]
                    intervals[quantity] = _interval_of(quantity, np.array(medians))
            rows.append(row | {"window": window} | intervals)
        if condition.regime in matched:
            rows.append(row | {"window": MATCHED_LOSS} | matched[condition.regime])
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
