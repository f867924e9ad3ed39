"""A run cut at step T is the run of T steps: the long one and the short one are trained, and compared."""

import json
import math

import pytest
import yaml
from helpers import invoke
from planted import finish, write
from synthetic import write_lab, write_run, write_study

from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.shift import last_hidden_layer, percentile_drift
from icsbench.analysis.quantities.training import final_loss, last_tenth, left_chance
from icsbench.analysis.quantities.updates import measurements, window_median
from icsbench.analysis.verdicts import judge
from icsbench.errors import IcsbenchError
from icsbench.record.cut import cut
from icsbench.record.reader import load_runs

T = 10
TINY = (
    *("data=digits", "model=mlp", "model.depth=3", "model.units=8", "batch_size=32", "log_every=5", "eval_every=5"),
    *("recalibration_batches=2", "threads=1", "device=cpu", "wandb=disabled", "optim.lr=0.1", "experiment=landscape"),
    *("probes=all", "probes.every=5", "probes.update_every=2", "probes.batch_size=16", "probes.samples=64"),
    "hydra/launcher=basic",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of T steps and of 2T steps, of none, bn and noisy BN: two folders of records."""
    folder = tmp_path_factory.mktemp("trained")
    for name, steps in (("short", T), ("long", 2 * T)):
        said = invoke("sweep", *TINY, "norm=none,bn,noisy_bn", "seed=0", f"steps={steps}", f"results={folder / name}")
        assert said.code == 0, said.err
    return folder


def both(folder):
    """Pairs of a short run and the long one, cut."""
    short, long = (load_runs(folder / name) for name in ("short", "long"))
    key = lambda run: (run.regime, run.seed)  # noqa: E731
    return list(zip(sorted(short, key=key), (cut(run, T) for run in sorted(long, key=key)), strict=True))


def test_rows_are_those_of_the_short_run_bit_for_bit(trained):
    for short, beginning in both(trained):
        rows, others = ([r for r in run.metrics.rows if "test/accuracy" not in r] for run in (short, beginning))
        assert repr(rows) == repr(others) and {"ics/fc2/cosine", "train/loss"} <= {k for r in rows for k in r}
        assert beginning.setting("steps") == beginning.at_step == T and short.at_step is None
        assert beginning.steps_of("shift") == short.steps_of("shift") and T in beginning.steps_of("shift")
        assert beginning.seconds is None


def test_a_cut_of_a_cut_is_the_cut_of_the_whole(trained):
    for run in load_runs(trained / "long"):
        once, twice = cut(run, 5), cut(cut(run, T), 5)
        assert (once.at_step, once.settings, repr(once.summary)) == (twice.at_step, twice.settings, repr(twice.summary))
        assert repr(once.metrics.rows) == repr(twice.metrics.rows)
        with pytest.raises(IcsbenchError, match="has 10 steps and cannot be cut at step 20"):
            cut(cut(run, T), 2 * T)


def test_figures_at_a_step_are_drawn_of_a_whole_study(tmp_path):
    """Of six seeds, where the figure of the budget would cut what is cut already."""
    write_study(tmp_path, steps=40)
    (path,) = {run.path.parent.parent for run in load_runs(tmp_path)}
    middle = load_runs(tmp_path)[0].metrics.series("train/loss")[0][1]
    done = invoke("figures", str(path), "--at-step", str(middle))
    assert (done.code, done.err) == (0, "")
    drawn = {path.name for path in (path / f"at-step-{middle}" / "figures").glob("*.png")}
    assert "accuracy.png" in drawn and "budget.png" not in drawn


def test_the_summary_is_that_of_the_short_run_where_it_was_evaluated(trained):
    evaluated = set()
    for short, beginning in both(trained):
        assert beginning.status == short.status
        for key in short.summary:
            if key in ("test/accuracy", "val/accuracy"):
                assert beginning.summary[key].keys() == short.summary[key].keys()
                for protocol, value in beginning.summary[key].items():
                    if math.isfinite(value):
                        evaluated.add((key, protocol))
                        assert value == short.summary[key][protocol]
            elif key in beginning.summary or not key.endswith("recalibrated-off"):
                assert beginning.summary[key] == short.summary[key]
    assert evaluated == {("test/accuracy", "running-off"), ("test/accuracy", "batch-on")} | (
        evaluated & {("test/accuracy", "recalibrated-off")}
    )


def test_every_quantity_of_a_claim_is_that_of_the_short_run(trained):
    for short, beginning in both(trained):
        for quantity in (last_tenth, final_loss, left_chance):
            assert quantity(beginning) == quantity(short)
        mine, theirs = measurements(beginning), measurements(short)
        assert mine.keys() == theirs.keys() and len(mine) > 5
        for name, series in mine.items():
            for window in ("first tenth", "second half", "whole"):
                found, expected = window_median(beginning, series, window), window_median(short, theirs[name], window)
                assert found == expected or (math.isnan(found) and math.isnan(expected))
    short, beginning = ([run for run in runs] for runs in zip(*both(trained), strict=True))
    (one,), (other,) = group_runs(short), group_runs(beginning)
    drifts = [percentile_drift(group, last_hidden_layer(group)) for group in (one, other)]
    assert [drift.averages for drift in drifts[0]] == [drift.averages for drift in drifts[1]]


def test_verdicts_are_those_of_the_short_runs_or_not_measured_at_that_step(trained):
    pairs = both(trained)
    verdicts = zip(judge([short for short, _ in pairs]), judge([beginning for _, beginning in pairs]), strict=True)
    alike, lacking = 0, 0
    for short, beginning in verdicts:
        for of_short, of_cut in zip(short.findings, beginning.findings, strict=True):
            assert of_short.values == of_cut.values or "at step 10" in of_cut.missing
            assert of_short.left_out == of_cut.left_out or of_cut.missing
            alike += bool(of_cut.values or of_cut.left_out)
            lacking += "at step 10" in of_cut.missing
    assert alike >= 8 and lacking >= 1


def change(path, **settings):
    """Set dotted keys of a run's config, or with ``environment__`` before them of its environment."""
    config = yaml.safe_load((path / "config.yaml").read_text())
    for key, value in settings.items():
        *groups, leaf = key.split("__")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    (path / "config.yaml").write_text(yaml.safe_dump(config))


def one_run(path):
    (run,) = load_runs(path)
    return run


def add(path, *rows):
    """Put rows behind all others of their step."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sorted([*lines, *rows], key=step_of)))


def step_of(row):
    return row["step"]


@pytest.mark.parametrize(
    ("step", "settings", "said"),
    [
        (0, {}, "records are cut at a step from 1 on (got 0)"),
        (-5, {}, "records are cut at a step from 1 on (got -5)"),
        (400, {}, "has 200 steps and cannot be cut at step 400; choose a smaller one"),
        (55, {}, "has no row of training at step 55; choose 50 or 60"),
        (3, {}, "has no row of training at step 3; choose 10"),
        (100, {"optim__schedule": "cosine"}, "(optim.schedule=cosine) depends on how many steps it has"),
        (100, {"optim__warmup": 100}, "warms up over 100 steps; choose a step behind that (got 100)"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(tmp_path, step, settings, said):
    path = write_run(tmp_path, "bn", steps=200)
    change(path, **settings)
    with pytest.raises(IcsbenchError) as refused:
        cut(one_run(path), step)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert str(path) in str(refused.value) or step < 1


def test_a_run_of_so_many_steps_is_itself_whatever_its_schedule(tmp_path):
    path = write_run(tmp_path, "bn", steps=200)
    change(path, optim__schedule="cosine")
    run = one_run(path)
    same = cut(run, 200)
    assert same.summary == run.summary and same.metrics.rows == run.metrics.rows and same.at_step == 200
    change(path, optim__schedule="exponential", optim__growth=1.001, optim__warmup=99)
    assert cut(one_run(path), 100).setting("steps") == 100


@pytest.mark.parametrize(("diverged_at", "status"), [(99, "diverged"), (100, "complete"), (150, "complete")])
def test_a_run_diverged_if_an_update_before_the_cut_did(tmp_path, diverged_at, status):
    path = write_run(tmp_path, "bn", steps=200)
    summary = json.loads((path / "summary.json").read_text()) | {"outcome": "diverged", "diverged_at": diverged_at}
    (path / "summary.json").write_text(json.dumps(summary | {"steps": diverged_at // 10 * 10 + 10}))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["step"] <= diverged_at // 10 * 10 + 10]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    found = cut(one_run(path), 100)
    assert found.status == status and found.summary["diverged_at"] == (99 if status == "diverged" else None)
    if status == "diverged":
        assert final_accuracy(found) == found.chance == 0.1


@pytest.mark.parametrize(("accuracy", "status"), [(0.19, "chance"), (0.2, "complete"), (float("nan"), "chance")])
def test_it_is_at_chance_if_its_last_row_is(tmp_path, accuracy, status):
    path = write_run(tmp_path, "bn", steps=200)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in lines:
        if row["step"] == 100 and "train/accuracy" in row:
            row["train/accuracy"] = accuracy
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    found = cut(one_run(path), 100)
    assert found.status == status
    assert cut(one_run(path), 10).summary["left_chance_at"] is None and found.summary["left_chance_at"] == 20


def test_accuracies_are_those_of_the_evaluation_there_or_not_measured(tmp_path):
    path = write_run(tmp_path, "bn", steps=200, eval_every=50)
    with pytest.raises(NotMeasured, match="no test accuracy under recalibrated-off at step 100, where it was not"):
        final_accuracy(cut(one_run(path), 100))  # the customary protocol is there, and does not stand in for it
    add(path, {"step": 100, "test/accuracy/recalibrated-off": 0.625, "train/accuracy/recalibrated-off": 0.75})
    found = cut(one_run(path), 100)
    assert final_accuracy(found) == 0.625 and found.known_training == 0.75
    with pytest.raises(NotMeasured, match="no val accuracy"):
        final_accuracy(found, "val")
    # 1,000 batches are more than an epoch of 45,000 images, which is all that is recalibrated on along the way.
    change(path, recalibration_batches=1000)
    with pytest.raises(NotMeasured, match="recalibrated-off at step 100"):
        final_accuracy(cut(one_run(path), 100))
    plain = one_run(write_run(tmp_path, "none", steps=200, eval_every=50))
    (there,) = (row["test/accuracy"] for row in plain.metrics.rows if row["step"] == 50 and "test/accuracy" in row)
    assert final_accuracy(cut(plain, 50)) == there
    with pytest.raises(NotMeasured, match="no test accuracy under running-off at step 60"):
        final_accuracy(cut(plain, 60))


def test_the_update_that_follows_is_no_part_of_it(tmp_path):
    path = write_run(tmp_path, "bn", steps=200, eval_every=100, probes=False)
    update, of_another_package = {"step": 100, "ics/fc1/l2": 1.0}, {"step": 100, "theirs/update": 1.0}
    add(path, {"step": 90, "theirs/update": 2.0}, update, of_another_package)
    add(path, {"step": 50, "landscape/beta": 1.0}, {"step": 50, "theirs/network": 3.0})
    found = cut(one_run(path), 100)
    assert not any(key in row for row in found.metrics.rows for key in update.keys() - {"step"})
    assert found.metrics.series("theirs/update")[0].tolist() == [90]
    shorter = cut(one_run(path), 50)
    assert shorter.metrics.series("theirs/network")[0].tolist() == [50] and shorter.metrics.last_step == 50
    assert not len(shorter.metrics.series("landscape/beta")[0])


def test_percentiles_need_a_probe_where_the_run_would_end(tmp_path):
    path = write_run(tmp_path, "bn", steps=200, probe_every=100)
    (group,) = group_runs([cut(one_run(path), 110)])
    with pytest.raises(NotMeasured, match="no shift probe at step 110"):
        percentile_drift(group, last_hidden_layer(group))


def test_what_is_not_finished_and_labs_keep_what_they_have(tmp_path):
    run = one_run(write_run(tmp_path / "a", "bn", steps=200, finished=False))
    assert not cut(run, 1000).finished
    lab = one_run(write_lab(tmp_path / "b"))
    assert cut(lab, 5).metrics.rows == lab.metrics.rows


# --- on the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    """Six seeds of a study whose runs are sealed, and a lab with a claim."""
    for seed in range(6):
        for regime, train in (("bn", 0.6), ("none", 0.5), ("noisy_bn", 0.59 + 0.001 * seed)):
            write(tmp_path / "results", "three_regimes", regime, seed, train=train)
    return tmp_path / "results"


def test_claims_at_a_step_name_it_and_overwrite_nothing(results):
    assert invoke("claims", str(results)).code == 0
    whole = (results / "claims.json").read_bytes()
    said = invoke("claims", str(results), "--at-step", "500")
    assert said.code == 0 and "at scale cpu; records cut at step 500" in said.out and "measured at step 500" in said.out
    assert (results / "claims.json").read_bytes() == whole
    found = json.loads((results / "at-step-500" / "claims.json").read_text())
    assert found["at_step"] == 500 and json.loads(whole)["at_step"] is None
    claim = next(one for one in found["claims"] if one["id"] == "4")
    assert (
        claim["verdict"] == "supported" and "cut at step 500" in claim["facts"] and "1,000 steps" not in claim["facts"]
    )
    assert "effect at step 500" in (results / "at-step-500" / "claims.md").read_text()
    assert "at_step" in (results / "at-step-500" / "claims.csv").read_text().splitlines()[0]
    noise_off = next(one for one in found["claims"] if one["id"] == "4b")
    assert "at step 500, where it was not evaluated" in noise_off["reason"]


def test_a_lab_is_not_measured_at_a_step(tmp_path):
    path = write_lab(tmp_path, "rank", experiment="rank")
    finish(path, json.loads((path / "summary.json").read_text()))
    (verdict,) = judge([cut(run, 500) for run in load_runs(tmp_path)], [claim_of("24")])
    assert verdict.verdict == "not measured" and verdict.reason == "rank is a lab, which has no steps to be cut at"
    said = invoke("figures", str(tmp_path), "--at-step", "500")
    assert said.code == 1 and said.err == (
        "icsbench: all runs are of labs, which have no steps to be cut at; leave --at-step out\n"
    )
