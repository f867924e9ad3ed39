import math

import numpy as np
import pytest
import torch
from scipy.stats import linregress
from torch.nn import functional as F

from icsbench import random_networks as rn
from icsbench.errors import IcsbenchError
from icsbench.labs.explosion import ExplosionOptions
from icsbench.labs.explosion import networks as lab
from icsbench.theory import mean_field

F64 = torch.float64


def options(**changes):
    small = {"activations": ["relu"], "norms": ["bn"], "batches": [8], "networks": 3, "width": 16, "depth": 12}
    return ExplosionOptions("explosion", **small | {"burn_in": 2, "top": 3} | changes)


def one_network(weights, h, gradient, phi, norm, gains, chosen):
    """Features, and the gradients of the linear loss ``sum gradient * h_L``, of one network."""
    features = [h.clone().requires_grad_()]
    for weight, gain in zip(weights, gains, strict=True):
        x = features[-1]
        if norm == "bn":
            size = x.shape[1]
            gamma, beta = torch.full((size,), chosen.gamma, dtype=F64), torch.full((size,), chosen.beta, dtype=F64)
            x = F.batch_norm(x, None, None, gamma, beta, True, eps=chosen.eps)
        features.append(gain * phi(x) @ weight.T)
    return features, torch.autograd.grad((features[-1] * gradient).sum(), features)


@pytest.mark.parametrize(
    ("activation", "norm", "kind"),
    [("relu", "bn", "gaussian"), ("gelu", "bn", "orthogonal"), ("tanh", "none-signals", "gaussian")],
)
def test_gradients_and_signals_are_those_of_single_networks(activation, norm, kind):
    chosen = options(gamma=1.3, beta=0.2, eps=1e-3, width=10)
    setting = lab.Setting(activation, norm, 5)
    weights = [rn.square_weights(kind, rn.stream(7, "w", layer), 2, 10, dtype=F64) for layer in range(chosen.depth)]
    other = lab.Setting("silu", "bn", 4)
    generators = {other: rn.stream(2, "other"), setting: rn.stream(1, "one")}
    found = lab.propagate(weights, generators, chosen)[setting]
    again = rn.stream(1, "one")
    gradient, h = (rn.gaussian(again, 2, 5, 10, dtype=F64) for _ in range(2))
    gain = 1.0 if norm == "bn" else mean_field.plain_layer("tanh", "signals").gain
    for network in range(2):
        features, gradients = one_network(
            [weight[network] for weight in weights],
            *(h[network], gradient[network], rn.ACTIVATIONS[activation], norm, [gain] * chosen.depth, chosen),
        )
        logs = np.array([math.log(g.square().sum().item()) for g in gradients])
        np.testing.assert_allclose(found.log_gradients[network], logs - logs[-1], atol=1e-9)
        for layer, x in enumerate(x.detach() for x in features):
            cosines = (F.normalize(x) @ F.normalize(x).T).numpy()
            assert found.cosine[network, layer] == pytest.approx((cosines.sum() - 5) / 20, abs=1e-12)
            assert found.second_moment[network, layer] == pytest.approx(x.square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_wide_networks_have_the_rate_and_the_fixed_point_of_theory(activation):
    chosen = options(activations=[activation], norms=["bn", "none-gradients"], width=200, depth=25, networks=8)
    bn, plain = ([row for row in lab.rows(chosen, 11) if row["norm"] == norm] for norm in chosen.norms)
    for key, within in (("rate", 0.03), ("cosine", 0.03), ("second_moment", 0.02)):
        assert np.mean([row[key] for row in bn]) == pytest.approx(bn[0][f"theory_{key}"], rel=within)
    assert plain[0]["theory_rate"] == pytest.approx(1, abs=1e-9)
    assert np.mean([row["rate"] for row in plain]) == pytest.approx(1, abs=0.03)
    assert [row["network"] for row in bn] == [*range(8)] and bn[0]["step"] == 25
    assert len(bn[0]["log_gradients"]) == 26 and bn[0]["log_gradients"][-1] == 0


def test_the_slope_and_its_error_are_those_of_least_squares():
    y = np.random.default_rng(2).standard_normal((2, 9)).cumsum(1)
    slopes, errors = lab.slopes_of(np.arange(3.0, 12.0), y)
    for row, slope, error in zip(y, slopes, errors, strict=True):
        expected = linregress(np.arange(3, 12), row)
        assert (slope, error) == pytest.approx((expected.slope, expected.stderr))
    [row, *_] = lab.rows(options(), 4)
    expected = linregress(np.arange(2, 10), row["log_gradients"][2:10])
    assert row["rate"] == pytest.approx(math.exp(-expected.slope), rel=1e-4)
    assert row["rate_error"] == pytest.approx(row["rate"] * expected.stderr, rel=1e-3)


def test_two_hundred_layers_stay_in_range():
    [row, *_] = lab.rows(options(batches=[4], depth=200, networks=1, width=32), 5)
    assert row["log_gradients"][0] > 120 and row["theory_rate"] == pytest.approx(mean_field.rate("relu", 4))


def test_settings_share_weights_and_do_not_move_each_other(monkeypatch):
    alone = [*lab.rows(options(), 3)]
    several = options(activations=["tanh", "relu"], norms=["bn", "none-signals"], batches=[8, 4])
    assert [(one.activation, one.norm, one.batch) for one in lab.settings_of(several)] == [
        *(("tanh", "bn", 8), ("tanh", "bn", 4), ("tanh", "none-signals", 8)),
        *(("relu", "bn", 8), ("relu", "bn", 4), ("relu", "none-signals", 8)),
    ]
    together = [*lab.rows(several, 3)]
    monkeypatch.setattr(lab, "_SIGNALS", 1)
    one_by_one = [*lab.rows(several, 3)]
    for rows in (together, one_by_one):
        found = [row for row in rows if (row["activation"], row["norm"], row["batch"]) == ("relu", "bn", 8)]
        assert [row["rate"] for row in found] == pytest.approx([row["rate"] for row in alone], rel=1e-4)
    monkeypatch.setattr(lab, "_WEIGHTS", 1)
    assert [row["network"] for row in lab.rows(options(), 3)] == [0, 1, 2]


def test_a_gain_is_part_of_theory_and_other_changes_have_none():
    said = lab.theory(options(activations=["tanh"], gamma=0.1), lab.Setting("tanh", "bn", 8))
    assert 1.2 < said["theory_rate"] < 1.21  # nearly linear, whose rate is 1.2
    for change in ({"beta": 0.5}, {"eps": 1e-5}):
        assert lab.theory(options(**change), lab.Setting("relu", "bn", 8)) == {}


def test_a_constant_feature_is_refused_in_one_line():
    with pytest.raises(IcsbenchError, match=r"relu, bn, batch 8: .* lab\.eps=0 divides by zero"):
        [*lab.rows(options(beta=-50.0), 0)]
    assert [*lab.rows(options(beta=-0.3, eps=1e-3, width=32), 0)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batches": [8, 3]}, "lab.batches must be at least 4 .got 3"),
        ({"depth": 0}, "lab.depth must be at least 7 .got 0"),
        ({"depth": 6}, "lab.depth must be at least 7"),
        ({"activations": ["softsign"]}, "lab.activations must be one of linear, relu, .*got 'softsign'"),
        ({"activations": []}, "lab.activations must name at least one"),
        ({"norms": ["ln"]}, "lab.norms must be one of bn, none-signals, none-gradients"),
        ({"weights": "sparse"}, "lab.weights must be one of gaussian, orthogonal"),
        ({"networks": 0}, "lab.networks must be at least 1"),
        ({"width": 1}, "lab.width must be at least 2"),
        ({"gamma": 0}, "lab.gamma must be greater than 0"),
        ({"eps": -1e-3}, "lab.eps must be at least 0"),
        ({"beta": math.nan}, "lab.beta"),
    ],
)
def test_bad_options_are_refused(changes, line):
    with pytest.raises(ValueError, match=line):
        options(**changes)
