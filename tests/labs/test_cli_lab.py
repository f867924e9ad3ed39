"""``icsbench lab theorems``, from the overrides to the CSV file."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import TINY, invoke, isolate, run_dirs

from icsbench.labs.theorems.check import check_theorems
from icsbench.labs.theorems.reports import STATEMENTS
from icsbench.labs.theorems.reports import rows as rows_of
from icsbench.record.seal import broken
from icsbench.record.strict_json import loads
from icsbench.record.writer import load_config
from icsbench.training import build_model, trainer
from icsbench.training.environment import dataset_of
from icsbench.training.task import Task

MLP = (
    *("model=mlp", "data=digits8", "model.units=6", "model.depth=2", "optim.lr=0.5", "steps=6", "batch_size=16"),
    *("log_every=2", "eval_every=3", "recalibration_batches=2", "threads=1", "device=cpu", "probes=none"),
    "wandb=disabled",
)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def lab(*overrides):
    return invoke("lab", "theorems", *overrides)


def run_dir():
    """The record of the one training."""
    (found,) = [folder for folder in run_dirs() if not folder.parent.name.startswith("theorems-")]
    return found


def record():
    """The record of the one run of the lab."""
    (found,) = [folder for folder in run_dirs() if folder.parent.name.startswith("theorems-")]
    return found


def table(path):
    with open(path, newline="") as file:
        return [*csv.DictReader(file)]


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag):
    listed, shown = invoke("lab", flag), invoke("lab", "theorems", flag)
    assert (listed.code, listed.err, shown.code, shown.err) == (0, "", 0, "")
    assert " theorems " in listed.out
    flowing = " ".join(shown.out.split())
    assert "icsbench lab theorems scale=cpu" in flowing
    assert "--out" in flowing and "overrides" in flowing
    assert not Path("results").exists()


def test_untrained_and_trained_network_in_one_file():
    done = lab(*MLP)
    assert done.code == 0, done.err
    path = run_dir() / "theorems.csv"
    assert f"written to {path}\n" in done.out
    assert str(run_dir()) in done.err
    flowing = " ".join(done.out.split())
    assert "untrained (step 0), batch of 16" in flowing and "trained (step 6), batch of 16" in flowing
    assert "Digits" in flowing
    assert flowing.count("All that could be tested hold within rounding") == 2
    found = table(path)
    assert [(row["network"], row["step"], row["layer"]) for row in found] == [
        *(("untrained", "0", "fc1.norm"), ("untrained", "0", "fc2.norm")),
        *(("trained", "6", "fc1.norm"), ("trained", "6", "fc2.norm")),
    ]
    for row in found:
        assert (row["run"], row["seed"]) == (run_dir().parent.name, "0")
        assert row["data"].startswith("Digits")
        for attribute in STATEMENTS.values():
            value = float(row[attribute])
            assert value < 1e-12 or (row["network"] == "untrained" and attribute == "lemma_4_5" and math.isnan(value))


def test_the_numbers_are_those_of_the_initial_network_and_of_the_checkpoint():
    assert lab(*MLP, "norm=noisy_bn", "seed=3").code == 0
    config = load_config(run_dir() / "config.yaml")
    dataset = dataset_of(config)
    task = Task(config, dataset, torch.device("cpu"))
    network = build_model(config, 10)
    initial = {name: value.clone() for name, value in network.named_parameters()}
    found = table(run_dir() / "theorems.csv")
    for start in (0, 2):
        expected = rows_of(check_theorems(network, task.loss, *task.batches(0), initial=initial, seed=3))
        for row, values in zip(found[start:], expected, strict=False):
            for key in ("reduction", "yhat_share", "theorem_c1_angle", "lemma_4_5_distance", "eps_share"):
                assert float(row[key]) == pytest.approx(values[key], rel=1e-9, nan_ok=True), key
            assert row["printed_4_1_violated"] == str(values["printed_4_1_violated"])
        state = torch.load(run_dir() / "checkpoint.pt", weights_only=True)["model"]
        network.load_state_dict(state)
    assert found[0]["reduction"] != found[2]["reduction"]


def test_the_rows_are_a_sealed_record_and_a_second_time_they_are_read(monkeypatch):
    first = lab(*MLP)
    assert broken(record()) is None
    config = yaml.safe_load((record() / "config.yaml").read_text())
    assert config["lab"] == {"name": "theorems", "units": 4} and config["norm"]["name"] == "bn"
    found = [loads(line) for line in (record() / "metrics.jsonl").read_text().splitlines()]
    written = table(run_dir() / "theorems.csv")
    assert [(row["step"], row["layer"]) for row in found] == [(int(row["step"]), row["layer"]) for row in written]
    assert [str(row["reduction"]) for row in found] == [row["reduction"] for row in written]
    monkeypatch.setattr("icsbench.labs.theorems.check.check_theorems", None)  # to evaluate again would raise
    assert (lab(*MLP).out, lab(*MLP).code) == (first.out, 0)


def test_units_are_an_option_and_part_of_the_fingerprint():
    assert lab(*MLP).code == 0
    before = record()
    done = lab(*MLP, "lab.units=2")
    assert done.code == 0, done.err
    (other,) = [f for f in run_dirs() if f.parent.name.startswith("theorems-") and f != before]
    assert [loads(line)["units"] for line in (other / "metrics.jsonl").read_text().splitlines()] == [2] * 4
    assert lab(*MLP, "lab.units=0").err == "icsbench: configuration: lab.units must be at least 1 (got 0)\n"
    assert "unknown key 'lab.unit'; did you mean 'lab.units'?" in lab(*MLP, "lab.unit=2").err


def test_a_vgg_whose_run_is_there_is_not_trained_again(monkeypatch):
    tiny = (*TINY, "batch_size=4", "steps=2")
    assert invoke("train", *tiny).code == 0
    before = snapshot(run_dir())
    monkeypatch.setattr(trainer, "learning_rate", None)  # a step would raise
    done = lab(*tiny, "--out", "sub/found.csv")
    assert done.code == 0, done.err
    assert "written to sub/found.csv\n" in done.out
    assert snapshot(run_dir()) == before
    assert len(table("sub/found.csv")) == 2 * 8
    assert "NOT identities" not in done.out


@pytest.mark.parametrize("norm", ["none", "noise", "l1"])
def test_a_network_without_bn_is_refused_before_it_is_trained(norm):
    done = lab(*MLP, f"norm={norm}")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"icsbench: norm={norm} has no batch normalization, which the theorems are about; "
        "choose norm=bn or norm=noisy_bn\n"
    )
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sede=1"], "configuration: unknown key 'sede'; did you mean 'seed'?"),
        (["seed"], "'seed' is not an override; they are key=value, such as seed=3"),
        (["steps=0"], "configuration: steps must be at least 1 (got 0)"),
        (["seed=0,1"], "seed=0,1 names several networks; give one"),
        (["norm=bn,noisy_bn"], "norm=bn,noisy_bn names several networks; give one"),
        (["norm=nosuch"], "In 'train': Could not find 'norm/nosuch'"),
        (["batch_size=100000"], "batch_size=100000 does not fit the training set"),
        (["batch_size=2"], "fc1.norm has 2 values per channel; with fewer than 3 its gradient is always zero"),
        (["--out", "."], ". is a folder; --out names a CSV file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_trained(arguments, said):
    done = lab(*MLP, *arguments)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"icsbench: {said}")
    assert not Path("results").exists()


def test_an_unknown_option_is_a_usage_error():
    done = lab("--bogus")
    assert (done.code, done.out) == (2, "")
    assert "No such option" in done.err


def test_a_run_that_diverges_leaves_no_trained_network():
    done = lab(*MLP, "optim.lr=1e38", "norm.eps=1e-30")
    summary = json.loads((run_dir() / "summary.json").read_text())
    assert summary["outcome"] == "diverged"
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"icsbench: {run_dir()} diverged, so there is no trained network; try a smaller optim.lr"
    )
    assert not (run_dir() / "theorems.csv").exists()


def test_a_complete_run_without_its_checkpoint():
    assert invoke("train", *MLP).code == 0
    (run_dir() / "checkpoint.pt").unlink()
    done = lab(*MLP)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"icsbench: {run_dir() / 'checkpoint.pt'} is missing; delete the folder to train the run again"
    )


SNIPPET = """
import sys
from icsbench.cli import main
sys.argv = ["icsbench", "lab", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(sorted({"torch", "torchvision", "sklearn"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("arguments", [["--help"], [], ["theorems", "--help"]])
def test_torch_is_not_imported_for_help_or_the_list(arguments):
    done = subprocess.run([sys.executable, "-c", SNIPPET, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
