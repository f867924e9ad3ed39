"""Which runs may be compared: those that differ in nothing but regime, learning rate and seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from icsbench.errors import IcsbenchError
from icsbench.record import legacy
from icsbench.record.reader import Regime, Run

# In the order in which they are tried to tell apart groups of one experiment.
_SHARED_SETTINGS = (
    "scale",
    "data.name",
    "model.name",
    "model.width",
    "model.depth",
    "model.units",
    "steps",
    "batch_size",
    "model.head",
    "model.head_norm",
    "model.init",
    "model.init_std",
    "optim.momentum",
    "optim.weight_decay",
    "optim.schedule",
    "data.val_size",
    "data.flip",
    "data.crop",
    "data.binary",
    "recalibration_batches",
    "log_every",
    "probes.batch_size",
    "probes.samples",
    "probes.alpha_low",
    "probes.alpha_high",
    "probes.alpha_points",
    "amp",
)
_SWEPT = {"batch_size": ("batch_size", "steps", "recalibration_batches")}
"""Settings that an experiment sweeps over, with all that hangs on them: they do not divide its runs into groups."""

_SCALES = {
    "demo": {"data.name": "digits", "model.width": 0.125, "batch_size": 64},
    "cpu": {"data.name": "cifar10", "model.width": 0.25, "batch_size": 128},
    "paper": {"data.name": "cifar10", "model.width": 1.0, "steps": 15_000, "batch_size": 128},
}
"""What each of ``configs/scale`` stands for with a VGG; the steps of the smaller ones are up to the experiment."""

_PAPERS = {
    "mlp": {
        "data.name": "mnist",
        "data.binary": True,
        "model.depth": 3,
        "model.units": 100,
        "steps": 50_000,
        "batch_size": 60,
    },
    "dln": {"data.name": "gaussian", "model.depth": 25, "model.units": 10, "steps": 10_000},
}
"""What scale ``paper`` stands for with the other networks; at the smaller scales their experiments say it."""

_UNUSUAL = {
    "optim.momentum": "momentum {}",
    "optim.weight_decay": "weight decay {}",
    "optim.schedule": "{} schedule",
    "data.flip": "flipped",
    "data.crop": "cropped",
    "model.init": "{} init",
    "model.init_std": "std {}",
    "model.head": "head {}",
    "model.head_norm": "norm in the head",
    "amp": "{}",
}
_CUSTOMARY = {"optim.schedule": "constant", "model.init": "glorot", "model.head": "linear", "amp": "float32"}


class NotMeasured(IcsbenchError):
    """A figure cannot be drawn from these records, which are sound but do not hold what it shows."""


def regime_order(regime: Regime) -> tuple[float, str]:
    """Sort key: the place that a regime has among others, then its name."""
    return (regime.order, regime)


@dataclass(frozen=True)
class Condition:
    """The seeds of one configuration: one regime at one learning rate."""

    regime: Regime
    lr: float
    runs: tuple[Run, ...]

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
    """Finished runs of one experiment on the same data, network, steps and scale.

    Raises IcsbenchError for runs that differ in any of them, or do not state them: they must not share a figure.
    """

    name: str
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        first = self.runs[0]
        for run in self.runs[1:]:
            if _signature(run) != _signature(first):
                names = " and ".join(_names(str(first.setting("experiment")), [first, run]))
                raise IcsbenchError(f"{run.path}: not comparable with {first.path}; {names} need figures of their own")

    @property
    def lrs(self) -> list[float]:
        """The learning rates among the runs, ascending."""
        return sorted({run.lr for run in self.runs})

    def at(self, lr: float) -> "Group":
        """The runs of one learning rate."""
        return Group(self.name, tuple(run for run in self.runs if run.lr == lr))

    @property
    def conditions(self) -> list[Condition]:
        """One per configuration, by learning rate, then regime, then folder; seeds ascending."""
        folders: dict[Any, list[Run]] = {}
        for run in self.runs:
            folders.setdefault((run.lr, regime_order(run.regime), run.path.parent), []).append(run)
        return [
            Condition(members[0].regime, members[0].lr, tuple(sorted(members, key=lambda run: run.seed)))
            for _, members in sorted(folders.items(), key=lambda item: item[0])
        ]

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

        Raises NotMeasured where it has several, e.g. noise of two sizes, which must not be averaged.
        """
        conditions = self.conditions
        seen: dict[tuple[str, float], Condition] = {}
        for condition in conditions:
            other = seen.setdefault((condition.regime, condition.lr), condition)
            if other is not condition:
                raise NotMeasured(
                    f"{condition.runs[0].path.parent}: a second setting of {condition.regime} at lr {condition.lr:g}, "
                    f"next to {other.runs[0].path.parent.name}; in this figure each needs an experiment of its own"
                )
        return conditions

    @property
    def regression(self) -> bool:
        """Whether the runs have a loss and no accuracy."""
        return self.runs[0].regression

    @property
    def network(self) -> str:
        """The ``model.name`` that the runs share."""
        return _model(self.runs[0])

    @property
    def num_classes(self) -> int:
        """The number of classes; guessing is right once in so many. Raises NotMeasured for a regression."""
        number = _data(self.runs[0])["num_classes"]
        if number is None:
            raise NotMeasured("a regression has no classes, and no accuracy; its training loss is in loss")
        return int(number)

    @property
    def facts(self) -> str:
        """What the runs share, for a caption: data, network and its size, batch, learning rate, steps, scale.

        Further settings of training are named where they are not the customary ones.
        """
        run = self.runs[0]
        return ", ".join(
            [
                _data(run)["label"],
                _network(run),
                "full batch" if run.setting("data.name") == "gaussian" else f"batch {self._list('batch_size')}",
                "lr " + _enumerated(self.lrs),
                f"{self._list('steps')} steps",
                *_unusual(run),
                f"scale {run.setting('scale')}" + ("" if _true_to_scale(run) else " altered"),
            ]
        )

    def _list(self, key: str) -> str:
        return _enumerated(sorted({int(run.setting(key, 0)) for run in self.runs}))

    @property
    def provenance(self) -> str:
        """What made the records: versions, commit, processor, threads, wall time, data fingerprint, seeds."""
        made = [run.environment for run in self.runs]
        minutes = [run.seconds / 60 for run in self.runs if run.seconds is not None]
        wall = f"; {min(minutes):.1f} to {max(minutes):.1f} minutes a run" if minutes else ""
        return (
            f"icsbench {_several(e.get('icsbench') for e in made)}, commit {_several(e.get('commit') for e in made)}, "
            f"torch {_several(e.get('torch') for e in made)}, {_several(e.get('machine') for e in made)} "
            f"({_several(e.get('device_name') or e.get('device') for e in made)}), "
            f"threads a run: {_several(e.get('threads') for e in made)}{wall}; "
            f"data fingerprint {_several(_data(run)['fingerprint'] for run in self.runs)}, "
            f"seeds {', '.join(map(str, sorted({run.seed for run in self.runs})))}"
        )


def _setting(cell: Condition, key: str) -> Any:
    named = {"norm": cell.regime, "lr": cell.lr}
    return named[key] if key in named else cell.runs[0].setting(key, legacy.DEFAULTS.get(key))


def _enumerated(values: Sequence[float]) -> str:
    texts = [f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in values]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _several(values: Iterable[Any]) -> str:
    return " and ".join(sorted({str(value) for value in values}))


def _model(run: Run) -> str:
    return str(run.setting("model.name", "?"))


def _network(run: Run) -> str:
    name, depth, units = _model(run), run.setting("model.depth"), run.setting("model.units")
    if name == "mlp":
        return f"MLP, {depth} x {units} sigmoid units"
    if name == "dln":
        return f"deep linear network, {depth} layers of {units} x {units}"
    width = run.setting("model.width")
    size = "" if width is None else f" at width {Fraction(width).limit_denominator(64)}"
    return (name.upper() if name.startswith("vgg") else name) + size


def _shared(run: Run, key: str) -> Any:
    """A setting as far as it bears on the run, so that a record from before there was the key is like a later one."""
    if key == "amp":
        return precision(run)
    if key == "model.init_std" and run.setting("model.init") != "gaussian":
        return None
    return run.setting(key, False if key == "data.binary" else None)


def precision(run: Run) -> str:
    """What passes are computed in. Before the environment said so, the probes of an amp run were in bfloat16 too."""
    if not run.setting("amp", False):
        return "float32"
    probed = any(run.setting(f"probes.{probe}") for probe in ("shift", "ics", "landscape"))
    return "bf16 (probes too)" if probed and "precision" not in run.environment else "bf16"


def _unusual(run: Run) -> list[str]:
    settings = ((key, say, _shared(run, key)) for key, say in _UNUSUAL.items())
    return [say.format(value) for key, say, value in settings if value and value != _CUSTOMARY.get(key)]


def _true_to_scale(run: Run) -> bool:
    scale, network = str(run.setting("scale")), _model(run)
    if network.startswith("vgg"):
        stands_for = _SCALES.get(scale, {})
    else:
        stands_for = _PAPERS.get(network, {}) if scale == "paper" else {}
    return all(run.setting(key) == value for key, value in stands_for.items())


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """The finished runs, in groups that may be compared, ordered by name.

    A group is named after its experiment; where one experiment has several groups, by the settings that tell them
    apart as well. Raises IcsbenchError for a finished run whose environment does not state its data.
    """
    members: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.finished:
            members.setdefault(_signature(run), []).append(run)
    experiments: dict[str, list[list[Run]]] = {}
    for group in members.values():
        experiments.setdefault(str(group[0].setting("experiment", "runs")), []).append(group)
    return sorted(
        (
            Group(name, tuple(group))
            for experiment, groups in experiments.items()
            for name, group in zip(_names(experiment, [group[0] for group in groups]), groups, strict=True)
        ),
        key=lambda group: group.name,
    )


def _data(run: Run) -> dict[str, Any]:
    data = run.environment.get("data")
    if not isinstance(data, dict) or not {"label", "num_classes", "fingerprint"} <= data.keys():
        raise IcsbenchError(
            f"{run.path / 'environment.json'}: does not state data label, num_classes and fingerprint; run it again"
        )
    return data


def _signature(run: Run) -> tuple[Any, ...]:
    experiment = run.setting("experiment")
    shared = (_shared(run, key) for key in _SHARED_SETTINGS if key not in _SWEPT.get(experiment, ()))
    return (experiment, _data(run)["fingerprint"], *shared)


def _names(experiment: str, runs: Sequence[Run]) -> list[str]:
    names = [experiment] * len(runs)
    for key in _SHARED_SETTINGS:
        values = [str(_shared(run, key)) for run in runs]
        if len(set(names)) < len(set(zip(names, values, strict=True))):
            leaf = key.rpartition(".")[2]
            names = [
                f"{name}-{value}" if leaf in ("scale", "name", "amp") else f"{name}-{leaf}{value}"
                for name, value in zip(names, values, strict=True)
            ]
    if len(set(names)) < len(names):
        names = [f"{name}-{_data(run)['fingerprint'][:8]}" for name, run in zip(names, runs, strict=True)]
    return names
