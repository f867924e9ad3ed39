"""Results in numbers: rows for a person (rich, markdown) and for a program (CSV)."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.groups import Condition, Group, group_runs
from icsbench.analysis.quantities.protocols import protocol_order, protocols
from icsbench.analysis.statistics import Interval, mean_interval, paired_difference, paired_ratio
from icsbench.record.reader import Run

_BASELINE = "none"
_BASELINE_PROTOCOL = "running-off"
_TEST = "test/accuracy/"
_KNOWN = "train/accuracy/recalibrated-off"
_DIFFERENCE = "difference/"
_RATIO = "ratio/train/loss"


def result_table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per group, learning rate and regime, over all its finished seeds, the diverged ones included.

    Keys: ``group``, ``facts``, ``provenance``, ``regime``, ``setting`` (the norm settings in which it differs from
    others of its regime), ``lr``, ``n``; ``train/accuracy``, ``train/loss`` and ``test/accuracy/<protocol>`` (only
    protocols that apply) as Interval over the seeds, and ``train/accuracy/recalibrated-off`` (on fixed training images)
    where the records have it; ``difference/train/accuracy`` and
    ``difference/test/accuracy/<protocol>`` as the Interval of the difference, seed by seed, to regime ``none`` at the
    same learning rate (its one protocol is running-off), over the seeds that both have; ``diverged`` and ``chance``,
    mapping seed to step: of the first NaN, and of the end of a run that was at chance then. Accuracies are fractions.

    A regression has no accuracies, nor differences of them, but ``ratio/train/loss``: the geometric mean over the same
    pairs of the ratio to regime ``none``, with its interval. A loss that is not finite makes both NaN.
    """
    return [row for group in group_runs(runs) for row in _group_rows(group)]


def _group_rows(group: Group) -> list[dict[str, Any]]:
    conditions = group.conditions
    rows = []
    for condition in conditions:
        baseline = next((other for other in conditions if (other.regime, other.lr) == (_BASELINE, condition.lr)), None)
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
            row["train/accuracy"] = mean_interval([run.train_accuracy for run in condition.runs])
        if any(_KNOWN in run.summary for run in condition.runs):
            row[_KNOWN] = mean_interval([run.known_training for run in condition.runs])
        row["train/loss"] = mean_interval([_number(run, "train/loss") for run in condition.runs])
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
        losses = np.array([[_number(run, "train/loss") for run in pair] for pair in pairs])
        return {_RATIO: paired_ratio(*np.where(np.isfinite(losses), losses, np.nan).T)}
    differences = {
        _DIFFERENCE + "train/accuracy": paired_difference(
            [run.train_accuracy for run, _ in pairs], [other.train_accuracy for _, other in pairs]
        )
    }
    for protocol in protocols(condition.runs):
        differences[_DIFFERENCE + _TEST + protocol] = paired_difference(
            [_test(run, protocol) for run, _ in pairs], [_test(other, _BASELINE_PROTOCOL) for _, other in pairs]
        )
    return differences


def setting_of(condition: Condition, conditions: Sequence[Condition]) -> str:
    """The norm settings in which a condition differs from others of its regime and learning rate."""
    mine = condition.runs[0].config["norm"]
    others = [
        other.runs[0].config["norm"]
        for other in conditions
        if other is not condition and (other.regime, other.lr) == (condition.regime, condition.lr)
    ]
    different = [key for key in mine if any(other.get(key) != mine[key] for other in others)]
    return ", ".join(f"{key} {mine[key]}" for key in different)


def _number(run: Run, key: str) -> float:
    value = run.summary.get(key)
    return math.nan if value is None else float(value)


def _test(run: Run, protocol: str) -> float:
    return run.test_accuracy.get(protocol, math.nan)


def write_tables(runs: Sequence[Run], out: Path) -> list[Path]:
    """Write ``results.csv`` and ``results.md``, the rows of ``result_table``, and ``runs.csv``, a row per finished run.

    In ``results.csv`` an Interval becomes columns ``<key>/mean``, ``/low``, ``/high`` and ``/n``. Raises IcsbenchError
    where a file cannot be written.
    """
    rows = result_table(runs)
    contents = {
        "results.csv": csv_bytes([flat_row(row) for row in rows]),
        "results.md": markdown(rows).encode(),
        "runs.csv": csv_bytes([_run_row(group, run) for group in group_runs(runs) for run in group.runs]),
    }
    for name, content in contents.items():
        write_file(out / name, lambda file, content=content: file.write(content))
    return [out / name for name in contents]


def _run_row(group: Group, run: Run) -> dict[str, Any]:
    row = {"group": group.name, "regime": run.regime, "lr": run.lr, "seed": run.seed, "status": run.status}
    row |= {key: run.summary[key] for key in ("steps", "diverged_at", "left_chance_at") if key in run.summary}
    row |= {"train/loss": _number(run, "train/loss")} if "train/loss" in run.summary else {}
    row |= {"train/accuracy": run.train_accuracy} if "train/accuracy" in run.summary else {}
    for split in ("test", "val"):
        row |= {f"{split}/accuracy/{name}": value for name, value in run.final_accuracy(split).items()}
    row |= {_KNOWN: run.known_training} if _KNOWN in run.summary else {}
    return row | {"seconds": run.seconds}


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row for CSV: an Interval at ``key`` becomes ``<key>/mean``, ``/low``, ``/high`` and ``/n``."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Interval):
            flat |= {f"{key}/{name}": part for name, part in value._asdict().items()}
        elif isinstance(value, dict):
            flat[key] = " ".join(f"seed-{seed}@{step}" for seed, step in value.items())
        else:
            flat[key] = value
    return flat


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of ``result_table`` as markdown: of each group its facts, results, protocols, and what made them."""
    return "\n".join(
        f"{title}\n\n" + "".join(markdown_table(*table) + "\n" for table in tables) + f"Made by {made}.\n"
        for (title, tables), made in zip(_tables(rows), _provenances(rows), strict=True)
    )


def _provenances(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list({row["group"]: row["provenance"] for row in rows}.values())


def markdown_table(header: list[str], body: list[list[str]], left: int = 1) -> str:
    """A table as markdown, the first columns to the ``left``, the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    names = [name.replace("recal.", "recalibrated").replace("\n", ", ") for name in header]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (names, rule, *body))


def print_results(console: Console, runs: Sequence[Run]) -> None:
    """Print ``result_table``, for each group its results and its test protocols, then a line on unfinished runs."""
    for title, tables in _tables(result_table(runs)):
        console.print(title, markup=False, highlight=False)
        for header, body in tables:
            console.print(rich_table(header, body, left={"regime", "outcome"}))
            console.print()
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        console.print(f"not counted: {len(unfinished)} of {len(runs)} runs, not finished (icsbench runs lists them)")


def print_runs(console: Console, runs: Sequence[Run]) -> None:
    """Print one line per run: regime, seed, status, steps done of steps, accuracies in per cent, path, error.

    Test accuracy is that of running statistics with noise off; of an unfinished run both are the latest recorded. A
    regression has its training loss instead. Paths are relative to the folder that the runs have in common, which the
    heading names.
    """
    common = Path(os.path.commonpath([run.path.parent for run in runs]))
    columns: dict[str, Callable[[Run], str]] = {
        "regime": lambda run: run.regime,
        "seed": lambda run: str(run.seed),
        "status": lambda run: run.status,
        "step": lambda run: f"{_step(run)}/{run.setting('steps', '?')}",
    }
    if not all(run.regression for run in runs):
        columns |= {
            "train %": lambda run: _percent(_latest(run, "train/accuracy")),
            "test %": lambda run: _percent(_latest(run, "test/accuracy")),
        }
    if any(run.regression for run in runs):
        columns["train loss"] = _latest_loss
    columns[f"in {common}"] = lambda run: str(run.path.relative_to(common))
    if any(run.error for run in runs):
        columns["error"] = lambda run: run.error or ""
    body = [[show(run) for show in columns.values()] for run in runs]
    console.print(rich_table(list(columns), body, left={"regime", "status", f"in {common}", "error"}))


def rich_table(header: list[str], body: list[list[str]], left: set[str]) -> Table:
    """A table for the console, the columns named in ``left`` to the left, the others to the right."""
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name), justify="left" if name in left else "right", overflow="fold")
    for cells in body:
        table.add_row(*(Text(cell.replace(" ± ", "±")) for cell in cells))
    return table


def _step(run: Run) -> int:
    if not run.finished:
        return run.metrics.last_step
    at = run.summary.get("diverged_at")
    return int(run.summary["steps"] if at is None else at)


def _latest_loss(run: Run) -> str:
    loss = _latest(run, "train/loss")
    return _loss(loss) if run.regression and (run.finished or math.isfinite(loss)) else ""


def _latest(run: Run, key: str) -> float:
    if run.finished:
        if key == "train/accuracy":
            return run.train_accuracy
        return _test(run, _BASELINE_PROTOCOL) if key == "test/accuracy" else _number(run, key)
    _, values = run.metrics.series(key)
    return values[-1] if len(values) else math.nan


def _tables(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[tuple[list[str], list[list[str]]]]]]:
    """Each group's title, and header and cells of its tables: results, and test protocols where there are several."""
    for name in dict.fromkeys(row["group"] for row in rows):
        group = [row for row in rows if row["group"] == name]
        first: dict[str, Callable[[dict[str, Any]], str]] = {
            "regime": lambda row: row["regime"] + (f" ({row['setting']})" if row["setting"] else "")
        }
        if len({row["lr"] for row in group}) > 1:
            first["lr"] = lambda row: f"{row['lr']:g}"
        counted = first | {"n": lambda row: str(row["n"])}
        regression = "train/accuracy" not in group[0]
        losses = {"train loss": lambda row: _loss(row["train/loss"].mean, row["train/loss"].half)}
        if any(_RATIO in row for row in group):
            losses["loss / none"] = lambda row: _ratio(row.get(_RATIO))
        accuracies = {
            "train %": lambda row: _interval(row["train/accuracy"], 100),
            "train %\nminus none": lambda row: _interval(row.get(_DIFFERENCE + "train/accuracy"), 100, sign=True),
            "test %": lambda row: _interval(row.get(_TEST + _BASELINE_PROTOCOL), 100),
            "test %\nminus none": lambda row: _interval(
                row.get(_DIFFERENCE + _TEST + _BASELINE_PROTOCOL), 100, sign=True
            ),
        }
        results = counted | (losses if regression else accuracies) | {"outcome": _outcome}
        found = {key.removeprefix(_TEST) for row in group for key in row if key.startswith(_TEST)}
        by_protocol = first | {
            protocol.replace("recalibrated", "recal.").replace("-", "\nnoise "): lambda row, key=_TEST + protocol: (
                _interval(row.get(key), 100)
            )
            for protocol in sorted(found, key=protocol_order)
        }
        tables = [
            (list(columns), [[show(row) for show in columns.values()] for row in group])
            for columns in (results, by_protocol)
        ]
        of_losses = (
            "loss / none: geometric mean of the ratios, paired by seed, and its interval; "
            "loss: half the sum of squares, the last steps, in training mode."
        )
        of_accuracies = (
            "differences paired by seed; train: the last steps, in training mode; test: running statistics, noise off"
            + ("; below: test % by protocol." if len(found) > 1 else ".")
        )
        title = (
            f"{name}: {group[0]['facts']}. Mean ± half of the 95 % t-interval over n seeds, "
            f"{of_losses if regression else of_accuracies}"
        )
        yield title, tables if len(found) > 1 else tables[:1]


def _outcome(row: dict[str, Any]) -> str:
    parts = []
    if row["diverged"]:
        steps = ", ".join(map(str, sorted(row["diverged"].values())))
        parts.append(f"{len(row['diverged'])} diverged (step {steps})")
    if row["chance"]:
        parts.append(f"{len(row['chance'])} at chance")
    return "; ".join(parts) or ("all learned" if "train/accuracy" in row else "all trained")


def _interval(interval: Interval | None, scale: float, digits: int = 1, sign: bool = False) -> str:
    if interval is None:
        return ""
    mean = f"{interval.mean * scale:{'+' if sign else ''}.{digits}f}"
    return mean if math.isnan(interval.half) else f"{mean} ± {interval.half * scale:.{digits}f}"


def _loss(mean: float, half: float = math.nan) -> str:
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


def _percent(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{fraction * 100:.1f}"
