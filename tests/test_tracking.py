"""The W&B mirror, read back from its own files with W&B's own tool."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import PROBED, TINY, Result, command, invoke, isolate, rows, run_dir

from icsbench.record.writer import load_config
from icsbench.training import trainer

pytest.importorskip("wandb")
OFFLINE = (*TINY, *PROBED, "wandb=mirror", "wandb.mode=offline")
OWN = ("_runtime", "_step", "_timestamp", "_wandb")  # W&B's own keys


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def said(done: Result) -> list[str]:
    """The lines on stderr, without the progress that a slow machine shows."""
    return [line for line in done.err.splitlines() if ": step " not in line]


def inspect(folder: Path, *flags: str) -> str:
    tool = [sys.executable, "-m", "wandb", "leet", "inspect", *flags, "--json", str(folder)]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(folder).splitlines()]


def history(folder: Path) -> list[dict[str, Any]]:
    """The logged rows in their order, without W&B's own keys."""
    items = [record["history"]["item"] for record in records(folder) if record["type"] == "history"]
    return [{key: value for key, value in item.items() if key not in OWN} for item in items]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("activations/")}


def fragments() -> list[Path]:
    return sorted(run_dir().glob("wandb/offline-run-*"))


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> tuple[Path, Path]:
    """A run record, and the one W&B run within it."""
    folder = tmp_path_factory.mktemp("mirrored")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        done = command("train", *OFFLINE, "norm=noisy_bn", "seed=3")
        assert (done.code, done.out) == (0, ""), done.err
        assert len(said(done)) == 1
        (fragment,) = fragments()
        return folder / run_dir(), folder / fragment


def summary_of(mirrored) -> dict[str, Any]:
    return json.loads(inspect(mirrored[1], "--summary"))


def test_identity(mirrored):
    config = load_config(mirrored[0] / "config.yaml")
    (run,) = [record["run"] for record in records(mirrored[1]) if record["type"] == "run"]
    assert {key: run[key] for key in ("run_id", "run_group", "job_type", "project", "tags", "display_name")} == {
        "run_id": f"{config.fingerprint}-3",
        "run_group": "single",
        "job_type": "noisy_bn",
        "project": "icsbench",
        "tags": ["single", "demo", "noisy_bn", "digits"],
        "display_name": "noisy_bn-vgg11-w0.0625-digits-lr0.1-seed3",
    }


def test_the_config_is_the_records(mirrored):
    config = {key: value for key, value in summary_of(mirrored)["config"].items() if key != "_wandb"}
    assert config == yaml.safe_load((mirrored[0] / "config.yaml").read_text())


def test_the_rows_are_the_records(mirrored):
    logged = [plain(row) for row in history(mirrored[1])]
    recorded = rows(mirrored[0])
    assert [row["step"] for row in recorded if "train/loss" in row] == [2, 4, 6]
    assert any(key.startswith("shift/") for row in recorded for key in row)
    assert [row for row in logged if row.keys() != {"step"}] == recorded
    assert [row for row in logged if row.keys() == {"step"}] == [{"step": 0}]  # the first probe has histograms only


def test_the_histograms_are_the_records(mirrored):
    layers = json.loads((mirrored[0] / "probes" / "shift" / "layers.json").read_text())
    drawn = {row["step"]: row for row in history(mirrored[1]) if any(key.startswith("activations/") for key in row)}
    probes = sorted((mirrored[0] / "probes" / "shift").glob("step-*.npz"))
    assert sorted(drawn) == [int(path.stem.removeprefix("step-")) for path in probes]
    assert len(probes) > 3
    for path in probes:
        arrays, row = np.load(path), drawn[int(path.stem.removeprefix("step-"))]
        for number, layer in enumerate(layers):
            name = f"activations/{layer['layer']}"
            histogram = row.get(name) or {key.removeprefix(f"{name}."): row[key] for key in row if f"{name}." in key}
            assert histogram["_type"] == "histogram"
            assert histogram["values"] == arrays["histogram_counts_preactivation"][number].tolist()
            assert histogram["bins"] == arrays["histogram_edges_preactivation"][number].tolist()


def test_the_summary_is_the_records(mirrored):
    summary, recorded = summary_of(mirrored)["summary"], json.loads((mirrored[0] / "summary.json").read_text())
    assert recorded["status"] == "complete"
    assert {key: summary.get(key) for key in recorded} == recorded


@pytest.mark.parametrize(
    ("configured", "environment", "mirrors"),
    [("offline", "disabled", False), ("disabled", "offline", True), ("auto", None, True), ("disabled", None, False)],
)
def test_the_environment_wins_over_the_config_and_no_key_is_offline(monkeypatch, configured, environment, mirrors):
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    done = invoke("train", *TINY, "wandb=mirror", f"wandb.mode={configured}")
    assert done.code == 0
    assert len(said(done)) == 1
    assert len(fragments()) == mirrors


def test_empty_variables_count_as_unset_and_a_cache_that_cannot_be_written_fills_no_pages():
    names = (
        "MODE",
        "SILENT",
        "QUIET",
        "BASE_URL",
        "CONSOLE",
        "TAGS",
        "PROJECT",
        "ENTITY",
        "API_KEY",
        "DISABLED",
        "DIR",
    )
    env = {f"WANDB_{name}": "" for name in names} | {"WANDB_CACHE_DIR": "/dev/null/x", "WANDB_DATA_DIR": "/dev/null/x"}
    done = command("train", *TINY, "wandb=mirror", env=env)
    assert (done.code, len(said(done))) == (0, 1), done.err
    assert len(fragments()) == 1


def test_a_variable_that_wandb_does_not_take_is_one_warning():
    done = command("train", *TINY, "wandb=mirror", env={"WANDB_MODE": "garbage"})
    assert done.code == 0
    warning, end = said(done)
    assert warning.startswith("icsbench: W&B: ValidationError: ") and "'garbage'" in warning
    assert warning.endswith("; nothing is mirrored")
    assert end.startswith("bn lr 0.1 seed 0: complete")


def test_wandb_is_disabled_by_its_old_variable_too(monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert len(said(invoke("train", *OFFLINE))) == 1
    assert not fragments()


def test_a_disabled_mirror_does_not_import_wandb():
    snippet = (
        "import sys; from icsbench.app.launch import launch; launch(sys.argv[1:]); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", snippet, *TINY], check=True, capture_output=True)
    assert (run_dir() / "summary.json").exists()


def test_wandb_that_is_not_installed_is_one_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = invoke("train", *OFFLINE)
    assert done.code == 0
    assert [line.rpartition("; ")[2] for line in done.err.splitlines() if line.startswith("icsbench: W&B: ")] == [
        "nothing is mirrored"
    ]


def test_a_resumed_run_keeps_its_id_and_loses_no_row(monkeypatch):
    rate, sent = trainer.learning_rate, []

    def interrupt(config, step):
        if step == 2 and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGINT)
        return rate(config, step)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learning_rate", interrupt)
        assert invoke("train", *OFFLINE).code == 130
    (first,) = fragments()
    assert invoke("train", *OFFLINE).code == 0
    both = sorted(fragments(), key=lambda path: path != first)  # fragments of one second sort by chance
    assert len(both) == 2
    fingerprint = load_config(run_dir() / "config.yaml").fingerprint
    assert {json.loads(inspect(path, "--summary"))["run_id"] for path in both} == {f"{fingerprint}-0"}
    logged = [plain(row) for path in both for row in history(path)]
    assert [row for row in logged if row.keys() != {"step"}] == rows(run_dir())


def test_a_run_that_diverges_is_mirrored_too():
    done = invoke("train", *OFFLINE, "optim.lr=1e30", "norm=none", "log_every=1")
    assert done.code == 0
    assert "diverged" in done.err
    assert "W&B" not in done.err
    recorded = json.loads((run_dir() / "summary.json").read_text())
    assert recorded["outcome"] == "diverged"
    (fragment,) = fragments()
    assert json.loads(inspect(fragment, "--summary"))["summary"]["outcome"] == "diverged"
