"""Warm-up and the exponential schedule; weight decay and its twin, the growing rate, equal to rounding."""

import json
import math
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import register
from omegaconf import OmegaConf
from torch import nn

from icsbench import training
from icsbench.analysis.quantities import updates
from icsbench.config import Config, DataConfig, WandbConfig, options_of, probes_options, resolve
from icsbench.data import load_dataset
from icsbench.errors import IcsbenchError
from icsbench.labs.exponential_rate import shrinking
from icsbench.models import Block, InitOptions, Model, Network, NormPlace
from icsbench.norms.contract import Look, Norm
from icsbench.training.trainer import Trainer, learning_rate


def rates(steps=10, **optim):
    config = Config(steps=steps, optim=options_of("optim", **optim))
    return [learning_rate(config, step) for step in range(steps)]


def test_a_warm_up_rises_to_the_schedule():
    assert rates(6, lr=0.4, warmup=4) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert rates(6, lr=0.4, warmup=4, warmup_shape="held") == pytest.approx([0.1] * 4 + [0.4] * 2)
    cosine = rates(8, lr=0.4, schedule="cosine")
    warmed = rates(8, lr=0.4, schedule="cosine", warmup=3)
    assert warmed == pytest.approx([cosine[0] / 3, cosine[1] * 2 / 3, *cosine[2:]])
    assert rates(5, lr=0.4, warmup=1) == [0.4] * 5


def test_an_exponential_rate_grows_by_its_factor():
    assert rates(4, lr=0.1, schedule="exponential", growth=2.0) == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert rates(4, lr=0.1, schedule="exponential", growth=2.0, warmup=2)[0] == pytest.approx(0.05)
    assert rates(4, lr=0.1, schedule="exponential") == [0.1] * 4


@pytest.mark.parametrize(
    "optim",
    [
        {},
        {"schedule": "cosine", "warmup": 4},
        {"schedule": "exponential", "growth": 1.5, "warmup": 3, "warmup_shape": "held"},
        {"warmup": 7},
    ],
)
def test_both_halves_have_the_same_rates(optim):
    config = Config(steps=20, optim=options_of("optim", lr=0.3, **optim))
    read = {"steps": 20} | {f"optim.{key}": getattr(config.optim, key) for key in vars(config.optim)}
    run = types.SimpleNamespace(lr=0.3, setting=lambda key, default=None: read.get(key, default))
    found = updates.learning_rate(run, np.arange(20))
    assert found == pytest.approx([learning_rate(config, step) for step in range(20)], rel=1e-14)


def test_what_is_not_asked_for_is_no_part_of_the_identity():
    assert Config().identity() == {}
    named = resolve(OmegaConf.create({"optim": {"warmup": 5, "warmup_shape": "held"}})).identity()
    assert named == {"optim.warmup": 5, "optim.warmup_shape": "held"}


@pytest.mark.parametrize(
    ("optim", "line"),
    [
        ({"warmup": 10}, "optim.warmup must be less than steps, 10 (got 10)"),
        ({"warmup": -1}, "optim.warmup must be at least 0 (got -1)"),
        ({"warmup_shape": "cosine"}, "optim.warmup_shape must be one of linear, held (got 'cosine')"),
        ({"warmup_shape": "held"}, "optim.warmup_shape=held is of a warm-up; choose optim.warmup=STEPS too"),
        ({"growth": 1.1}, "optim.growth is of optim.schedule=exponential; leave it out (got 1.1)"),
        ({"schedule": "exponential", "growth": 0}, "optim.growth must be greater than 0 (got 0.0)"),
        (
            {"schedule": "exponential", "growth": 1e40},
            "optim.growth 1e+40 over 10 steps takes the learning rate to 1e+399; choose one nearer to 1",
        ),
    ],
)
def test_what_is_wrong_is_one_line(optim, line):
    with pytest.raises(IcsbenchError) as caught:
        resolve(OmegaConf.create({"steps": 10, "optim": optim}))
    assert str(caught.value) == f"configuration: {line}"


# --- in a run --------------------------------------------------------------------------------------------------------


class BareBatchNorm(nn.Module):
    """BN without gamma and beta and with eps = 0."""

    def forward(self, x):
        return (x - x.mean(0)) / x.var(0, correction=0).sqrt()


BARE = Norm(
    "bare", Look("bare", 90, "#000000", "-", "o"), lambda options, transform, place: (transform, BareBatchNorm())
)


class ScaleInvariant(Network):
    """Two hidden layers without biases, and an output that is not trained; in float64."""

    def __init__(self, options, norm, *, shape, num_classes, seed):
        super().__init__()
        self.fc1 = Block(nn.Linear(math.prod(shape), 12, bias=False), NormPlace(12, 1), nn.ReLU())
        self.fc2 = Block(nn.Linear(12, 8, bias=False), NormPlace(8, 1), nn.ReLU())
        self.fc3 = Block(nn.Linear(8, num_classes, bias=False), nn.Identity(), nn.Identity())
        self.finish(norm, options, seed)
        self.fc3.requires_grad_(False)

    def forward(self, x):
        return self.fc3(self.fc2(self.fc1(x.flatten(1).double())))


MODEL = Model(
    "scale_invariant",
    ScaleInvariant,
    lambda options: "scale-invariant",
    "inputs with classes",
    lambda shape, classes: classes,
    InitOptions,
    dtype=torch.float64,
)
ETA, LAMBDA, STEPS = 0.2, 5e-3, 40


@pytest.fixture(autouse=True)
def _members(monkeypatch):
    register(monkeypatch, "models", MODEL)
    register(monkeypatch, "norms", BARE)


def config(folder, norm="bare", **optim):
    return Config(
        results=str(folder),
        steps=STEPS,
        batch_size=32,
        log_every=1,
        eval_every=STEPS,
        recalibration_batches=1,
        device="cpu",
        threads=1,
        data=DataConfig("digits8", val_size=157),
        model=options_of("model", "scale_invariant"),
        norm=options_of("norm", norm),
        optim=options_of("optim", **optim),
        probes=probes_options(shift=False),
        wandb=WandbConfig("disabled"),
    )


def twins(folder, norm, momentum):
    """The run with weight decay, and its twin."""
    alpha = shrinking(ETA, momentum, LAMBDA)
    decayed = config(folder / "decayed", norm, lr=ETA, weight_decay=LAMBDA, momentum=momentum)
    growing = {"lr": ETA / alpha, "growth": alpha**-2, "schedule": "exponential", "momentum": momentum}
    return decayed, config(folder / "growing", norm, **growing), alpha


def losses(c):
    training.run(c)
    lines = map(json.loads, (c.run_dir / "metrics.jsonl").read_text().splitlines())
    return np.array([row["train/loss"] for row in lines if "train/loss" in row])


def test_weight_decay_is_an_exponential_rate_without_momentum(tmp_path):
    decayed, growing, _ = twins(tmp_path, "bare", 0.0)
    one, other = losses(decayed), losses(growing)
    assert len(one) == STEPS and one[-1] < 0.8 * one[0]
    assert one == pytest.approx(other, rel=1e-12)
    one, other = map(losses, twins(tmp_path / "control", "none", 0.0)[:2])
    assert np.abs(one - other).max() > 1e-2  # without BN


def test_the_rate_of_a_warm_up_is_that_of_the_rows_and_of_the_probes(tmp_path):
    probes = probes_options(shift=False, landscape=True, update_every=1, alpha_low=1.0, alpha_high=2.0, alpha_points=2)
    c = replace(config(tmp_path, "bare", lr=0.2, warmup=4), probes=probes, steps=6)
    training.run(c)
    lines = [*map(json.loads, (c.run_dir / "metrics.jsonl").read_text().splitlines())]
    used = [0.05, 0.1, 0.15, 0.2, 0.2, 0.2]
    assert [row["lr"] for row in lines if "lr" in row] == pytest.approx(used)
    assert [row["landscape/alphas"][0] for row in lines if "landscape/alphas" in row] == pytest.approx(used)


def trained(c, start=None):
    """The weights of the hidden layers after each update; ``start`` maps them to momentum at first."""
    trainer = Trainer(c, load_dataset("digits8", None, 157), torch.device("cpu"))
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    if start is not None:
        for weight in weights:
            trainer.optimizer.state[weight]["momentum_buffer"] = start(weight.detach())
    trainer.model.train()
    for number in range(STEPS):
        trainer.step(number)
        yield [weight.detach().clone() for weight in weights]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.8])
def test_with_momentum_the_twin_starts_with_one_along_its_weights(tmp_path, momentum):
    """The weights of the twin are those of the run with weight decay, over alpha^t, at every step."""
    decayed, growing, alpha = twins(tmp_path, "bare", momentum)
    start = (lambda w: -(1 - alpha) / (ETA * alpha) * w) if momentum else None
    for number, (w, u) in enumerate(zip(trained(decayed), trained(growing, start), strict=True), 1):
        for one, other in zip(w, u, strict=True):
            torch.testing.assert_close(other * alpha**number, one, rtol=0, atol=1e-11)
    if momentum:
        last, plain = [*trained(decayed)][-1], [*trained(growing)][-1]
        assert not torch.allclose(plain[0] * alpha**STEPS, last[0], rtol=0, atol=1e-6)
