"""Rank, orthogonality and isometry: small matrices, twins, and what random networks are known to do."""

import math

import numpy as np
import pytest
import torch

from icsbench import random_networks as rn
from icsbench.errors import IcsbenchError
from icsbench.labs.rank import LAB, RankOptions, depths, measures
from icsbench.labs.rank.systems import System, log_gradients, normalized, signals, start, weights
from icsbench.theory.isometry import gaussian_isometry_gap, mean_log_gap

F64 = torch.float64
SMALL = {
    "widths": [8, 16],
    "depth": 40,
    "wide_widths": [8, 32],
    "wide_depth": 20,
    "isometry_width": 10,
    "isometry_depth": 30,
    "gradient_width": 12,
    "gradient_depths": [2, 6],
    "networks": 2,
}


@pytest.fixture(scope="module")
def rows():
    return list(LAB.rows(RankOptions("rank", **SMALL), 7))


@pytest.mark.parametrize(
    ("matrix", "soft", "orthogonality", "isometry"),
    [
        ([[2, 0], [0, 1]], 1.4705882353, 0.4242640687, 0.2231435513),
        ([[1, 2], [3, 4]], 1.0089686099, 0.7007932014, 2.0149030205),
    ],
)
def test_small_matrices(matrix, soft, orthogonality, isometry):
    x = torch.tensor([matrix, np.eye(2).tolist()], dtype=F64)
    for found, (expected, of_identity) in (
        (measures.soft_rank(x), (soft, 2)),
        (measures.orthogonality_gap(x), (orthogonality, 0)),
        (measures.isometry_gap(measures.spectrum(x)), (isometry, 0)),
    ):
        assert found[0].item() == pytest.approx(expected, abs=2e-10)
        assert found[1].item() == pytest.approx(of_identity, abs=1e-14)
    assert measures.stable_rank(measures.spectrum(torch.tensor([[2.0, 0], [0, 1]]))).item() == pytest.approx(1.25)


@pytest.mark.parametrize(("samples", "width"), [(5, 9), (9, 5), (6, 6)])
def test_measures_are_those_of_each_matrix_by_its_definition(samples, width):
    x = rn.gaussian(rn.stream(4, "x"), 3, samples, width, dtype=F64)
    of = measures.spectrum(x)
    for network, one in enumerate(x.numpy()):
        h = one.T
        m = h @ h.T / samples
        values = np.linalg.svd(h, compute_uv=False)
        v = h.T @ h / (h**2).sum() - np.eye(samples) / samples
        assert measures.soft_rank(x)[network].item() == pytest.approx(np.trace(m) ** 2 / (m**2).sum(), rel=1e-12)
        assert measures.stable_rank(of)[network].item() == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-12)
        assert measures.orthogonality_gap(x)[network].item() == pytest.approx(np.sqrt((v**2).sum()), rel=1e-12)
        assert measures.smallest_share(of)[network].item() == pytest.approx(values[-1] ** 2 / (values**2).sum())
        small = h @ h.T if width <= samples else h.T @ h
        expected = np.log(np.trace(small) / len(small)) - np.linalg.slogdet(small)[1] / len(small)
        assert measures.isometry_gap(of)[network].item() == pytest.approx(expected, rel=1e-10)
        assert measures.numerical_rank(of)[network].item() == np.linalg.matrix_rank(h)
    torch.testing.assert_close(
        measures.orthogonality_gap(x).square(), 1 / measures.soft_rank(x) - 1 / samples, rtol=1e-10, atol=1e-14
    )


def test_a_singular_matrix_has_a_finite_bound():
    x = rn.gaussian(rn.stream(1, "x"), 2, 6, 6, dtype=F64)
    x[1, 5] = x[1, 4]
    of = measures.spectrum(x)
    assert measures.numerical_rank(of).tolist() == [6, 5]
    found = measures.isometry_gap(of)
    assert found.isfinite().all() and found[1] > 5
    centred = measures.spectrum(x - x.mean(1, keepdim=True))
    assert measures.isometry_gap(centred, 5)[0] < 3 < measures.isometry_gap(centred)[0]


def test_rows_are_whole_and_finite(rows):
    parts = {row["part"] for row in rows}
    assert parts == {"rank", "orthogonality", "isometry", "gradient"}
    assert all(math.isfinite(value) for row in rows for value in row.values() if not isinstance(value, str))
    assert {row["network"] for row in rows} == {0, 1}
    assert rows == list(LAB.rows(RankOptions("rank", **SMALL), 7))
    assert {row["step"] for row in rows if row["part"] == "rank"} == set(depths(40))
    assert max(depths(40)) == 40 and depths(1) == [0, 1]


def test_a_layer_is_what_it_says():
    x = [found for [found] in signals([System(activation="relu", norm="bn")], 5, 2, 6, 9, 2, 1.0)]
    draw = rn.stream(5, "rank", "weights", "gaussian", 6, 9)
    for layer in (1, 2):
        w = weights("gaussian", draw, 2, 9)
        for network in range(2):
            y = (torch.relu(x[layer - 1][network]) @ w[network].T).numpy()
            y = (y - y.mean(0)) / y.std(0)
            np.testing.assert_allclose(x[layer][network].numpy(), y, rtol=1e-9, atol=1e-11)
    _, skip = signals([System("skip", norm="none")], 5, 2, 6, 9, 1, 0.5)
    y = x[0] + 0.5 * x[0] @ weights("gaussian", rn.stream(5, "rank", "weights", "gaussian", 6, 9), 2, 9).mT
    torch.testing.assert_close(skip[0], y / y.square().mean((1, 2), keepdim=True).sqrt())


def test_bn_keeps_a_rank_that_is_lost_without_it_and_with_positive_weights():
    def last(system, width):
        for found in signals([system], 3, 8, width, width, 400, 0.3):
            x = found[0]
        return measures.soft_rank(x).mean().item()

    assert last(System(norm="none"), 32) < 1.1
    assert last(System(), 16) == pytest.approx(3.32, abs=0.5)  # the sheet: 3.32 and 4.87, one network each
    assert last(System(), 32) == pytest.approx(4.87, abs=0.6)
    assert last(System(activation="relu", norm="bn"), 32) == pytest.approx(7.34, abs=0.5)
    assert last(System("skip"), 16) == pytest.approx(3.39, abs=0.5)
    for norm in ("rescale", "bn"):
        assert last(System(norm=norm, weights="positive"), 32) < 1.1


def test_the_orthogonality_gap_settles_at_the_sheets_level():
    x = torch.stack([found[0] for found in signals([System(start="aligned")], 2, 30, 4, 64, 60, 1.0)])
    gap = measures.orthogonality_gap(x).mean(1)
    assert gap[0] > 0.84 and gap[20:].mean().item() == pytest.approx(0.1465, rel=0.05)


def test_isometry_with_orthogonal_and_gaussian_weights():
    def gaps(system, depth):
        every = [found[0] for found in signals([system], 6, 4, 50, 50, depth, 1.0)]
        return measures.isometry_gap(measures.spectrum(torch.stack(every))).mean(1)

    near = gaps(System(weights="orthogonal", start="identity"), 100)
    assert near[0].item() == pytest.approx(2.4e-4, rel=0.1)
    assert near[[1, 10, 50, 100]].tolist() == pytest.approx([2.305e-4, 1.597e-4, 3.3e-5, 4.84e-6], rel=0.25)
    away = gaps(System(weights="orthogonal"), 100)
    assert away[[0, 10, 50, 100]].tolist() == pytest.approx([1.076, 0.902, 0.483, 0.228], rel=0.2)
    without = gaps(System(weights="orthogonal", norm="none"), 100)
    assert without[100].item() == pytest.approx(without[0].item(), rel=1e-9)
    grows = gaps(System(start="identity"), 5)
    assert grows[[1, 2, 5]].tolist() == pytest.approx([1.05, 2.03, 4.90], abs=0.25)
    bare = gaps(System(norm="none", start="identity"), 5)
    assert bare[1].item() == pytest.approx(gaussian_isometry_gap(50), abs=0.1)


def test_a_rescaled_feature_takes_the_spread_of_lengths_off_the_isometry_gap():
    x = rn.gaussian(rn.stream(8, "x"), 2, 7, 7, dtype=F64) * torch.arange(1, 8)
    before, after = (measures.isometry_gap(measures.spectrum(one)) for one in (x, normalized(x, "rescale")))
    expected = [mean_log_gap(one.square().sum(0).numpy()) for one in x]
    assert (before - after).tolist() == pytest.approx(expected, abs=1e-11)


def test_gradients_of_the_first_layer():
    orthogonal = log_gradients(System(weights="orthogonal"), 1, 4, 100, 20).mean().item()
    gaussian = log_gradients(System(norm="bn"), 1, 4, 100, 50).mean().item()
    assert orthogonal == pytest.approx(-0.01, abs=0.08)
    assert gaussian == pytest.approx(0.29, abs=0.2)


def test_a_gradient_is_that_of_the_loss():
    system, step = System(norm="bn"), 1e-5
    draw = rn.stream(9, "rank", "gradient", "gaussian", 6, 2)
    x = rn.gaussian(draw, 2, 6, 6, dtype=F64)
    targets = torch.randint(10, (2, 6), generator=draw)
    head = rn.gaussian(draw, 2, 10, 6, std=6**-0.5, dtype=F64)
    w = [weights("gaussian", draw, 2, 6) for _ in range(2)]

    def loss(first, network):
        y = x[network]
        for one in (first, w[1][network]):
            y = normalized((y @ one.T)[None], "bn")[0]
        return torch.nn.functional.cross_entropy(y @ head[network].T, targets[network]).item()

    for network in range(2):
        square = 0.0
        for i, j in np.ndindex(6, 6):
            bump = torch.zeros(6, 6, dtype=F64)
            bump[i, j] = step
            there, back = (loss(w[0][network] + side * bump, network) for side in (1, -1))
            square += ((there - back) / (2 * step)) ** 2
        assert log_gradients(system, 9, 2, 6, 2)[network].item() == pytest.approx(math.log(square) / 2, abs=1e-6)


def test_theory_stands_where_it_speaks(rows):
    kept = [row for row in rows if "theory_soft_rank" in row]
    assert {(row["part"], row["norm"], row["activation"], row["layers"]) for row in kept} == {
        ("rank", "rescale", "linear", "plain")
    }
    bounded = [row for row in rows if "bound_orthogonality_gap" in row]
    assert bounded and all(row["orthogonality_gap"] <= row["bound_orthogonality_gap"] for row in bounded)
    assert {row["weights"] for row in rows if "theory_isometry_gap" in row} == {"orthogonal"}


def test_a_network_whose_signals_are_all_zero_has_no_rows():
    assert start("aligned", rn.stream(0, "s"), 1, 3, 4).shape == (1, 3, 4)
    assert normalized(torch.zeros(1, 3, 4, dtype=F64), "none").tolist() == torch.zeros(1, 3, 4).tolist()
    assert measures.soft_rank(torch.zeros(1, 3, 4)).isnan().item()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"batch": 3}, "lab.batch must be at least 4"),
        ({"depth": 0}, "lab.depth must be at least 1"),
        ({"networks": 0}, "lab.networks must be at least 1"),
        ({"gamma": 0.0}, "lab.gamma must be greater than 0"),
        ({"widths": [16]}, "lab.widths must be at least 2 different numbers"),
        ({"widths": [3, 16]}, "lab.widths must be at least 4"),
        ({"wide_widths": [2, 16]}, "lab.wide_widths must be at least 4"),
        ({"gradient_depths": [5, 5]}, "lab.gradient_depths must be at least 2 different"),
        ({"gradient_depths": [0, 5]}, "lab.gradient_depths must be at least 1"),
    ],
)
def test_options_that_make_no_sense(option, line):
    with pytest.raises(ValueError, match=line):
        RankOptions("rank", **option)


def test_a_constant_feature_cannot_be_normalized():
    with pytest.raises(IcsbenchError, match="constant over a batch"):
        normalized(torch.ones(1, 4, 3, dtype=F64), "bn")
