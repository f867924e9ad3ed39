"""The typed schema of a run, its checks, and its fingerprint."""

import difflib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from icsbench.errors import IcsbenchError

SCALES = ("demo", "cpu", "paper")
"""From the smallest to the paper's."""


def _one_of(key: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(map(str, allowed))} (got {value!r})")


def _in_range(key: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    if not math.isfinite(value) or value > high or value < low or (open_low and value == low):
        bounds = f"{'greater than' if open_low else 'at least'} {low}"
        bounds += f" and at most {high}" if high < math.inf else ""
        raise ValueError(f"{key} must be {bounds} (got {value})")


@dataclass
class DataConfig:
    """Which data, and what is done to them. ``root`` says where they are and does not change the run."""

    name: str = "digits"
    root: str | None = None
    val_size: int = 0
    binary: bool = False
    flip: bool = False
    crop: bool = False

    def __post_init__(self) -> None:
        _one_of("data.name", self.name, ("digits", "digits8", "cifar10", "cifar100", "mnist", "gaussian"))
        _in_range("data.val_size", self.val_size, 0)
        if self.val_size == 1:
            raise ValueError("data.val_size must be 0 or at least 2 (got 1)")


@dataclass
class ModelConfig:
    """The network: VGG for 32x32 images, an MLP of sigmoid units, or a deep linear network.

    ``width``, ``head`` and ``head_norm`` are VGG's; ``depth`` and ``units`` the hidden layers of the MLP, or the
    matrices of the deep linear network and their size; ``init_std`` is that of the init ``gaussian``.
    """

    name: str = "vgg16"
    width: float = 1.0
    head: str = "linear"
    head_norm: bool = False
    depth: int | None = None
    units: int | None = None
    init: str = "glorot"
    init_std: float = 0.1

    def __post_init__(self) -> None:
        _one_of("model.name", self.name, ("vgg11", "vgg13", "vgg16", "vgg19", "mlp", "dln"))
        _in_range("model.width", self.width, 1 / 64, 16)
        _one_of("model.head", self.head, ("linear", "512-512", "4096-4096"))
        _one_of("model.init", self.init, ("glorot", "he", "torch", "gaussian"))
        _in_range("model.init_std", self.init_std, 0, open_low=True)
        for key, value in (("model.depth", self.depth), ("model.units", self.units)):
            if (value is None) != self.name.startswith("vgg"):
                raise ValueError(f"{key} must be {'unset' if value else 'set'} for model.name={self.name}")
            if value is not None:
                _in_range(key, value, 1)


@dataclass
class NormConfig:
    """The regime; the noise constants are those of Algorithm 1 (Santurkar et al. 2018), l1 to linf its section 3.3.

    ``strength`` scales the noise as a whole: 0 is none, 1 what the constants say.
    """

    name: str = "bn"
    eps: float = 1e-5
    momentum: float = 0.1
    n_mu: float = 0.5
    n_sigma: float = 1.25
    r_mu: float = 0.1
    r_sigma: float = 0.1
    strength: float = 1.0

    def __post_init__(self) -> None:
        _one_of("norm.name", self.name, ("none", "bn", "noisy_bn", "noise", "l1", "l2", "linf"))
        _in_range("norm.eps", self.eps, 0, open_low=True)
        _in_range("norm.momentum", self.momentum, 0, 1, open_low=True)
        _in_range("norm.n_mu", self.n_mu, 0)
        _in_range("norm.n_sigma", self.n_sigma, 1)
        _in_range("norm.r_mu", self.r_mu, 0)
        _in_range("norm.r_sigma", self.r_sigma, 0)
        _in_range("norm.strength", self.strength, 0)


@dataclass
class OptimConfig:
    """SGD."""

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        _in_range("optim.lr", self.lr, 0, open_low=True)
        _in_range("optim.momentum", self.momentum, 0, 0.9999)
        _in_range("optim.weight_decay", self.weight_decay, 0)
        _one_of("optim.schedule", self.schedule, ("constant", "cosine"))


@dataclass
class ProbesConfig:
    """What is measured along the way, and when.

    ``shift``, on a fixed batch, with its schedule ``every`` and its sample: see ``icsbench.probes.shift``. ``ics`` and
    ``landscape``, on the batch of the update, every ``update_every`` updates; the landscape at ``alpha_points`` step
    sizes in a geometric sequence from ``alpha_low`` to ``alpha_high`` learning rates.
    """

    shift: bool = True
    every: int = 100
    batch_size: int = 128
    samples: int = 1024
    ics: bool = False
    landscape: bool = False
    update_every: int = 25
    alpha_low: float = 0.5
    alpha_high: float = 4.0
    alpha_points: int = 6

    def __post_init__(self) -> None:
        _in_range("probes.every", self.every, 2)
        _in_range("probes.batch_size", self.batch_size, 2)
        _in_range("probes.samples", self.samples, 2)
        _in_range("probes.update_every", self.update_every, 1)
        _in_range("probes.alpha_low", self.alpha_low, 0, open_low=True)
        _in_range("probes.alpha_high", self.alpha_high, self.alpha_low)
        _in_range("probes.alpha_points", self.alpha_points, 2)


@dataclass
class WandbConfig:
    """The W&B mirror. ``mode``: auto is online where a key is configured, offline otherwise."""

    mode: str = "auto"
    project: str = "icsbench"
    entity: str | None = None

    def __post_init__(self) -> None:
        _one_of("wandb.mode", self.mode, ("auto", "online", "offline", "disabled"))


@dataclass
class Config:
    """One run. See ``configs/train.yaml`` for what each key means."""

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
    model: ModelConfig = field(default_factory=ModelConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    study: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.data.name == "gaussian") != (self.model.name == "dln"):
            raise ValueError(
                f"data {self.data.name} does not fit model {self.model.name}: dln goes with gaussian alone"
            )
        if self.model.name.startswith("vgg") and self.data.name in ("digits8", "mnist"):
            raise ValueError(
                f"data {self.data.name} does not fit model {self.model.name}, which takes 32x32 colour images"
            )
        if self.amp and self.model.name == "dln":
            raise ValueError("amp=true does nothing for model dln, which is trained in float64; leave it out")
        if not self.results:
            raise ValueError("results must name a folder (got '')")
        if not self.experiment or "/" in self.experiment or self.experiment.startswith("."):
            raise ValueError(f"experiment must be a plain folder name (got {self.experiment!r})")
        _in_range("seed", self.seed, 0, 2**31 - 1)
        _in_range("steps", self.steps, 1)
        _in_range("batch_size", self.batch_size, 2)
        _in_range("log_every", self.log_every, 1)
        _in_range("eval_every", self.eval_every, 1)
        _in_range("checkpoint_every", self.checkpoint_every, 1)
        _in_range("recalibration_batches", self.recalibration_batches, 1)
        _one_of("device", self.device.split(":")[0], ("auto", "cpu", "cuda", "mps"))
        if self.threads is not None:
            _in_range("threads", self.threads, 1)
        self._check_study()

    def _check_study(self) -> None:
        """``study: {factors: {key: [settings that hang on it]}, affords: {scale: place in the order}}``."""
        for part in self.study:
            _one_of("a key of study", part, ("factors", "affords"))
        factors, affords = self.study.get("factors", {}), self.study.get("affords", {})
        if not isinstance(factors, dict) or not all(isinstance(hanging, list) for hanging in factors.values()):
            raise ValueError(f"study.factors must map each key to the list of keys that hang on it (got {factors})")
        if not isinstance(affords, dict) or not all(isinstance(place, int) for place in affords.values()):
            raise ValueError(f"study.affords must map scales to places in their order (got {affords})")
        for scale in affords:
            _one_of("a scale of study.affords", scale, SCALES)
        known = _flat({key: value for key, value in asdict(self).items() if key != "study"})
        for key in [*factors, *(setting for hanging in factors.values() for setting in hanging)]:
            if key not in known and not is_dataclass(getattr(self, str(key), None)):
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise ValueError(f"study.factors: unknown key '{key}'{hint}")

    @property
    def fingerprint(self) -> str:
        """First 10 hex digits of SHA-256 over what determines the numbers of a run, the seed apart.

        Only keys that differ from the schema's defaults are hashed, so that a later version with a further key (at a
        default that changes nothing) still finds its earlier runs.
        """
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:10]

    def identity(self) -> dict[str, Any]:
        """The keys and values that the fingerprint is taken over, flat, those at their defaults left out."""
        default, mine = _flat(asdict(Config())), _flat(asdict(self))
        return {key: value for key, value in mine.items() if not _machine_key(key) and value != default[key]}

    @property
    def run_name(self) -> str:
        """Readable folder name of the run: regime, network, data, learning rate, and the fingerprint."""
        width = "" if self.model.width == 1 else f"-w{self.model.width:g}"
        return f"{self.norm.name}-{self.model.name}{width}-{self.data.name}-lr{self.optim.lr:g}-{self.fingerprint}"

    @property
    def run_dir(self) -> Path:
        """``results/<experiment>/<readable-name>-<fingerprint>/seed-<n>``."""
        return Path(self.results) / self.experiment / self.run_name / f"seed-{self.seed}"

    def to_yaml(self) -> str:
        """The whole config as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(asdict(self)))


# Keys that say where a run happens or what is shown of it, and change none of its numbers (device and threads change
# the rounding; a record keeps those it began with).
_MACHINE_KEYS = ("experiment", "scale", "results", "seed", "device", "threads", "checkpoint_every", "data.root")


def _machine_key(key: str) -> bool:
    return key in _MACHINE_KEYS or key.startswith(("wandb.", "study."))


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def unknown_key(key: str) -> str:
    """The error line for a key that the schema does not have."""
    known = list(_flat(asdict(Config())))
    if key in known:
        group = key.split(".")[0]
        return f"configuration: '{key}' does not apply to the chosen {group}; choose another with {group}=NAME"
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "icsbench train --cfg job lists the keys"
    return f"configuration: unknown key '{key}'; {hint}"


def resolve(composed: DictConfig) -> Config:
    """Turn a composed configuration into a checked :class:`Config`.

    :raises IcsbenchError: unknown key, wrong type, or a value out of range, in one line.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        return _build(Config, OmegaConf.to_container(merged, resolve=True))
    except ConfigKeyError as error:
        raise IcsbenchError(unknown_key(str(error.full_key))) from error
    except OmegaConfBaseException as error:
        where = f" (key {error.full_key})" if getattr(error, "full_key", None) else ""
        raise IcsbenchError(f"configuration: {str(error.msg or error).splitlines()[0]}{where}") from error
    except ValueError as error:
        raise IcsbenchError(f"configuration: {error}") from error


def load_config(path: Path) -> Config:
    """Read a run's ``config.yaml``.

    :raises IcsbenchError: the file is missing, is not a run's config, or is damaged.
    """
    try:
        composed = OmegaConf.load(path)
    except FileNotFoundError:
        raise IcsbenchError(f"{path} is missing; the folder is not a run record") from None
    except Exception as error:
        raise IcsbenchError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(composed, DictConfig) or not composed:
        raise IcsbenchError(f"{path} is not a run's config: it holds no keys")
    return resolve(composed)


def _build(schema: Any, values: Any) -> Any:
    types = {f.name: f.type for f in fields(schema)}
    return schema(**{k: _build(types[k], v) if is_dataclass(types[k]) else v for k, v in values.items()})
