import itertools
import json
import math
import platform
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from icsbench import training
from icsbench.config import Config, DataConfig, WandbConfig, options_of, probes_options
from icsbench.data import Batches, channel_statistics, load_dataset
from icsbench.errors import IcsbenchError
from icsbench.record.writer import Record
from icsbench.training.trainer import learning_rate

REGIMES = ("none", "bn", "noisy_bn", "noise")


def config(tmp_path, norm="bn", **changes):
    settings = {
        **{"results": str(tmp_path), "steps": 24, "batch_size": 32, "threads": 1},
        **{"log_every": 5, "eval_every": 10, "checkpoint_every": 7, "recalibration_batches": 3},
        "data": DataConfig(val_size=157),
        "model": options_of("model", "vgg11", width=0.0625),
        "norm": options_of("norm", norm),
        "probes": probes_options(every=6, batch_size=16, samples=64),
        "wandb": WandbConfig(mode="disabled"),
    }
    return Config(**settings | changes)


def rows(c):
    return [json.loads(line) for line in (c.run_dir / "metrics.jsonl").read_text().splitlines()]


def weights(c):
    return torch.load(c.run_dir / "checkpoint.pt", weights_only=True)["model"]


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def record_bytes(c):
    """Everything of a record that is a function of the config."""
    skip = {"timing.json", "checkpoint.pt", "run.lock", "seal.json"}  # the seal covers config.yaml, see below
    files = (path for path in sorted(c.run_dir.rglob("*")) if path.is_file() and path.name not in skip)
    text = {str(path.relative_to(c.run_dir)): path.read_bytes() for path in files}
    return {name: content for name, content in text.items() if name != "config.yaml"}


def bare_loop(c):
    """The same training, written as anybody would write it."""
    dataset = load_dataset("digits", None, c.data.val_size)
    mean, std = channel_statistics(dataset.train.images)
    batches = Batches(dataset.train, c.batch_size, c.seed, mean=mean, std=std, device="cpu")
    model = training.build_model(c, 10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), c.optim.lr, c.optim.momentum, weight_decay=c.optim.weight_decay)
    losses, accuracies = [], []
    for step in range(c.steps):
        inputs, targets = batches(step)
        optimizer.zero_grad()
        logits = model(inputs)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        accuracies.append((logits.argmax(1) == targets).float().mean().item())
    return model, losses, accuracies


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_the_loop_trains_exactly_as_a_bare_loop_does(tmp_path, norm):
    c = config(tmp_path, norm, optim=options_of("optim", lr=0.05, momentum=0.9, weight_decay=1e-3))
    training.run(c)
    model, losses, accuracies = bare_loop(c)
    assert same_weights(weights(c), model.state_dict())
    logged = [row for row in rows(c) if "train/loss" in row]
    assert [row["step"] for row in logged] == [5, 10, 15, 20, 24]
    for row, start in zip(logged, (0, 5, 10, 15, 20), strict=True):
        window = slice(start, row["step"])
        assert row["train/loss"] == pytest.approx(np.mean(losses[window]), rel=1e-12)
        assert row["train/accuracy"] == pytest.approx(np.mean(accuracies[window]), rel=1e-6)


@pytest.mark.parametrize("norm", REGIMES)
def test_probes_on_or_off_is_bit_identical_training(tmp_path, norm):
    on, off = config(tmp_path, norm), config(tmp_path, norm, probes=probes_options(shift=False))
    assert training.run(on) == training.run(off)
    assert same_weights(weights(on), weights(off))
    plain = [row for row in rows(on) if "shift/interval" not in row]
    assert plain == rows(off)
    assert len(rows(on)) > len(plain)


@pytest.mark.parametrize("norm", REGIMES)
def test_evaluating_more_often_is_bit_identical_training(tmp_path, norm):
    often, seldom = config(tmp_path, norm, eval_every=1), config(tmp_path, norm, eval_every=1000)
    training.run(often), training.run(seldom)
    assert same_weights(weights(often), weights(seldom))


class Killed(BaseException):
    """Stands for kill -9: nothing of ours handles it."""


def kill_at(step, monkeypatch):
    """Die in the middle of the update after ``step`` updates."""
    original, calls = torch.optim.SGD.step, []

    def dying(self, *args):
        calls.append(1)
        if len(calls) > step:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", dying)


@pytest.mark.parametrize(
    ("norm", "step"), [*((norm, 13) for norm in REGIMES), *(("noisy_bn", at) for at in (3, 7, 23))]
)
def test_a_run_killed_anywhere_goes_on_to_the_same_bytes(tmp_path, norm, step):
    options = {"optim": options_of("optim", momentum=0.9), "data": DataConfig(val_size=157, flip=True, crop=True)}
    whole, killed = config(tmp_path / "a", norm, **options), config(tmp_path / "b", norm, **options)
    training.run(whole)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(step, patch)
        training.run(killed)
    assert not (killed.run_dir / "summary.json").exists()
    with open(killed.run_dir / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 24, "tr')  # a line that was being written
    training.run(killed)
    assert record_bytes(whole) == record_bytes(killed)
    assert same_weights(weights(whole), weights(killed))


def test_a_run_killed_between_its_last_checkpoint_and_its_summary(tmp_path):
    whole, killed = config(tmp_path / "a", "noisy_bn"), config(tmp_path / "b", "noisy_bn")
    training.run(whole), training.run(killed)
    (killed.run_dir / "summary.json").unlink()
    training.run(killed)
    assert record_bytes(whole) == record_bytes(killed)


def test_a_complete_run_is_left_alone(tmp_path):
    c = config(tmp_path)
    first = training.run(c)
    before = {path: path.stat().st_mtime_ns for path in c.run_dir.rglob("*") if path.name != "run.lock"}
    assert training.run(c) == first
    assert {path: path.stat().st_mtime_ns for path in c.run_dir.rglob("*") if path.name != "run.lock"} == before


def test_a_resumed_run_keeps_its_threads(tmp_path, monkeypatch):
    c = config(tmp_path, threads=None)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(10, patch)
        training.run(c, threads=1)
    training.run(c, threads=2)
    assert torch.get_num_threads() == 1
    assert json.loads((c.run_dir / "environment.json").read_text())["threads"] == 1


def test_regimes_of_one_seed_see_the_same_batches(tmp_path, monkeypatch):
    seen = {}
    original = Batches.__call__
    for norm in REGIMES:
        batches = []

        def spy(self, step, batches=batches):
            inputs, targets = original(self, step)
            batches.append((step, inputs.clone(), targets.clone()))
            return inputs, targets

        monkeypatch.setattr(Batches, "__call__", spy)
        training.run(config(tmp_path, norm, data=DataConfig(val_size=157, crop=True, flip=True), eval_every=1000))
        # recalibration at step 0 and at the end reads batches too
        first = next(i for i in range(len(batches)) if [step for step, *_ in batches[i : i + 24]] == [*range(24)])
        seen[norm] = batches[first : first + 24]
    assert [step for step, _, _ in seen["none"]] == list(range(24))
    for norm in REGIMES[1:]:
        for (_, a, s), (_, b, t) in zip(seen["none"], seen[norm], strict=True):
            assert torch.equal(a, b)
            assert torch.equal(s, t)


def test_divergence_is_an_outcome_with_its_step(tmp_path):
    c = config(tmp_path, "none", optim=options_of("optim", lr=1e6))
    summary = training.run(c)
    _, losses, _ = bare_loop(c)
    first = next(step for step, loss in enumerate(losses) if not math.isfinite(loss))
    assert summary["outcome"] == "diverged"
    assert summary["diverged_at"] == first
    assert summary["steps"] < c.steps
    assert json.dumps(training.run(c)) == json.dumps(summary)  # complete: not tried again


def test_a_diverged_run_has_the_accuracy_of_chance(tmp_path):
    summary = training.run(config(tmp_path, "none", optim=options_of("optim", lr=1e6)))
    assert summary["outcome"] == "diverged"
    for split in ("test", "val"):
        assert summary[f"{split}/accuracy"] == pytest.approx(dict.fromkeys(summary[f"{split}/accuracy"], 0.1))


def test_a_diverged_run_killed_before_its_summary_stays_diverged(tmp_path):
    c = config(tmp_path, "none", optim=options_of("optim", lr=1e6))
    summary = training.run(c)
    before = record_bytes(c)
    (c.run_dir / "summary.json").unlink()
    assert json.dumps(training.run(c)) == json.dumps(summary)
    assert record_bytes(c) == before


def test_never_leaving_chance_is_an_outcome(tmp_path):
    summary = training.run(config(tmp_path, "none", optim=options_of("optim", lr=1e-9)))
    assert summary["outcome"] == "chance"
    assert summary["left_chance_at"] is None


def test_leaving_chance_is_recorded_with_its_step(tmp_path):
    c = config(tmp_path, "bn", steps=60, model=options_of("model", "vgg11", width=0.125))
    summary = training.run(c)
    assert summary["outcome"] == "trained"
    accuracies = {row["step"]: row["train/accuracy"] for row in rows(c) if "train/accuracy" in row}
    assert summary["left_chance_at"] == min(step for step, accuracy in accuracies.items() if accuracy >= 0.2)
    assert summary["train/accuracy"] == accuracies[60]


def test_cosine_schedule():
    c = Config(steps=100, optim=options_of("optim", lr=0.4, schedule="cosine"))
    assert [learning_rate(c, step) for step in (0, 50, 100)] == pytest.approx([0.4, 0.2, 0.0])
    assert learning_rate(Config(optim=options_of("optim", lr=0.4)), 77) == 0.4


def test_the_learning_rate_reaches_the_optimizer(tmp_path):
    c = config(tmp_path, optim=options_of("optim", lr=0.1, schedule="cosine"), steps=10)
    training.run(c)
    assert [row["lr"] for row in rows(c) if "lr" in row] == pytest.approx([learning_rate(c, 4), learning_rate(c, 9)])


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about itself
@pytest.mark.parametrize("option", ["amp", pytest.param("compile", marks=pytest.mark.slow), "deterministic"])
def test_options_train(tmp_path, option):
    plain, changed = config(tmp_path, "noisy_bn", steps=3), config(tmp_path, "noisy_bn", steps=3, **{option: True})
    try:
        a, b = training.run(plain), training.run(changed)
    finally:
        torch.use_deterministic_algorithms(False)
    assert math.isfinite(b["train/loss"])
    assert b["train/loss"] == pytest.approx(a["train/loss"], rel=0.2)
    assert (b["train/loss"] == a["train/loss"]) == (option == "deterministic")


def test_other_data_than_the_record_began_with_is_refused(tmp_path, monkeypatch):
    c = config(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(10, patch)
        training.run(c)
    environment = json.loads((c.run_dir / "environment.json").read_text())
    environment["data"]["fingerprint"] = "0" * 16
    (c.run_dir / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(IcsbenchError, match="was made from other data"):
        training.run(c)


def test_batch_larger_than_the_data(tmp_path):
    with pytest.raises(IcsbenchError, match="1280"):
        training.run(config(tmp_path, batch_size=1281))
    with pytest.raises(IcsbenchError, match=r"probes\.batch_size is 1281"):
        training.run(config(tmp_path, probes=probes_options(batch_size=1281)))


def test_a_failure_is_noted_in_the_record_and_forgotten_by_the_next_attempt(tmp_path):
    c = config(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(nn.Module, "to", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of luck")))
        training.run(c)
    assert json.loads((c.run_dir / "failure.json").read_text()) == {"error": "RuntimeError: out of luck"}
    training.run(c)
    assert not (c.run_dir / "failure.json").exists()


def test_an_explicit_number_of_threads_does_not_change_a_run_that_has_begun(tmp_path, capsys):
    c = config(tmp_path, threads=1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(10, patch)
        training.run(c)
    training.run(replace(c, threads=2))
    assert torch.get_num_threads() == 1
    assert "goes on with the 1 threads it began with" in capsys.readouterr().err


def test_batch_statistics_of_few_images_with_a_norm_in_the_head(tmp_path):
    model = options_of("model", "vgg11", width=0.0625, head="512-512", head_norm=True)
    c = config(tmp_path, "bn", model=model, data=DataConfig(val_size=3), batch_size=2, steps=2)
    summary = training.run(c)
    assert 0 <= summary["val/accuracy"]["batch-off"] <= 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries of C keep memory as they see fit")
def test_freed_memory_is_kept_for_the_next_step(tmp_path):
    training.run(config(tmp_path, steps=1))
    faults = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(25_000_000)  # 100 MB, 24,415 pages of 4 KB
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 100


def test_a_metrics_file_on_a_full_disk(tmp_path, monkeypatch):
    c = config(tmp_path)
    c.run_dir.mkdir(parents=True)
    (c.run_dir / "metrics.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(Record, "rewind", lambda *_: None)  # a device cannot be truncated
    with pytest.raises(IcsbenchError, match="No space left on device; free some space and run the same command"):
        training.run(c)
    (c.run_dir / "metrics.jsonl").unlink()
    monkeypatch.undo()
    assert training.run(c)["status"] == "complete"  # the lock was given back


# --- every probe, the other networks ---------------------------------------------------------------------------------

EVERYTHING = probes_options(
    **{"every": 6, "batch_size": 16, "samples": 64, "update_every": 5, "alpha_points": 2},
    **dict.fromkeys(("shift", "ics", "landscape", "least_squares"), True),
)


def regression(tmp_path, norm="bn", **changes):
    """The deep linear network, eight layers of it."""
    other = {
        "batch_size": 1000,
        "data": DataConfig("gaussian", val_size=0),
        "model": options_of("model", "dln", depth=8, units=10),
        "optim": options_of("optim", lr=1e-5),
    }
    return config(tmp_path, norm, **other | changes)


def sigmoid_mlp(tmp_path, norm="bn", **changes):
    other = {
        "data": DataConfig("digits8", val_size=157, binary=True),
        "model": options_of("model", "mlp", depth=3, units=20, init="gaussian"),
    }
    return config(tmp_path, norm, **other | changes)


def resnet(tmp_path, norm="bn", **changes):
    other = {
        "batch_size": 16,
        "model": options_of("model", "resnet20", width=1 / 16),
        "optim": options_of("optim", lr=0.01, momentum=0.9),
    }
    return config(tmp_path, norm, **other | changes)


CASES = [
    *itertools.product((config, regression, sigmoid_mlp), ("none", "bn", "noisy_bn", "linf")),
    *itertools.product((resnet,), ("bn", "skipinit", "fixup")),
]


@pytest.mark.parametrize(("make", "norm"), CASES)
def test_every_probe_at_once_is_bit_identical_training(tmp_path, make, norm):
    on, off = (
        make(tmp_path / "on", norm, probes=EVERYTHING),
        make(tmp_path / "off", norm, probes=probes_options(shift=False)),
    )
    assert training.run(on) == training.run(off)
    assert same_weights(weights(on), weights(off))
    measured = ("shift/", "ics/", "landscape/", "least_squares/")
    assert [row for row in rows(on) if not any(key.startswith(measured) for key in row)] == rows(off)
    updates = [row for row in rows(on) if "landscape/beta" in row]
    assert [row["step"] for row in updates] == [0, 5, 10, 15, 20]
    layers = json.loads((on.run_dir / "probes/ics/layers.json").read_text())
    assert layers[0]["depth"] == 1
    assert all(f"ics/{layer['layer']}/cosine" in row for layer in layers for row in updates)


@pytest.mark.parametrize(
    ("make", "norm"), [*((make, "noisy_bn") for make in (config, regression, sigmoid_mlp)), (resnet, "fixup")]
)
@pytest.mark.parametrize("step", [5, 13])
def test_a_run_with_every_probe_killed_goes_on_to_the_same_bytes(tmp_path, make, norm, step):
    whole, killed = (make(tmp_path / name, norm, probes=EVERYTHING) for name in "ab")
    training.run(whole)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(step, patch)
        training.run(killed)
    training.run(killed)
    assert record_bytes(whole) == record_bytes(killed)
    assert same_weights(weights(whole), weights(killed))


def test_the_measured_update_is_the_one_that_is_made(tmp_path):
    c = config(
        tmp_path, "none", optim=options_of("optim", lr=0.05, momentum=0.9), probes=replace(EVERYTHING, update_every=12)
    )
    training.run(c)
    _, losses, _ = bare_loop(replace(c, steps=13))
    row = next(row for row in rows(c) if row["step"] == 12 and "landscape/loss" in row)
    assert row["landscape/loss"] == pytest.approx(losses[12], rel=1e-6)
    assert row["landscape/alphas"] == pytest.approx([0.05 * 0.5, 0.05 * 4])


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_a_regression_trains_exactly_as_a_bare_loop_does(tmp_path, norm):
    c = regression(tmp_path, norm)
    summary = training.run(c)
    dataset = load_dataset("gaussian", None, 0, seed=c.seed)
    model = training.build_model(c, None)
    losses = []
    for _ in range(c.steps):
        loss = 0.5 * ((model(dataset.train.images) - dataset.train.labels) ** 2).sum()
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= c.optim.lr * parameter.grad
    logged = [row for row in rows(c) if "train/loss" in row]
    for row, start in zip(logged, (0, 5, 10, 15, 20), strict=True):
        assert row["train/loss"] == pytest.approx(np.mean(losses[start : row["step"]]), rel=1e-9)
        assert "train/accuracy" not in row
    assert summary["outcome"] == "trained"
    assert summary["test/accuracy"] == summary["val/accuracy"] == {}
    assert "train/accuracy" not in summary
    assert losses[-1] < losses[0]


def test_a_regression_that_diverges_says_so(tmp_path):
    summary = training.run(regression(tmp_path, "none", optim=options_of("optim", lr=10.0), probes=EVERYTHING))
    assert summary["outcome"] == "diverged"
    assert summary["diverged_at"] < 24


def test_each_seed_of_a_regression_has_its_own_problem(tmp_path):
    runs = [regression(tmp_path, seed=seed, probes=probes_options(shift=False)) for seed in (0, 1)]
    losses = [training.run(c)["train/loss"] for c in runs]
    assert losses[0] != losses[1]


def test_the_sigmoid_network_learns_and_its_units_are_recorded(tmp_path):
    c = sigmoid_mlp(tmp_path, "bn", steps=300, optim=options_of("optim", lr=0.3), log_every=100, eval_every=100)
    summary = training.run(c)
    assert summary["train/accuracy"] > 0.5
    layers = json.loads((c.run_dir / "probes/shift/layers.json").read_text())
    assert [layer["channels"] for layer in layers] == [20, 20, 20, 10]
    assert layers[0]["input_channels"] == 64
