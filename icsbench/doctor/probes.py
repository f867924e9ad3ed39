"""The probes of ``icsbench doctor``: each runs in a process of its own and prints facts, a JSON object a line."""

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from icsbench.errors import IcsbenchError

Facts = Iterator[dict[str, Any]]

_TIMED = 5
_SHAPE = (64, 64, 16, 16)  # of the images that bfloat16 is timed on: a layer of VGG16 at a quarter of the width


def answer(name: str, arguments: list[str]) -> None:
    """Print the facts of a probe as they are found, and what went wrong as the fact ``error``."""
    try:
        for facts in PROBES[name](*arguments):
            print(json.dumps(facts), flush=True)
    except Exception as error:
        # A message of W&B's may quote a key.
        print(json.dumps({"error": type(error).__name__ if name == "wandb" else _line(error)}), flush=True)


def _line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, IcsbenchError) else f"{type(error).__name__}: {said[:200]}"


def _torch() -> Facts:
    import torch

    yield {"torch": torch.__version__, "torchvision": version("torchvision")}
    yield {"bf16": _bfloat16("cpu")}
    yield {"digits": _digits()}
    devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    devices += ["mps"] if torch.backends.mps.is_available() else []
    gpus = []
    for device in devices:
        name = "Apple GPU" if device == "mps" else torch.cuda.get_device_name(device)
        gpus.append({"device": device, "name": name, "bf16": _bfloat16(device)})
    yield {"gpus": gpus}


def _bfloat16(device: str) -> dict[str, Any]:
    """How many times as fast as float32 bfloat16 autocast trains a convolution, or why it does not work."""
    try:
        slow, fast = (_seconds_of_step(device, amp) for amp in (False, True))
    except Exception as error:
        return {"works": False, "error": _line(error)}
    return {"works": True, "speed": round(slow / fast, 2)}


def _seconds_of_step(device: str, amp: bool) -> float:
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Conv2d(_SHAPE[1], _SHAPE[1], 3, padding=1, device=device)
    images = torch.randn(_SHAPE, device=device)
    seconds = []
    for _ in range(_TIMED + 1):
        began = time.perf_counter()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=amp):
            loss = layer(images).relu().float().mean()
        loss.backward()
        if not loss.isfinite().item():  # .item() waits for a GPU
            raise ArithmeticError("a convolution is not finite")
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _digits() -> dict[str, Any]:
    from icsbench.data import load_dataset

    try:
        found = load_dataset("digits", None, 0)
    except Exception as error:
        return {"error": _line(error)}
    return {"train": len(found.train), "test": len(found.test)}


def _cifar10(root: str) -> Facts:
    from icsbench.data import locate

    found = locate("cifar10", root)
    yield {"root": root, "folder": found and str(found.folder), "layout": found and found.layout}


def _disk(results: str) -> Facts:
    folder = Path(results).expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise IcsbenchError(f"{there} is a file; choose another folder with results=FOLDER")
    if not os.access(there, os.W_OK | os.X_OK):
        raise IcsbenchError(f"{there} may not be written to; choose another folder with results=FOLDER")
    yield {"folder": str(folder), "free": shutil.disk_usage(there).free}


def _wandb() -> Facts:
    try:
        yield {"wandb": version("wandb")}
    except PackageNotFoundError:
        yield {"wandb": None}
        return
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value.strip()]:
        del os.environ[name]
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")
    mode = "disabled" if disabled else os.environ.get("WANDB_MODE", "auto")
    import wandb

    # Not wandb.login(), which asks the server for the name of the user.
    settings = wandb.setup(wandb.Settings(silent=True)).settings
    logged_in = bool(settings.api_key or settings.identity_token_file or _in_netrc(settings.base_url))
    if mode == "auto":
        mode = "online" if logged_in else "offline"
    yield {"logged_in": logged_in, "mode": mode}


def _in_netrc(address: str) -> bool:
    """Whether a netrc file has a key for the server."""
    import netrc
    from urllib.parse import urlsplit

    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    files = [path for place in places if place and (path := Path(place).expanduser()).is_file()]
    return bool(files) and netrc.netrc(files[0]).authenticators(urlsplit(address).hostname or "") is not None


PROBES: dict[str, Callable[..., Facts]] = {
    "torch": _torch,
    "cifar10": _cifar10,
    "disk": _disk,
    "wandb": _wandb,
}
