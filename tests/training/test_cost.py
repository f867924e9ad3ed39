"""The estimated cost of a run counts what a run does."""

import pytest
import torch
from helpers import ANY_MODEL, PROBED, TINY, isolate, rows

import icsbench.training.evaluation as evaluation
from icsbench.app.compose import composed
from icsbench.data import load_dataset
from icsbench.training import cost, run
from icsbench.training.trainer import Trainer


@pytest.fixture
def configs(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)

    def of(*overrides, base=TINY):
        return composed([*base, *overrides])

    return of


def dataset_of(config):
    return load_dataset(config.data.name, None, config.data.val_size)


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn"])
def test_steps_probes_and_evaluated_batches_are_those_of_the_run(configs, monkeypatch, norm):
    config = configs(f"norm={norm}", *PROBED, "probes=all", "probes.update_every=2", "steps=9", "eval_every=4")
    seen = {"batches": 0}
    plain = evaluation.normalize

    def counted(*arguments):
        seen["batches"] += 1
        return plain(*arguments)

    monkeypatch.setattr(evaluation, "normalize", counted)
    monkeypatch.setattr(evaluation.Evaluations, "_affordable", lambda self, images: frozenset((4, 8)))
    run(config)
    probes = len(list(config.run_dir.glob("probes/shift/*.npz")))
    updates = sum("landscape/beta" in row for row in rows(config.run_dir))

    price = {"step 0": 1.0, "step 1": 101.0, "look": 1e4, "forward": 1e7}
    called, priced_pieces = [], []
    plain_step, plain_look = Trainer.step, Trainer.look

    def step(self, number, watchers=()):
        called.append(f"step {len(watchers)}")
        return plain_step(self, number, watchers)

    def look(self, *arguments):
        called.append("look")
        return plain_look(self, *arguments)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(Trainer, "look", look)

    def priced(work, device):
        called.clear()
        work()
        (piece,) = called or ["forward"]
        priced_pieces.append(piece)
        return price[piece]

    monkeypatch.setattr(cost, "_seconds", priced)
    seconds = cost.seconds_of_run(config, dataset_of(config))
    assert priced_pieces == ["step 0", "look", "step 1", "forward"]
    evaluated, rest = divmod(round(seconds), 10**7)
    assert rest % 10**4 == 9 + 100 * updates
    assert rest // 10**4 == probes
    recalibrations = {"none": 0, "bn": 3, "noisy_bn": 4}[norm]  # two along the way, at the end one for each protocol
    assert sum("test/accuracy/recalibrated-off" in row for row in rows(config.run_dir)) == 3
    assert evaluated == seen["batches"] + recalibrations * config.recalibration_batches


def test_a_regression_is_not_evaluated(configs, monkeypatch):
    config = configs("model=dln", "data=gaussian", "batch_size=1000", "steps=5", base=ANY_MODEL)
    monkeypatch.setattr(cost, "_seconds", lambda work, device: (work(), 1.0)[1])
    assert cost.seconds_of_run(config, load_dataset("gaussian", None, 0, seed=0)) == 5.0


def test_timing_leaves_the_first_call_out():
    calls = []
    assert cost._seconds(lambda: calls.append(1), torch.device("cpu")) < 0.1
    assert len(calls) == 1 + cost._STEPS
