"""The measurements of the updates as a table: the median over a window of training, and at matched training loss."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.quantities.updates import (
    ARITHMETIC,
    BETA_LR,
    BINS,
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
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Floats, Interval
from icsbench.analysis.tables import flat_row, markdown_table, rich_table, setting_of
from icsbench.record.reader import Run

_WINDOWS = ("first tenth", "second half")
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
    return f"at matched training loss, {row['loss_low']:.3g} to {row['loss_high']:.3g} ({row['bins']} of {BINS} bins)"


def _seeds(row: dict[str, Any]) -> str:
    return f"{row['n']}" + (f" ({row['diverged']} diverged, left out)" if row["diverged"] else "")


def _interval(interval: Interval | None) -> str:
    if interval is None or np.isnan(interval.mean):
        return ""
    bounds = f" [{interval.low:.3g}, {interval.high:.3g}]" if interval.n >= FEWEST_FOR_AN_INTERVAL else ""
    return f"{interval.mean:.3g}{bounds}"
