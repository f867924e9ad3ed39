"""Jacobians of whole layers: against automatic differentiation, the golden table, counts of dead directions."""

import json

import numpy as np
import pytest
import torch
from helpers import invoke
from planted import finish
from synthetic import write_lab

from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import judge
from icsbench.errors import IcsbenchError
from icsbench.labs.jacobians import JacobiansOptions
from icsbench.labs.jacobians.spectra import SHARES, batch_norm_jacobian, layer_jacobian, rows, summary
from icsbench.random_networks import ACTIVATIONS, batch_norm
from icsbench.record.reader import load_runs
from icsbench.theory.jacobians import batch_norm_singular_values


def options(**changed):
    return JacobiansOptions(**{"name": "jacobians", "width": 6, "batches": [5], "networks": 2, "burn_in": 3} | changed)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
def test_the_jacobian_of_bn_has_the_singular_values_of_its_closed_form(eps):
    x = drawn(2, 7, 3, seed=1)
    jacobian = batch_norm_jacobian(x, gamma=1.5, eps=eps)
    for network in range(2):
        for feature in range(3):
            found = torch.linalg.svdvals(jacobian[network, feature]).numpy()
            expected = batch_norm_singular_values(x[network, :, feature].numpy(), 1.5, eps)
            assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize(("batch", "width", "seed"), [(5, 7, 2), (9, 4, 3)])
def test_the_jacobian_of_a_layer_is_that_of_automatic_differentiation(batch, width, seed, activation, eps):
    x, weight = drawn(2, batch, width, seed=seed), drawn(2, width, width, seed=seed + 10)
    phi = ACTIVATIONS[activation]
    layers = {
        "signals": lambda x, w: phi(batch_norm(x[None], eps=eps))[0] @ w.mT,
        "normalized": lambda x, w: batch_norm((phi(x) @ w.mT)[None], eps=eps)[0],
    }
    for place, layer in layers.items():
        found = layer_jacobian(x, weight, activation, place, eps=eps)
        for network in range(2):
            twin = torch.func.jacrev(lambda x, layer=layer, w=weight[network]: layer(x, w))(x[network])
            twin = twin.reshape(batch * width, batch * width)
            assert torch.allclose(found[network], twin, rtol=1e-11, atol=1e-11)


def test_without_bn_it_is_a_block_for_each_sample():
    found = [row for row in rows(options(activations=["relu"], weights=["gaussian"]), 100) if row["norm"] == "none"]
    assert {row["place"] for row in found} == {"signals"} and len(found) == 4
    for row in found:
        assert row["dead"] == pytest.approx(row["theory_dead"])


@pytest.mark.parametrize("batch", [4, 5, 8])
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_dead_directions_are_counted_exactly(batch, eps):
    for row in rows(options(batches=[batch], width=10, eps=eps, networks=3), 101):
        assert row["dead"] == pytest.approx(row["theory_dead"], abs=1e-12), row
        if row["activation"] == "linear":
            assert row["dead"] == pytest.approx((row["norm"] == "bn") * (2 if eps == 0 else 1) / batch)
        assert ("theory_mean_square" in row) == (eps == 0)


GOLDEN = {  # papers2, C.7b: mean s^2, dead, median, q10, q90, max, near; three networks of width 64
    ("linear", 8, "gaussian"): (1.306, 0.250, 0.961, 0.261, 2.10, 3.58, 0.072),
    ("linear", 16, "gaussian"): (1.106, 0.125, 0.875, 0.207, 1.83, 2.64, 0.095),
    ("relu", 8, "fixed_point"): (1.729, 0.489, 1.296, 0.289, 2.99, 5.25, 0.042),
    ("relu", 16, "fixed_point"): (1.559, 0.504, 1.460, 0.534, 2.74, 4.01, 0.045),
}


@pytest.fixture(scope="module")
def measured():
    """Networks of width 64 with Gaussian weights."""
    found = [
        row
        for batch, networks in ((8, 6), (16, 2))
        for row in rows(options(width=64, batches=[batch], networks=networks, burn_in=15, weights=["gaussian"]), 102)
        if row["place"] == "signals"
    ]
    return lambda *keys: [r for r in found if (r["norm"], r["activation"], r["batch"], r["inputs"]) == keys]


@pytest.mark.parametrize("setting", GOLDEN)
def test_the_golden_table(measured, setting):
    found = measured("bn", *setting)
    mean = {key: np.mean([row[key] for row in found]) for key in found[0] if isinstance(found[0][key], float)}
    expected = dict(zip(("mean_square", "dead", "median", "q10", "q90", "max", "near"), GOLDEN[setting], strict=True))
    tolerance = {"mean_square": 0.15, "dead": 0.05, "median": 0.15, "q10": 0.25, "q90": 0.1, "max": 0.3, "near": 0.35}
    for key, value in expected.items():
        assert mean[key] == pytest.approx(value, rel=tolerance[key]), key
    assert mean["mean_square"] == pytest.approx(mean["theory_mean_square"], rel=0.1)
    assert mean["near"] < 0.12


def test_theory_is_met_without_bn(measured):
    for activation, near in (("linear", 0.1102), ("relu", 0.0636)):
        found = measured("none", activation, 16, "gaussian")
        assert np.mean([row["near"] for row in found]) == pytest.approx(near, abs=0.015)
        assert found[0]["theory_near"] == pytest.approx(near, abs=1e-4)
        quantiles = np.mean([row["quantiles"] for row in found], axis=0)[1:-1]
        clear = np.abs(SHARES[1:-1] - 0.5) > 0.1  # the number of active units is random, and with it the jump at a half
        assert np.abs(quantiles - found[0]["theory_quantiles"])[clear].max() < 0.2


def test_orthogonal_weights_leave_the_deviations_of_the_features():
    found = [row for row in rows(options(weights=["orthogonal"], width=40, batches=[8], networks=8), 103)]
    linear = [row for row in found if row["activation"] == "linear"]
    for row in (row for row in linear if row["norm"] == "none"):
        assert row["near"] == 1 and row["median"] == pytest.approx(1)
    for place, inputs in (("signals", "gaussian"), ("signals", "fixed_point"), ("normalized", "fixed_point")):
        of = [r for r in linear if (r["norm"], r["place"], r["inputs"]) == ("bn", place, inputs)]
        assert np.mean([row["near"] for row in of]) == pytest.approx(of[0]["theory_near"], abs=0.04)


def test_what_is_said_of_singular_values():
    found = summary(np.array([0, 0, 0.95, 1.0, 1.05, 4.0, 4.0, 4.0]))
    assert (found["dead"], found["near"], found["within_two"]) == (0.25, 0.375, 0.375)
    assert found["median"] == pytest.approx(2.525) and found["near_median"] == 0
    assert found["mean_square"] == pytest.approx((0.95**2 + 1 + 1.05**2 + 48) / 8)
    assert len(found["quantiles"]) == len(SHARES) and found["quantiles"][-1] == 4


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first, again, other = (list(rows(options(), seed)) for seed in (100, 100, 104))
    assert first == again and first != other and json.dumps(first)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"batches": [8, 3]}, r"each of lab\.batches must be at least 4 \(got 3\)"),
        ({"batches": []}, r"the number of lab\.batches must be at least 1"),
        ({"activations": ["tanh"]}, r"each of lab\.activations must be one of linear, relu"),
        ({"weights": ["uniform"]}, r"each of lab\.weights must be one of gaussian, orthogonal"),
        ({"width": 1}, r"lab\.width must be at least 2"),
        ({"networks": 0}, r"lab\.networks must be at least 1"),
        ({"burn_in": 0}, r"lab\.burn_in must be at least 1"),
        ({"eps": -1.0}, r"lab\.eps must be at least 0"),
    ],
)
def test_bad_options_are_refused_in_one_line(wrong, line):
    with pytest.raises(ValueError, match=line):
        options(**wrong)


def test_a_constant_feature_is_refused_where_eps_is_zero():
    x = drawn(1, 4, 3, seed=4)
    x[..., 1] = 2
    with pytest.raises(IcsbenchError, match=r"the same in all samples, and lab\.eps is 0"):
        batch_norm_jacobian(x)
    assert batch_norm_jacobian(x, eps=1e-5).isfinite().all()


def test_it_runs_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = invoke("lab", "jacobians", "lab.width=8", "lab.batches=[4]", "lab.burn_in=2", "seed=100")
    assert said.code == 0 and "fixed_point" in said.out and "…" not in said.out
    refused = invoke("lab", "jacobians", "lab.batches=[2]")
    assert refused.code != 0 and "each of lab.batches must be at least 4" in refused.err + refused.out


def planted(root, near, against):
    for seed in range(6):
        path = write_lab(root, "jacobians", seed, experiment="jacobians")
        settings = [("bn", w, p) for w in ("gaussian", "orthogonal") for p in ("signals", "normalized")]
        found = [
            {"step": 20, "network": network, "norm": norm, "activation": activation, "weights": weights}
            | {"batch": batch, "place": place, "inputs": inputs}
            | {"near": (near if norm == "bn" else near / against) / 2 * (1 + 0.01 * seed) if is_asked else 0.0}
            | {"dead": 0.5}
            for network in range(2)
            for norm, weights, place in [*settings, ("none", "gaussian", "signals")]
            for activation in ("linear", "relu")
            for batch in (8, 16)
            for inputs in ("gaussian", "fixed_point")
            for is_asked in [(activation, batch, inputs) == ("relu", 16, "fixed_point")]
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        finish(path, json.loads((path / "summary.json").read_text()))
    [verdict] = judge(load_runs(root), [claim_of("17")])
    return verdict


@pytest.mark.parametrize(
    ("near", "against", "verdict"),
    [(0.8, 2.0, "supported"), (0.05, 2.0, "contradicted"), (0.8, 1.0, "contradicted")],
)
def test_the_conjecture_can_win_and_can_lose(tmp_path, near, against, verdict):
    found = planted(tmp_path, near, against)
    assert (found.verdict, found.n, found.of) == (verdict, 12, "networks")
    assert len(group_runs(load_runs(tmp_path))) == 1
