import csv
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from synthetic import DLN, write_lab, write_run, write_study

from icsbench.analysis.tables import result_table
from icsbench.record.reader import load_runs
from icsbench.report.console import print_results
from icsbench.report.files import write_results
from icsbench.report.markdown import results_as_markdown
from icsbench.report.runs import print_runs

SHORT = {"steps": 100, "probes": False}


def summary(path):
    return json.loads((path / "summary.json").read_text())


def printed(function, *arguments, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    with console.file:
        function(console, *arguments)
    return console.export_text()


def test_rows_are_what_numpy_and_scipy_compute_from_the_files(tmp_path):
    none, bn = (write_study(tmp_path, (regime,), 6, **SHORT) for regime in ("none", "bn"))
    rows = {row["regime"]: row for row in result_table(load_runs(tmp_path))}
    assert list(rows) == ["none", "bn"]
    a = np.array([summary(path)["test/accuracy"]["batch-off"] for path in bn])
    b = np.array([summary(path)["test/accuracy"]["running-off"] for path in none])
    assert rows["bn"]["test/accuracy/batch-off"].mean == pytest.approx(a.mean())
    difference = rows["bn"]["difference/test/accuracy/batch-off"]
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert "test/accuracy/batch-off" not in rows["none"] and "difference/train/accuracy" not in rows["none"]
    assert rows["bn"]["n"] == 6 and rows["bn"]["diverged"] == {} and rows["bn"]["setting"] == ""


def test_differences_are_over_the_seeds_that_both_have(tmp_path):
    none = [write_run(tmp_path, "none", seed, **SHORT) for seed in (0, 1, 2)]
    bn = [write_run(tmp_path, "bn", seed, **SHORT) for seed in (1, 2, 3)]
    row = result_table(load_runs(tmp_path))[1]
    expected = np.mean(
        [summary(a)["train/accuracy"] - summary(b)["train/accuracy"] for a, b in zip(bn, none[1:], strict=False)]
    )
    assert row["difference/train/accuracy"].n == 2
    assert row["difference/train/accuracy"].mean == pytest.approx(expected)


def test_diverged_and_chance_runs_count_as_what_they_are(tmp_path):
    write_run(tmp_path, "noise", 0, final=0.9, **SHORT)
    write_run(tmp_path, "noise", 1, outcome="diverged", diverged_at=37, **SHORT)
    write_run(tmp_path, "noise", 2, outcome="chance", **SHORT)
    write_run(tmp_path, "noise", 3, finished=False, **SHORT)
    runs = load_runs(tmp_path)
    [row] = result_table(runs)
    assert row["n"] == 3
    assert row["diverged"] == {1: 37} and row["chance"] == {2: 100}
    for key, of in (("test/accuracy/running-off", "test/accuracy"), ("train/accuracy", "train/accuracy")):
        found = [run.summary[of] for run in runs if run.finished]
        found = [value["running-off"] if isinstance(value, dict) else value for value in found]
        assert row[key].mean == pytest.approx(np.mean([found[0], 0.1, found[2]]))
    assert math.isnan(row["train/loss"].mean)
    text = printed(print_results, runs)
    assert "1 diverged (step 37); 1 at chance" in text
    assert "not counted: 1 of 4 runs" in text


def test_what_the_network_knows_of_its_training_images(tmp_path):
    key = "train/accuracy/recalibrated-off"
    known = {0: 0.75, 1: 0.85}
    for seed, accuracy in known.items():
        path = write_run(tmp_path, "bn", seed, **SHORT)
        (path / "summary.json").write_text(json.dumps(summary(path) | {key: accuracy}))
    write_run(tmp_path, "none", 0, **SHORT)
    rows = {row["regime"]: row for row in result_table(load_runs(tmp_path))}
    assert rows["bn"][key].mean == pytest.approx(0.8) and rows["bn"][key].n == 2
    assert key not in rows["none"]
    write_results(load_runs(tmp_path), tmp_path / "out")
    with open(tmp_path / "out" / "runs.csv", newline="") as file:
        read = [row[key] for row in csv.DictReader(file)]
    assert read == ["0.75", "0.85", ""]


def test_an_accuracy_that_could_not_be_measured_is_nan(tmp_path):
    path = write_run(tmp_path, "none", 0, **SHORT)
    (path / "summary.json").write_text(json.dumps(summary(path) | {"test/accuracy": {"running-off": None}}))
    assert math.isnan(result_table(load_runs(tmp_path))[0]["test/accuracy/running-off"].mean)


def test_settings_of_one_regime_are_rows_of_their_own(tmp_path):
    write_run(tmp_path, "noisy_bn", 0, norm={"n_mu": 0.5, "n_sigma": 1.25}, **SHORT)
    write_run(tmp_path, "noisy_bn", 0, norm={"n_mu": 1.0, "n_sigma": 1.25}, **SHORT)
    assert [row["setting"] for row in result_table(load_runs(tmp_path))] == ["n_mu 0.5", "n_mu 1.0"]


def test_groups_and_learning_rates_are_never_pooled(tmp_path):
    write_study(tmp_path, ("none",), 2, **SHORT)
    write_study(tmp_path, ("none",), 2, lr=0.5, **SHORT)
    write_study(tmp_path, ("none",), 2, scale="demo", data="digits", label="Digits", **SHORT)
    rows = result_table(load_runs(tmp_path))
    assert [(row["group"], row["lr"], row["n"]) for row in rows] == [
        ("three_regimes-cpu", 0.1, 2),
        ("three_regimes-cpu", 0.5, 2),
        ("three_regimes-demo", 0.1, 2),
    ]
    assert "scale demo" in rows[2]["facts"] and "Digits" in rows[2]["facts"]


def test_csv_and_markdown_hold_the_rows(tmp_path):
    write_study(tmp_path / "results", ("none", "bn"), 3, **SHORT)
    write_run(tmp_path / "results", "noise", 1, outcome="diverged", diverged_at=37, **SHORT)
    rows = result_table(load_runs(tmp_path / "results"))
    runs = load_runs(tmp_path / "results")
    write_results(runs, tmp_path)
    with open(tmp_path / "runs.csv", newline="") as file:
        singles = list(csv.DictReader(file))
    assert [(row["regime"], int(row["seed"])) for row in singles] == [(run.regime, run.seed) for run in runs]
    for row, run in zip(singles, runs, strict=True):
        assert float(row["test/accuracy/running-off"]) == pytest.approx(run.test_accuracy["running-off"], rel=1e-7)
    with open(tmp_path / "results.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["regime"] for row in read] == ["none", "bn", "noise"]
    assert float(read[1]["train/accuracy/low"]) == pytest.approx(rows[1]["train/accuracy"].low, rel=1e-7)
    assert read[1]["train/accuracy/n"] == "3" and read[0]["test/accuracy/batch-off/mean"] == ""
    assert read[2]["diverged"] == "seed-1@37"
    text = results_as_markdown(rows)
    mean, half = rows[1]["train/accuracy"].mean, rows[1]["train/accuracy"].half
    assert f"| bn | 3 | {mean * 100:.1f} ± {half * 100:.1f} |" in text
    assert text.startswith(
        "three_regimes: CIFAR-10 (JPEG copy), VGG16 at width 1/4, batch 128, lr 0.1, 100 steps, scale cpu."
    )
    lengths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(lengths) == 2


def test_list_of_runs(tmp_path):
    write_run(tmp_path, "none", 0, **SHORT)
    write_run(tmp_path, "bn", 0, outcome="diverged", diverged_at=40, **SHORT)
    failed = write_run(tmp_path, "bn", 1, finished=False, **SHORT)
    (failed / "failure.json").write_text('{"error": "no [space] left"}')
    text = printed(print_runs, load_runs(tmp_path))
    lines = {tuple(line.split()[:4]) for line in text.splitlines()}
    assert ("none", "0", "complete", "100/100") in lines
    assert ("bn", "0", "diverged", "40/100") in lines
    assert ("bn", "1", "failed", "100/100") in lines
    assert "no [space] left" in text


def test_a_regression_has_losses_and_their_ratio_paired_by_seed(tmp_path):
    options = DLN | SHORT
    none = [write_run(tmp_path, "none", seed, **options) for seed in (0, 1, 2, 3)]
    bn = [write_run(tmp_path, "bn", seed, **options) for seed in (1, 2, 3)]
    runs = load_runs(tmp_path)
    first, second = result_table(runs)
    losses = np.array([[summary(a)["train/loss"], summary(b)["train/loss"]] for a, b in zip(bn, none[1:], strict=True)])
    expected = stats.ttest_rel(*np.log(losses.T)).confidence_interval(0.95)
    ratio = second["ratio/train/loss"]
    assert ratio.n == 3 and ratio.mean == pytest.approx(stats.gmean(losses[:, 0] / losses[:, 1]))
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert second["train/loss"].mean == pytest.approx(losses[:, 0].mean())
    assert "ratio/train/loss" not in first and not any("accuracy" in key for row in (first, second) for key in row)
    text = results_as_markdown([first, second])
    assert f"{ratio.mean:.3g} ({ratio.low:.3g} to {ratio.high:.3g}) | all trained |" in text
    assert "%" not in text.replace("95 % t-interval", "")


def test_a_regression_that_diverged_has_no_ratio(tmp_path):
    options = DLN | SHORT
    for seed in (0, 1):
        write_run(tmp_path, "bn", seed, **options)
    write_run(tmp_path, "none", 0, **options)
    write_run(tmp_path, "none", 1, outcome="diverged", diverged_at=37, **options)
    runs = load_runs(tmp_path)
    assert [math.isnan(row["ratio/train/loss"].mean) for row in result_table(runs) if row["regime"] == "bn"] == [True]
    text = printed(print_results, runs)
    assert "not finite" in text and "1 diverged (step 37)" in text
    listed = printed(print_runs, runs)
    assert "train loss" in listed and "train %" not in listed
    shown = f"{summary(runs[0].path)['train/loss']:,.0f}"
    assert shown in listed


def test_runs_of_a_lab_are_listed_and_have_no_results(tmp_path):
    write_run(tmp_path / "results", "bn", 0, experiment="walks", **SHORT)
    for seed in range(2):
        write_lab(tmp_path / "results", seed=seed, depth=3)
    write_lab(tmp_path / "results", seed=2, depth=3, finished=False)
    runs = load_runs(tmp_path / "results")
    assert [row["regime"] for row in result_table(runs)] == ["bn"]
    listed = {tuple(line.split()[:4]) for line in printed(print_runs, runs).splitlines()}
    assert {
        ("bn", "0", "complete", "100/100"),
        ("walk", "1", "complete", "9"),
        ("walk", "2", "incomplete", "9"),
    } <= listed
    assert "not counted: 1 of 4 runs" in printed(print_results, runs)
    write_results(runs, tmp_path)
    with open(tmp_path / "runs.csv", newline="") as file:
        read = [(row["group"], row["regime"], row["lr"], row["seed"]) for row in csv.DictReader(file)]
    assert read == [("walks", "bn", "0.1", "0"), ("walks-walk", "walk", "", "0"), ("walks-walk", "walk", "", "1")]


def test_runs_of_a_lab_alone_have_no_results(tmp_path):
    write_lab(tmp_path)
    runs = load_runs(tmp_path)
    assert result_table(runs) == [] and printed(print_results, runs).strip() == ""
    listed = printed(print_runs, runs)
    assert "walk" in listed and "%" not in listed
