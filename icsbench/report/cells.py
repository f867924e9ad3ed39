"""The rows of results as tables of text, for the console and for Markdown alike."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from icsbench.analysis.quantities.optimisation import MATCHED_LOSS, SUMMARY
from icsbench.analysis.quantities.protocols import protocol_order
from icsbench.analysis.quantities.updates import BINS
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Interval
from icsbench.analysis.tables import BASELINE_PROTOCOL, DIFFERENCE, LOSS_RATIO
from icsbench.record.schema import TRAIN_ACCURACY, TRAIN_LOSS, accuracy

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]
"""The header of each column, and its cell of a row."""

_TEST = accuracy("test", "")
_CUSTOMARY = accuracy("test", BASELINE_PROTOCOL)
_HOW_MATCHED = (
    " At matched loss: the median over the measurements of a run in a bin of training loss, and the mean over those "
    "bins that at least half of the seeds of every regime reached."
)
_OF_LOSSES = (
    "loss / none: geometric mean of the ratios, paired by seed, and its interval; "
    "loss: half the sum of squares, the last steps, in training mode."
)
_OF_ACCURACIES = (
    "differences paired by seed; train: the last steps, in training mode; test: running statistics, noise off"
)


class TableCells(NamedTuple):
    """A table of text: n names of columns, and m rows of n cells."""

    header: list[str]
    body: list[list[str]]


# --- results ---------------------------------------------------------------------------------------------------------


def results_in_cells(rows: Sequence[Row]) -> Iterator[tuple[str, list[TableCells]]]:
    """For each group of ``result_table`` its title and its tables: results, and test protocols if there are several."""
    for name, group in _by_group(rows):
        first: Columns = {"regime": _regime}
        if len({row["lr"] for row in group}) > 1:
            first["lr"] = lambda row: f"{row['lr']:g}"
        regression = TRAIN_ACCURACY not in group[0]
        results = first | {"n": lambda row: str(row["n"])} | (_losses(group) if regression else _ACCURACIES)
        protocols = {key.removeprefix(_TEST) for row in group for key in row if key.startswith(_TEST)}
        tables = [_filled(results | {"outcome": _outcome}, group)]
        if len(protocols) > 1:
            tables.append(_filled(first | _by_protocol(sorted(protocols, key=protocol_order)), group))
        how = _OF_LOSSES if regression else _OF_ACCURACIES + ("; below: test % by protocol." if tables[1:] else ".")
        yield f"{name}: {group[0]['facts']}. Mean ± half of the 95 % t-interval over n seeds, {how}", tables


def _by_group(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for name in dict.fromkeys(row["group"] for row in rows):
        yield name, [row for row in rows if row["group"] == name]


def _filled(columns: Columns, rows: Sequence[Row]) -> TableCells:
    return TableCells([*columns], [[cell(row) for cell in columns.values()] for row in rows])


def _losses(rows: Sequence[Row]) -> Columns:
    columns: Columns = {"train loss": lambda row: loss_cell(row[TRAIN_LOSS].mean, row[TRAIN_LOSS].half)}
    if any(LOSS_RATIO in row for row in rows):
        columns["loss / none"] = lambda row: _ratio(row.get(LOSS_RATIO))
    return columns


_ACCURACIES: Columns = {
    "train %": lambda row: _percent(row[TRAIN_ACCURACY]),
    "train %\nminus none": lambda row: _percent(row.get(DIFFERENCE + TRAIN_ACCURACY), sign=True),
    "test %": lambda row: _percent(row.get(_CUSTOMARY)),
    "test %\nminus none": lambda row: _percent(row.get(DIFFERENCE + _CUSTOMARY), sign=True),
}


def _by_protocol(protocols: Sequence[str]) -> Columns:
    return {
        protocol.replace("recalibrated", "recal.").replace("-", "\nnoise "): lambda row, key=_TEST + protocol: _percent(
            row.get(key)
        )
        for protocol in protocols
    }


def _regime(row: Row) -> str:
    return row["regime"] + (f" ({row['setting']})" if row["setting"] else "")


def _outcome(row: Row) -> str:
    parts = []
    if row["diverged"]:
        steps = ", ".join(map(str, sorted(row["diverged"].values())))
        parts.append(f"{len(row['diverged'])} diverged (step {steps})")
    if row["chance"]:
        parts.append(f"{len(row['chance'])} at chance")
    return "; ".join(parts) or ("all learned" if TRAIN_ACCURACY in row else "all trained")


def _percent(interval: Interval | None, sign: bool = False) -> str:
    """A fraction and half its interval, in per cent."""
    if interval is None:
        return ""
    mean = f"{interval.mean * 100:{'+' if sign else ''}.1f}"
    return mean if math.isnan(interval.half) else f"{mean} ± {interval.half * 100:.1f}"


def loss_cell(mean: float, half: float = math.nan) -> str:
    """A loss, of whatever size, to three digits, and half its interval to as many places."""
    if not math.isfinite(mean):
        return "not finite"
    size = math.floor(math.log10(mean)) if mean > 0 else 0
    form = f",.{max(0, 2 - size)}f" if -4 <= size < 7 else ".2e"
    return f"{mean:{form}}" + ("" if math.isnan(half) else f" ± {half:{form}}")


def _ratio(interval: Interval | None) -> str:
    if interval is None:
        return ""
    mean, low, high, _ = interval
    text = "not finite" if math.isnan(mean) else f"{mean:.3g}"
    return text if math.isnan(low) else f"{text} ({low:.3g} to {high:.3g})"


# --- what updates did ------------------------------------------------------------------------------------------------


def updates_in_cells(rows: Sequence[Row]) -> Iterator[tuple[str, list[tuple[str, TableCells]]]]:
    """For each group of ``optimisation_table`` its title, and a heading and a table per learning rate and window."""
    for name, group in _by_group(rows):
        tables = []
        for lr, window in dict.fromkeys((row["lr"], row["window"]) for row in group):
            shown = [row for row in group if (row["lr"], row["window"]) == (lr, window)]
            quantities = [quantity for quantity in SUMMARY if any(quantity in row for row in shown)]
            body = [["seeds", *(_seeds(row) for row in shown)]]
            body += [[SUMMARY[quantity], *(_number(row.get(quantity)) for row in shown)] for quantity in quantities]
            tables.append((f"lr {lr:g}, {_heading(shown[0])}:", TableCells(["", *map(_regime, shown)], body)))
        title = (
            f"{name}: {group[0]['facts']}. Median over the measurements of a run, of the ICS after the median over "
            "layers (the first excluded); then geometric mean over seeds (of the cosine the mean), empty "
            "where a run has none or, if geometric, none that is positive and finite"
        )
        title += " [95 % t-interval]." if any(row["n"] >= FEWEST_FOR_AN_INTERVAL for row in group) else "."
        yield title + (_HOW_MATCHED if any(row["window"] == MATCHED_LOSS for row in group) else ""), tables


def _heading(row: Row) -> str:
    if row["window"] != MATCHED_LOSS:
        return f"{row['window']} of the updates"
    return f"at matched training loss, {row['loss_low']:.3g} to {row['loss_high']:.3g} ({row['bins']} of {BINS} bins)"


def _seeds(row: Row) -> str:
    return f"{row['n']}" + (f" ({row['diverged']} diverged, left out)" if row["diverged"] else "")


def _number(interval: Interval | None) -> str:
    if interval is None or math.isnan(interval.mean):
        return ""
    bounds = f" [{interval.low:.3g}, {interval.high:.3g}]" if interval.n >= FEWEST_FOR_AN_INTERVAL else ""
    return f"{interval.mean:.3g}{bounds}"
