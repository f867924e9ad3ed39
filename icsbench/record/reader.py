"""Run records on disk, read back."""

import math
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from icsbench.errors import IcsbenchError
from icsbench.record import legacy, schema
from icsbench.record.metrics import Metrics
from icsbench.record.regime import Regime, regime_of
from icsbench.record.strict_json import loads

Kind = Literal["training", "lab"]
Status = Literal["complete", "diverged", "chance", "incomplete", "running", "failed"]

_STATUS_OF_OUTCOME: dict[str, Status] = {
    "trained": "complete",
    "diverged": "diverged",
    "chance": "chance",
    "complete": "complete",  # of a lab
}
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, eq=False)
class Layer:
    """A probed layer: its path in the network, its 1-based depth, the number of channels of its pre-activation."""

    path: str
    depth: int
    channels: int = 0


@dataclass(frozen=True, eq=False)
class Model:
    """The network of a run: its name with its size for captions, and what it says of itself.

    ``units``: whether every channel of every layer is a single unit, as in an MLP. ``scales``: what each scale stands
    for with this network, as dotted keys of the config and their values.
    """

    label: str
    units: bool
    scales: dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory. ``summary`` and ``environment`` are empty where the files are not written yet.

    ``kind``: ``lab`` for the run of a lab, whose rows are not those of a training, and whose ``regime`` is the lab.
    ``at_step``: where it was cut (:func:`icsbench.record.cut.cut`); None of a whole record.
    """

    path: Path
    kind: Kind
    config: dict[str, Any]
    regime: Regime
    seed: int
    status: Status
    summary: dict[str, Any]
    environment: dict[str, Any]
    error: str | None
    at_step: int | None = None

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

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting that is not null, by dotted key, and ``data.fingerprint``, that of the data it was made from.

        A setting that a record of an earlier version lacks has the value that its run had; one that its network does
        not take is left out. A list, or an empty group, is the text of it.
        """
        found = dict(_flat(self.config))
        data = self.environment.get("data")
        if isinstance(data, dict):
            found["data.fingerprint"] = data.get("fingerprint")
        return legacy.settings(found) if self.kind == "training" else found

    @cached_property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """The settings that its study varies besides ``norm`` and ``optim.lr``, each with those that depend on it.

        A setting is named by its dotted key, such as ``norm.strength``; a whole group by its own name.

        :raises IcsbenchError: the config does not state them as a mapping to lists.
        """
        factors = legacy.factors(self.config) if self.config.get("study") is None else self.setting("study.factors", {})
        if not isinstance(factors, dict) or not all(isinstance(keys, list) for keys in factors.values()):
            raise IcsbenchError(
                f"{self.path / schema.CONFIG}: study.factors is {factors!r}; it would be a mapping of settings to the "
                "lists of settings that hang on them"
            )
        return {str(key): tuple(map(str, keys)) for key, keys in factors.items()}

    @cached_property
    def model(self) -> Model:
        """Its network.

        :raises IcsbenchError: ``environment.json`` describes it in another form.
        """
        model = self.environment.get("model", legacy.model(self.settings))
        try:
            label, units, scales = model["label"], model["units"], model["scales"]
            sound = isinstance(label, str) and isinstance(units, bool)
            if sound and all(isinstance(values, dict) for values in scales.values()):
                return Model(label, units, scales)
        except (TypeError, KeyError, AttributeError):
            pass
        raise IcsbenchError(
            f"{self.path / schema.ENVIRONMENT}: model is {model!r}; it would be an object with label (a text), units "
            "(true or false) and scales (an object of objects)"
        )

    @cached_property
    def norm(self) -> Regime:
        """Its norm; of a lab, that of the network that it is about, and ``?`` where it is about none."""
        if self.kind == "training":
            return self.regime
        return regime_of(
            str(self.setting("norm.name", "?")), "regime", self.environment, self.path / schema.ENVIRONMENT
        )

    @property
    def regression(self) -> bool:
        """Whether its data have no classes, so that there is a loss and no accuracy."""
        data = self.environment.get("data")
        return isinstance(data, dict) and data.get("num_classes", 0) is None

    @property
    def lr(self) -> float:
        """The learning rate; NaN for a lab.

        :raises IcsbenchError: the config of a training has none.
        """
        if self.kind == "lab":
            return math.nan
        return float(_required(self.config, "optim.lr", self.path / schema.CONFIG))

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
            for protocol, value in self.summary.get(schema.accuracy(split), {}).items()
        }

    @property
    def test_accuracy(self) -> dict[str, float]:
        """:meth:`final_accuracy` on the test set."""
        return self.final_accuracy("test")

    @property
    def train_accuracy(self) -> float:
        """Training accuracy (fraction) of the last steps; NaN where there is none, of a run that diverged chance."""
        return self._unless_diverged(self.summary.get(schema.TRAIN_ACCURACY))

    @property
    def known_training(self) -> float:
        """Final accuracy on fixed training images, statistics recalibrated and noise off; NaN in earlier records."""
        return self._unless_diverged(self.summary.get(schema.accuracy("train", schema.KNOWN)))

    def _unless_diverged(self, accuracy: float | None) -> float:
        if self.status == "diverged" and math.isfinite(self.chance):
            return self.chance
        return math.nan if accuracy is None else float(accuracy)

    @property
    def seconds(self) -> float | None:
        """Wall time of the training so far, probes and evaluation included; None where it was not noted."""
        seconds = _read_json(self.path / schema.TIMING).get("seconds")
        return None if seconds is None else float(seconds)

    @property
    def began(self) -> tuple[datetime, bool]:
        """When the run began, and whether its record says so; an earlier one does not: the time of its oldest file.

        :raises IcsbenchError: what it says is no time.
        """
        path = self.path / schema.TIMING
        stated = _read_json(path).get("began")
        if stated is None:
            times = [file.stat().st_mtime for file in self.path.iterdir() if file.is_file()]
            return datetime.fromtimestamp(min(times), UTC), False
        try:
            return datetime.fromisoformat(stated).astimezone(UTC), True
        except (TypeError, ValueError):
            raise IcsbenchError(
                f"{path}: began is {stated!r}; it would be a time, such as 2026-11-26T09:00:00+00:00"
            ) from None

    @cached_property
    def metrics(self) -> Metrics:
        """The rows of ``metrics.jsonl``. A partial last line is ignored while the run is unfinished.

        :raises IcsbenchError: any other line is not a JSON object with a ``step``, or a finished run lacks the file.
        """
        path = self.path / schema.METRICS
        if not path.exists() and not self.finished:
            return Metrics([], path)
        lines = _read_text(path).splitlines()
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                row = loads(line)
                if not isinstance(row[schema.STEP], int):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                if number == len(lines) and not self.finished:
                    break
                raise IcsbenchError(
                    f"{path}, line {number}: not a JSON object with a step; the record is damaged, run it again"
                ) from None
            rows.append(row)
        return Metrics(rows, path)

    def layers_of(self, probe: str) -> list[Layer]:
        """The layers that a probe measured, by depth; empty where it measured none."""
        if probe not in self._layers:
            self._layers[probe] = _read_layers(self.path / schema.probe_layers(probe))
        return self._layers[probe]

    @cached_property
    def _layers(self) -> dict[str, list[Layer]]:
        return {}

    def steps_of(self, probe: str) -> list[int]:
        """The steps at which a probe stored arrays, ascending."""
        if probe not in self._steps:
            files = (self.path / schema.PROBES / probe).glob(schema.PROBE_ARRAYS)
            self._steps[probe] = sorted(schema.step_of_arrays(file.stem) for file in files)
        return self._steps[probe]

    @cached_property
    def _steps(self) -> dict[str, list[int]]:
        return {}

    def arrays(self, probe: str, step: int, *names: str) -> list[NDArray[np.float64]]:
        """The arrays of these names that a probe stored at a step.

        :raises IcsbenchError: the file is missing or damaged.
        """
        path = self.path / schema.probe_arrays(probe, step)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return [np.asarray(arrays[name], np.float64) for name in names]
        except FileNotFoundError:
            raise IcsbenchError(f"{path}: no such probe; this run has steps {self.steps_of(probe)}") from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            raise IcsbenchError(f"{path}: damaged or not a {probe} probe; delete the run and run it again") from None

    def channels_of(
        self, probe: str, step: int, name: str, layer: str, before: tuple[int, ...] = ()
    ) -> NDArray[np.float64]:
        """The part of one layer, (*before, its channels), in an array (*before, channels of all layers of the probe).

        :raises IcsbenchError: the layer was not probed, or the file is missing or damaged.
        """
        layers = self.layers_of(probe)
        paths = [probed.path for probed in layers]
        if layer not in paths:
            raise IcsbenchError(f"{self.path}: no probe of {layer}; the probed layers are {', '.join(paths) or 'none'}")
        (values,) = self.arrays(probe, step, name)
        ends = np.cumsum([probed.channels for probed in layers])
        if values.shape != (*before, ends[-1]):
            raise IcsbenchError(
                f"{self.path}: probe at step {step} has {name} of shape {values.shape}, where layers.json has "
                f"{ends[-1]} channels; delete the run and run it again"
            )
        return np.split(values, ends[:-1], axis=-1)[paths.index(layer)]


def load_runs(root: Path) -> list[Run]:
    """Every run at or below ``root``, ordered by folder and seed.

    ``root`` may be the results root, an experiment, a configuration or a single seed folder. A run is a folder
    ``seed-<n>`` with a ``config.yaml``; hidden folders are skipped.

    :raises IcsbenchError: there is no such folder, it holds no run, or a record cannot be read.
    """
    if not root.is_dir():
        raise IcsbenchError(f"{root}: no such folder; give a results folder, or a folder inside one")
    runs = [_load_run(path) for path in run_folders(root)]
    if not runs:
        raise IcsbenchError(f"{root}: no run records here; a run is a folder seed-<n> with a {schema.CONFIG}")
    return sorted(runs, key=lambda run: (run.path.parent, run.seed))


def run_folders(root: Path) -> Iterator[Path]:
    """Every folder at or below ``root`` that holds a record, readable or not."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if {schema.CONFIG, schema.SEAL} & set(files) and re.fullmatch(schema.SEED_FOLDER, Path(folder).resolve().name):
            subfolders.clear()
            yield Path(folder)


def _load_run(path: Path) -> Run:
    config_path = path / schema.CONFIG
    try:
        config = yaml.load(_read_text(config_path), Loader=_YAML_LOADER)
    except yaml.YAMLError:
        config = None
    if not isinstance(config, dict):
        raise IcsbenchError(f"{config_path}: not a YAML mapping; the record is damaged, run it again")
    seed = _required(config, "seed", config_path)
    lab = config.get("lab") is not None
    name = str(_required(config, "lab.name" if lab else "norm.name", config_path))
    environment = _read_json(path / schema.ENVIRONMENT)
    summary = _read_json(path / schema.SUMMARY)
    failure = _read_json(path / schema.FAILURE)
    return Run(
        path=path,
        kind="lab" if lab else "training",
        config=config,
        regime=regime_of(name, "lab" if lab else "regime", environment, path / schema.ENVIRONMENT),
        seed=seed,
        status=_status(path, summary, failure),
        summary=summary,
        environment=environment,
        error=failure.get("error"),
    )


def _status(path: Path, summary: dict[str, Any], failure: dict[str, Any]) -> Status:
    if summary:
        outcome = summary.get("outcome")
        if outcome not in _STATUS_OF_OUTCOME:
            raise IcsbenchError(
                f"{path / schema.SUMMARY}: outcome is {outcome!r}; it would be one of {', '.join(_STATUS_OF_OUTCOME)}"
            )
        return _STATUS_OF_OUTCOME[outcome]
    if _locked(path / schema.LOCK):
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


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every setting that is not null; a list, or an empty group, as the text of it."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", _text(value) if isinstance(value, list | dict) else value


def _text(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


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
