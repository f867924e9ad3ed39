"""The lab cliff: networks trained together are those of torch.nn trained one by one, and are accounted for."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers import invoke, isolate, run_dir
from torch import nn
from torch.nn import functional as F

from icsbench.data.kinds import Split
from icsbench.labs.cliff import LAB, CliffOptions
from icsbench.labs.cliff.training import PlainNetworks, accuracy_and_loss, initial_weights

EPS = 1e-3
TINY: dict[str, Any] = {"depths": [1, 3], "batches": [8, 200], "width": 12, "epochs": 1, "networks": 2}


def tiny(**changed: Any) -> CliffOptions:
    return CliffOptions("cliff", **(TINY | changed))


def random_weights(networks, widths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(networks, outputs, inputs, generator=generator, dtype=torch.float64) * math.sqrt(2 / inputs)
        for inputs, outputs in pairwise(widths)
    ]


def random_batches(networks, steps, batch, features, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(networks, batch, features, generator=generator, dtype=torch.float64)
        yield x, torch.randint(classes, (networks, batch), generator=generator)


def twin(weights, norm):
    """One network of torch's own modules."""
    layers = []
    for weight in weights:
        if layers:
            layers += [nn.BatchNorm1d(weight.shape[1], EPS, affine=False, dtype=torch.float64)] if norm == "bn" else []
            layers.append(nn.ReLU())
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        linear.weight.data = weight.clone()
        layers.append(linear)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("norm", ["bn", "none"])
@pytest.mark.parametrize("widths", [[5, 9, 9, 9, 3], [7, 16, 16, 4], [6, 3]])
def test_networks_trained_together_are_those_of_torch_trained_alone(norm, widths):
    weights = random_weights(3, widths, seed=len(widths))
    twins = [twin([weight[network] for weight in weights], norm) for network in range(3)]
    together = PlainNetworks(weights, EPS if norm == "bn" else None)
    optimizers = [torch.optim.SGD(one.parameters(), 0.3) for one in twins]
    for x, labels in random_batches(3, 12, 6, widths[0], widths[-1], seed=5):
        for network, (one, optimizer) in enumerate(zip(twins, optimizers, strict=True)):
            optimizer.zero_grad()
            F.cross_entropy(one(x[network]), labels[network]).backward()
            optimizer.step()
        together.step(x, labels, 0.3)
        for network, one in enumerate(twins):
            for mine, theirs in zip(together.weights, one.parameters(), strict=True):
                torch.testing.assert_close(mine[network], theirs.data, rtol=1e-10, atol=1e-12)
    x = torch.randn(3, 12, widths[0], dtype=torch.float64)
    groups = [torch.cat([one(part) for part in x[network].split(6)]) for network, one in enumerate(twins)]
    torch.testing.assert_close(together.logits(x, 6), torch.stack(groups).detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm", ["bn", "none"])
def test_networks_do_not_touch_one_another(norm):
    eps = EPS if norm == "bn" else None
    first, second = ([*random_weights(2, [5, 8, 8, 3], seed=1)] for _ in range(2))
    for weight in second:
        weight[1] *= math.nan  # a network that has diverged
    one, other = PlainNetworks(first, eps), PlainNetworks(second, eps)
    for x, labels in random_batches(2, 4, 8, 5, 3, seed=2):
        one.step(x, labels, 0.1)
        other.step(x, labels, 0.1)
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine[0], theirs[0]) and theirs[1].isnan().all()


def test_accuracy_and_loss_of_planted_networks():
    """Two networks without hidden layer: one reads the class off the pixel that is on, one is always at class 0."""
    labels = torch.arange(4000) % 4
    images = Split(F.one_hot(labels, 4).float() * 5, labels)
    networks = PlainNetworks([torch.stack([torch.eye(4), torch.eye(4)[:1].T.expand(4, 4) * 1.0])], EPS)
    accuracy, loss = accuracy_and_loss(networks, images, 30)
    used = 4000 // 30 * 30
    assert accuracy.tolist() == [1, pytest.approx((labels[:used] == 0).sum() / used)]
    assert float(loss[0]) == pytest.approx(math.log(1 + 3 * math.exp(-5)), rel=1e-5)


def test_a_shallower_network_has_the_first_weights_of_a_deeper_one():
    shallow, deep = (initial_weights(3, 2, [6, *[8] * depth, 4]) for depth in (2, 5))
    assert [torch.equal(a, b) for a, b in zip(shallow[:2], deep[:2], strict=True)] == [True, True]
    assert torch.equal(shallow[-1], deep[-1]) and not torch.equal(deep[1], deep[2])
    fewer = initial_weights(3, 1, [6, 8, 8, 4])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(fewer, shallow, strict=True))
    wide = initial_weights(0, 1, [64, 400, 400, 10])
    assert [float(weight.var()) for weight in wide] == pytest.approx([2 / 64, 2 / 400, 2 / 400], rel=0.05)


def test_rows():
    rows = [*LAB.rows(tiny(), 100)]
    assert [(row["norm"], row["batch"], row["step"], row["network"]) for row in rows] == [
        (norm, batch, depth, network)
        for norm in ("bn", "none")
        for batch in (8, 200)
        for depth in (1, 3)
        for network in (0, 1)
    ]
    assert rows == [*LAB.rows(tiny(), 100)] != [*LAB.rows(tiny(), 101)]
    limits = {row["batch"]: row["theory_cliff"] for row in rows if row["norm"] == "bn"}
    assert limits[8] == pytest.approx(16 * 1.72056650, rel=1e-8)
    assert not any("theory_cliff" in row for row in rows if row["norm"] == "none")
    for row in rows:
        assert 0 <= row["accuracy_test"] <= 1 and 0.05 < row["accuracy_train"] < 1
        assert row["chance"] == 0.1 and row["loss"] > 0 and row["diverged"] is False
    json.dumps(rows, allow_nan=False)
    fewer = [*LAB.rows(tiny(networks=1), 100)]
    assert [row["loss"] for row in fewer] == pytest.approx([row["loss"] for row in rows[::2]], rel=1e-4)


def test_a_network_that_diverged_is_at_chance():
    options = tiny(depths=[6], batches=[64], lr_per_sample=1e6)
    none = [row for row in LAB.rows(options, 100) if row["norm"] == "none"]
    assert all(row["diverged"] and math.isnan(row["loss"]) for row in none)
    assert {row["accuracy_train"] for row in none} == {0.1} == {row["accuracy_test"] for row in none}


@pytest.mark.slow
def test_shallow_networks_learn_and_deep_ones_with_bn_do_not():
    options = CliffOptions("cliff", depths=[4, 64], batches=[32], networks=2)
    accuracy = {(row["norm"], row["step"]): row["accuracy_train"] for row in LAB.rows(options, 100)}
    assert accuracy["bn", 4] > 0.9 and accuracy["none", 4] > 0.9 and accuracy["bn", 64] < 0.3


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("depths", [4, 0], "lab.depths must be at least 1 (got 0)"),
        ("depths", [], "lab.depths must be a list of different numbers (got [])"),
        ("batches", [8, 8], "lab.batches must be a list of different numbers (got [8, 8])"),
        ("batches", [3, 8], "lab.batches must be at least 4 (got 3)"),
        ("width", 1, "lab.width must be at least 2 (got 1)"),
        ("epochs", 0, "lab.epochs must be at least 1 (got 0)"),
        ("lr_per_sample", 0, "lab.lr_per_sample must be greater than 0 (got 0)"),
        ("lr_per_sample", -1e-3, "lab.lr_per_sample must be greater than 0 (got -0.001)"),
        ("lr_per_sample", math.nan, "lab.lr_per_sample must be greater than 0 (got nan)"),
        ("eps", 0, "lab.eps must be greater than 0 (got 0)"),
        ("networks", 0, "lab.networks must be at least 1 (got 0)"),
        ("data", "svhn", "lab.data must be one of digits, cifar10, mnist (got 'svhn')"),
    ],
)
def test_options_out_of_range(key, value, said):
    with pytest.raises(ValueError) as error:
        CliffOptions("cliff", **{key: value})
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lab.batches=[8,400]"], "lab.batches: 400 images make no batch of Digits (8x8); the most are 360"),
        (["lab.data=mnist"], "lab.root is not set: mnist needs a folder to be read from or downloaded into"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(monkeypatch, tmp_path, overrides, said):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "cliff", *overrides)
    assert (done.code, done.err) == (1, f"icsbench: {said}\n")
    assert not (tmp_path / "results").exists()


def test_the_table_of_the_command_line(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "cliff", *(f"lab.{key}={str(value).replace(' ', '')}" for key, value in TINY.items()))
    assert done.code == 0, done.err
    assert "27.5" in done.out and "Training accuracy in % by depth" in " ".join(done.out.split())
    assert (run_dir() / "cliff.csv").exists()
