"""The lab of weight decay and its twin: the root, weights at every step, rows, and what it refuses."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from icsbench.labs.exponential_rate import ExponentialRateOptions, shrinking
from icsbench.labs.exponential_rate.twins import _ZERO, Twins, Variant, _compared, rows


def options(**changes):
    return ExponentialRateOptions("exponential_rate", **{"units": 8, "depth": 2, "batch_size": 32} | changes)


def test_the_root():
    assert shrinking(0.1, 0.0, 0.5) == pytest.approx(0.95, rel=1e-15)
    alpha = shrinking(0.1, 0.9, 5e-3)
    assert alpha == pytest.approx(np.roots([1, -(1.9 - 5e-4), 0.9]).max(), rel=1e-12)
    assert shrinking(0.1, 0.9, 1e-12) == pytest.approx(1) and math.sqrt(0.9) < alpha < 1
    below = math.nextafter((1 - math.sqrt(0.9)) ** 2, 0)  # a double root, but for rounding
    assert shrinking(1.0, 0.9, below) == pytest.approx(math.sqrt(0.9))


@pytest.mark.parametrize(("momentum", "sizes"), [(0.0, (5, 4)), (0.9, (6, 5, 3))])
def test_the_weights_of_the_twin_are_those_over_alpha_to_the_t(momentum, sizes):
    random = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    weights = [drawn(out, size) for size, out in pairwise(sizes)]
    twins = Twins(options(momentum=momentum, lr=0.2), Variant(_ZERO), weights, drawn(3, sizes[-1]))
    for number in range(30):
        twins.step(number, drawn(16, sizes[0]), torch.arange(16) % 3)
        for w, u in zip(twins.w, twins.u, strict=True):
            torch.testing.assert_close(u * twins.alpha ** (number + 1), w, rtol=0, atol=1e-11)
    assert twins.rate(3) == pytest.approx(0.2 * twins.alpha**-7)


def test_the_first_step_by_hand():
    """With weight decay: w_1 = (1 - eta lambda) w_0 - eta g; the twin has w_1 / alpha."""
    w0, x, y = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[1.0, 0], [0, 1], [2, 1]]).double(), torch.arange(3)
    twins = Twins(options(lr=0.5, weight_decay=0.004), Variant(_ZERO), [w0], torch.ones(3, 1).double())
    loss = torch.nn.functional.cross_entropy(twins.outputs(twins.w, x), y)
    (g,) = torch.autograd.grad(loss, twins.w)
    twins.step(0, x, y)
    torch.testing.assert_close(twins.w[0].detach(), (1 - 0.5 * 0.004) * w0 - 0.5 * g, rtol=0, atol=1e-15)
    torch.testing.assert_close(twins.u[0].detach(), twins.w[0].detach() / twins.alpha, rtol=0, atol=1e-14)


def test_the_rows():
    found = {}
    for row in rows(options(steps=60, every=25, lr=0.2), 107):
        found.setdefault(row["variant"], []).append(row)
    assert [*found] == ["bn", "bn_eps", "none", "bn_uncorrected"]
    assert all([row["step"] for row in of] == [0, 25, 50, 60] for of in found.values())
    assert max(row["difference"] for row in found["bn"]) < 1e-12
    assert found["none"][-1]["difference"] > 0.1
    for other in ("bn_eps", "bn_uncorrected"):
        assert found[other][0]["difference"] == 0 and 1e-9 < found[other][-1]["difference"] < 0.5
    for row in found["bn"]:
        assert row["loss_decay"] == pytest.approx(row["loss_growth"], rel=1e-10)
        assert row["length_ratio"] == pytest.approx(row["theory_length_ratio"], rel=1e-10)
    assert [*rows(options(steps=3), 5)] == [*rows(options(steps=3), 5)]
    assert {row["variant"] for row in rows(options(steps=1, momentum=0.0), 5)} == {"bn", "bn_eps", "none"}


def test_two_functions_that_are_zero_do_not_differ():
    """A network whose last ReLUs have all died is the function 0, in the run and in its twin."""
    dead = [-torch.ones(4, 5).double()]
    twins = Twins(options(), Variant(None), dead, torch.ones(3, 4).double())
    x, y = torch.ones(6, 5).double(), torch.arange(6) % 3
    assert not twins.outputs(twins.w, x).any()
    assert _compared(twins, x, y, 0)["difference"] == 0.0


def test_a_twin_that_is_not_finite_has_nothing_in_common():
    twins = Twins(options(), Variant(None), [torch.eye(4).double()], torch.ones(3, 4).double())
    with torch.no_grad():
        twins.u[0] *= math.inf
    row = _compared(twins, torch.ones(6, 4).double(), torch.arange(6) % 3, 2)
    assert row["difference"] == 1.0 and row.keys().isdisjoint({"loss_growth", "length_ratio"})
    assert row["loss_decay"] == pytest.approx(math.log(3)) and all(map(math.isfinite, row.values()))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"weight_decay": 0.0}, "lab.weight_decay must be greater than 0 (got 0.0)"),
        ({"lr": 1.0}, "lab.lr x lab.weight_decay must be less than (1 - sqrt(momentum))^2 = 0.002633, or no rate"),
        ({"momentum": 0.0, "weight_decay": 10.0}, "lab.lr x lab.weight_decay must be less than"),
        ({"steps": 10**6}, "lab.steps 1000000 with this weight decay make the rate grow beyond 1e300; choose fewer"),
        ({"batch_size": 1}, "lab.batch_size must be at least 2 and at most 1000 (got 1)"),
    ],
)
def test_what_is_wrong_is_one_line(wrong, line):
    with pytest.raises(ValueError) as caught:
        options(**wrong)
    assert line in str(caught.value) and "\n" not in str(caught.value)
