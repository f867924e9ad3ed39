import math

import numpy as np
import pytest

from icsbench.theory.arc_cosine import (
    cosine_rescaled,
    cosines_by_layer,
    gate_overlap,
    outlier_share,
    relu_cosine,
    rescaled_by_layer,
)
from icsbench.theory.mean_field import forward_correlation


@pytest.mark.parametrize(("batch", "expected"), [(4, 0.169496588042), (32, 0.302346482176), (1024, 0.317821279709)])
def test_the_fixed_point_of_batch_norm_is_that_of_centred_samples(batch, expected):
    assert relu_cosine(-1 / (batch - 1)) == pytest.approx(expected, abs=1e-12)
    assert relu_cosine(-1 / (batch - 1)) == pytest.approx(forward_correlation("relu", batch), abs=1e-10)


def test_both_functions_are_integrals_over_the_plane():
    angles = (np.arange(400_000) + 0.5) * 2 * math.pi / 400_000
    for c in (-0.9, -1 / 31, 0.0, 0.3, 0.95):
        u, v = np.cos(angles), c * np.cos(angles) + math.sqrt(1 - c**2) * np.sin(angles)
        assert relu_cosine(c) == pytest.approx(4 * (np.maximum(u, 0) * np.maximum(v, 0)).mean(), abs=1e-9)
        assert gate_overlap(c) == pytest.approx(2 * ((u > 0) & (v > 0)).mean(), abs=1e-5)
    assert relu_cosine([-1, 0, 1]) == pytest.approx([0, 1 / math.pi, 1], abs=1e-15)
    assert gate_overlap([-1, 0, 1]) == pytest.approx([0, 0.5, 1], abs=1e-15)


def test_gates_of_a_plain_network_by_depth():
    overlap = np.cumprod(gate_overlap(cosines_by_layer(39)))
    at = [overlap[layers - 1] for layers in (1, 2, 3, 5, 10, 20, 40)]
    assert at == pytest.approx([0.5, 0.302, 0.200, 0.105, 0.034, 0.0082, 0.0016], rel=0.025)


def test_plain_cosines_approach_1_as_a_square():
    layers = 20_000
    assert (1 - cosines_by_layer(layers)[-1]) * layers**2 == pytest.approx(4.5 * math.pi**2, rel=0.01)


@pytest.mark.parametrize(("batch", "cosine"), [(4, 0.3), (7, 0.0), (32, 0.8)])
def test_rescaling_is_what_sampling_says(batch, cosine):
    random = np.random.default_rng(batch)
    common, own = random.standard_normal((100_000, 1)), random.standard_normal((100_000, batch))
    u = np.sqrt(cosine) * common + np.sqrt(1 - cosine) * own
    h = np.maximum(u / np.sqrt((u**2).mean(1, keepdims=True)), 0)
    pairs = (h.sum(1) ** 2 - (h**2).sum(1)) / (batch * (batch - 1))
    assert cosine_rescaled(batch, cosine) == pytest.approx(pairs.mean() / (h**2).mean(), abs=0.005)


def test_rescaling_alone_has_a_fixed_point():
    found = rescaled_by_layer(500, 32)
    assert len(found) == 501 and found[1] == pytest.approx(1 / math.pi)
    assert found[-1] == pytest.approx(cosine_rescaled(32, found[-1]), abs=1e-11)
    assert found[-1] == pytest.approx(0.5135316, abs=1e-6)


@pytest.mark.parametrize("hidden", [1, 3, 6])
def test_the_outlier_by_the_recursion_of_the_tangent_kernel(hidden):
    cosine = kernel = 0.1
    for _ in range(hidden):
        after = (math.sqrt(1 - cosine**2) + (math.pi - math.acos(cosine)) * cosine) / math.pi
        kernel = kernel * (math.pi - math.acos(cosine)) / math.pi + after
        cosine = after
    n = 9
    matrix = np.full((n, n), kernel) + (hidden + 1 - kernel) * np.eye(n)
    expected = np.linalg.eigvalsh(matrix)[-1] / np.trace(matrix)
    assert outlier_share(hidden, n, 0.1) == pytest.approx(expected, rel=1e-12)
