"""Where a run takes place: device, threads and determinism, and what is noted of them in its record."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import icsbench
from icsbench.config import Config, load_config
from icsbench.data import Dataset, load_dataset
from icsbench.errors import IcsbenchError
from icsbench.record import Record


def dataset_of(config: Config) -> Dataset:
    """The data of a run."""
    data = config.data
    return load_dataset(data.name, data.root, data.val_size, binary=data.binary, seed=config.seed)


def settle_environment(config: Config, record: Record, dataset: Dataset, threads: int | None) -> dict[str, Any]:
    """Set device, threads and determinism: those the record began with, so that a resumed run stays the same run."""
    begun = record.read_json("environment.json")
    if begun is not None and not (record.path / "checkpoint.pt").exists():
        begun = None
    device = choose_device(config.device)
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
        "commit": commit(),
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


def choose_device(name: str) -> torch.device:
    """The device of a config. Raises IcsbenchError where it cannot be used here."""
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
    models = re.findall(r"model name\s*: (.*)", cpus.read_text("utf-8", "replace")) if cpus.exists() else []
    return models[0] if models else platform.processor()


def refuse_other_data(config: Config, record: Record) -> None:
    """A complete run is skipped only if it was made from the data that ``data.root`` now names."""
    if load_config(record.path / "config.yaml").data.root == config.data.root:
        return
    dataset = dataset_of(config)
    begun = record.read_json("environment.json")
    if begun is not None and begun["data"]["fingerprint"] != dataset.fingerprint:
        raise IcsbenchError(_other_data(record.path, begun["data"], dataset))


def _other_data(path: Path, theirs: dict[str, Any], dataset: Dataset) -> str:
    return (
        f"{path} was made from other data ({theirs['label']} {theirs['fingerprint']}, "
        f"not {dataset.label} {dataset.fingerprint}); choose another folder with results=DIR"
    )


def commit() -> str | None:
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
