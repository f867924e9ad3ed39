"""The Hydra application behind ``icsbench train`` and ``icsbench sweep``, and what else takes their overrides."""

import contextlib
import csv
import difflib
import io
import itertools
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from icsbench.atomic import write_atomically
from icsbench.config import Config, resolve, unknown_key
from icsbench.errors import IcsbenchError

_HERE = Path(__file__).resolve().parent
CONFIG_DIR = next(path for path in (_HERE / "configs", _HERE.parent / "configs") if (path / "train.yaml").is_file())

_SHOW_EVERY = 10.0  # seconds between progress lines


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
    try:
        config = resolve(composed)
        from icsbench import training

        in_pool = multirun and "joblib" in hydra_config.launcher["_target_"].lower()
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
        error_file.write_text(job)
        return None
    _say(f"{who}: {_describe(summary)}; record {config.run_dir}")
    return next(iter(summary["val/accuracy"].values()), None)


class SweepOutcome(Callback):
    """Gathers the error lines of a sweep's jobs, whatever process or machine ran them, and tidies up behind it."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Read what the failed jobs left in the sweep's folder; remove the folder where there is nothing to keep."""
        folder = Path(config.hydra.sweep.dir)
        left = sorted(folder.glob("*.error"), key=lambda path: int(path.stem))
        failures.extend(path.read_text() for path in left)
        if not left:
            (folder / "multirun.yaml").unlink(missing_ok=True)
            for empty in [*(path for path in folder.iterdir() if path.is_dir()), folder, folder.parent]:
                with contextlib.suppress(OSError):  # what a launcher left there stays
                    empty.rmdir()


def launch(arguments: list[str]) -> None:
    """Hand ``arguments`` (overrides and Hydra flags) to Hydra, as if they had been typed behind its own command.

    :raises IcsbenchError: the arguments or a job failed; one line per failed job.
    """
    failures.clear()
    argv = sys.argv
    # Hydra finds overrides only where they stand side by side, so the flags (and their values) go behind them.
    at_home = _expanded(arguments)
    sys.argv = ["icsbench", *sorted(at_home, key=lambda a: a.startswith("-") or not re.match(r"~|[^=]*=", a))]
    try:
        with _errors_of_hydra():
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
                with _errors_of_hydra():
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
        if argument.startswith("experiment="):
            study = argument.partition("=")[2]
            raise IcsbenchError(f"reproduce takes the names of studies as they are: icsbench reproduce {study}")
        if argument.startswith(("results=", "scale=")) and _sweeps(argument):
            raise IcsbenchError(f"{argument} names several; a report is on one folder of records and one scale")
    names = [argument for argument in arguments if re.fullmatch(r"[\w-]*", argument)]
    overrides = [argument for argument in arguments if argument not in names]
    for name in names:
        if name not in _studies():
            close = difflib.get_close_matches(name, _studies(), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_studies())}"
            raise IcsbenchError(f"no study {name!r}; {hint}")
    with _errors_of_hydra():
        config = _composed([a for a in overrides if a.startswith(("results=", "scale="))])
        studies = tuple(dict.fromkeys(names)) or AFFORDS.get(config.scale, _studies())
        fixed = [override for override in overrides if not _sweeps(override)]
        refused: dict[str, IcsbenchError] = {}
        for study in studies:
            try:
                _composed([f"experiment={study}", *fixed])
            except IcsbenchError as error:
                refused[study] = error
        if refused:
            study, error = next(iter(refused.items()))
            of_all = "unknown key" in str(error)
            hint = "; name those it is for" if len(refused) < len(studies) else ""
            raise IcsbenchError(str(error) if of_all else f"study {study}: {error}{hint}") from error
    return Plan(studies, tuple(overrides), Path(config.results), config.scale, bool(names))


def _studies() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")))


def _jobs(overrides: list[str]) -> tuple[list[tuple[Config, int]], int]:
    """What a sweep trains: configurations that differ in more than seed and learning rate, each with the number of its
    runs; and how many processes there are for them.
    """
    parser = OverridesParser.create()
    mine = {parsed.key_or_group: override for override in overrides for parsed in [parser.parse_override(override)]}
    fixed = [override for override in overrides if not _sweeps(override)]
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = hydra.compose("train", fixed, return_hydra_config=True)
        swept = {
            **{str(key): f"{key}={values}" for key, values in (composed.hydra.sweeper.params or {}).items()},
            **{key: override for key, override in mine.items() if _sweeps(override)},
        }
        swept = {key: override for key, override in swept.items() if key not in mine or _sweeps(mine[key])}
        values = {key: _values(parser.parse_override(override)) for key, override in swept.items()}
        alike = math.prod(len(values.pop(key, [""])) for key in ("seed", "optim.lr"))
        jobs = [
            (resolve(hydra.compose("train", [*fixed, *(f"{k}={v}" for k, v in zip(values, job, strict=True))])), alike)
            for job in itertools.product(*values.values())
        ]
        processes = int(composed.hydra.launcher.get("n_jobs", 1))
    return jobs, processes if processes > 0 else os.cpu_count() or 1


def _values(override: Any) -> list[str]:
    return [*map(str, override.sweep_string_iterator())] if override.is_sweep_override() else [override.value()]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def check_theorems_of(overrides: list[str], out: Path | None) -> None:
    """Check the theorems on the network of one run: untrained, then as the run leaves it, which is made if need be.

    Prints both reports and writes them to the CSV file ``out`` (default: ``theorems.csv`` in the run's folder).

    :raises IcsbenchError: the overrides, the data, the run or the file, in one line; or the run diverged.
    """
    with _errors_of_hydra():
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
    network = training.build_model(config, dataset.num_classes, dataset.train.images[0].numel())
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
    _say(f"{who}: {_describe(summary)}; record {config.run_dir}")
    if summary["diverged_at"] is not None:
        raise IcsbenchError(f"{config.run_dir} diverged, so there is no trained network; try a smaller optim.lr")
    path = config.run_dir / "checkpoint.pt"
    if not path.exists():
        raise IcsbenchError(f"{path} is missing; delete the folder to train the run again")
    network.load_state_dict(checkpoint.load(path, config, cpu)["model"])
    print()
    tell("trained", summary["steps"])

    text = io.StringIO()
    table = csv.DictWriter(text, [*told[0]], lineterminator="\n")
    table.writeheader()
    table.writerows(told)
    out = out or config.run_dir / "theorems.csv"
    write_atomically(out, lambda file: file.write(text.getvalue().encode()))
    print(f"written to {out}")


def _composed(overrides: list[str]) -> Config:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return resolve(hydra.compose("train", _expanded(overrides)))


def _who(config: Config) -> str:
    return f"{config.norm.name} lr {config.optim.lr:g} seed {config.seed}"


def _sweeps(override: str) -> bool:
    return OverridesParser.create().parse_overrides([override])[0].is_sweep_override()


def _expanded(arguments: list[str]) -> list[str]:
    """A shell leaves the ~ of ``key=~/folder`` alone, and to Hydra it means deletion."""
    return [re.sub(r"(?<==)~(?=/|$)", str(Path.home()), argument) for argument in arguments]


@contextlib.contextmanager
def _errors_of_hydra() -> Iterator[None]:
    """Turn what Hydra raises about the arguments into one line; with HYDRA_FULL_ERROR set, leave it as it is."""
    full_errors = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed
    try:
        yield
    except Exception as error:
        if full_errors or not _of_hydra(error):
            raise
        raise IcsbenchError(_one_line(error)) from error
    finally:
        if full_errors is None:
            del os.environ["HYDRA_FULL_ERROR"]


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
    return re.split(r" Config search path:| See https:| Set the environment variable", text)[0]


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
