"""Running the command line from tests: in this process, or in one of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from icsbench.cli import main

TINY = (
    *("model=vgg11", "model.width=0.0625", "steps=6", "batch_size=32", "log_every=2", "eval_every=3"),
    *("recalibration_batches=2", "threads=1", "device=cpu", "probes=none", "wandb=disabled"),
)
ANY_MODEL = tuple(override for override in TINY if not override.startswith("model"))  # for a network without a width
PROBED = ("probes=shift", "probes.every=2", "probes.batch_size=16", "probes.samples=64")


class Result(NamedTuple):
    """What a command left: exit status, stdout, stderr."""

    code: int
    out: str
    err: str


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in ``folder``, with nothing in the environment that would steer Hydra, W&B or the completion."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    for name in [*os.environ]:
        if name.startswith(("WANDB_", "HYDRA_", "_ICSBENCH", "_TYPER")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(folder)


def invoke(*arguments: str) -> Result:
    """Run the command line in this process."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["icsbench", *arguments]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = argv
    return Result(code, out.getvalue(), err.getvalue())


def start(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> "subprocess.Popen[str]":
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "icsbench", *arguments],
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def command(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Result:
    """Run the command line in a process of its own."""
    with start(*arguments, env=env, **options) as process:
        out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def run_dirs(results: Path | str = "results") -> list[Path]:
    """The run directories below ``results``, in the order of their paths."""
    return sorted(path.parent for path in Path(results).glob("*/*/seed-*/config.yaml"))


def run_dir(results: Path | str = "results") -> Path:
    """The one run directory below ``results``."""
    (found,) = run_dirs(results)
    return found


def content(folder: Path) -> dict[str, Any]:
    """What a run's config determines of its record: every file but the wall times, the checkpoint and the lock."""
    files: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("timing.json", "checkpoint.pt", "run.lock", "seal.json")
    }
    if "environment.json" in files:  # the source tree may be committed to between two runs
        files["environment.json"] = {**json.loads(files["environment.json"]), "commit": None}
    return files


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
