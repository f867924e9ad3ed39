"""Results in numbers: rows for a person (rich, markdown) and for a program (CSV)."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.curves import protocol_order, protocols
from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.groups import Condition, Group, group_runs
from icsbench.analysis.results import Run
from icsbench.analysis.statistics import Interval, mean_interval, paired_difference

_BASELINE = "none"
_BASELINE_PROTOCOL = "running-off"
_TEST = "test/accuracy/"
_DIFFERENCE = "difference/"


def result_table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One row per group, learning rate and regime, over all its finished seeds, the diverged ones included.

    Keys: ``group``, ``facts``, ``provenance``, ``regime``, ``setting`` (the norm settings in which it differs from
    others of its regime), ``lr``, ``n``; ``train/accuracy``, ``train/loss`` and ``test/accuracy/<protocol>`` (only
    protocols that apply) as Interval over the seeds; ``difference/train/accuracy`` and
    ``difference/test/accuracy/<protocol>`` as the Interval of the difference, seed by seed, to regime ``none`` at the
    same learning rate (its one protocol is running-off), over the seeds that both have; ``diverged`` and ``chance``,
    mapping seed to step: of the first NaN, and of the end of a run that was at chance then. Accuracies are fractions.
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
            "setting": _setting(condition, conditions),
            "lr": condition.lr,
            "n": len(condition.runs),
            "train/accuracy": mean_interval([_number(run, "train/accuracy") for run in condition.runs]),
            "train/loss": mean_interval([_number(run, "train/loss") for run in condition.runs]),
        }
        for protocol in protocols(condition.runs):
            row[_TEST + protocol] = mean_interval([_test(run, protocol) for run in condition.runs])
        if baseline is not None and condition.regime != _BASELINE:
            row |= _differences(condition, baseline)
        row["diverged"] = {run.seed: run.summary.get("diverged_at") for run in condition.diverged}
        row["chance"] = {run.seed: run.summary.get("steps") for run in condition.runs if run.status == "chance"}
        rows.append(row)
    return rows


def _differences(condition: Condition, baseline: Condition) -> dict[str, Interval]:
    baseline_runs = {run.seed: run for run in baseline.runs}
    pairs = [(run, baseline_runs[run.seed]) for run in condition.runs if run.seed in baseline_runs]
    if not pairs:
        return {}
    differences = {
        _DIFFERENCE + "train/accuracy": paired_difference(
            [_number(run, "train/accuracy") for run, _ in pairs],
            [_number(other, "train/accuracy") for _, other in pairs],
        )
    }
    for protocol in protocols(condition.runs):
        differences[_DIFFERENCE + _TEST + protocol] = paired_difference(
            [_test(run, protocol) for run, _ in pairs], [_test(other, _BASELINE_PROTOCOL) for _, other in pairs]
        )
    return differences


def _setting(condition: Condition, conditions: Sequence[Condition]) -> str:
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
        "results.csv": csv_bytes([_flat(row) for row in rows]),
        "results.md": markdown(rows).encode(),
        "runs.csv": csv_bytes([_run_row(group, run) for group in group_runs(runs) for run in group.runs]),
    }
    for name, content in contents.items():
        write_file(out / name, lambda file, content=content: file.write(content))
    return [out / name for name in contents]


def _run_row(group: Group, run: Run) -> dict[str, Any]:
    row = {"group": group.name, "regime": run.regime, "lr": run.lr, "seed": run.seed, "status": run.status}
    row |= {key: run.summary.get(key) for key in ("steps", "diverged_at", "left_chance_at")}
    row |= {key: _number(run, key) for key in ("train/loss", "train/accuracy")}
    for split in ("test", "val"):
        row |= {f"{split}/accuracy/{name}": value for name, value in run.summary.get(f"{split}/accuracy", {}).items()}
    return row | {"seconds": run.seconds}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
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
        f"{title}\n\n" + "".join(_markdown_table(*table) + "\n" for table in tables) + f"Made by {made}.\n"
        for (title, tables), made in zip(_tables(rows), _provenances(rows), strict=True)
    )


def _provenances(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list({row["group"]: row["provenance"] for row in rows}.values())


def _markdown_table(header: list[str], body: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    names = [name.replace("recal.", "recalibrated").replace("\n", ", ") for name in header]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (names, rule, *body))


def print_results(console: Console, runs: Sequence[Run]) -> None:
    """Print ``result_table``, for each group its results and its test protocols, then a line on unfinished runs."""
    for title, tables in _tables(result_table(runs)):
        console.print(title, markup=False, highlight=False)
        for header, body in tables:
            console.print(_rich_table(header, body, left={"regime", "outcome"}))
            console.print()
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        console.print(f"not counted: {len(unfinished)} of {len(runs)} runs, not finished (icsbench runs lists them)")


def print_runs(console: Console, runs: Sequence[Run]) -> None:
    """Print one line per run: regime, seed, status, steps done of steps, accuracies in per cent, path, error.

    Test accuracy is that of running statistics with noise off; of an unfinished run both are the latest recorded. Paths
    are relative to the folder that the runs have in common, which the heading names.
    """
    common = Path(os.path.commonpath([run.path.parent for run in runs]))
    errors = any(run.error for run in runs)
    header = ["regime", "seed", "status", "step", "train %", "test %", f"in {common}", *(["error"] if errors else [])]
    body = []
    for run in runs:
        train, test = _accuracies(run)
        step = f"{_step(run)}/{run.setting('steps', '?')}"
        cells = [run.regime, str(run.seed), run.status, step, _percent(train), _percent(test)]
        body.append([*cells, str(run.path.relative_to(common)), *([run.error or ""] if errors else [])])
    console.print(_rich_table(header, body, left={"regime", "status", header[6], "error"}))


def _rich_table(header: list[str], body: list[list[str]], left: set[str]) -> Table:
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


def _accuracies(run: Run) -> tuple[float, float]:
    if run.finished:
        return _number(run, "train/accuracy"), _test(run, _BASELINE_PROTOCOL)
    _, train = run.metrics.series("train/accuracy")
    _, test = run.metrics.series("test/accuracy")
    return (train[-1] if len(train) else math.nan), (test[-1] if len(test) else math.nan)


def _tables(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[tuple[list[str], list[list[str]]]]]]:
    """Each group's title, and header and cells of its tables: results, and test protocols where there are several."""
    for name in dict.fromkeys(row["group"] for row in rows):
        group = [row for row in rows if row["group"] == name]
        first: dict[str, Callable[[dict[str, Any]], str]] = {
            "regime": lambda row: row["regime"] + (f" ({row['setting']})" if row["setting"] else "")
        }
        if len({row["lr"] for row in group}) > 1:
            first["lr"] = lambda row: f"{row['lr']:g}"
        results = first | {
            "n": lambda row: str(row["n"]),
            "train %": lambda row: _interval(row["train/accuracy"], 100),
            "train %\nminus none": lambda row: _interval(row.get(_DIFFERENCE + "train/accuracy"), 100, sign=True),
            "test %": lambda row: _interval(row.get(_TEST + _BASELINE_PROTOCOL), 100),
            "test %\nminus none": lambda row: _interval(
                row.get(_DIFFERENCE + _TEST + _BASELINE_PROTOCOL), 100, sign=True
            ),
            "outcome": _outcome,
        }
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
        title = (
            f"{name}: {group[0]['facts']}. "
            "Mean ± half of the 95 % t-interval over n seeds, differences paired by seed; "
            "train: the last steps, in training mode; test: running statistics, noise off"
            + ("; below: test % by protocol." if len(found) > 1 else ".")
        )
        yield title, tables if len(found) > 1 else tables[:1]


def _outcome(row: dict[str, Any]) -> str:
    parts = []
    if row["diverged"]:
        steps = ", ".join(map(str, sorted(row["diverged"].values())))
        parts.append(f"{len(row['diverged'])} diverged (step {steps})")
    if row["chance"]:
        parts.append(f"{len(row['chance'])} at chance")
    return "; ".join(parts) or "all learned"


def _interval(interval: Interval | None, scale: float, digits: int = 1, sign: bool = False) -> str:
    if interval is None:
        return ""
    mean = f"{interval.mean * scale:{'+' if sign else ''}.{digits}f}"
    return mean if math.isnan(interval.half) else f"{mean} ± {interval.half * scale:.{digits}f}"


def _percent(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{fraction * 100:.1f}"
