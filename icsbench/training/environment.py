"""Where a run takes place: device, threads and determinism, and what is noted of them in its record."""

import ctypes
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import icsbench
from icsbench.config import Config
from icsbench.data import Dataset, load_dataset
from icsbench.errors import IcsbenchError
from icsbench.machine import cores, processor, system
from icsbench.members import member
from icsbench.models import Model
from icsbench.norms import Norm
from icsbench.record.legacy import probed_under_autocast
from icsbench.record.schema import CHECKPOINT, CONFIG, ENVIRONMENT
from icsbench.record.writer import Record, load_config
from icsbench.source import commit


def dataset_of(config: Config) -> Dataset:
    """The data of a run."""
    data = config.data
    return load_dataset(data.name, data.root, data.val_size, binary=data.binary, seed=config.seed)


def settle_environment(config: Config, record: Record, dataset: Dataset, threads: int | None) -> dict[str, Any]:
    """Set device, threads and determinism: those the record began with, so that a resumed run stays the same run.

    :param threads: CPU threads where neither the config nor the record says.
    :returns: what ``environment.json`` holds.
    :raises IcsbenchError: the device cannot be used, or the record was begun with other data or on another device.
    """
    begun = record.read_json(ENVIRONMENT) if (record.path / CHECKPOINT).exists() else None
    device = choose_device(config.device)
    if begun is not None:
        _refuse_other_beginning(config, record, dataset, device, begun)
    if config.amp and device.type == "cpu" and _has_bfloat16() is False:
        print(
            "icsbench: this CPU has no bfloat16 instructions (avx512_bf16, amx_bf16, or bf16 of ARM): amp=true works, "
            "but is slower than amp=false",
            file=sys.stderr,
        )
    count = begun["threads"] if begun is not None else config.threads or threads or cores()
    if config.threads not in (None, count):
        print(f"icsbench: {record.path} goes on with the {count} threads it began with", file=sys.stderr)
    torch.set_num_threads(count)
    _keep_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.deterministic = config.deterministic
    if begun is not None:
        return begun
    environment = _environment(config, dataset, device, count)
    record.write_json(ENVIRONMENT, environment)
    return environment


def _refuse_other_beginning(
    config: Config, record: Record, dataset: Dataset, device: torch.device, begun: dict[str, Any]
) -> None:
    """Refuse to go on with a record that was begun in another way; say so where it goes on, but not bit-identically."""
    if config.amp and probed_under_autocast({f"probes.{key}": of for key, of in vars(config.probes).items()}, begun):
        raise IcsbenchError(
            f"{record.path} was begun by a version whose probes measured in bfloat16 with amp, and they measure in "
            "float32 now; delete it to start this run again"
        )
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


def _environment(config: Config, dataset: Dataset, device: torch.device, threads: int) -> dict[str, Any]:
    model = member("models", Model, config.model.name)
    passes = "bf16 autocast" if config.amp else model.precision
    return {
        "icsbench": icsbench.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
        "device": str(device),
        "device_name": _device_name(device),
        "threads": threads,
        "machine": system(),
        # Probes never measure under autocast, where differences of gradients would drown.
        "precision": {"training": passes, "evaluation": passes, "probes": model.precision},
        **of_network(config, dataset),
    }


def of_network(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What a record says of a network and its data: the look of the norm, the model, the data."""
    model = member("models", Model, config.model.name)
    return {
        "regime": member("norms", Norm, config.norm.name).look._asdict(),
        "model": {"label": model.label(config.model), "units": model.units, "scales": model.scales},
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


def _keep_freed_memory() -> None:
    """Have glibc keep the memory of a step for the next one, which otherwise goes back and is faulted in every time.

    That is a tenth of the time of a step on a CPU. See mallopt(3); other libraries of C are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        if not mallopt(mmap_threshold, 2**30):
            mallopt(mmap_threshold, 2**25)  # the most in earlier versions
        mallopt(trim_threshold, 2**30)


def _has_bfloat16() -> bool | None:
    """Whether this CPU multiplies bfloat16 by instructions of its own; None where PyTorch cannot say."""
    try:
        if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.11
            has = torch.cpu.get_capabilities()
            return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
        if platform.machine().lower() in ("arm64", "aarch64"):
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    except (AttributeError, RuntimeError):
        return None


def choose_device(name: str) -> torch.device:
    """The device that a config asks for.

    :raises IcsbenchError: it cannot be used here.
    """
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
    return processor()


def refuse_other_data(config: Config, record: Record) -> None:
    """A complete run is skipped only if it was made from the data that ``data.root`` now names."""
    if load_config(record.path / CONFIG).data.root == config.data.root:
        return
    dataset = dataset_of(config)
    begun = record.read_json(ENVIRONMENT)
    if begun is not None and begun["data"]["fingerprint"] != dataset.fingerprint:
        raise IcsbenchError(_other_data(record.path, begun["data"], dataset))


def _other_data(path: Path, theirs: dict[str, Any], dataset: Dataset) -> str:
    return (
        f"{path} was made from other data ({theirs['label']} {theirs['fingerprint']}, "
        f"not {dataset.label} {dataset.fingerprint}); choose another folder with results=DIR"
    )
