"""Which runs may be compared: those of one study that differ in nothing but its factors and the seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from icsbench.errors import IcsbenchError
from icsbench.record import legacy, schema
from icsbench.record.reader import Kind, Run
from icsbench.record.regime import Regime

_FACTORS = ("norm", "optim.lr")
"""What every study may vary: the norm with its options, and the learning rate."""

_NO_NUMBERS = (
    *("experiment", "study", "results", "seed", "device", "threads", "checkpoint_every", "wandb"),
    *("data.root", "lab.root"),
)
"""Settings, the seed apart, that say where a run is made, and bear on none of its numbers."""

_NOT_COMPARED = (*_NO_NUMBERS, "deterministic", "compile", "eval_every")
"""Settings in which runs may differ: where and how they are computed, and how often they are looked at."""

_NAMED_FIRST = ("lab.name", "lab", "scale", "data.name", "model.name", "model", "steps", "batch_size", "optim", "data")
"""The order in which settings are tried to tell apart groups of one experiment; then any other, by its key."""

_UNUSUAL = {
    "optim.momentum": "momentum {}",
    "optim.weight_decay": "weight decay {}",
    "optim.schedule": "{} schedule",
    "optim.growth": "growth {}",
    "optim.warmup": "warm-up of {} steps",
    "optim.warmup_shape": "warm-up {}",
    "data.flip": "flipped",
    "data.crop": "cropped",
    "data.order": "batches {}",
    "model.init": "{} init",
    "model.init_std": "std {}",
    "model.head": "head {}",
    "model.head_norm": "norm in the head",
    "amp": "{}",
}
_CUSTOMARY = {
    "optim.schedule": "constant",
    "data.order": "reshuffle",
    "optim.growth": 1.0,
    "optim.warmup_shape": "linear",
    "model.init": "glorot",
    "model.head": "linear",
    "amp": "float32",
}


class NotMeasured(IcsbenchError):
    """A figure cannot be drawn from these records, which are sound but do not hold what it shows."""


def regime_order(regime: Regime) -> tuple[float, str]:
    """Sort key: the place that a regime has among others, then its name."""
    return (regime.order, regime)


@dataclass(frozen=True)
class Condition:
    """A cell of a study: the seeds of one configuration, with one regime at one learning rate (NaN for a lab).

    ``settings``: its value of each factor by dotted key, the options of a factor that is a group among them. ``shown``:
    those that tables tell cells of one regime apart by, the options of the norm and the factors that a record names.
    """

    regime: Regime
    lr: float
    runs: tuple[Run, ...]
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    shown: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def trained(self) -> tuple[Run, ...]:
        """The runs that did not diverge."""
        return tuple(run for run in self.runs if run.status != "diverged")

    @property
    def diverged(self) -> tuple[Run, ...]:
        """The runs that went to NaN."""
        return tuple(run for run in self.runs if run.status == "diverged")


@dataclass(frozen=True)
class Group:
    """Finished runs of one experiment that differ in its factors and the seed alone.

    :raises IcsbenchError: they differ in anything else, or do not state their data, and must not share a figure.
    """

    name: str
    runs: tuple[Run, ...]
    study: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """The factors of the study as its other runs name them, each with the settings that hang on it."""

    def __post_init__(self) -> None:
        first, keys = self.runs[0], _differences(self.runs, self._factors)
        for run in self.runs:
            if _experiment(run) != _experiment(first) or any(_compared(run, k) != _compared(first, k) for k in keys):
                names = " and ".join(_names([first, run], self._factors))
                raise IcsbenchError(f"{run.path}: not comparable with {first.path}; {names} need figures of their own")

    @cached_property
    def _factors(self) -> dict[str, tuple[str, ...]]:
        return _factors(self.runs) | dict(self.study)

    @property
    def kind(self) -> Kind:
        """``training``, or ``lab`` for runs of a lab."""
        return self.runs[0].kind

    @property
    def factors(self) -> tuple[str, ...]:
        """What its study varies: dotted keys of the config, or groups of them."""
        return tuple(self._factors)

    @property
    def lrs(self) -> list[float]:
        """The learning rates among the runs, ascending; none for a lab."""
        return sorted({run.lr for run in self.runs if run.kind == "training"})

    def at(self, lr: float) -> "Group":
        """The runs of one learning rate."""
        return Group(self.name, tuple(run for run in self.runs if run.lr == lr), self.study)

    @cached_property
    def conditions(self) -> list[Condition]:
        """One per configuration, by learning rate, regime, factors that the records name, folder; seeds ascending."""
        named = {factor for run in self.runs for factor in run.factors}
        cells = []
        for runs in _configurations(self.runs):
            first = runs[0]
            settings = {key: value for key, value in first.settings.items() if _below(key, self.factors)}
            shown = {key: settings[key] for key in settings if _below(key, ("norm", *named)) and key != "norm.name"}
            ranks = tuple((key, isinstance(value, str), value) for key, value in sorted(shown.items()) if named)
            lr = first.lr if self.kind == "training" else 0.0
            order = (lr, *regime_order(first.regime), ranks, first.path.parent)
            cells.append((order, Condition(first.regime, first.lr, runs, settings, shown)))
        return [cell for _, cell in sorted(cells, key=lambda item: item[0])]

    def select(self, **settings: Any) -> Condition:
        """The one cell with these settings: ``norm`` (its name), ``lr``, or dotted keys of the config.

        ``group.select(norm="noisy_bn", lr=0.1, **{"norm.strength": 2})``

        :raises NotMeasured: no cell has them, or more than one.
        """
        found = [cell for cell in self.conditions if all(_setting(cell, key) == settings[key] for key in settings)]
        if len(found) == 1:
            return found[0]
        further = [f"{key} {value}" for key, value in settings.items() if key not in ("norm", "lr")]
        what = f" of {settings['norm']}" if "norm" in settings else ""
        what += f" at learning rate {settings['lr']:g}" if "lr" in settings else ""
        what += f" with {' and '.join(further)}" if further else ""
        if not found:
            raise NotMeasured(f"{self.name} has no finished run{what}")
        raise NotMeasured(f"{self.name} has {len(found)} settings{what}, which must not be pooled")

    @property
    def single_conditions(self) -> list[Condition]:
        """``conditions``, where each regime has one setting per learning rate.

        :raises NotMeasured: one has several, e.g. noise of two sizes, which must not be averaged.
        """
        conditions = self.conditions
        seen: dict[tuple[str, float | None], Condition] = {}
        for condition in conditions:
            lr = condition.lr if self.kind == "training" else None
            other = seen.setdefault((condition.regime, lr), condition)
            if other is not condition:
                what = condition.regime + ("" if lr is None else f" at lr {lr:g}")
                raise NotMeasured(
                    f"{condition.runs[0].path.parent}: a second setting of {what}, next to "
                    f"{other.runs[0].path.parent.name}; in this figure each needs an experiment of its own"
                )
        return conditions

    @property
    def regression(self) -> bool:
        """Whether the runs have a loss and no accuracy."""
        return self.runs[0].regression

    @property
    def network(self) -> str:
        """The ``model.name`` of its first run; ``?`` where it has none."""
        return str(self.runs[0].setting("model.name", "?"))

    @property
    def units(self) -> bool:
        """Whether the channels of every layer are single units, as in an MLP."""
        return self.kind == "training" and all(run.model.units for run in self.runs)

    @property
    def num_classes(self) -> int:
        """The number of classes; guessing is right once in so many.

        :raises NotMeasured: there are none.
        """
        if self.kind == "lab":
            raise NotMeasured("a lab has no classes, and no accuracy")
        number = _data(self.runs[0])["num_classes"]
        if number is None:
            raise NotMeasured("a regression has no classes, and no accuracy; its training loss is in loss")
        return int(number)

    @cached_property
    def facts(self) -> str:
        """What the runs share, for a caption: data, network and its size, batch, learning rate, steps, scale.

        Further settings of training are named where they are not the customary ones, or are factors. Of a lab: its
        label, its options, the data and the network that it is about, scale.
        """
        run, cells = self.runs[0], [condition.runs[0] for condition in self.conditions]
        scale = f"scale {run.setting('scale')}"
        if self.kind == "lab":
            options = dict.fromkeys(key for cell in cells for key in cell.settings if key.startswith("lab."))
            said = [f"{key.removeprefix('lab.')} {self._values(key)}" for key in options if key != "lab.name"]
            about = [cell for cell in cells if "model" in cell.config]
            said += dict.fromkeys(_data(cell)["label"] for cell in about if "data" in cell.environment)
            said += dict.fromkeys(cell.model.label for cell in about)
            return ", ".join([run.regime.label, *said, scale])
        batch = "full batch" if run.setting("data.name") == "gaussian" else f"batch {self._values('batch_size')}"
        return ", ".join(
            [
                " and ".join(dict.fromkeys(_data(cell)["label"] for cell in cells)),
                " and ".join(dict.fromkeys(cell.model.label for cell in cells)),
                batch,
                "lr " + _enumerated(self.lrs),
                f"{self._values('steps')} steps" if run.at_step is None else f"cut at step {run.at_step:,}",
                *self._unusual(),
                scale + ("" if _true_to_scale(run) else " altered"),
            ]
        )

    def _unusual(self) -> list[str]:
        run, labels = self.runs[0], {condition.runs[0].model.label for condition in self.conditions}
        values = {key: _compared(run, key) for key in _UNUSUAL if not _below(key, self.factors)}
        said = [_UNUSUAL[key].format(value) for key, value in values.items() if value and value != _CUSTOMARY.get(key)]
        elsewhere = (*_FACTORS, "batch_size", "steps", *(["model"] if len(labels) > 1 else []))
        varied = dict.fromkeys(key for cell in self.conditions for key in cell.settings if not _below(key, elsewhere))
        return said + [f"{key} {self._values(key)}" for key in varied if len({*self._of(key)}) > 1]

    def _of(self, key: str) -> list[Any]:
        return [condition.runs[0].settings.get(key) for condition in self.conditions]

    def _values(self, key: str) -> str:
        values = dict.fromkeys(self._of(key))
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return _enumerated(sorted(values))
        return " and ".join(map(str, values))

    @cached_property
    def provenance(self) -> str:
        """What made the records: versions, commit, processor, threads, wall time, data fingerprint, seeds."""
        made = [run.environment for run in self.runs]
        minutes = [run.seconds / 60 for run in self.runs if run.seconds is not None]
        wall = f"; {min(minutes):.1f} to {max(minutes):.1f} minutes a run" if minutes else ""
        seeds = f"seeds {', '.join(map(str, sorted({run.seed for run in self.runs})))}"
        by = {key: _several(e.get(key) for e in made) for key in ("icsbench", "commit", "torch", "machine", "threads")}
        if devices := {e.get("device_name") or e.get("device") for e in made} - {None, ""}:
            by["machine"] += f" ({_several(devices)})"
        if self.kind == "lab":  # one that uses no torch states neither its version nor threads
            before = {"icsbench": "icsbench ", "commit": "commit ", "torch": "torch ", "threads": "threads a run: "}
            told = [before.get(key, "") + by[key] for key in by if any(e.get(key) is not None for e in made)]
            return f"{', '.join(told)}{wall}; {seeds}"
        return (
            f"icsbench {by['icsbench']}, commit {by['commit']}, torch {by['torch']}, {by['machine']}, "
            f"threads a run: {by['threads']}{wall}; "
            f"data fingerprint {_several(_data(run)['fingerprint'] for run in self.runs)}, {seeds}"
        )


def _setting(cell: Condition, key: str) -> Any:
    named = {"norm": cell.regime, "lr": cell.lr}
    return named[key] if key in named else cell.runs[0].settings.get(key)


def _enumerated(values: Sequence[float]) -> str:
    texts = [f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in values]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _several(values: Iterable[Any]) -> str:
    return " and ".join(sorted({str(value) for value in values}))


def precision(run: Run) -> str:
    """What the passes of a training are computed in, as far as ``amp`` has a say: float32, bf16, or all in bf16."""
    if not run.setting("amp", False):
        return "float32"
    return "bf16 (probes too)" if legacy.probed_under_autocast(run.settings, run.environment) else "bf16"


def _true_to_scale(run: Run) -> bool:
    stands_for = run.model.scales.get(str(run.setting("scale")), {})
    return all(run.settings.get(key) == value for key, value in stands_for.items())


def _data(run: Run) -> dict[str, Any]:
    data = run.environment.get("data")
    if not isinstance(data, dict) or not {"label", "num_classes", "fingerprint"} <= data.keys():
        raise IcsbenchError(
            f"{run.path / schema.ENVIRONMENT}: does not state data label, num_classes and fingerprint; run it again"
        )
    return data


def _experiment(run: Run) -> str:
    return str(run.setting("experiment", "runs"))


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """The finished runs, in groups that may be compared, ordered by name.

    A group is named after its experiment. Where one experiment has several groups, the name also holds the settings
    that tell them apart.

    :raises IcsbenchError: the environment of a finished training does not state its data.
    """
    experiments: dict[str, list[Run]] = {}
    for run in runs:
        if run.finished:
            experiments.setdefault(_experiment(run), []).append(run)
    groups = []
    for of_experiment in experiments.values():
        factors = _factors(of_experiment)
        keys = _differences(of_experiment, factors)
        members: dict[tuple[Any, ...], list[Run]] = {}
        for run in of_experiment:
            members.setdefault(tuple(_compared(run, key) for key in keys), []).append(run)
        names = _names([group[0] for group in members.values()], factors)
        groups += [Group(name, tuple(group), factors) for name, group in zip(names, members.values(), strict=True)]
    return sorted(groups, key=lambda group: group.name)


def _factors(runs: Iterable[Run]) -> dict[str, tuple[str, ...]]:
    """All factors that runs of a study name, each with the settings that hang on it."""
    return {**dict.fromkeys(_FACTORS, ()), **{key: hanging for run in runs for key, hanging in run.factors.items()}}


def _differences(runs: Sequence[Run], factors: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The settings in which runs differ although they may not, in the order in which they tell groups apart.

    An option of a probe that some records lack counts for those that have it: for the others there was no such probe.
    """
    for run in runs:
        if run.kind == "training":
            _data(run)
    free = {*_NOT_COMPARED, *factors, *(key for hanging in factors.values() for key in hanging)}
    if any(_below(key, ("data",)) for key in factors):
        free.add("data.fingerprint")
    different: dict[str, bool] = {}
    for key, values in _values(runs).items():
        if _below(key, free) or _is_schedule(key, values):
            continue
        if key.startswith("probes."):
            values.discard(None)
        if len(values) > 1:
            different[key] = all(isinstance(value, int | float | None) for value in values)
    return sorted(different, key=lambda key: (*_place(key), not different[key], key))


def _values(runs: Sequence[Run]) -> dict[str, set[Any]]:
    """The values of every setting among runs, None where one lacks it."""
    settings = [run.settings for run in runs]
    values = {key: {of_run.get(key) for of_run in settings} for key in set().union(*settings)}
    if True in values.get("amp", ()):
        values["amp"] = {precision(run) for run in runs}
    return values


def _is_schedule(key: str, values: set[Any]) -> bool:
    """Whether a setting says which probes measure, or how often, and not how."""
    if not key.startswith("probes."):
        return False
    return key.endswith("every") or all(isinstance(value, bool | None) for value in values)


def _place(key: str) -> tuple[bool, int]:
    places = [place for place, first in enumerate(_NAMED_FIRST) if _below(key, (first,))]
    return key == "data.fingerprint", min(places, default=len(_NAMED_FIRST))


def _below(key: str, groups: Iterable[str]) -> bool:
    """Whether a dotted key is one of the given ones, or in a group that is."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def settings_of_numbers(run: Run) -> dict[str, Any]:
    """The settings that bear on the numbers of a run, its seed among them, by dotted key; of ``amp`` the precision."""
    return {
        key: _compared(run, key)
        for key in run.settings
        if key == "seed" or not _below(key, (*_NO_NUMBERS, "data.fingerprint"))
    }


def _compared(run: Run, key: str) -> Any:
    return precision(run) if key == "amp" else run.settings.get(key)


def _names(runs: Sequence[Run], factors: Mapping[str, tuple[str, ...]]) -> list[str]:
    names = list(map(_experiment, runs))
    for key in _differences(runs, factors):
        values = [_compared(run, key) for run in runs]
        if len(set(names)) < len(set(zip(names, values, strict=True))):
            names = [name + _suffix(key, value) for name, value in zip(names, values, strict=True)]
    return names


def _suffix(key: str, value: Any) -> str:
    leaf = key.rpartition(".")[2]
    if value is None:
        return ""
    if leaf in ("scale", "name", "amp"):
        return f"-{value}"
    return f"-{str(value)[:8]}" if leaf == "fingerprint" else f"-{leaf}{value}"


def _configurations(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """The runs of each configuration by seed, in the order of their folders.

    Those of one folder, and of folders next to it with the same settings and other seeds: earlier versions called some
    folders otherwise.
    """
    folders: dict[Path, list[Run]] = {}
    for run in runs:
        folders.setdefault(run.path.parent, []).append(run)
    found: dict[Any, list[Run]] = {}
    for folder, members in sorted(folders.items()):
        settings = members[0].settings.items()
        key = folder.parent, frozenset(item for item in settings if not _below(item[0], _NO_NUMBERS))
        if {run.seed for run in found.get(key, [])} & {run.seed for run in members}:
            key = folder
        found.setdefault(key, []).extend(members)
    return [tuple(sorted(members, key=lambda run: run.seed)) for members in found.values()]
