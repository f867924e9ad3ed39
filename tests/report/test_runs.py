"""The list of runs: its table, its JSON, and which runs are asked for."""

import io
import json
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import invoke, isolate
from rich.console import Console
from synthetic import DLN, write_lab, write_run

from icsbench.record.reader import load_runs
from icsbench.report.runs import print_runs

SHORT = {"steps": 100, "probes": False}


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def lines(width=80):
    out = io.StringIO()
    print_runs(Console(file=out, width=width), load_runs(Path("records")))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def records():
    """Four runs of two studies, one of each status but chance; the one that failed says why."""
    write_run("records", "noisy_bn", 0, **SHORT)
    write_run("records", "none", 0, outcome="diverged", diverged_at=40, **SHORT)
    failed = write_run("records", "none", 3, finished=False, experiment="dose", **SHORT)
    (failed / "failure.json").write_text('{"error": "no space left"}')
    write_run("records", "bn", 1, finished=False, experiment="dose", **SHORT)
    return write_run("records", "bn", 2, finished=False, **SHORT)


def test_a_line_for_each_run_and_those_that_run_last():
    with FileLock(records() / "run.lock"):
        shown = lines()
    assert all(len(line) <= 80 for line in [*shown[:6], shown[7]])
    assert [line.split()[:4] for line in shown[1:6]] == [
        ["bn", "1", "incomplete", "100/100"],
        ["none", "3", "failed", "100/100"],
        ["noisy_bn", "0", "complete", "100/100"],
        ["none", "0", "diverged", "40/100"],
        ["bn", "2", "running", "100/100"],
    ]
    assert shown[0].split()[-1] == "folder" and shown[1].split()[-1].endswith("-lr0.1-100-cpu")
    assert shown[6].startswith("none seed 3, records/dose/none-") and shown[6].endswith("/seed-3: no space left")
    assert shown[7] == "5 runs in records: 1 complete, 1 diverged, 1 incomplete, 1 running, 1 failed"


def test_the_widest_table_fits_and_a_wide_terminal_shows_whole_folders():
    write_run("records", "noisy_bn", 0, outcome="diverged", diverged_at=15000, steps=15010, probes=False)
    write_run("records", "bn", 0, **DLN | SHORT)
    long = write_lab("records", lab="signal_propagation_of_some_kind")
    narrow, wide = lines(), lines(250)
    assert all(len(line) <= 80 for line in narrow) and len(narrow) == 5
    (lab,) = [line for line in narrow if line.startswith("sig")]
    assert lab.split()[0].endswith("_kind") and len(lab.split()[0]) == 10
    assert any(line.endswith(str(long.parent.relative_to("records"))) for line in wide)
    assert "…" not in "".join(wide)


def test_json_has_whole_folders_and_fractions():
    with FileLock(records() / "run.lock"):
        found = json.loads(invoke("runs", "records", "--json").out)
    by_status = {run["status"]: run for run in found}
    assert len(found) == len(by_status) == 5
    for run in found:
        assert json.loads(Path(run["path"], "metrics.jsonl").read_text().splitlines()[-1])["step"] >= run["step"]
    done = by_status["complete"]
    summary = json.loads(Path(done["path"], "summary.json").read_text())
    assert (done["train_accuracy"], done["test_accuracy"]) == (
        summary["train/accuracy"],
        summary["test/accuracy"]["running-off"],
    )
    assert (done["study"], done["regime"], done["seed"], done["lr"]) == ("three_regimes", "noisy_bn", 0, 0.1)
    assert (by_status["running"]["step"], by_status["running"]["steps"]) == (100, 100)
    assert (by_status["diverged"]["step"], by_status["diverged"]["train_loss"]) == (40, None)
    assert by_status["failed"]["error"] == "no space left" and done["error"] is None


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["--study", "dose"], {("bn", 1), ("none", 3)}),
        (["--status", "diverged", "--status", "failed"], {("none", 0), ("none", 3)}),
        (["--regime", "bn", "--study", "three_regimes"], {("bn", 2)}),
        (["--status", "running"], set()),
    ],
)
def test_only_those_that_are_asked_for(typed, found):
    records()
    done = invoke("runs", "records", "--json", *typed)
    assert {(run["regime"], run["seed"]) for run in json.loads(done.out)} == found
    shown = invoke("runs", "records", *typed)
    assert shown.code == done.code == 0
    count = f"{len(found)} run" + ("" if len(found) == 1 else "s")
    assert shown.out.splitlines()[-1].startswith(count)


@pytest.mark.parametrize(
    ("typed", "there"),
    [
        (["--study", "doze"], "dose, three_regimes"),
        (["--status", "done"], "complete, diverged, chance, incomplete, running, failed"),
        (["--regime", "bm"], "bn, none, noisy_bn"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_with_what_there_is(typed, there):
    records()
    done = invoke("runs", "records", *typed)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"icsbench: {' '.join(typed)}: there is none of that name here; there are {there}\n"
