"""SGD behind BN, its batches shuffled once or reshuffled, against autograd, least squares and enumeration."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.rungs import rungs
from icsbench.labs.shuffling import NORMS, ORDERS, ShufflingOptions
from icsbench.labs.shuffling.descent import _batches, along, problems, rows
from icsbench.labs.shuffling.optima import every_batch, features, optimum

SMALL: dict[str, Any] = {"samples": 12, "inputs": 3, "batch": 4, "epochs": 10, "networks": 3}


def normalized(x):
    return (x - x.mean(0)) / x.std(0, correction=0)


def descend(options, x, y, start, norm, epochs):
    """M after each epoch, by autograd, of one problem."""
    w, gamma = start.clone().requires_grad_(), torch.ones_like(start, requires_grad=True)
    for epoch, batches in enumerate(epochs):
        for batch in batches:
            z = normalized(x[batch]) if norm == "bn" else x[batch]
            f = torch.stack([(w * gamma) @ sample for sample in z])
            if options.task == "regression":
                loss = ((f - y[batch]) ** 2 / 2).mean()
            else:
                loss = torch.log1p(torch.exp(-y[batch] * f)).mean()
            slopes = torch.autograd.grad(loss, (w, gamma))
            with torch.no_grad():
                for parameter, slope in zip((w, gamma), slopes, strict=True):
                    parameter -= options.lr / (1 + epoch / options.decay) * slope
        yield (w * gamma).detach()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("task", "inputs"), [("regression", 3), ("classification", 5)])
def test_the_steps_are_those_of_autograd(task, inputs, norm, order):
    options = ShufflingOptions("shuffling", **{**SMALL, "inputs": inputs, "task": task, "decay": 5.0})
    x, y, start = problems(options, 100)
    found = dict(along(options, 100, x, y, start, norm, order))
    assert [*found] == rungs(10)
    drawn = _batches(options, 100, order)
    epochs = [next(drawn) for _ in range(10)]
    for network in range(3):
        expected = [*descend(options, x[network], y[network], start[network], norm, [one[network] for one in epochs])]
        for epoch, m in found.items():
            torch.testing.assert_close(m[network], expected[epoch - 1], rtol=1e-9, atol=1e-12)


def test_the_orders_share_their_first_epoch_and_fixed_batches_only_move():
    options = ShufflingOptions("shuffling", **SMALL)
    epochs = {order: [next(drawn) for _ in range(4)] for order in ORDERS for drawn in [_batches(options, 101, order)]}
    for drawn in epochs.values():
        assert torch.equal(drawn[0], epochs["reshuffle"][0])
        assert all(torch.equal(one.flatten(1).sort().values, torch.arange(12).expand(3, -1)) for one in drawn)
    once, fixed = epochs["shuffle_once"], epochs["fixed_batches"]
    assert all(torch.equal(one, once[0]) for one in once)
    assert not all(torch.equal(one, once[0]) for one in fixed)

    def sets(batches):
        return [{frozenset(batch) for batch in of} for of in batches.tolist()]

    assert all(sets(one) == sets(once[0]) for one in fixed) and sets(epochs["reshuffle"][1]) != sets(once[0])


@pytest.mark.parametrize(("samples", "batch", "inputs"), [(12, 4, 3), (15, 3, 6)])
@pytest.mark.parametrize("norm", NORMS)
def test_the_minimum_is_that_of_least_squares_on_the_features(norm, samples, batch, inputs):
    draw = random_networks.stream(samples, "test")
    x = random_networks.gaussian(draw, 2, samples, inputs, dtype=torch.float64)
    y = random_networks.gaussian(draw, 2, samples, dtype=torch.float64)
    batches = torch.rand(2, samples, generator=draw).argsort(1).view(2, -1, batch)
    found = optimum(x, y, batches, norm)
    for problem in range(2):
        z = torch.cat([normalized(x[problem, of]) if norm == "bn" else x[problem, of] for of in batches[problem]])
        targets = y[problem, batches[problem].flatten()]
        expected = np.linalg.lstsq(z.numpy(), targets.numpy(), rcond=None)[0]
        np.testing.assert_allclose(found[problem], expected, rtol=1e-9, atol=1e-12)


def test_the_minimum_of_reshuffling_is_that_of_all_permutations():
    """Of 6 samples in batches of 3 all 720 permutations are gone through."""
    draw = random_networks.stream(6, "test")
    x = random_networks.gaussian(draw, 1, 6, 2, dtype=torch.float64)
    y = random_networks.gaussian(draw, 1, 6, dtype=torch.float64)
    every = torch.tensor([*permutations(range(6))]).view(1, -1, 3)
    torch.testing.assert_close(
        optimum(x, y, every_batch(6, 3), "bn"), optimum(x, y, every, "bn"), rtol=1e-9, atol=1e-12
    )
    raw, features_of_all = optimum(x, y, every_batch(6, 3), "none"), features(x, torch.arange(6)[None, None], "none")
    torch.testing.assert_close(raw, optimum(x, y, torch.arange(6)[None, None], "none"), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(features_of_all[:, 0], x, rtol=0, atol=0)


def test_bn_of_a_batch_of_two_gives_signs():
    x = torch.tensor([[[1.0, 5.0], [4.0, -2.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        features(x, torch.tensor([[[1, 0]]]), "bn"), torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]], dtype=torch.float64)
    )


def last(found, norm, order, key):
    end = max(row["step"] for row in found)
    return np.array([row[key] for row in found if (row["norm"], row["order"], row["step"]) == (norm, order, end)])


def test_each_order_goes_to_the_minimum_of_its_own_batches():
    options = ShufflingOptions("shuffling", samples=12, inputs=3, batch=4, epochs=500, networks=6)
    found = [*rows(options, 102)]
    assert len(found) == len(rungs(500)) * 2 * 3 * 6
    for order in ("shuffle_once", "fixed_batches"):
        assert np.median(last(found, "bn", order, "from_own")) < 0.02
        apart = last(found, "bn", order, "from_reshuffled") / last(found, "bn", order, "theory_from_reshuffled")
        assert abs(np.median(apart) - 1) < 0.2
        assert np.median(last(found, "none", order, "from_reshuffled")) < 0.05
    assert np.median(last(found, "bn", "reshuffle", "from_own")) < 0.1
    assert not last(found, "none", "reshuffle", "theory_from_full").round(9).any()
    assert (last(found, "bn", "reshuffle", "from_reshuffled") == 0).all()


def test_the_angle_is_in_degrees():
    options = ShufflingOptions("shuffling", **SMALL)
    x, y, _ = problems(options, 103)
    row = next(row for row in rows(options, 103) if (row["norm"], row["order"]) == ("bn", "shuffle_once"))
    full = optimum(x, y, torch.arange(12).expand(3, 1, -1), "bn")[0]
    own = optimum(x, y, next(_batches(options, 103, "shuffle_once")), "bn")[0]
    cosine = F.cosine_similarity(full, own, dim=0)
    assert row["theory_angle"] == pytest.approx(float(torch.rad2deg(cosine.acos())), rel=1e-6)
    assert row["theory_from_full"] == pytest.approx(float((own - full).norm() / full.norm()), rel=1e-12)


def test_classes_are_as_many_and_the_loss_is_that_of_the_full_batch():
    options = ShufflingOptions("shuffling", **{**SMALL, "task": "classification", "inputs": 5})
    x, y, start = problems(options, 104)
    assert torch.equal(y.sum(1), torch.zeros(3, dtype=torch.float64)) and set(y.flatten().tolist()) == {-1.0, 1.0}
    found = [row for row in rows(options, 104) if (row["norm"], row["order"]) == ("bn", "reshuffle")]
    assert "from_full" not in found[0]
    for epoch, m in along(options, 104, x, y, start, "bn", "reshuffle"):
        expected = [F.softplus(-y[i] * (normalized(x[i]) @ m[i])).mean() for i in range(3)]
        assert [row["loss"] for row in found if row["step"] == epoch] == pytest.approx(torch.stack(expected).tolist())


@pytest.mark.parametrize("seed", [106, 107])
def test_batches_that_leave_the_minimum_open_are_said(seed):
    """Behind BN, two batches of two give the features s, -s, t, -t: of one direction where s and t are alike."""
    options = ShufflingOptions("shuffling", samples=4, inputs=2, batch=2, epochs=2, networks=6)
    with pytest.raises(IcsbenchError, match=r"leave its minimum open \(bn\): choose fewer lab.inputs"):
        list(rows(options, seed))


def test_a_step_too_large_is_said():
    with pytest.raises(IcsbenchError, match=r"bn, reshuffle, epoch \d+: SGD diverged; choose a smaller lab.lr"):
        list(rows(ShufflingOptions("shuffling", **{**SMALL, "lr": 1e4}), 105))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "ranking"}, "lab.task must be one of regression, classification"),
        ({"batch": 1}, "lab.batch must be at least 2"),
        ({"batch": 5}, "lab.batch must divide lab.samples=12"),
        ({"samples": 4}, "lab.samples must be at least 8"),
        ({"inputs": 10}, r"lab.inputs must be at most lab.samples less one for each batch \(9\)"),
        ({"samples": 40, "batch": 8}, "makes more than 100,000 batches"),
        ({"task": "classification", "samples": 15, "batch": 5}, "lab.samples must be even"),
        ({"noise": -1.0}, "lab.noise must be at least 0"),
        ({"epochs": 0}, "lab.epochs must be at least 1"),
        ({"lr": 0.0}, "lab.lr must be greater than 0"),
        ({"decay": 0.0}, "lab.decay must be greater than 0"),
        ({"networks": 0}, "lab.networks must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ShufflingOptions("shuffling", **{**SMALL, **wrong})
