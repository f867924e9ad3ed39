"""What this machine can do, found out in processes of their own: one that crashes or hangs costs a line, no more."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icsbench import __version__
from icsbench.errors import IcsbenchError
from icsbench.machine import cores, processor

LIMITS = {"torch": 20.0, "cifar10": 20.0, "disk": 5.0, "wandb": 10.0}
"""Seconds that each probe may take, side by side: three are enough but on a busy machine or from a cold disk."""

LEAST_SPACE = 200 * 2**20
"""Bytes that have to be free: a checkpoint of VGG16 with its momentum, written beside the one before it."""

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from icsbench.doctor.probes import answer; answer(sys.argv[2], json.loads(sys.argv[3]))"
)
_KEYS = ("data.root", "results")


@dataclass(frozen=True)
class Diagnosis:
    """The facts that were found, by probe, and why no run can be made (None: runs can be made).

    A probe that failed has the fact ``error``, one line.
    """

    facts: dict[str, dict[str, Any]]
    reason: str | None


def examine(overrides: list[str], limits: Mapping[str, float] = LIMITS) -> Diagnosis:
    """Ask every probe, each for at most ``limits`` seconds.

    :param overrides: ``data.root=FOLDER`` to look for CIFAR-10, ``results=FOLDER`` for where records would go.
    :raises IcsbenchError: another override.
    """
    given = _given(overrides)
    asked = {"torch": [], "disk": [given.get("results", "results")], "wandb": []}
    if "data.root" in given:
        asked["cifar10"] = [given["data.root"]]
    began = time.monotonic()
    children = {name: _start(name, arguments) for name, arguments in asked.items()}
    facts = {"icsbench": _here()}
    for name, child in children.items():
        facts[name] = _answers(child, began + limits[name] - time.monotonic(), limits[name])
    return Diagnosis(facts, _reason(facts))


def _given(overrides: list[str]) -> dict[str, str]:
    given = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in _KEYS or not value:
            raise IcsbenchError(f"'{override}': doctor takes data.root=FOLDER and results=FOLDER")
        given[key] = value
    return given


def _here() -> dict[str, Any]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "usable_cores": cores(),
    }


def _start(name: str, arguments: list[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), name, json.dumps(arguments)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet)


def _answers(child: "subprocess.Popen[bytes]", seconds: float, limit: float) -> dict[str, Any]:
    """The facts that a probe has written, a JSON object a line, with ``error`` where it did not come to its end."""
    error = None
    try:
        out, _ = child.communicate(timeout=max(seconds, 0.1))
        if child.returncode:
            error = f"its process ended with status {child.returncode}"
    except subprocess.TimeoutExpired as late:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # what hangs in the kernel does not end
            child.wait(0.5)
        if child.stdout is not None:
            child.stdout.close()
        out, error = late.output or b"", f"no answer within {limit:g} s"
    facts: dict[str, Any] = {}
    for line in out.splitlines():
        try:
            facts.update(json.loads(line))
        except (ValueError, TypeError):  # something that a library printed, or half a line
            continue
    return facts if error is None or "error" in facts else {**facts, "error": error}


def _reason(facts: dict[str, dict[str, Any]]) -> str | None:
    """The first thing that keeps runs from being made."""
    torch, disk = facts["torch"], facts["disk"]
    if "torch" not in torch:
        return "torch cannot be imported"
    if "train" not in torch.get("digits", {}):
        return "the digits cannot be read"
    if "free" not in disk:
        return "results cannot be written"
    if disk["free"] < LEAST_SPACE:
        return f"{disk['folder']} has {disk['free'] / 2**20:.0f} MiB free; a run needs {LEAST_SPACE / 2**20:.0f} MiB"
    if "folder" not in facts.get("cifar10", {"folder": None}):
        return "CIFAR-10 cannot be read from data.root"
    return None
