"""The runs of a folder: which were asked for, as a table that fits the terminal, and as plain values."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.tables import BASELINE_PROTOCOL
from icsbench.errors import TypedWrongly
from icsbench.record.reader import Run, Status
from icsbench.record.schema import TEST_ACCURACY, TRAIN_ACCURACY, TRAIN_LOSS
from icsbench.report.cells import loss_cell

_COLOURS: dict[Status, str] = {
    "complete": "green",
    "diverged": "magenta",
    "chance": "yellow",
    "incomplete": "dim",
    "running": "cyan",
    "failed": "red",
}
_SHORT_REGIME, _SHORT_FOLDER, _SHORTEST_FOLDER = 10, 16, 8  # characters


def chosen(
    runs: Sequence[Run], studies: Sequence[str] = (), statuses: Sequence[str] = (), regimes: Sequence[str] = ()
) -> list[Run]:
    """The runs of these studies, statuses and regimes; where none of a kind is named, all of it.

    :raises TypedWrongly: a status that is none, or a study or regime that no run has.
    """
    _refuse("--study", studies, dict.fromkeys(map(_study, runs)))
    _refuse("--status", statuses, get_args(Status))
    _refuse("--regime", regimes, dict.fromkeys(run.regime for run in runs))
    return [
        run
        for run in runs
        if (not studies or _study(run) in studies)
        and (not statuses or run.status in statuses)
        and (not regimes or run.regime in regimes)
    ]


def _refuse(option: str, typed: Iterable[str], there: Iterable[str]) -> None:
    there = [*there]
    for value in typed:
        if value not in there:
            raise TypedWrongly(f"{option} {value}: there is none of that name here; there are {', '.join(there)}")


def _study(run: Run) -> str:
    return str(run.setting("experiment"))


def runs_as_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The runs as plain values.

    Accuracies are fractions; what a run does not have is null. ``step`` of a lab is its number of rows.
    """
    return [
        {
            "path": str(run.path),
            "study": _study(run),
            "scale": run.setting("scale"),
            "kind": run.kind,
            "regime": run.regime,
            "seed": run.seed,
            "lr": _number(run.lr),
            "status": run.status,
            "step": _step(run),
            "steps": None if run.kind == "lab" else run.setting("steps"),
            "train_accuracy": _number(_train_accuracy(run)),
            "test_accuracy": _number(_test_accuracy(run)),
            "train_loss": _number(_train_loss(run)),
            "seconds": run.seconds,
            "error": run.error,
        }
        for run in runs
    ]


def print_runs(console: Console, runs: Sequence[Run]) -> None:
    """Print one line per run, those that are running last; the errors of those that failed; how many there are of each.

    A line has regime, seed, status, steps done of steps, accuracies in per cent and the folder. Test accuracy is that
    of running statistics with noise off. An unfinished run shows its latest accuracies, a regression its training loss
    instead. Folders are relative to the one that the runs have in common, and shortened to what the width leaves.
    """
    if not runs:
        _line(console, "0 runs")
        return
    shown = sorted(runs, key=lambda run: run.status == "running")
    common = Path(os.path.commonpath([run.path.parent.parent for run in shown]))
    folders = [str(run.path.parent.relative_to(common)) for run in shown]
    columns = {name: [cell(run) for run in shown] for name, cell in _columns(shown).items()}
    taken = sum(max(map(len, [name, *cells])) + 2 for name, cells in columns.items())
    if (excess := taken + _SHORT_FOLDER - console.width) > 0:
        longest = max(map(len, columns["regime"]))
        columns["regime"] = [_cut(name, max(longest - excess, _SHORT_REGIME)) for name in columns["regime"]]
        taken -= longest - max(map(len, ["regime", *columns["regime"]]))
    columns["folder"] = [_cut(folder, max(console.width - taken, _SHORTEST_FOLDER)) for folder in folders]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        left = name in ("regime", "status", "folder")
        table.add_column(Text(name), justify="left" if left else "right", no_wrap=True, overflow="crop")
    for run, *cells in zip(shown, *columns.values(), strict=True):
        styles = [_COLOURS[run.status] if name == "status" else "" for name in columns]
        table.add_row(*map(Text, cells, styles))
    console.print(table)
    for run in shown:
        if run.status == "failed":
            _line(console, f"{run.regime} seed {run.seed}, {run.path}: {run.error}")
    counted = Counter(run.status for run in runs)
    counts = ", ".join(f"{counted[status]} {status}" for status in _COLOURS if counted[status])
    _line(console, f"{len(runs)} run{'s' if len(runs) > 1 else ''} in {common}: {counts}")


def _columns(runs: Sequence[Run]) -> dict[str, Callable[[Run], str]]:
    columns: dict[str, Callable[[Run], str]] = {
        "regime": lambda run: run.regime,
        "seed": lambda run: str(run.seed),
        "status": lambda run: run.status,
        "step": lambda run: f"{_step(run)}" + ("" if run.kind == "lab" else f"/{run.setting('steps', '?')}"),
    }
    if any(run.kind == "training" and not run.regression for run in runs):
        columns["train %"] = lambda run: _percent(_train_accuracy(run))
        columns["test %"] = lambda run: _percent(_test_accuracy(run))
    if any(run.regression for run in runs):
        columns["train loss"] = _loss
    return columns


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _cut(text: str, width: int) -> str:
    """The text in at most so many characters: its beginning, and more of its end, where the fingerprint is."""
    if len(text) <= width:
        return text
    ahead = (width - 1) // 3
    return f"{text[:ahead]}…{text[len(text) - (width - 1 - ahead) :]}"


def _step(run: Run) -> int:
    if not run.finished or run.kind == "lab":
        return run.metrics.last_step
    at = run.summary.get("diverged_at")
    return int(run.summary["steps"] if at is None else at)


def _loss(run: Run) -> str:
    """The training loss of a regression; empty for any other run."""
    if not run.regression:
        return ""
    loss = _train_loss(run)
    return loss_cell(loss) if run.finished or math.isfinite(loss) else ""


def _train_loss(run: Run) -> float:
    if not run.finished:
        return _latest(run, TRAIN_LOSS)
    loss = run.summary.get(TRAIN_LOSS)
    return math.nan if loss is None else float(loss)


def _train_accuracy(run: Run) -> float:
    return run.train_accuracy if run.finished else _latest(run, TRAIN_ACCURACY)


def _test_accuracy(run: Run) -> float:
    return run.test_accuracy.get(BASELINE_PROTOCOL, math.nan) if run.finished else _latest(run, TEST_ACCURACY)


def _latest(run: Run, key: str) -> float:
    _, values = run.metrics.series(key)
    return float(values[-1]) if len(values) else math.nan


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _percent(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{fraction * 100:.1f}"
