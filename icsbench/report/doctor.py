"""What ``icsbench doctor`` found, in about ten lines."""

from collections.abc import Iterator, Mapping
from typing import Any

from icsbench.report.words import printable

_WORTH = 1.1  # times as fast as float32: less is within the noise of the timing


def lines(facts: Mapping[str, Mapping[str, Any]], reason: str | None) -> Iterator[str]:
    """The lines to print, of facts by probe (:func:`icsbench.doctor.examine`), the verdict last."""
    rows = [*_versions(facts["icsbench"], facts["torch"]), *_devices(facts["torch"]), *_data(facts)]
    rows += [("disk", _disk(facts["disk"])), ("W&B", _wandb(facts["wandb"]))]
    for name, value in rows:
        yield printable(f"{name:<10} {value}")
    yield printable(f"{'result':<10} {'no run can be made: ' + reason if reason else 'runs can be made'}")


def _versions(here: Mapping[str, Any], torch: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "icsbench", f"{here['version']}, Python {here['python']}, {here['system']}"
    found = "torch" in torch
    yield "torch", f"{torch['torch']}, torchvision {torch['torchvision']}" if found else _failed(torch)
    cores, usable = here["cores"], here["usable_cores"]
    of = f"{cores} cores" if usable == cores else f"{usable} of {cores} cores"
    processor = f"{here['processor']}, " if here["processor"] else ""
    yield "CPU", f"{processor}{of}; one run uses {usable} threads, each run of a sweep 1"


def _devices(torch: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "bf16", f"CPU: {_bf16(torch['bf16'])}" if "bf16" in torch else _failed(torch)
    if "gpus" not in torch:
        hint = "; try device=cpu" if "torch" in torch else ""
        yield "GPU", _failed(torch) + hint
    elif not torch["gpus"]:
        yield "GPU", "none"
    for gpu in torch.get("gpus", ()):
        yield "GPU", f"{gpu['device']} {gpu['name']}; bf16: {_bf16(gpu['bf16'])}"


def _bf16(found: Mapping[str, Any]) -> str:
    if not found["works"]:
        return f"does not work ({found['error']})"
    advice = "worth it (amp=true)" if found["speed"] >= _WORTH else "not worth it"
    return f"works, a convolution takes {1 / found['speed']:.2g} times as long as in float32: {advice}"


def _data(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    digits = facts["torch"].get("digits", facts["torch"])
    yield "digits", f"{digits['train'] + digits['test']:,} images, embedded" if "train" in digits else _failed(digits)
    cifar10 = facts.get("cifar10")
    if cifar10 is None:
        yield "CIFAR-10", "not looked for; icsbench doctor data.root=FOLDER looks there"
    elif "folder" not in cifar10:
        yield "CIFAR-10", _failed(cifar10)
    elif cifar10["folder"] is None:
        yield "CIFAR-10", f"not in {cifar10['root']}; a run would download it into that folder"
    else:
        yield "CIFAR-10", f"{cifar10['layout']} in {cifar10['folder']}, not read here"


def _disk(disk: Mapping[str, Any]) -> str:
    return f"{disk['free'] / 2**30:.1f} GiB free for {disk['folder']}" if "free" in disk else _failed(disk)


def _wandb(wandb: Mapping[str, Any]) -> str:
    if "wandb" in wandb and wandb["wandb"] is None:
        return "not installed"
    installed = f"{wandb['wandb']}, " if "wandb" in wandb else ""
    if "mode" not in wandb:
        return installed + _failed(wandb)
    account = "a key is configured" if wandb["logged_in"] else "not logged in"
    return f"{installed}{account}, mode {wandb['mode']}"


def _failed(facts: Mapping[str, Any]) -> str:
    return f"failed: {facts.get('error', 'no answer')}"
