"""Batched MLPs against torch's own, their starts, and what is refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from icsbench import random_networks as rn
from icsbench.labs.orthogonal_start import LAB, STARTS, OrthogonalStartOptions, training
from icsbench.labs.rank.measures import orthogonality_gap

TINY = {"networks": 2, "width": 12, "depths": [3], "rates": [0.01, 0.05], "steps": 4, "batch": 16}


@pytest.fixture(scope="module")
def task():
    return training.digits()


def twin(weights, bn):
    """The same network by torch's modules."""
    layers = []
    for w in weights[:-1]:
        linear = nn.Linear(w.shape[1], w.shape[0], bias=not bn)
        norm = nn.BatchNorm1d(len(w)) if bn else nn.Identity()
        layers += [linear, norm, nn.ReLU()]
    layers.append(nn.Linear(weights[-1].shape[1], len(weights[-1])))
    network = nn.Sequential(*layers)
    linears = [layer for layer in network if isinstance(layer, nn.Linear)]
    for linear, w in zip(linears, weights, strict=True):
        linear.weight.data = w.clone()
        if linear.bias is not None:
            linear.bias.data.zero_()
    return network


@pytest.mark.parametrize("kind", ["glorot", "orthogonal", "bn"])
def test_training_is_that_of_each_network_alone(task, kind):
    drawn = training.start(kind, task, 3, 2, 12, 3)
    rates = [0.02, 0.1]
    mlp = training.Mlp([w.clone() for w in drawn], bn=kind == "bn")
    found = training.train(mlp, task, 3, steps=5, batch=32, rates=torch.tensor(rates))
    for network, rate in enumerate(rates):
        alone = twin([w[network] for w in drawn], kind == "bn").train()
        optimizer = torch.optim.SGD(alone.parameters(), lr=rate)
        order = torch.randperm(len(task.targets), generator=rn.stream(3, "orthogonal_start", "batches"))
        for index in order.split(32)[:5]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(alone(task.inputs.T[index]), task.targets[index]).backward()
            optimizer.step()
        logits = alone(task.inputs.T)
        loss = nn.functional.cross_entropy(logits, task.targets).item()
        assert found.loss[network].item() == pytest.approx(loss, rel=1e-4)
        assert found.accuracy[network].item() == pytest.approx((logits.argmax(1) == task.targets).float().mean().item())


def test_an_orthogonal_start_takes_half_of_the_logarithm_of_the_spread(task):
    """Without slicing, ``W H = V_1 S^(1/2) V'``: its singular values are the square roots of those of H."""
    x = rn.gaussian(rn.stream(2, "x"), 1, 9, 40)[0] * torch.arange(1, 10)[:, None]
    weights = training.glorot(rn.stream(2, "w"), 2, [9, 9, 10])
    first, last = training.orthogonalizing(weights, x, rn.stream(2, "rows"))
    assert torch.equal(last, weights[1])
    before = torch.linalg.svdvals(x)
    after = torch.linalg.svdvals(first @ x)
    np.testing.assert_allclose(after / after[:, :1], (before / before[0]).sqrt().expand(2, -1), rtol=1e-4)
    assert not torch.allclose(first[0], first[1])


def test_starts_have_the_scale_and_the_gap_that_they_say(task):
    gaps = {}
    for kind in STARTS:
        mlp = training.Mlp(training.start(kind, task, 1, 3, 24, 12), bn=kind == "bn")
        with torch.no_grad():
            signals = mlp.hidden(task.inputs[:, :192])
        gaps[kind] = orthogonality_gap(signals[:, :, :16].mT.double()).mean().item()
        if kind in ("scaled", "orthogonal"):
            x = task.inputs[:, :192]
            for w in mlp.weights[:-1]:
                outputs = (w @ x).detach()
                assert outputs.square().mean((1, 2)).tolist() == pytest.approx([1, 1, 1], rel=1e-4)
                x = torch.relu(outputs)
    assert gaps["glorot"] == pytest.approx(gaps["scaled"], abs=1e-5)  # the scale of layers is not in the gap
    assert max(gaps["orthogonal"], gaps["bn"]) < 0.6 * gaps["scaled"]
    given, scaled = (training.start(kind, task, 1, 3, 24, 12) for kind in ("glorot", "scaled"))
    ratio = scaled[4] / given[4]
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-4, atol=0)


def test_rows_and_their_seeds():
    rows = list(LAB.rows(OrthogonalStartOptions("orthogonal_start", **TINY), 2))
    assert [(row["start"], row["rate"], row["network"]) for row in rows[:4]] == [
        ("glorot", 0.01, 0),
        ("glorot", 0.01, 1),
        ("glorot", 0.05, 0),
        ("glorot", 0.05, 1),
    ]
    assert len(rows) == 4 * 2 * 2 and {row["step"] for row in rows} == {3}
    assert rows == list(LAB.rows(OrthogonalStartOptions("orthogonal_start", **TINY), 2))
    assert all(0 <= row["accuracy"] <= 1 and math.isfinite(row["loss"]) for row in rows)


def test_what_diverges_counts_as_chance():
    options = OrthogonalStartOptions("orthogonal_start", **TINY | {"rates": [1e12], "steps": 8})
    rows = [row for row in LAB.rows(options, 2) if row["start"] == "scaled"]
    assert [row["diverged"] for row in rows] == [True, True]
    assert rows[0]["loss"] == pytest.approx(math.log(10)) and rows[0]["accuracy"] == 0.1


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"batch": 3}, "lab.batch must be at least 4"),
        ({"batch": 2000}, "lab.batch must be at least 4 and at most 1437"),
        ({"depths": [0]}, "lab.depths must be at least 1"),
        ({"depths": []}, "lab.depths must be different numbers"),
        ({"depths": [5, 5]}, "lab.depths must be different numbers"),
        ({"rates": [0.0]}, "lab.rates must be greater than 0"),
        ({"width": 5}, "lab.width must be at least 10"),
        ({"steps": 0}, "lab.steps must be at least 1"),
    ],
)
def test_options_that_make_no_sense(option, line):
    with pytest.raises(ValueError, match=line):
        OrthogonalStartOptions("orthogonal_start", **option)
