"""The estimated cost of a run counts what a run does."""

import pytest
import torch
from helpers import PROBED, TINY, isolate, rows

import icsbench.training.evaluation as evaluation
from icsbench.app.compose import composed
from icsbench.data import load_dataset
from icsbench.training import cost, run
from icsbench.training.task import Task


@pytest.fixture
def configs(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)

    def of(*overrides):
        return composed([*TINY, *overrides])

    return of


def dataset_of(config):
    return load_dataset(config.data.name, None, config.data.val_size)


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn"])
def test_steps_probes_and_evaluated_batches_are_those_of_the_run(configs, monkeypatch, norm):
    config = configs(f"norm={norm}", *PROBED, "probes=all", "probes.update_every=2", "steps=9", "eval_every=4")
    seen = {"batches": 0}
    plain = evaluation.normalise

    def counted(*arguments):
        seen["batches"] += 1
        return plain(*arguments)

    monkeypatch.setattr(evaluation, "normalise", counted)
    monkeypatch.setattr(Task, "_affordable", lambda self, images: frozenset((4, 8)))
    run(config)
    probes = len(list(config.run_dir.glob("probes/shift/*.npz")))
    updates = sum("landscape/beta" in row for row in rows(config.run_dir))

    price = {"step": 1.0, "watched": 101.0}
    calls = []

    def priced(work, device):
        work()
        calls.append(work.__name__)
        return price.get(work.__name__, 1e4 if calls.count("<lambda>") == 1 else 1e7)

    monkeypatch.setattr(cost, "_seconds", priced)
    seconds = cost.seconds_of_run(config, dataset_of(config))
    assert calls == ["step", "watched", "<lambda>", "<lambda>"]
    evaluated, rest = divmod(round(seconds), 10**7)
    assert rest % 10**4 == 9 + 100 * updates
    assert rest // 10**4 == probes
    recalibrations = {"none": 0, "bn": 3, "noisy_bn": 4}[norm]  # two along the way, at the end one for each protocol
    assert sum("test/accuracy/recalibrated-off" in row for row in rows(config.run_dir)) == 3
    assert evaluated == seen["batches"] + recalibrations * config.recalibration_batches


def test_a_regression_is_not_evaluated(configs, monkeypatch):
    config = configs("model=dln", "data=gaussian", "batch_size=1000", "steps=5")
    monkeypatch.setattr(cost, "_seconds", lambda work, device: (work(), 1.0)[1])
    assert cost.seconds_of_run(config, load_dataset("gaussian", None, 0, seed=0)) == 5.0


def test_timing_leaves_the_first_call_out():
    calls = []
    assert cost._seconds(lambda: calls.append(1), torch.device("cpu")) < 0.1
    assert len(calls) == 1 + cost._STEPS
