"""Gradient descent on linear problems against autograd, one problem at a time, and against known numbers."""

import numpy as np
import pytest
import torch

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.margin import VARIANTS, MarginOptions
from icsbench.labs.margin.descent import margins_along, rows


def descend(variant, x, y, w, lr, steps):
    """The margins along the way, by autograd."""
    w, gamma = w.clone().requires_grad_(), torch.ones((), dtype=w.dtype, requires_grad=True)
    found = []
    for _ in range(steps + 1):
        f = torch.stack([sample @ w for sample in x])
        if variant == "bn":
            f = gamma * f / (f**2).mean().sqrt()
        elif variant == "weight_norm":
            f = gamma * f / (w**2).sum().sqrt()
        found.append((y * f).detach())
        loss = torch.log1p(torch.exp(-y * f)).mean()
        slopes = torch.autograd.grad(loss, (w, gamma), allow_unused=True)
        with torch.no_grad():
            for parameter, slope in zip((w, gamma), slopes, strict=True):
                if slope is not None:
                    parameter -= lr * slope
    return found


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("samples", "inputs", "lr"), [(4, 6, 0.5), (9, 15, 0.1)])
def test_the_steps_are_those_of_autograd(variant, samples, inputs, lr):
    generator = random_networks.stream(samples, "test")
    x = random_networks.gaussian(generator, 3, samples, inputs, dtype=torch.float64)
    y = random_networks.gaussian(generator, 3, samples, dtype=torch.float64).sign()
    w = random_networks.gaussian(generator, 3, inputs, std=0.3, dtype=torch.float64)
    found = dict(margins_along(variant, x * y[..., None], w, lr, [0, 1, 5, 40]))
    for problem in range(3):
        expected = descend(variant, x[problem], y[problem], w[problem], lr, 40)
        for step, margins in found.items():
            torch.testing.assert_close(margins[problem], expected[step], rtol=1e-9, atol=1e-11)


def test_known_numbers():
    """One problem was known: .249, .943, 1.000000 after 10, 100 and 1,000 steps."""
    found = {}
    for row in rows(MarginOptions("margin", steps=1000, networks=60), 108):
        found.setdefault((row["variant"], row["step"]), []).append(row["min_over_max"])
    low, high = np.quantile(found["bn", 10], [0.05, 0.95])
    assert low < 0.249 < high
    low, high = np.quantile(found["bn", 100], [0.05, 0.95])
    assert low < 0.943 < high
    assert np.median(found["bn", 1000]) > 1 - 1e-6 and min(found["bn", 1000]) > 0.99
    assert max(found["none", 1000]) < 0.9


@pytest.mark.slow
def test_known_numbers_without_bn():
    """.546 after 100,000 steps, of one problem; each is below the limit that the largest margin sets."""
    last = [row for row in rows(MarginOptions("margin"), 109) if row["step"] == 100_000]
    plain = [row for row in last if row["variant"] == "none"]
    assert min(row["min_over_max"] for row in plain) < 0.546 < max(row["min_over_max"] for row in plain)
    for row in plain:
        assert row["min_over_max"] == pytest.approx(row["theory_min_over_max"], abs=0.25)
        assert row["min_over_max"] < row["theory_min_over_max"]
    assert all(abs(row["spread"]) < 1e-9 for row in last if row["variant"] == "bn")


def test_the_ratio_is_from_minus_1_to_1():
    found = [*rows(MarginOptions("margin", samples=4, inputs=4, steps=3), 110)]
    assert all(-1 <= row["min_over_max"] <= 1 for row in found) and len(found) == 3 * 3 * 20


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"samples": 3}, "lab.samples must be at least 4"),
        ({"inputs": 19}, r"lab.inputs must be at least lab.samples \(20\)"),
        ({"lr": 0.0}, "lab.lr must be greater than 0"),
        ({"steps": 0}, "lab.steps must be at least 1"),
        ({"init": 0.0}, "lab.init must be greater than 0"),
        ({"networks": 0}, "lab.networks must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MarginOptions("margin", **wrong)


def test_divergence_is_said():
    with pytest.raises(IcsbenchError, match="margins are no longer finite"):
        [*rows(MarginOptions("margin", lr=1e308, steps=5, networks=2), 0)]
