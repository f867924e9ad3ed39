import math

import numpy as np
import pytest
import torch
from torch import nn

from icsbench.errors import IcsbenchError
from icsbench.labs.first_steps import FirstStepsOptions
from icsbench.labs.first_steps import training as lab


def options(**changes):
    small = {"depths": [4], "norms": ["bn", "none"], "lrs": [0.1], "networks": 2, "width": 24, "batch": 16, "steps": 2}
    return FirstStepsOptions("first_steps", **small | changes)


class Plain(nn.Module):
    """One network as torch has it."""

    def __init__(self, weights, norm, eps):
        super().__init__()
        self.layers = nn.ParameterList(weight.clone() for weight in weights)
        self.norm, self.eps = norm, eps

    def forward(self, x):
        self.kept = []
        for weight in self.layers[:-1]:
            x = x @ weight.T
            x.retain_grad()
            self.kept.append(x)
            if self.norm == "bn":
                x = nn.functional.batch_norm(x, None, None, training=True, eps=self.eps)
            x = torch.relu(x)
        return x @ self.layers[-1].T


@pytest.mark.parametrize("norm", ["bn", "none"])
def test_a_step_is_that_of_torch_for_each_network(norm):
    chosen = options(eps=1e-3)
    drawn = torch.Generator().manual_seed(4)
    parameters = [p.detach().double().requires_grad_() for p in lab.initial(drawn, chosen, 3, 7)]
    inputs = torch.randn(2, 16, 7, generator=drawn, dtype=torch.float64)
    labels = torch.randint(10, (2, 16), generator=drawn)
    networks = [Plain([p[i].detach() for p in parameters], norm, 1e-3) for i in range(2)]
    for _ in range(3):
        sizes = lab.update(parameters, inputs, labels, norm, 0.3, 1e-3)
        for i, network in enumerate(networks):
            before = [p.detach().square().sum().log().item() for p in network.layers]
            optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[i]), labels[i]).backward()
            optimizer.step()
            assert sizes.weights[i].tolist() == pytest.approx(before[:-1], abs=1e-10)
            gradients = [p.grad.square().sum().log().item() for p in network.layers][:-1]
            assert sizes.weight_gradients[i].tolist() == pytest.approx(gradients, abs=1e-8)
            of_features = [x.grad.square().sum().log().item() for x in network.kept]
            assert sizes.gradients[i].tolist() == pytest.approx(of_features, abs=1e-8)
            for ours, theirs in zip(parameters, network.layers, strict=True):
                torch.testing.assert_close(ours[i].detach(), theirs.detach(), rtol=1e-9, atol=1e-12)


def test_rows_hold_every_step_and_start_alike():
    rows = [*lab.rows(options(lrs=[0.1, 0.2]), 3)]
    assert len(rows) == 2 * 2 * 3 * 2
    start = [row["log_weights"] for row in rows if row["step"] == 0 and row["network"] == 1]
    assert all(weights == start[0] for weights in start)  # of both norms and both rates
    row = next(row for row in rows if row["norm"] == "bn" and row["step"] == 1)
    assert row["gradient_range"] == pytest.approx(np.ptp(row["log_gradients"][1:]), abs=1e-3)
    line = np.polyfit([3, 2, 1], row["log_gradients"][1:], 1)
    assert row["gradient_slope"] == pytest.approx(line[0], abs=1e-3)
    assert math.log(row["weight_growth"]) == pytest.approx(
        2 * np.polyfit([3, 2, 1], row["log_weights"][1:], 1)[0], abs=1e-3
    )


def test_gradients_explode_before_training_with_bn_alone():
    rows = [row for row in lab.rows(options(depths=[20], width=96, batch=64, steps=1), 1) if row["step"] == 0]
    slopes = {norm: np.mean([row["gradient_slope"] for row in rows if row["norm"] == norm]) for norm in ("bn", "none")}
    assert slopes["bn"] == pytest.approx(math.log(1.4934), abs=0.08) and abs(slopes["none"]) < 0.1


def test_a_network_that_diverges_has_no_more_rows():
    rows = [*lab.rows(options(norms=["none"], lrs=[1e12], steps=4), 0)]
    assert {row["step"] for row in rows} < {*range(5)}
    assert all(math.isfinite(value) for row in rows for value in row["log_gradients"])


def test_a_gradient_that_is_none_from_the_start_is_refused(monkeypatch):
    real = lab.digits
    monkeypatch.setattr(lab, "digits", lambda: (0 * real()[0], real()[1]))
    with pytest.raises(IcsbenchError, match=r"depth 4, bn: the gradient of an untrained network .*lab\.eps"):
        [*lab.rows(options(eps=0.0), 0)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"depths": [2]}, "lab.depths must be at least 3"),
        ({"depths": []}, "lab.depths must name at least one"),
        ({"norms": ["ln"]}, "lab.norms must be one of bn, none"),
        ({"lrs": [0.0]}, "lab.lrs must be greater than 0"),
        ({"batch": 1}, "lab.batch must be at least 2"),
        ({"batch": 2000}, "lab.batch must be at least 2 and at most 1797"),
        ({"steps": 0}, "lab.steps must be at least 1"),
        ({"networks": 0}, "lab.networks must be at least 1"),
        ({"eps": -1.0}, "lab.eps must be at least 0"),
    ],
)
def test_bad_options_are_refused(changes, line):
    with pytest.raises(ValueError, match=line):
        options(**changes)
