"""The Hydra application behind ``icsbench train`` and ``icsbench sweep``, and what else takes their overrides."""

import contextlib
import copy
import csv
import difflib
import io
import itertools
import math
import os
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from icsbench import terminal
from icsbench.atomic import write_atomically
from icsbench.config import Config, resolve, unknown_key
from icsbench.errors import IcsbenchError
from icsbench.record.writer import folder_of

_HERE = Path(__file__).resolve().parent
CONFIG_DIR = next(path for path in (_HERE / "configs", _HERE.parent / "configs") if (path / "train.yaml").is_file())

_SHOW_EVERY = 10.0  # seconds between progress lines
_SHOWING = {"-c", "--cfg", "-h", "--help", "--hydra-help", "-i", "--info", "-sc", "--shell-completion", "--version"}
_FREE_TEXT = ("results", "data.root", "wandb.project", "wandb.entity")


def _pool_size(device: str) -> int:
    """Processes of the local pool: one a core on the CPU; one where a GPU is used, which they would share."""
    if device == "cpu":
        return -1
    import torch

    return 1 if torch.cuda.is_available() or torch.backends.mps.is_available() else -1


OmegaConf.register_new_resolver("icsbench.pool_size", _pool_size, replace=True)

OmegaConf.register_new_resolver(
    "icsbench.by_scale",
    lambda scale, *values: dict(zip(("demo", "cpu", "paper"), values, strict=True))[scale],
    replace=True,
)

OmegaConf.register_new_resolver(
    "icsbench.updates", lambda images, batch_size: max(1, images // batch_size), replace=True
)

failures: list[str] = []
"""Error lines of the jobs that failed, gathered by :func:`launch`."""


@hydra.main(config_path=str(CONFIG_DIR), config_name="train", version_base="1.3")
def task(composed: DictConfig) -> float | None:
    """Run one training job; return the validation accuracy that a sweeper may maximise (None where the job failed)."""
    hydra_config = HydraConfig.get()
    multirun = hydra_config.mode == RunMode.MULTIRUN
    in_pool = multirun and "joblib" in hydra_config.launcher["_target_"].lower()
    if in_pool:
        terminal.prepare()
    try:
        config = resolve(composed)
        from icsbench import training

        who = _who(config)
        show = _Lines(who, config.steps, parent=os.getppid() if in_pool else None)
        summary = training.run(config, threads=1 if in_pool else None, show=show)
    except IcsbenchError as error:
        line = str(error)
        if not multirun:
            failures.append(line)
            return None
        job = f"{' '.join(hydra_config.overrides.task)}: {line}"
        error_file = Path(hydra_config.sweep.dir) / f"{hydra_config.job.num}.error"
        error_file.write_text(job, encoding="utf-8", errors="surrogateescape")
        return None
    _say(f"{who}: {_describe(summary)}; record {folder_of(config)}")
    return next(iter(summary["val/accuracy"].values()), None)


class SweepOutcome(Callback):
    """Gathers the error lines of a sweep's jobs, whatever process or machine ran them, and tidies up behind it."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Read what the failed jobs left in the sweep's folder; remove the folder where there is nothing to keep."""
        folder = Path(config.hydra.sweep.dir)
        left = sorted(folder.glob("*.error"), key=lambda path: int(path.stem))
        failures.extend(path.read_text(encoding="utf-8", errors="surrogateescape") for path in left)
        if not left:
            (folder / "multirun.yaml").unlink(missing_ok=True)
            for empty in [*(path for path in folder.iterdir() if path.is_dir()), folder, folder.parent]:
                with contextlib.suppress(OSError):  # what a launcher left there stays
                    empty.rmdir()


def launch(arguments: list[str]) -> None:
    """Hand ``arguments`` (overrides and Hydra flags) to Hydra, as if they had been typed behind its own command.

    Of a sweep (with ``hydra.mode=MULTIRUN``) every value is checked before the first job starts.

    :raises IcsbenchError: the arguments or a job failed; one line per failed job.
    """
    failures.clear()
    argv = sys.argv
    with _asking_hydra():
        prepared = as_typed(arguments)
        flags = {argument.partition("=")[0] for argument in prepared if argument.startswith("-")}
        if "hydra.mode=MULTIRUN" in prepared:
            if not flags:
                _check_sweep(prepared)
            if not flags & _SHOWING:
                prepared.append("--multirun")  # Hydra takes a mode that it cannot compose for that of a single run
        # Hydra finds overrides only where they stand side by side, so the flags (and their values) go behind them.
        sys.argv = ["icsbench", *sorted(prepared, key=lambda a: a.startswith("-") or not re.match(r"~|[^=]*=", a))]
        try:
            task()
        finally:
            sys.argv = argv
    if failures:
        raise IcsbenchError("\nicsbench: ".join(failures))


AFFORDS = {
    "demo": ("three_regimes", "noise_control", "percentiles"),
    "cpu": (
        *("landscape", "lp", "dose", "noise_control", "lr_grid", "batch_size"),
        *("percentiles", "dln", "dln_lr", "dln_lp"),
    ),
}
"""The studies that ``icsbench reproduce`` runs at a scale where it is not told which, minutes or hours on two cores:
all at any other scale. At ``cpu``, ``landscape`` has the three regimes too."""


@dataclass(frozen=True)
class Plan:
    """What ``icsbench reproduce`` is to do: the studies, in order, and the overrides that all of them take."""

    studies: tuple[str, ...]
    overrides: tuple[str, ...]
    results: Path
    scale: str
    named: bool
    """Whether the studies were named."""

    def print_costs(self, console: Any, serves: Callable[[str], list[str]]) -> None:
        """Print each study, of the named ones if any were, with its runs, claims (``serves``) and measured cost here.

        A few steps of each network are timed, with the threads that a run of the pool has.
        """
        import torch

        from icsbench.training.cost import seconds_of_run
        from icsbench.training.environment import dataset_of

        default = AFFORDS.get(self.scale, _studies())
        timed: dict[str, float] = {}
        for study in self.studies if self.named else _studies():
            try:
                with _asking_hydra():
                    jobs, processes = _jobs([f"experiment={study}", *self.overrides])
                if processes > 1:
                    torch.set_num_threads(1)
                seconds = 0.0
                for config, count in jobs:
                    key = repr(sorted(item for item in config.identity().items() if item[0] != "optim.lr"))
                    if key not in timed:
                        timed[key] = seconds_of_run(config, dataset_of(config))
                    seconds += count * timed[key]
                cost = _duration(seconds / processes)
                runs = str(sum(count for _, count in jobs))
            except IcsbenchError as error:
                cost, runs = f"cannot be said ({error})", "?"
            served = ", ".join(serves(study)) or "none"
            mark = "*" if study in default else " "
            line = f"{mark} {study:<14} {runs:>3} runs, {cost:<10} claims {served}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(
            f"* run by icsbench reproduce scale={self.scale} without names; times are for all runs, measured on a few "
            "steps of each network",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def plan_of(arguments: list[str]) -> Plan:
    """The plan for names of studies and overrides, in any order.

    :raises IcsbenchError: a study that is not there, a flag, overrides that name several results folders or scales, or
        that do not fit a study.
    """
    for argument in arguments:
        if argument.startswith("-"):
            raise IcsbenchError(f"reproduce takes names of studies and overrides; {argument} goes with icsbench sweep")
        if re.match(r"\+*experiment=", argument):
            study = argument.partition("=")[2]
            raise IcsbenchError(f"reproduce takes the names of studies as they are: icsbench reproduce {study}")
        if argument.startswith("scale=") and _sweeps(argument):
            raise IcsbenchError(f"{argument} names several; a report is on one scale")
    names = [argument for argument in arguments if re.fullmatch(r"[\w-]*", argument)]
    overrides = as_typed([argument for argument in arguments if argument not in names])
    for name in names:
        if name not in _studies():
            close = difflib.get_close_matches(name, _studies(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_studies())}"
            raise IcsbenchError(f"no study {name!r}; {hint}")
    with _asking_hydra():
        config = _composed([a for a in overrides if re.match(r"\+*(results|scale)=", a)])
        studies = tuple(dict.fromkeys(names)) or AFFORDS.get(config.scale, _studies())
    refused = {study: line for study in studies if (line := _refusal([f"experiment={study}", *overrides]))}
    if refused:
        study, line = next(iter(refused.items()))
        if len(refused) < len(studies):
            raise IcsbenchError(f"study {study}: {line}; name those it is for")
        raise IcsbenchError(line if line == _refusal(overrides) else f"study {study}: {line}")
    return Plan(studies, tuple(overrides), Path(config.results), config.scale, bool(names))


def _studies() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")))


def _grid(overrides: list[str]) -> tuple[list[str], dict[str, list[str]], DictConfig]:
    """What the jobs of a sweep share, the values of each key that they differ in, and the launcher.

    To be called where Hydra is initialised. A key that a sweeper draws from an interval is in neither.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    fixed = [override for override in overrides if not _sweeps(override)]
    composed = hydra.compose("train", fixed, return_hydra_config=True)
    params = [f"{key}={values}" for key, values in (composed.hydra.sweeper.params or {}).items()]
    last = {parsed.get_key_element(): parsed for parsed in parser.parse_overrides([*params, *overrides])}
    mine = {parsed.get_key_element() for parsed in parser.parse_overrides(fixed)}
    swept = {
        key: [*map(str, parsed.sweep_string_iterator())]
        if parsed.is_sweep_override()
        else [parsed.get_value_element_as_str()]
        for key, parsed in last.items()
        if (parsed.is_discrete_sweep() if parsed.is_sweep_override() else key not in mine)
    }
    return fixed, swept, composed.hydra.launcher


def _jobs(overrides: list[str]) -> tuple[list[tuple[Config, int]], int]:
    """What a sweep trains: configurations that differ in more than seed and learning rate, each with the number of its
    runs; and how many processes there are for them.
    """
    with _initialised():
        fixed, values, launcher = _grid(overrides)
        alike = math.prod(len(values.pop(key, [""])) for key in ("seed", "optim.lr"))
        jobs = [
            (resolve(hydra.compose("train", [*fixed, *(f"{k}={v}" for k, v in zip(values, job, strict=True))])), alike)
            for job in itertools.product(*values.values())
        ]
        processes = int(launcher.get("n_jobs", 1))
    return jobs, processes if processes > 0 else os.cpu_count() or 1


def _refusal(overrides: list[str]) -> str | None:
    """The line with which a sweep is refused, None where it can be configured."""
    try:
        with _asking_hydra():
            _check_sweep(overrides)
    except IcsbenchError as error:
        return str(error)
    return None


def _check_sweep(overrides: list[str]) -> None:
    """Refuse what a sweep could not configure, before its first job: every combination of options, and every value."""
    with _initialised():
        fixed, swept, _ = _grid(overrides)
        options = [[f"{key}={v}" for v in values] for key, values in swept.items() if (CONFIG_DIR / key).is_dir()]
        values = {key: of for key, of in swept.items() if not ((CONFIG_DIR / key).is_dir() or key.startswith("hydra"))}
        firsts = [f"{key}={of[0]}" for key, of in values.items()]
        composed = [hydra.compose("train", [*fixed, *job, *firsts]) for job in itertools.product(*options)]
        for configuration in composed:
            resolve(configuration)
        for key, of in values.items():
            for value in of[1:]:
                one = copy.deepcopy(composed[0])
                override = OverridesParser.create().parse_override(f"{key}={value}")
                OmegaConf.update(one, override.key_or_group, override.value())
                resolve(one)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def check_theorems_of(overrides: list[str], out: Path | None) -> None:
    """Check the theorems on the network of one run: untrained, then as the run leaves it, which is made if need be.

    Prints both reports and writes them to the CSV file ``out`` (default: ``theorems.csv`` in the run's folder).

    :raises IcsbenchError: the overrides, the data, the run or the file, in one line; or the run diverged.
    """
    with _asking_hydra():
        overrides = as_typed(overrides)
        for several in filter(_sweeps, overrides):
            raise IcsbenchError(f"{several} names several networks; give one")
        config = _composed(overrides)
    if config.norm.name not in ("bn", "noisy_bn"):
        raise IcsbenchError(
            f"norm={config.norm.name} has no batch normalization, which the theorems are about; "
            "choose norm=bn or norm=noisy_bn"
        )
    if out is not None and out.is_dir():
        raise IcsbenchError(f"{out} is a folder; --out names a CSV file")
    import torch
    from rich.console import Console

    from icsbench import training
    from icsbench.labs.theorems import check_theorems, print_report, rows
    from icsbench.training import checkpoint
    from icsbench.training.environment import dataset_of
    from icsbench.training.task import Task

    cpu = torch.device("cpu")  # float64 is slow on most GPUs and missing on some
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    dataset = dataset_of(config)
    batch = Task(config, dataset, cpu)
    inputs, targets = batch.batches(0)
    network = training.build_model(config, dataset.num_classes)
    initial = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    told: list[dict[str, Any]] = []

    def tell(name: str, step: int) -> None:
        reports = check_theorems(network, batch.loss, inputs, targets, initial=initial, seed=config.seed)
        title = f"{config.run_name}, seed {config.seed}, {dataset.label}: {name} (step {step}), batch of {len(inputs)}"
        print_report(Console(), title, reports)
        said = {"run": config.run_name, "seed": config.seed, "data": dataset.label, "network": name, "step": step}
        told.extend(said | row for row in rows(reports))

    tell("untrained", 0)
    who = _who(config)
    summary = training.run(config, show=_Lines(who, config.steps, parent=None))
    _say(f"{who}: {_describe(summary)}; record {folder_of(config)}")
    if summary["diverged_at"] is not None:
        raise IcsbenchError(f"{folder_of(config)} diverged, so there is no trained network; try a smaller optim.lr")
    path = folder_of(config) / "checkpoint.pt"
    if not path.exists():
        raise IcsbenchError(f"{path} is missing; delete the folder to train the run again")
    network.load_state_dict(checkpoint.load(path, config, cpu)["model"])
    print()
    tell("trained", summary["steps"])

    text = io.StringIO()
    table = csv.DictWriter(text, [*told[0]], lineterminator="\n")
    table.writeheader()
    table.writerows(told)
    out = out or folder_of(config) / "theorems.csv"
    write_atomically(out, lambda file: file.write(text.getvalue().encode()))
    print(f"written to {out}")


def _composed(overrides: list[str]) -> Config:
    with _initialised():
        return resolve(hydra.compose("train", overrides))


def _initialised() -> contextlib.AbstractContextManager[Any]:
    return hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3")


def _who(config: Config) -> str:
    return f"{config.norm.name} lr {config.optim.lr:g} seed {config.seed}"


def _sweeps(override: str) -> bool:
    return OverridesParser.create().parse_overrides([override])[0].is_sweep_override()


def as_typed(arguments: list[str]) -> list[str]:
    """The arguments as Hydra reads them, where its grammar would take what was typed for something else.

    A folder, and the names that W&B is given, are taken as they stand, whatever characters they hold: none of them is
    swept over. Quotes and interpolations keep their meaning. ``experiment=NAME`` with a name that no study has names
    the folder of the records; one that looks like a study's is refused, unless it is forced by ``++experiment=NAME``.
    A shell leaves the ~ of ``key=~/folder`` alone, and to Hydra it means deletion.

    :raises IcsbenchError: such a name, or a ~ where there is no home directory.
    """
    return [_as_typed(argument) for argument in arguments]


def _as_typed(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals:
        return argument
    if value.startswith("~"):
        value = os.path.expanduser(value)
        if Path(value).is_relative_to(terminal.NO_HOME):
            raise IcsbenchError(f"{argument}: there is no home directory here; name the folder in full")
    name = key.lstrip("+")
    if value == "???":
        raise IcsbenchError(f"{argument}: this is how Hydra writes a value that is missing; give another")
    if name in _FREE_TEXT:
        value = _quoted(value)
    elif name == "experiment" and value.lower() != "null" and "${" not in value:
        parsed = _parsed(value)
        if parsed is None or not parsed.is_sweep_override():
            value = _quoted(value)
            chosen = [OverridesParser.create().parse_override(f"experiment={value}").value()]
        else:
            sweep = parsed.value()
            chosen = sweep.list if isinstance(sweep, ChoiceSweep) else []
        for choice in chosen:
            _name_folder(choice.text if isinstance(choice, QuotedString) else str(choice), forced=key == "++experiment")
        key = key.removeprefix("++")
    return f"{key}={value}"


def _parsed(value: str) -> Override | None:
    with contextlib.suppress(HydraException):
        return OverridesParser.create().parse_override(f"key={value}")
    return None


def _quoted(value: str) -> str:
    """``value`` in quotes, unless it is, or stands for nothing."""
    parsed = _parsed(value)
    if value == "" or (parsed is not None and (parsed.value() is None or isinstance(parsed._value, QuotedString))):
        return value
    return QuotedString(value, Quote.double).with_quotes()


def _name_folder(name: str, forced: bool) -> None:
    """Make ``name`` an option of the group ``experiment`` that sets the folder alone, unless a study has the name."""
    if name in _studies():
        return
    if not name or "/" in name or name.startswith("."):
        raise IcsbenchError(f"experiment must be a plain folder name (got {name!r})")
    close = difflib.get_close_matches(name.lower().replace("-", "_"), _studies(), n=1, cutoff=0.75)
    if close and not forced:
        raise IcsbenchError(
            f"no study is called {name!r}; did you mean experiment={close[0]}? "
            f"{shlex.quote(f'++experiment={name}')} takes it for a name of your own"
        )
    ConfigStore.instance().store(name, {"experiment": name}, group="experiment", package="_global_")
    _say(f"icsbench: no study is called {name!r}, so it only names the folder of the records")


@contextlib.contextmanager
def _asking_hydra() -> Iterator[None]:
    """Turn what Hydra raises about the arguments into one line; with HYDRA_FULL_ERROR=1 leave it as it is.

    The names of folders that :func:`as_typed` made known to Hydra are forgotten at the end.
    """
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed
    try:
        yield
    except Exception as error:
        if before == "1" or not _of_hydra(error):
            raise
        raise IcsbenchError(_one_line(error)) from error
    finally:
        ConfigStore.instance().repo.pop("experiment", None)
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _of_hydra(error: BaseException) -> bool:
    raised_by = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return any(name.startswith(("hydra.", "omegaconf.")) for name in (type(error).__module__, raised_by))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return unknown_key(unknown[1])
    override = getattr(error, "override", None)
    if "missing EQUAL" in text:
        return f"'{override}' is not an override; they are key=value, such as seed=3"
    if override and override not in text:
        text = f"Error parsing override '{override}': {text}"
    several = re.match(r"Ambiguous value for argument '([^']+)'|Sweep parameters '([^']+)' requires", text)
    if several:
        return f"'{several[1] or several[2]}' gives several values, which is for icsbench sweep (or --multirun)"
    text = re.split(r" Config search path:| See https:| Set the environment variable", text)[0]
    missing = re.search(r"Could not find '([\w/]+)/([^/']+)' Available options in '[^']+': (.+)", text)
    if missing:
        close = difflib.get_close_matches(missing[2], missing[3].split(), n=1)
        text += f"; did you mean {missing[1]}={close[0]}?" if close else ""
    return text


def _describe(summary: dict[str, Any]) -> str:
    if not summary["test/accuracy"]:
        diverged = summary["diverged_at"]
        return ("complete" if diverged is None else f"diverged at step {diverged}") + (
            f", train loss {summary['train/loss']:.4g}"
        )
    protocol, accuracy = next(iter(summary["test/accuracy"].items()))
    said = f"train accuracy {summary['train/accuracy']:.1%}, test accuracy {accuracy:.1%} ({protocol})"
    if summary["outcome"] == "diverged":
        return f"diverged at step {summary['diverged_at']}, {said}"
    if summary["outcome"] == "chance":
        return f"{'never left' if summary['left_chance_at'] is None else 'fell back to'} chance, {said}"
    return f"complete, {said}"


class _Lines:
    """Progress as lines on stderr, one every few seconds; in a pool, the end of the run where the sweep has died."""

    def __init__(self, who: str, steps: int, parent: int | None) -> None:
        self._who = who
        self._steps = steps
        self._parent = parent
        self._next = time.monotonic() + _SHOW_EVERY

    def __call__(self, progress: Any) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            os.kill(os.getpid(), signal.SIGTERM)  # training ends with a checkpoint, as when it is asked to stop
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SHOW_EVERY
        accuracy = "" if progress.accuracy is None else f"train accuracy {progress.accuracy:.1%}, "
        _say(
            f"{self._who}: step {progress.step}/{self._steps}, loss {progress.loss:.4g}, {accuracy}"
            f"{progress.samples_per_second:,.0f} samples/s"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
