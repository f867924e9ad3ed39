"""``icsbench wandb sync``: what W&B's own client sends to a server on this machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers import PROBED, TINY, invoke, isolate, rows, run_dirs
from wandb_server import wandb_server

from icsbench.record.reader import load_runs

wandb = pytest.importorskip("wandb")
SUMMARY = "results/.wandb-summary"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Records of a sweep with two regimes, mirrored offline."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        done = invoke("sweep", *TINY, *PROBED, "norm=none,bn", "wandb=mirror", "hydra/launcher=basic")
        assert done.code == 0, done.err
        wandb.teardown()  # or it would remember the environment
    return folder


@pytest.fixture
def server(monkeypatch):
    with wandb_server() as found:
        yield found


@pytest.fixture
def offline(swept, tmp_path, monkeypatch, server):
    """A copy of these records to work in, with the server as W&B's."""
    isolate(monkeypatch, tmp_path)
    shutil.copytree(swept / "results", "results")
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)


def ids() -> set[str]:
    return {f"{folder.parent.name.rpartition('-')[2]}-0" for folder in run_dirs()}


def without_drawing(monkeypatch) -> None:
    """No summary, which these tests are not about: its folder is there."""
    from icsbench import publishing

    monkeypatch.setattr(publishing, "write_summary", lambda *_: None)


def test_a_sweep_is_one_group_with_a_summary_and_is_uploaded_once(server, offline):
    done = invoke("wandb", "sync", "results")
    assert (done.code, done.out, done.err) == (0, "3 uploaded, 0 not\n", "")
    (summary,) = (Path(SUMMARY)).iterdir()
    assert server.runs.keys() == ids() | {summary.name}
    assert {run["groupName"] for run in server.runs.values()} == {"single"}
    assert sorted(run["jobType"] for run in server.runs.values()) == ["bn", "none", "summary"]
    for folder in run_dirs():
        (key,) = [key for key in ids() if folder.parent.name.endswith(key.removesuffix("-0"))]
        assert json.loads(server.runs[key]["config"])["steps"]["value"] == 6
        sent = [row["train/loss"] for row in server.rows[key] if "train/loss" in row]
        assert sent == [row["train/loss"] for row in rows(folder) if "train/loss" in row]
    _check_summary(server, summary.name)
    before = {key: len(sent) for key, sent in server.rows.items()}
    again = invoke("wandb", "sync", "results")
    assert (again.code, again.out, again.err) == (0, "nothing to upload\n", "")
    assert {key: len(sent) for key, sent in server.rows.items()} == before


def _check_summary(server, name: str) -> None:
    (row,) = server.rows[name]
    charts = [key for key in row if "shift" in key]
    assert len(charts) == 1, charts
    assert row["verdicts"]["_type"] == "table-file"
    images = {key.removeprefix("figures/") for key in row if key.startswith("figures/")}
    assert images == {path.stem for path in Path("results/figures").rglob("*.png")}
    sent = {f.removeprefix(f"{name}/"): body for f, body in server.uploads.items() if f.startswith(f"{name}/")}
    drawn = {path.read_bytes() for path in Path("results/figures").rglob("*.png")}
    assert {body for f, body in sent.items() if f.endswith(".png")} == drawn
    tables = {f: json.loads(body) for f, body in sent.items() if f.endswith(".table.json")}
    (verdicts,) = [table for table in tables.values() if "verdict" in table["columns"]]
    assert verdicts["columns"] == ["id", "claim", "by", "verdict", "speaks for", "effect [95 %]", "n"]
    (chart,) = [table for table in tables.values() if "lineKey" in table["columns"]]
    # By hand from the records: the mean of what the rows of one step's interval say.
    expected = set()
    for run in load_runs(Path("results")):
        for layer in run.layers_of("shift"):
            values = run.metrics.series(f"shift/{layer.path}/w1", 1)[1]
            expected.add((layer.depth, run.regime.label, float(np.mean(values))))
    assert len(expected) > 2
    for (x, key, y), (depth, label, value) in zip(sorted(chart["data"]), sorted(expected), strict=True):
        assert (x, key, y) == (depth, label, pytest.approx(value))


def test_what_failed_is_named_and_can_be_tried_again(server, offline, monkeypatch):
    without_drawing(monkeypatch)
    bad, good = sorted(ids())
    server.refused = {bad}
    done = invoke("wandb", "sync", "results")
    assert (done.code, done.out) == (1, "1 uploaded, 1 not\n")
    named, advice = done.err.splitlines()
    assert bad.removesuffix("-0") in named and named.endswith(": permission denied")
    assert advice == "icsbench: the same command tries again what was not uploaded"
    assert server.rows.keys() == {good}
    server.refused = set()
    assert invoke("wandb", "sync", "results").out == "1 uploaded, 0 not\n"
    assert server.rows.keys() == {good, bad}


@pytest.mark.parametrize(
    ("status", "said"), [(503, "answers 503; nothing was uploaded"), (None, "cannot be reached"), ("key", "no key")]
)
def test_away_or_without_a_key_it_is_one_line(server, offline, monkeypatch, status, said):
    without_drawing(monkeypatch)
    if status == 503:
        server.status = status
    elif status == "key":
        monkeypatch.delenv("WANDB_API_KEY")
    else:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    done = invoke("wandb", "sync", "results")
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("icsbench: W&B: ") and said in line
    assert not server.runs


def test_a_server_that_refuses_the_key_is_one_line(server, offline, monkeypatch):
    without_drawing(monkeypatch)
    server.status = 401
    done = invoke("wandb", "sync", "results")
    assert (done.code, done.out) == (1, "0 uploaded, 2 not\n")
    line, _ = done.err.splitlines()
    assert line.startswith("icsbench: not uploaded: results/") and "refused it; is the key" in line


def test_a_run_that_still_trains_is_left_for_the_next_call(server, offline, monkeypatch):
    without_drawing(monkeypatch)
    waits, goes = run_dirs()
    (waits / "summary.json").unlink()
    with FileLock(waits / "run.lock"):
        assert invoke("wandb", "sync", "results").out == "1 uploaded, 0 not; 1 still running\n"
    assert server.rows.keys() == {f"{goes.parent.name.rpartition('-')[2]}-0"}
    assert invoke("wandb", "sync", "results").out == "1 uploaded, 0 not\n"


def test_without_wandb_it_is_one_line(offline, monkeypatch):
    without_drawing(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        done = invoke("wandb", "sync", "results")
    assert (done.code, done.err) == (1, "icsbench: W&B is not installed; pip install wandb\n")


def test_layers_have_no_panel_each(swept):
    for path in swept.glob("results/*/*/seed-0/wandb/offline-run-*"):
        tool = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        found = [json.loads(line) for line in subprocess.run(tool, capture_output=True, text=True).stdout.splitlines()]
        metrics = [record["metric"] for record in found if record["type"] == "metric"]
        shifts = [metric for metric in metrics if metric.get("name", "").startswith("shift/")]
        assert shifts and all(metric["options"]["hidden"] for metric in shifts)
