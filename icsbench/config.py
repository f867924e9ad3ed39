"""The keys of a run, their checks, and the run's identity.

The groups ``model``, ``norm``, ``optim`` and ``lab`` are open: their keys are the options of the member that the
group's ``name`` chooses, and that member checks them. The keys of ``probes`` are the options of all probes. Members are
imported when they are looked up.
"""

import difflib
import hashlib
import importlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from icsbench.errors import IcsbenchError
from icsbench.members import member, members
from icsbench.options import Options, in_range, one_of

SCALES = ("demo", "cpu", "paper")
"""From the smallest to the paper's."""


_DECADES = 300
"""Up to which power of ten, and down to which, a learning rate is a float."""


class _Kind(NamedTuple):
    """Where the members of an open group are: their room, the name of their contract, and the default member."""

    room: str
    contract: str
    default: str | None


_OPEN = {
    "model": _Kind("models", "Model", "vgg16"),
    "norm": _Kind("norms", "Norm", "bn"),
    "optim": _Kind("training.optimizers", "Optimizer", "sgd"),
    "lab": _Kind("labs", "Lab", None),
}
_WRAPPERS = _Kind("training.optimizers", "Wrapper", None)

# Shape of one input (channels, height, width of an image), and whether the data have classes.
_INPUTS = {
    "digits": ((3, 32, 32), True),
    "digits8": ((1, 8, 8), True),
    "cifar10": ((3, 32, 32), True),
    "cifar100": ((3, 32, 32), True),
    "mnist": ((1, 28, 28), True),
    "gaussian": ((10,), False),
}


_ORDERS = ("reshuffle", "shuffle_once", "fixed_batches", "by_class")


@dataclass
class DataConfig:
    """Which data, and what is done to them. ``root`` says where they are and does not change the run.

    ``order``: that of the training images, from epoch to epoch, see :func:`icsbench.data.epoch_order`;
    ``classes_per_batch``: the classes of a batch ``by_class``, in training and in the lab ``batch_statistics``.
    """

    name: str = "digits"
    root: str | None = None
    val_size: int = 0
    binary: bool = False
    flip: bool = False
    crop: bool = False
    order: str = "reshuffle"
    classes_per_batch: int = 1

    def __post_init__(self) -> None:
        one_of("data.name", self.name, tuple(_INPUTS))
        one_of("data.order", self.order, _ORDERS)
        in_range("data.classes_per_batch", self.classes_per_batch, 1)
        if not self.classes and self.order != "reshuffle":
            raise ValueError(
                f"data.order={self.order} does not fit {self.name}, which is trained on the full batch: "
                "it must be reshuffle"
            )
        in_range("data.val_size", self.val_size, 0)
        if self.val_size == 1:
            raise ValueError("data.val_size must be 0 or at least 2 (got 1)")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input of a network: ``(channels, height, width)`` of an image."""
        return _INPUTS[self.name][0]

    @property
    def classes(self) -> bool:
        """Whether it is to be classified; if not, it is a regression."""
        return _INPUTS[self.name][1]


@dataclass
class OptimConfig(Options):
    """What every optimizer has: its learning rate with its schedule, and the wrappers around it, in order.

    ``schedule``: ``constant``; ``cosine``, down to zero over the budget of steps; ``exponential``, ``growth`` times
    that of the update before. In the first ``warmup`` updates the rate is only a share of that: the share of update t
    (from 0) is ``(t + 1) / warmup`` (``warmup_shape=linear``), or 1 / warmup in all of them (``held``).
    """

    lr: float = 0.1
    schedule: str = "constant"
    growth: float = 1.0
    warmup: int = 0
    warmup_shape: str = "linear"
    wrap: dict[str, Any] | None = None
    """Options of each wrapper by its name; the first one acts first."""
    train: str = "all"
    """Which parameters are trained, see :mod:`icsbench.training.part`: ``all``, ``affine``, ``random``."""
    train_output: bool = False
    """Whether the output layer is trained too, where not all parameters are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("optim.lr", self.lr, 0, open_low=True)
        one_of("optim.train", self.train, ("all", "affine", "random"))
        if self.train_output and self.train == "all":
            raise ValueError("optim.train_output=true does nothing with optim.train=all; leave it out")
        one_of("optim.schedule", self.schedule, ("constant", "cosine", "exponential"))
        in_range("optim.growth", self.growth, 0, open_low=True)
        if self.growth != 1 and self.schedule != "exponential":
            raise ValueError(f"optim.growth is of optim.schedule=exponential; leave it out (got {self.growth:g})")
        in_range("optim.warmup", self.warmup, 0)
        one_of("optim.warmup_shape", self.warmup_shape, ("linear", "held"))
        if self.warmup_shape != "linear" and not self.warmup:
            raise ValueError(f"optim.warmup_shape={self.warmup_shape} is of a warm-up; choose optim.warmup=STEPS too")


@dataclass
class WandbConfig:
    """The W&B mirror. ``mode``: auto is online where a key is configured, offline otherwise."""

    mode: str = "auto"
    project: str = "icsbench"
    entity: str | None = None

    def __post_init__(self) -> None:
        one_of("wandb.mode", self.mode, ("auto", "online", "offline", "disabled"))


@dataclass
class TrackerConfig:
    """Where a run is mirrored: ``wandb`` (see :class:`WandbConfig`) or ``tensorboard``."""

    name: str = "wandb"

    def __post_init__(self) -> None:
        one_of("tracker.name", self.name, ("wandb", "tensorboard"))


@dataclass
class Config:
    """One run. See ``configs/train.yaml`` for what each key means.

    ``lab``: the options of the lab whose run it is, None for a training. ``study``: what the study declares that the
    run belongs to, ``{factors: {key: [keys that hang on it]}, affords: {scale: place among its studies}}``, where a
    factor is what the study's runs may differ in.
    """

    experiment: str = "single"
    scale: str = "demo"
    results: str = "results"
    seed: int = 0
    steps: int = 1000
    batch_size: int = 128
    log_every: int = 10
    eval_every: int = 250
    checkpoint_every: int = 200
    recalibration_batches: int = 40
    device: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    amp: bool = False
    compile: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    model: Options = field(default_factory=lambda: options_of("model"))
    norm: Options = field(default_factory=lambda: options_of("norm"))
    optim: OptimConfig = field(default_factory=lambda: options_of("optim"))
    probes: Any = field(default_factory=lambda: probes_options())
    wandb: WandbConfig = field(default_factory=WandbConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    lab: Options | None = None
    study: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        model = _chosen("model", self.model.name)
        if not model.fits(self.data.shape, self.data.classes):
            raise ValueError(f"data {self.data.name} does not fit model {self.model.name}, which takes {model.takes}")
        norm, models = _chosen("norm", self.norm.name), members("models", _contract(_OPEN["model"]))
        for of, refused, fits in (
            ("residual branches", norm.residual and not model.residual, lambda one: one.residual),
            ("feature maps", norm.maps and model.units, lambda one: not one.units),
        ):
            if refused:
                raise ValueError(
                    f"norm {self.norm.name} is one of {of}, and model {self.model.name} has none; "
                    f"choose model={', '.join(name for name, one in models.items() if fits(one))}"
                )
        if self.amp and model.precision != "float32":
            raise ValueError(
                f"amp=true does nothing for model {self.model.name}, which is trained in {model.precision}; "
                "leave it out"
            )
        if not self.results:
            raise ValueError("results must name a folder (got '')")
        if not self.experiment or "/" in self.experiment or self.experiment.startswith("."):
            raise ValueError(f"experiment must be a plain folder name (got {self.experiment!r})")
        in_range("seed", self.seed, 0, 2**31 - 1)
        in_range("steps", self.steps, 1)
        self._check_rates()
        in_range("batch_size", self.batch_size, 2)
        _chosen("norm", self.norm.name).check(self.norm, self.batch_size)
        in_range("log_every", self.log_every, 1)
        in_range("eval_every", self.eval_every, 1)
        in_range("checkpoint_every", self.checkpoint_every, 1)
        in_range("recalibration_batches", self.recalibration_batches, 1)
        one_of("device", self.device.split(":")[0], ("auto", "cpu", "cuda", "mps"))
        if self.threads is not None:
            in_range("threads", self.threads, 1)
        if self.lab is not None and not isinstance(self.lab, Options):
            raise ValueError("lab has no name; choose one with lab=NAME")
        self._check_study()

    def _check_rates(self) -> None:
        """Whether the learning rates are there, and numbers, up to the last step."""
        if self.optim.warmup >= self.steps:
            raise ValueError(f"optim.warmup must be less than steps, {self.steps} (got {self.optim.warmup})")
        decades = math.log10(self.optim.lr) + self.steps * math.log10(self.optim.growth)
        if abs(decades) > _DECADES:
            raise ValueError(
                f"optim.growth {self.optim.growth:g} over {self.steps} steps takes the learning rate to "
                f"1e{decades:+.0f}; choose one nearer to 1"
            )

    def _check_study(self) -> None:
        study = self.study or {}
        for part in study:
            one_of("a key of study", part, ("factors", "affords"))
        factors, affords = study.get("factors", {}), study.get("affords", {})
        if not isinstance(factors, dict) or not all(isinstance(hanging, list) for hanging in factors.values()):
            raise ValueError(f"study.factors must map each key to the list of keys that hang on it (got {factors})")
        if not isinstance(affords, dict) or not all(isinstance(place, int) for place in affords.values()):
            raise ValueError(f"study.affords must map scales to places in their order (got {affords})")
        for scale in affords:
            one_of("a scale of study.affords", scale, SCALES)
        named = [*factors, *(key for hanging in factors.values() for key in hanging)]
        known = {*_keys(Config), *(f.name for f in fields(self))} if named else set()
        for key in named:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise ValueError(f"study.factors: unknown key '{key}'{hint}")

    @property
    def fingerprint(self) -> str:
        """First 10 hex digits of SHA-256 over what determines the numbers of a run, the seed apart.

        Only keys that differ from the schema's defaults are hashed, so that a later version with a further key (at a
        default that changes nothing) still finds its earlier runs.
        """
        return fingerprint_of(self.identity())

    def identity(self) -> dict[str, Any]:
        """The keys and values that the fingerprint is taken over, flat, those at their defaults left out."""
        default_names = {f"{group}.name": kind.default for group, kind in _OPEN.items()}
        found = dict(_not_at_default(self))
        if self.optim.wrap:
            found["optim.wrap"] = [*self.optim.wrap]
        mine = {k: v for k, v in found.items() if v != default_names.get(k) and not _machine_key(k)}
        return mine if self.trains else {k: v for k, v in mine.items() if k.startswith("lab.")}

    @property
    def trains(self) -> bool:
        """Whether a network has a part in the run: in a training, and in a lab that says so."""
        return self.lab is None or _chosen("lab", self.lab.name).network

    @property
    def run_name(self) -> str:
        """Readable folder name of the run: regime, network, data, learning rate, and the fingerprint.

        Of a lab, its name and the fingerprint.
        """
        if self.lab is not None:
            return f"{self.lab.folder_name}-{self.fingerprint}"
        parts = (self.norm.folder_name, self.model.folder_name, self.data.name, f"lr{self.optim.lr:g}")
        return "-".join((*parts, self.fingerprint))

    @property
    def run_dir(self) -> Path:
        """``results/<experiment>/<readable-name>-<fingerprint>/seed-<n>``."""
        return Path(self.results) / self.experiment / self.run_name / f"seed-{self.seed}"

    @property
    def regime(self) -> str:
        """What the run is a run of: its norm; of a lab, the lab."""
        return self.norm.name if self.lab is None else self.lab.name

    def to_yaml(self) -> str:
        """The config as YAML; of a lab without a network, all but what it does not use.

        ``tracker`` is left out: a record is the same whatever it is mirrored to.
        """
        settings = asdict(self)
        del settings["tracker"]
        if not self.trains:
            settings = {key: settings[key] for key in _OF_EVERY_LAB}
        return OmegaConf.to_yaml(OmegaConf.create(settings))


# Keys that say where a run happens or what is shown of it, and change none of its numbers (device and threads change
# the rounding; a record keeps those it began with).
_MACHINE_KEYS = (
    "experiment",
    "scale",
    "results",
    "seed",
    "device",
    "threads",
    "checkpoint_every",
    "data.root",
    "lab.root",
    "study",
)

_OF_EVERY_LAB = ("experiment", "scale", "results", "seed", "threads", "lab", "study")


def _machine_key(key: str) -> bool:
    return key in _MACHINE_KEYS or key.startswith(("wandb.", "tracker."))


def _not_at_default(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The flat keys and values of a dataclass that its class gives no default, or another."""
    for f in fields(settings):
        key, value = prefix + f.name, getattr(settings, f.name)
        if is_dataclass(value):
            yield from _not_at_default(value, f"{key}.")
        elif isinstance(value, dict) and any(map(is_dataclass, value.values())):
            for name, inner in value.items():
                yield from _not_at_default(inner, f"{key}.{name}.")
        elif value != (f.default if f.default_factory is MISSING else f.default_factory()) or _names(settings, f.name):
            yield key, value


def _names(settings: Any, key: str) -> bool:
    """Whether this key says which member's options these are."""
    return isinstance(settings, Options) and key == "name"


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """First 10 hex digits of SHA-256 over flat keys and their values; see :attr:`Config.fingerprint`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def _contract(kind: _Kind) -> Any:
    return getattr(importlib.import_module(f"icsbench.{kind.room}.contract"), kind.contract)


def _chosen(group: str, name: str) -> Any:
    return member(_OPEN[group].room, _contract(_OPEN[group]), name)


def options_of(group: str, name: str | None = None, **values: Any) -> Any:
    """Options of a member of an open group (without a ``name``, its default member): its defaults, and ``values``.

    :raises IcsbenchError: there is no such member.
    :raises ValueError: a value is out of range.
    """
    name = name or str(_OPEN[group].default)
    return _chosen(group, name).options(name=name, **values)


def probes_options(**values: Any) -> Any:
    """What is measured along the way, and when: the options of all probes together, at their defaults but ``values``.

    :raises IcsbenchError: two probes have an option of one name.
    :raises ValueError: a value is out of range.
    """
    return _probes_type()(**values)


def _probes_type() -> Any:
    found = members("probes", importlib.import_module("icsbench.probes.contract").Probe)
    return _joined(tuple(probe.options for probe in found.values()))


@cache
def _joined(parts: tuple[Any, ...]) -> Any:
    """One dataclass with the fields of several, which checks them as each of those does."""
    owners: dict[str, Any] = {}
    for part in parts:
        for f in fields(part):
            if f.name in owners:
                raise IcsbenchError(f"{owners[f.name].__qualname__} and {part.__qualname__} both have {f.name}")
            owners[f.name] = part

    def check(self: Any) -> None:
        for part in parts:
            getattr(part, "__post_init__", lambda _: None)(self)

    own = ((f, field(default=f.default, default_factory=f.default_factory)) for part in parts for f in fields(part))
    return make_dataclass("Probes", [(f.name, f.type, new) for f, new in own], namespace={"__post_init__": check})


def _keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """The flat keys of a dataclass; in an open group, those of all its members."""
    for f in fields(schema):
        kind = None if prefix else _OPEN.get(f.name)
        if kind is not None:
            found = members(kind.room, _contract(kind)).values()
            yield from dict.fromkeys(key for one in found for key in _keys(one.options, f"{f.name}."))
            if f.name == "optim":
                for wrapper in members(_WRAPPERS.room, _contract(_WRAPPERS)).values():
                    yield from _keys(wrapper.options, f"optim.wrap.{wrapper.name}.")
        elif f.name == "probes" and not prefix:
            yield from _keys(_probes_type(), "probes.")
        elif is_dataclass(f.type):
            yield from _keys(f.type, f"{f.name}.")
        else:
            yield prefix + f.name


def unknown_key(key: str) -> str:
    """The error line for a key that the configuration does not have."""
    plain = [f.name for f in fields(Config) if f.name not in _OPEN and not is_dataclass(f.type)]
    known = plain if difflib.get_close_matches(key, plain, n=1) else [*_keys(Config)]  # which imports every member
    if key in known and key.startswith("optim.wrap."):
        return f"configuration: '{key}' is of a wrapper that is not there yet; add it with '+{key}=VALUE'"
    if key in known:
        group = key.split(".")[0]
        return f"configuration: '{key}' does not apply to the chosen {group}; choose another with {group}=NAME"
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "icsbench train --cfg job lists the keys"
    return f"configuration: unknown key '{key}'; {hint}"


def resolve(composed: DictConfig, former: Mapping[str, Collection[str]] | None = None) -> Config:
    """Turn a composed configuration into a checked :class:`Config`.

    :param former: by group, keys of earlier versions, which are left out where the chosen member does not take them.
    :raises IcsbenchError: unknown key, wrong type, or a value out of range, in one line.
    """
    try:
        types = _types(composed)
        wrappers = _wrappers(composed)
        for group, keys in (former or {}).items():
            for key in {*(composed.get(group) or ())} & set(keys) - {f.name for f in fields(types[group])}:
                del composed[group][key]
        names = {group: {"name": kind.default} for group, kind in _OPEN.items() if kind.default}
        merged = OmegaConf.merge(OmegaConf.structured(_schema(types, wrappers)), names, composed)
        values: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
        for name, options in wrappers.items():
            values["optim"]["wrap"][name] = options(**values["optim"]["wrap"][name])
        return Config(**{key: types[key](**value) if key in types else value for key, value in values.items()})
    except ConfigKeyError as error:
        raise IcsbenchError(unknown_key(str(error.full_key))) from error
    except MissingMandatoryValue as error:
        raise IcsbenchError(f"configuration: {error.full_key} has no value; give it one") from error
    except OmegaConfBaseException as error:
        where = f" (key {error.full_key})" if getattr(error, "full_key", None) else ""
        raise IcsbenchError(f"configuration: {str(error.msg or error).splitlines()[0]}{where}") from error
    except ValueError as error:
        raise IcsbenchError(f"configuration: {error}") from error


def _types(composed: DictConfig) -> dict[str, Any]:
    """The dataclass of each group: of an open one, the options of the member that its ``name`` chooses."""
    types: dict[str, Any] = {f.name: f.type for f in fields(Config) if f.name not in _OPEN and is_dataclass(f.type)}
    types["probes"] = _probes_type()
    for group, kind in _OPEN.items():
        name = OmegaConf.select(composed, f"{group}.name", default=kind.default)
        if name is not None:
            types[group] = _chosen(group, str(name)).options
    return types


def _wrappers(composed: DictConfig) -> dict[str, Any]:
    """The options of each wrapper that ``optim.wrap`` names, in order."""
    wrap = OmegaConf.select(composed, "optim.wrap") or {}
    if not isinstance(wrap, DictConfig | dict):
        raise ValueError(f"optim.wrap must be a mapping of wrappers to their options (got {wrap})")
    names = map(str, wrap)
    return {name: member(_WRAPPERS.room, _contract(_WRAPPERS), name).options for name in names}


def _schema(types: Mapping[str, Any], wrappers: Mapping[str, Any]) -> type:
    """:class:`Config` with the options of the chosen members in its open groups."""
    if wrappers:
        wrap = make_dataclass("Wrap", wrappers.items())
        types = {**types, "optim": make_dataclass("Optim", [("wrap", wrap, _node(wrap))], bases=(types["optim"],))}
    own = [f for f in fields(Config) if f.name not in types]
    settings = [
        (f.name, Any if f.name in _OPEN else f.type, field(default=f.default, default_factory=f.default_factory))
        for f in own
    ]
    return make_dataclass("Config", [*settings, *((group, of, _node(of)) for group, of in types.items())])


def _node(schema: Any) -> Any:
    return field(default_factory=lambda: OmegaConf.structured(schema))
