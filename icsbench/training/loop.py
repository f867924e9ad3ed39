"""The training loop of one run, from its config to its record."""

import errno
import math
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import icsbench
from icsbench.config import Config, load_config
from icsbench.data import Batches, Dataset, Split, channel_statistics, load_dataset, normalise
from icsbench.errors import IcsbenchError
from icsbench.models import VGG
from icsbench.norms import build_norm, noise_modules
from icsbench.probes import ShiftProbe
from icsbench.probes.shift import is_scheduled
from icsbench.record import Record
from icsbench.streams import stream_seed
from icsbench.tracking import Mirror
from icsbench.training import checkpoint
from icsbench.training.evaluation import Protocol, evaluate, protocols_of

LEFT_CHANCE = 2.0
"""A network is at chance while its ``train/accuracy`` is below this many times 1 / number of classes."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or a termination signal) and has written its checkpoint."""


class Progress(NamedTuple):
    """What is known of a running run at some step, for whoever shows it."""

    step: int
    loss: float
    accuracy: float
    images_per_second: float


def build_model(config: Config, num_classes: int) -> VGG:
    """The network of a config, initialised from the run's "init" stream, on the CPU."""

    def make_norm(features: int, dimensions: int) -> nn.Module:
        return build_norm(num_features=features, dimensions=dimensions, **asdict(config.norm))

    with torch.random.fork_rng(devices=[]):
        return VGG(num_classes=num_classes, make_norm=make_norm, seed=config.seed, **asdict(config.model))


def run(
    config: Config, *, threads: int | None = None, show: Callable[[Progress], None] = lambda _: None
) -> dict[str, Any]:
    """Train one run to completion, or go on where it stopped; a complete one is left alone.

    :param threads: CPU threads where neither the config nor an earlier part of this run says.
    :param show: called after every row of training metrics.
    :returns: the run's summary.
    :raises IcsbenchError: the data, the record or the checkpoint cannot be used, in one line.
    :raises Interrupted: stopped by a signal; the same call goes on from there.
    """
    with Record(config) as record:
        summary = record.summary
        if summary is not None:
            _refuse_other_data(config, record)
            return summary
        try:
            (record.path / "failure.json").unlink(missing_ok=True)
            return _train(config, record, threads, show)
        except Interrupted:
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            line = f"{error.filename or record.path}: {error.strerror or error}; " + (
                "free some space and run the same command again"
                if full
                else "put that right and run the same command again"
            )
            _note_failure(record, line)
            raise IcsbenchError(line) from error
        except Exception as error:
            _note_failure(
                record, f"{type(error).__name__}: {error}" if not isinstance(error, IcsbenchError) else str(error)
            )
            raise


def _train(config: Config, record: Record, threads: int | None, show: Callable[[Progress], None]) -> dict[str, Any]:
    dataset = load_dataset(config.data.name, config.data.root, config.data.val_size)
    environment = _settle_environment(config, record, dataset, threads)
    device = torch.device(environment["device"])
    mean, std = channel_statistics(dataset.train.images)
    batches = Batches(
        dataset.train,
        config.batch_size,
        config.seed,
        flip=config.data.flip,
        crop=config.data.crop,
        mean=mean,
        std=std,
        device=device,
    )
    mean, std = mean.float().to(device), std.float().to(device)
    evaluated = {
        name: Split(split.images.to(device), split.labels.to(device))
        for name, split in (("test", dataset.test), ("val", dataset.val))
    }
    model = build_model(config, dataset.num_classes).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    noise = torch.Generator(device).manual_seed(stream_seed(config.seed, "noise"))
    for module in noise_modules(model):
        module.generator = noise
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.optim.lr,
        momentum=config.optim.momentum,
        weight_decay=config.optim.weight_decay,
    )
    probe = _build_probe(config, model, dataset, mean, std)
    forward = torch.compile(model) if config.compile else model
    autocast = torch.autocast(device.type, torch.bfloat16) if config.amp else nullcontext()
    protocols = protocols_of(config.norm.name)
    chance = 1 / dataset.num_classes

    def measure(protocol: Protocol, split: str) -> float:
        with autocast:
            return evaluate(
                model,
                evaluated[split],
                protocol,
                batch_size=config.batch_size,
                mean=mean,
                std=std,
                seed=config.seed,
                recalibration=(batches(i)[0] for i in range(config.recalibration_batches)),
            )

    losses = torch.zeros(config.log_every, device=device)
    correct = torch.zeros(config.log_every, device=device)
    start, seconds, rows_from = 0, 0.0, 0
    outcome: dict[str, Any] = {"diverged_at": None, "left_chance_at": None}
    path = record.path / "checkpoint.pt"
    if path.exists():
        state = checkpoint.load(path, config, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        noise.set_state(state["noise"].cpu())
        if probe is not None and state["probe"] is not None:
            probe.load_state_dict(state["probe"])
        losses.copy_(state["losses"])
        correct.copy_(state["correct"])
        start, rows_from, outcome, position = state["step"], state["rows_from"], state["outcome"], state["position"]
        record.rewind(position)
        seconds = (record.read_json("timing.json") or {"seconds": 0.0})["seconds"]
    else:
        record.rewind(0)

    mirror = Mirror(config, record.path)
    began = time.perf_counter()

    def save(step: int) -> None:
        state = {
            "step": step,
            "rows_from": rows_from,
            "position": record.position(),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "noise": noise.get_state(),
            "losses": losses,
            "correct": correct,
            "outcome": outcome,
            "probe": probe.state_dict() if probe is not None else None,
        }
        checkpoint.save(path, config, state)
        record.write_json("timing.json", {"seconds": seconds + time.perf_counter() - began})

    def write(row: dict[str, Any], histograms: dict | None = None) -> None:
        record.append(row)
        mirror.log(row, histograms)

    # Followed along the way: the customary protocol, and where noise is trained with, the protocol of training itself.
    followed = [protocols[0], protocols[-1]] if protocols[-1].noise else [protocols[0]]

    def curve_row(step: int, accuracies: dict[str, float]) -> dict[str, Any]:
        row = {"step": step, "test/accuracy": accuracies[str(protocols[0])]}
        return row | {f"test/accuracy/{p}": accuracies[str(p)] for p in followed[1:]}

    def watch(step: int) -> None:
        if probe is not None and is_scheduled(step, config.probes.every):
            with autocast:
                row, arrays = probe(step)
            if step == 0:
                record.write_json("probes/shift/layers.json", probe.layers())
            record.write_arrays(f"probes/shift/step-{step:08d}.npz", arrays)
            histograms = {
                f"activations/{layer['layer']}": (counts, edges)
                for layer, counts, edges in zip(
                    probe.layers(),
                    arrays["histogram_counts_preactivation"],
                    arrays["histogram_edges_preactivation"],
                    strict=True,
                )
            }
            if row:
                record.append({"step": step, **row})
            mirror.log({"step": step, **row}, histograms)
        if step % config.eval_every == 0 and step < config.steps:
            write(curve_row(step, {str(p): measure(p, "test") for p in followed}))

    summary = None
    done = start
    try:
        with _stop_signals() as stopped:
            if start == 0:
                watch(0)
            model.train()
            since = time.perf_counter()
            for step in range(start, config.steps if outcome["diverged_at"] is None else start):
                inputs, targets = batches(step)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, step)
                optimizer.zero_grad(set_to_none=True)
                with autocast:
                    logits = forward(inputs)
                    loss = F.cross_entropy(logits.float(), targets)
                loss.backward()
                optimizer.step()
                slot = step - rows_from
                losses[slot] = loss.detach()
                correct[slot] = (logits.detach().argmax(1) == targets).sum()
                done = step + 1

                if done % config.log_every == 0 or done == config.steps:
                    count = done - rows_from
                    window = losses[:count].tolist()
                    accuracy = correct[:count].mean().item() / config.batch_size
                    row = {"step": done, "train/loss": math.fsum(window) / count, "train/accuracy": accuracy}
                    write({**row, "lr": learning_rate(config, step)})
                    rate = count * config.batch_size / (time.perf_counter() - since)
                    since = time.perf_counter()
                    show(Progress(done, row["train/loss"], accuracy, rate))
                    if outcome["left_chance_at"] is None and accuracy >= LEFT_CHANCE * chance:
                        outcome["left_chance_at"] = done
                    bad = [i for i, value in enumerate(window) if not math.isfinite(value)]
                    if bad:
                        outcome["diverged_at"] = rows_from + bad[0]
                    outcome["train/loss"], outcome["train/accuracy"] = row["train/loss"], accuracy
                    rows_from = done
                    if bad:
                        break
                watch(done)
                if stopped:
                    save(done)
                    raise Interrupted(f"stopped by {stopped[0]} at step {done}")
                if done % config.checkpoint_every == 0 and done < config.steps:
                    save(done)

        accuracies = {split: {str(p): measure(p, split) for p in protocols} for split in ("test", "val")}
        probe = None  # its state is of no more use
        save(done)
        write(curve_row(done, accuracies["test"]))
        result = {"status": "complete", "outcome": _outcome(outcome, chance), **outcome, "steps": done}
        result |= {f"{split}/accuracy": accuracies[split] for split in accuracies}
        record.write_json("summary.json", result)
        summary = result
        return summary
    finally:
        mirror.finish(summary)


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of the update after ``step`` updates: constant, or ``lr/2 (1 + cos(pi step / steps))``."""
    if config.optim.schedule == "constant":
        return config.optim.lr
    return config.optim.lr / 2 * (1 + math.cos(math.pi * step / config.steps))


def _outcome(outcome: dict[str, Any], chance: float) -> str:
    if outcome["diverged_at"] is not None:
        return "diverged"
    return "trained" if outcome["train/accuracy"] >= LEFT_CHANCE * chance else "chance"


def _build_probe(config: Config, model: VGG, dataset: Dataset, mean: Tensor, std: Tensor) -> ShiftProbe | None:
    if not config.probes.shift:
        return None
    size, available = config.probes.batch_size, len(dataset.train.labels)
    if size > available:
        raise IcsbenchError(f"probes.batch_size is {size}, more than the {available} training images")
    generator = torch.Generator().manual_seed(stream_seed(config.seed, "probe"))
    chosen = torch.randperm(available, generator=generator)[:size]
    inputs = normalise(dataset.train.images[chosen].to(mean.device), mean, std)
    return ShiftProbe(model, model.layers(), inputs, samples=config.probes.samples, seed=config.seed)


def _settle_environment(config: Config, record: Record, dataset: Dataset, threads: int | None) -> dict[str, Any]:
    """Set device, threads and determinism: those the record began with, so that a resumed run stays the same run."""
    begun = record.read_json("environment.json")
    if begun is not None and not (record.path / "checkpoint.pt").exists():
        begun = None
    device = _choose_device(config.device)
    if begun is not None:
        if begun["data"]["fingerprint"] != dataset.fingerprint:
            raise IcsbenchError(_other_data(record.path, begun["data"], dataset))
        if torch.device(begun["device"]).type != device.type:
            raise IcsbenchError(
                f"{record.path} was begun on {begun['device']} and cannot go on bit-identically on {device}; "
                f"use device={begun['device']} or choose another folder with results=DIR"
            )
        if begun["torch"] != torch.__version__:
            print(
                f"icsbench: {record.path} was begun with torch {begun['torch']}, this is {torch.__version__}: "
                "the record goes on, but not bit-identically",
                file=sys.stderr,
            )
    count = config.threads or threads or _cores()
    if begun is not None:
        if config.threads not in (None, begun["threads"]):
            print(f"icsbench: {record.path} goes on with the {begun['threads']} threads it began with", file=sys.stderr)
        count = begun["threads"]
    torch.set_num_threads(count)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.deterministic = config.deterministic
    environment = {
        "icsbench": icsbench.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
        "device": str(device),
        "device_name": _device_name(device),
        "threads": count,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "data": {
            "name": dataset.name,
            "label": dataset.label,
            "fingerprint": dataset.fingerprint,
            "num_classes": dataset.num_classes,
            "train": len(dataset.train.labels),
            "val": len(dataset.val.labels),
            "test": len(dataset.test.labels),
        },
    }
    if begun is None:
        record.write_json("environment.json", environment)
    return begun or environment


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise IcsbenchError(f"device={name} cannot be used here; use device=auto or device=cpu") from error
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpus.read_text()) if cpus.exists() else []
    return models[0] if models else platform.processor()


def _refuse_other_data(config: Config, record: Record) -> None:
    """A complete run is skipped only if it was made from the data that ``data.root`` now names."""
    if load_config(record.path / "config.yaml").data.root == config.data.root:
        return
    dataset = load_dataset(config.data.name, config.data.root, config.data.val_size)
    begun = record.read_json("environment.json")
    if begun is not None and begun["data"]["fingerprint"] != dataset.fingerprint:
        raise IcsbenchError(_other_data(record.path, begun["data"], dataset))


def _other_data(path: Path, theirs: dict[str, Any], dataset: Dataset) -> str:
    return (
        f"{path} was made from other data ({theirs['label']} {theirs['fingerprint']}, "
        f"not {dataset.label} {dataset.fingerprint}); choose another folder with results=DIR"
    )


def _commit() -> str | None:
    """Commit of the source tree this package runs from, with ``+`` where it has uncommitted changes."""
    package = Path(icsbench.__file__)
    git = ["git", "-C", str(package.parent)]
    try:
        # Installed into a folder of somebody's own repository, the package is none of its files.
        subprocess.run([*git, "ls-files", "--error-unmatch", package.name], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def _note_failure(record: Record, line: str) -> None:
    try:
        record.write_json("failure.json", {"error": line})
    except OSError:
        print(f"icsbench: {record.path}: the failure could not be noted there", file=sys.stderr)


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM, so that the loop can stop between two steps; a second one stops at once."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
