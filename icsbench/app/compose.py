"""From overrides to the configurations of one run, or of the jobs of a sweep."""

import contextlib
import copy
import itertools
import math
import os
from dataclasses import asdict, dataclass
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from icsbench.app.folders import CONFIG_DIR, is_group, options, search_folders
from icsbench.app.overrides import sweeps
from icsbench.config import SCALES, Config, resolve
from icsbench.labs.contract import Lab
from icsbench.members import members


def _pool_size(device: str) -> int:
    """Processes of the local pool: one a core on the CPU; one where a GPU is used, which they would share."""
    if device == "cpu":
        return -1
    import torch

    return 1 if torch.cuda.is_available() or torch.backends.mps.is_available() else -1


OmegaConf.register_new_resolver("icsbench.pool_size", _pool_size, replace=True)

OmegaConf.register_new_resolver(
    "icsbench.by_scale",
    lambda scale, *values: dict(zip(SCALES, values, strict=True))[scale],
    replace=True,
)

OmegaConf.register_new_resolver(
    "icsbench.updates", lambda images, batch_size: max(1, images // batch_size), replace=True
)

OmegaConf.register_new_resolver("icsbench.times", lambda *factors: math.prod(factors), replace=True)


def composed(overrides: list[str]) -> Config:
    """The configuration of one run.

    :raises IcsbenchError: an unknown key, or a value that does not fit. What Hydra itself raises is left as it is.
    """
    with _initialised():
        return resolve(hydra.compose("train", overrides))


def prepare_hydra() -> None:
    """Tell Hydra of the folders of YAML, and of the labs that have no YAML file: their options are at their defaults.

    :raises IcsbenchError: a folder or a lab of another package cannot be used.
    """
    search_folders()
    with_file = options("lab")
    for lab in members("labs", Lab).values():
        if lab.name not in with_file:
            ConfigStore.instance().store(lab.name, asdict(lab.options(name=lab.name)), group="lab")


def _initialised() -> contextlib.AbstractContextManager[Any]:
    prepare_hydra()
    return hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3")


def _grid(overrides: list[str]) -> tuple[list[str], dict[str, list[str]], DictConfig]:
    """What the jobs of a sweep share, the values of each key that they differ in, and the launcher.

    To be called where Hydra is initialised. A key that a sweeper draws from an interval is in neither.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    fixed = [override for override in overrides if not sweeps(override)]
    alone = hydra.compose("train", fixed, return_hydra_config=True)
    params = [f"{key}={values}" for key, values in (alone.hydra.sweeper.params or {}).items()]
    last = {parsed.get_key_element(): parsed for parsed in parser.parse_overrides([*params, *overrides])}
    mine = {parsed.get_key_element() for parsed in parser.parse_overrides(fixed)}
    swept = {
        key: [*map(str, parsed.sweep_string_iterator())]
        if parsed.is_sweep_override()
        else [parsed.get_value_element_as_str()]
        for key, parsed in last.items()
        if (parsed.is_discrete_sweep() if parsed.is_sweep_override() else key not in mine)
    }
    return fixed, swept, alone.hydra.launcher


def jobs(overrides: list[str]) -> tuple[list[tuple[Config, int]], int]:
    """The runs of a sweep: one configuration for all that differ in seed and learning rate alone, with their number.

    Behind them, how many processes there are for the runs.
    """
    with _initialised():
        fixed, values, launcher = _grid(overrides)
        alike = math.prod(len(values.pop(key, [""])) for key in ("seed", "optim.lr"))
        found = [
            (resolve(hydra.compose("train", [*fixed, *(f"{k}={v}" for k, v in zip(values, job, strict=True))])), alike)
            for job in itertools.product(*values.values())
        ]
    return found, _processes(launcher)


def _processes(launcher: DictConfig) -> int:
    number = int(launcher.get("n_jobs", 1))
    return number if number > 0 else os.cpu_count() or 1


@dataclass(frozen=True)
class Sweep:
    """The seeds of a sweep, how many runs each has, and how many processes there are for them."""

    seeds: tuple[int, ...]
    runs_per_seed: int
    processes: int


def sweep_of(overrides: list[str]) -> Sweep:
    """What a sweep has, its runs counted and not composed one by one."""
    with _initialised():
        fixed, values, launcher = _grid(overrides)
        seeds = values.pop("seed", None) or [hydra.compose("train", fixed).seed]
        runs = math.prod(len(of) for key, of in values.items() if not key.startswith("hydra"))
        return Sweep(tuple(dict.fromkeys(map(int, seeds))), runs, _processes(launcher))


@dataclass(frozen=True)
class Cells:
    """The configurations of a sweep as Hydra composes them, each once, and the seeds of every one of them."""

    composed: tuple[DictConfig, ...]
    seeds: tuple[int, ...]


def cells_of(overrides: list[str]) -> Cells:
    """What a sweep runs. What Hydra raises is left as it is."""
    with _initialised():
        fixed, values, _ = _grid(overrides)
        seeds = values.pop("seed", None)
        found = [
            hydra.compose("train", [*fixed, *(f"{k}={v}" for k, v in zip(values, job, strict=True))])
            for job in itertools.product(*values.values())
        ]
    return Cells(tuple(found), tuple(dict.fromkeys(map(int, seeds or [found[0].seed]))))


def local_pool(overrides: list[str]) -> int | None:
    """How many processes the local pool has; None where the runs go elsewhere, or a sweeper chooses them as it goes."""
    with _initialised():
        hydra_config = hydra.compose("train", overrides, return_hydra_config=True).hydra
        local = "joblib" in hydra_config.launcher["_target_"].lower() and "Basic" in hydra_config.sweeper["_target_"]
        return _processes(hydra_config.launcher) if local else None


def configurations(overrides: list[str]) -> list[Config]:
    """The configurations of a sweep, each once, with whatever seed.

    :raises IcsbenchError: an unknown key, or a value that does not fit. What Hydra itself raises is left as it is.
    """
    return [resolve(composed) for composed in cells_of(overrides).composed]


def check_sweep(overrides: list[str]) -> dict[str, int | None]:
    """Refuse what a sweep could not configure, before its first job: every combination of options, and every value.

    :returns: its experiments, and how many runs each has; None where a sweeper chooses them as it goes.
    :raises IcsbenchError: such an option or value. What Hydra itself raises is left as it is.
    """
    with _initialised():
        fixed, swept, _ = _grid(overrides)
        groups = {key for key in swept if is_group(key)}
        choices = [[f"{key}={v}" for v in values] for key, values in swept.items() if key in groups]
        values = {key: of for key, of in swept.items() if not (key in groups or key.startswith("hydra"))}
        firsts = [f"{key}={of[0]}" for key, of in values.items()]
        configurations = [hydra.compose("train", [*fixed, *job, *firsts]) for job in itertools.product(*choices)]
        for configuration in configurations:
            resolve(configuration)
        for key, of in values.items():
            for value in of[1:]:
                one = copy.deepcopy(configurations[0])
                override = OverridesParser.create().parse_override(f"{key}={value}")
                OmegaConf.update(one, override.key_or_group, override.value())
                resolve(one)
        drawn = any(sweeps(override) and override.partition("=")[0] not in swept for override in overrides)
        names = next((of for key, of in values.items() if key.lstrip("+") == "experiment"), None)
        studies = dict.fromkeys(names or [configuration.experiment for configuration in configurations])
        runs = math.prod(len(of) for key, of in swept.items() if not key.startswith("hydra"))
        return dict.fromkeys(studies, None if drawn else runs // len(studies))
