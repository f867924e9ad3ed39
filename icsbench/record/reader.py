"""Run records on disk, read back."""

import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from icsbench.errors import IcsbenchError
from icsbench.record import legacy
from icsbench.record.seal import SEAL
from icsbench.record.strict_json import loads

Status = Literal["complete", "diverged", "chance", "incomplete", "running", "failed"]

_STATUS_OF_OUTCOME: dict[str, Status] = {"trained": "complete", "diverged": "diverged", "chance": "chance"}
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_LOOK = {"order": math.inf, "color": "#7F7F7F", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "p"}


class Regime(str):
    """The name of a norm, or of the lab of a lab's run, with how tables and figures show it.

    ``label``: the name for people. ``order``: its place among others, the smallest first. ``color``: ``#rrggbb``.
    ``linestyle`` and ``marker``: as matplotlib has them. A name that comes without a look is grey, its own label, and
    last.
    """

    label: str
    order: float
    color: str
    linestyle: str | tuple[float, tuple[float, ...]]
    marker: str

    def __new__(cls, name: str, look: Mapping[str, Any] | None = None) -> "Regime":
        """A name, and those parts of its look that are known."""
        regime = super().__new__(cls, name)
        full = {"label": name, **_PLAIN_LOOK, **(look or {})}
        regime.label, regime.order, regime.color, regime.marker = (
            full[k] for k in ("label", "order", "color", "marker")
        )
        line = full["linestyle"]
        regime.linestyle = line if isinstance(line, str) else (line[0], tuple(line[1]))
        return regime


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_line(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("-", "--", "-.", ":")
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        return False
    dashes = value[1]
    sound = all(_is_number(number) and number >= 0 for number in dashes) and sum(dashes) > 0
    return _is_number(value[0]) and sound and len(dashes) % 2 == 0


_LOOK: dict[str, tuple[Callable[[Any], bool], str]] = {
    "label": (lambda value: isinstance(value, str) and bool(value), "a text"),
    "order": (_is_number, "a number"),
    "color": (lambda value: isinstance(value, str) and bool(re.fullmatch("#[0-9a-fA-F]{6}", value)), "#rrggbb"),
    "linestyle": (_is_line, '"-", "--", "-.", ":" or [offset, [on, off, ...]]'),
    "marker": (
        lambda value: isinstance(value, str) and bool(re.fullmatch(r"[.,ov^<>1-48spP*hH+xXDd|_]", value)),
        "a marker of matplotlib, one character",
    ),
}
"""Of each part of a look in ``environment.json``: whether a value fits, and what would."""


class Metrics:
    """The rows of one ``metrics.jsonl``, read as columns; IcsbenchError where a value is not what a column holds."""

    def __init__(self, rows: list[dict[str, Any]], path: Path) -> None:
        self.rows = rows
        self._path = path

    @property
    def last_step(self) -> int:
        """The number of updates behind the latest row; 0 where there is none."""
        return max((row["step"] for row in self.rows), default=0)

    def series(self, key: str, interval: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps, ascending, and values of the rows that hold ``key``: two arrays of shape (m,), m = 0 where none does.

        With ``interval``, only of the probe rows that many steps after the probe before.
        """
        rows = [row for row in self.rows if key in row and (interval is None or row.get("shift/interval") == interval)]
        steps, first = _steps(rows)
        return steps, self._numbers(rows, key)[first]

    def table(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps, ascending, and values of the rows that hold all of n ``keys``: of shapes (m,) and (m, n)."""
        wanted = set(keys)
        rows = [row for row in self.rows if row.keys() >= wanted]
        steps, first = _steps(rows)
        return steps, np.stack([self._numbers(rows, key)[first] for key in keys], axis=1)

    def lists(self, key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps, ascending, and values of the rows that hold a list of K numbers at ``key``: (m,) and (m, K)."""
        rows = [row for row in self.rows if key in row]
        steps, first = _steps(rows)
        return steps, self._numbers(rows, key, "a list of equally many numbers", 2)[first]

    def _numbers(
        self, rows: Sequence[dict[str, Any]], key: str, what: str = "a number", dimensions: int = 1
    ) -> NDArray[np.float64]:
        if not rows:
            return np.empty((0,) * dimensions)
        try:
            values = np.array([row[key] for row in rows], np.float64)
        except (ValueError, TypeError):
            values = np.empty(0)
        if values.ndim != dimensions or not values.size:
            raise IcsbenchError(f"{self._path}: {key} is not {what} at every step; the record is damaged, run it again")
        return values


def _steps(rows: Sequence[dict[str, Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The steps of the rows, ascending, and for each the first row that has it."""
    steps, first = np.unique(np.array([row["step"] for row in rows], np.int64), return_index=True)
    return steps, first


@dataclass(frozen=True, eq=False)
class Layer:
    """A probed layer: its path in the network, its 1-based depth, the number of channels of its pre-activation."""

    path: str
    depth: int
    channels: int = 0


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory. ``summary`` and ``environment`` are empty where the files are not written yet."""

    path: Path
    config: dict[str, Any]
    regime: Regime
    seed: int
    status: Status
    summary: dict[str, Any]
    environment: dict[str, Any]
    error: str | None

    @property
    def finished(self) -> bool:
        """Whether the run reached its end: trained, diverged, or still at chance."""
        return bool(self.summary)

    def setting(self, key: str, default: Any = None) -> Any:
        """The value at a dotted key of the config, e.g. ``optim.lr``."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    @property
    def regression(self) -> bool:
        """Whether its data have no classes, so that there is a loss and no accuracy."""
        data = self.environment.get("data")
        return isinstance(data, dict) and data.get("num_classes", 0) is None

    @property
    def lr(self) -> float:
        """The learning rate. Raises IcsbenchError where the config has none."""
        return float(_required(self.config, "optim.lr", self.path / "config.yaml"))

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 1 / number of classes; NaN for a regression, or where the record does not say."""
        data = self.environment.get("data")
        classes = data.get("num_classes") if isinstance(data, dict) else None
        return 1 / int(classes) if classes else math.nan

    def final_accuracy(self, split: str) -> dict[str, float]:
        """Final accuracy (fraction) on ``test`` or ``val`` by protocol, ``<statistics>-<noise>``.

        NaN where none could be measured; of a run that diverged, whose network answers nothing, that of chance.
        """
        return {
            protocol: self._unless_diverged(value)
            for protocol, value in self.summary.get(f"{split}/accuracy", {}).items()
        }

    @property
    def test_accuracy(self) -> dict[str, float]:
        """:meth:`final_accuracy` on the test set."""
        return self.final_accuracy("test")

    @property
    def train_accuracy(self) -> float:
        """Training accuracy (fraction) of the last steps; NaN where there is none, of a run that diverged chance."""
        return self._unless_diverged(self.summary.get("train/accuracy"))

    @property
    def known_training(self) -> float:
        """Final accuracy on fixed training images, statistics recalibrated and noise off; NaN in earlier records."""
        return self._unless_diverged(self.summary.get("train/accuracy/recalibrated-off"))

    def _unless_diverged(self, accuracy: float | None) -> float:
        if self.status == "diverged" and math.isfinite(self.chance):
            return self.chance
        return math.nan if accuracy is None else float(accuracy)

    @property
    def seconds(self) -> float | None:
        """Wall time of the training so far, probes and evaluation included; None where it was not noted."""
        seconds = _read_json(self.path / "timing.json").get("seconds")
        return None if seconds is None else float(seconds)

    @cached_property
    def metrics(self) -> Metrics:
        """The rows of ``metrics.jsonl``. A partial last line is ignored while the run is unfinished.

        Raises IcsbenchError for any other line that is not a JSON object with a ``step``, and for a finished run
        without the file.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists() and not self.finished:
            return Metrics([], path)
        lines = _read_text(path).splitlines()
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                row = loads(line)
                if not isinstance(row["step"], int):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                if number == len(lines) and not self.finished:
                    break
                raise IcsbenchError(
                    f"{path}, line {number}: not a JSON object with a step; the record is damaged, run it again"
                ) from None
            rows.append(row)
        return Metrics(rows, path)

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers whose distributions were probed, by depth; empty where none were."""
        return _read_layers(self.path / "probes" / "shift" / "layers.json")

    @cached_property
    def ics_layers(self) -> list[Layer]:
        """The layers whose gradients were compared (Definition 2.1), by depth; empty where none were."""
        return _read_layers(self.path / "probes" / "ics" / "layers.json")

    @cached_property
    def probe_steps(self) -> list[int]:
        """The steps with a stored ``probes/shift/step-*.npz``, ascending."""
        files = (self.path / "probes" / "shift").glob("step-*.npz")
        return sorted(int(file.stem.removeprefix("step-")) for file in files)

    def histogram(self, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts (layers, bins) and bin edges (layers, bins + 1) of the pre-activations at a probed step.

        Counts are pooled over the channels of a layer; rows are in the order of ``layers``. Raises IcsbenchError for
        a missing or damaged file.
        """
        counts, edges = self._probe(step, "histogram_counts_preactivation", "histogram_edges_preactivation")
        return counts, edges

    def quantiles(self, step: int, layer: str) -> NDArray[np.float64]:
        """The 15th, 50th and 85th percentile of the pre-activation of every channel of a layer: (3, channels).

        Raises IcsbenchError for a layer that was not probed, and for a missing or damaged file.
        """
        paths = [probed.path for probed in self.layers]
        if layer not in paths:
            raise IcsbenchError(f"{self.path}: no probe of {layer}; the probed layers are {', '.join(paths) or 'none'}")
        (values,) = self._probe(step, "quantiles_preactivation")
        ends = np.cumsum([probed.channels for probed in self.layers])
        if values.shape != (3, ends[-1]):
            raise IcsbenchError(
                f"{self.path}: probe at step {step} has quantiles of shape {values.shape}, where layers.json has "
                f"{ends[-1]} channels; delete the run and run it again"
            )
        return np.split(values, ends[:-1], axis=1)[paths.index(layer)]

    def _probe(self, step: int, *names: str) -> list[NDArray[np.float64]]:
        path = self.path / "probes" / "shift" / f"step-{step:08d}.npz"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return [np.asarray(arrays[name], np.float64) for name in names]
        except FileNotFoundError:
            raise IcsbenchError(f"{path}: no such probe; this run has steps {self.probe_steps}") from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            raise IcsbenchError(f"{path}: damaged or not a shift probe; delete the run and run it again") from None


def load_runs(root: Path) -> list[Run]:
    """Every run at or below ``root``, ordered by folder and seed.

    ``root`` may be the results root, an experiment, a configuration or a single seed folder. A run is a folder
    ``seed-<n>`` with a ``config.yaml``; hidden folders are skipped. Raises IcsbenchError where the folder or every run
    is missing, or a record cannot be read.
    """
    if not root.is_dir():
        raise IcsbenchError(f"{root}: no such folder; give a results folder, or a folder inside one")
    runs = [_load_run(path) for path in _run_folders(root)]
    if not runs:
        raise IcsbenchError(f"{root}: no run records here; a run is a folder seed-<n> with a config.yaml")
    return sorted(runs, key=lambda run: (run.path.parent, run.seed))


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if {"config.yaml", SEAL} & set(files) and re.fullmatch(r"seed-\d+", Path(folder).resolve().name):
            subfolders.clear()
            yield Path(folder)


def _load_run(path: Path) -> Run:
    config_path = path / "config.yaml"
    try:
        config = yaml.load(_read_text(config_path), Loader=_YAML_LOADER)
    except yaml.YAMLError:
        config = None
    if not isinstance(config, dict):
        raise IcsbenchError(f"{config_path}: not a YAML mapping; the record is damaged, run it again")
    seed = _required(config, "seed", config_path)
    regime = str(_required(config, "norm.name", config_path))
    environment = _read_json(path / "environment.json")
    summary = _read_json(path / "summary.json")
    failure = _read_json(path / "failure.json")
    return Run(
        path=path,
        config=config,
        regime=_regime(regime, environment, path / "environment.json"),
        seed=seed,
        status=_status(path, summary, failure),
        summary=summary,
        environment=environment,
        error=failure.get("error"),
    )


def _regime(name: str, environment: dict[str, Any], path: Path) -> Regime:
    if "regime" not in environment:
        return Regime(name, legacy.LOOKS.get(name))
    look = environment["regime"]
    if not isinstance(look, dict):
        raise IcsbenchError(f"{path}: regime is {look!r}; it would be an object with {', '.join(_LOOK)}")
    for key, (fits, what) in _LOOK.items():
        if key in look and not fits(look[key]):
            raise IcsbenchError(f"{path}: regime.{key} is {look[key]!r}; it would be {what}")
    return Regime(name, {key: look[key] for key in _LOOK if key in look})


def _status(path: Path, summary: dict[str, Any], failure: dict[str, Any]) -> Status:
    if summary:
        outcome = summary.get("outcome")
        if outcome not in _STATUS_OF_OUTCOME:
            raise IcsbenchError(
                f"{path / 'summary.json'}: outcome is {outcome!r}; it would be one of {', '.join(_STATUS_OF_OUTCOME)}"
            )
        return _STATUS_OF_OUTCOME[outcome]
    if _locked(path / "run.lock"):
        return "running"
    return "failed" if failure else "incomplete"


def _locked(path: Path) -> bool:
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _required(config: dict[str, Any], key: str, path: Path) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise IcsbenchError(f"{path}: no {key}; a run's config states it")
    return value


def _read_layers(path: Path) -> list[Layer]:
    if not path.exists():
        return []
    try:
        layers = [Layer(entry["layer"], entry["depth"], entry.get("channels", 0)) for entry in loads(_read_text(path))]
    except (ValueError, KeyError, TypeError):
        raise IcsbenchError(f"{path}: not a JSON list of objects with layer and depth; run it again") from None
    return sorted(layers, key=lambda layer: layer.depth)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise IcsbenchError(f"{path}: cannot be read ({reason}); a run record needs it") from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = loads(_read_text(path))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise IcsbenchError(f"{path}: not a JSON object; the record is damaged, delete this file and run it again")
    return content
