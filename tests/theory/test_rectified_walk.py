"""The walk of a unit through residual blocks: closed forms, an identity of queueing theory, and plain drawing."""

import math

import numpy as np
import pytest

from icsbench.theory.rectified_walk import channel_moments

RELU = math.sqrt(2 / (1 - 1 / math.pi))


def test_what_comes_out_of_a_relu():
    [[mean, variance]] = channel_moments(1.7, 0, lambda block, std: 1.0)
    assert mean == pytest.approx(1.7**2 / (2 * math.pi), rel=1e-6)
    assert variance == pytest.approx(1.7**2 * (0.5 - 1 / (2 * math.pi)), rel=1e-6)
    assert channel_moments(RELU, 0, lambda block, std: 1.0)[0, 1] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("size", [1.0, 0.03])
def test_the_mean_from_zero_is_spitzers(size):
    """E max(S_1, ..., S_n, 0) = sum over k of E max(S_k, 0) / k, and E max(S_k, 0) = size sqrt(k / 2 pi)."""
    found = channel_moments(0.0, 12, lambda block, std: size)
    expected = size * np.cumsum([0.0, *(1 / math.sqrt(2 * math.pi * k) for k in range(1, 13))])
    np.testing.assert_allclose(np.sqrt(found[:, 0]), expected, rtol=1e-4, atol=1e-9)
    assert found[1, 1] == pytest.approx(size**2 * (0.5 - 1 / (2 * math.pi)), rel=1e-4)


def test_blocks_that_add_nothing_change_nothing():
    found = channel_moments(RELU, 3, lambda block, std: 0.0)
    np.testing.assert_allclose(found, np.tile(found[0], (4, 1)), rtol=1e-9)


def test_against_drawing():
    random = np.random.default_rng(1)
    x = RELU * np.maximum(random.standard_normal(400_000), 0)
    for block in range(6):
        x = np.maximum(x + 0.2 * (1 + block) ** 0.5 * x.std() * random.standard_normal(x.size), 0)
    found = channel_moments(RELU, 6, lambda block, std: 0.2 * (1 + block) ** 0.5 * std)
    assert found[-1] == pytest.approx([x.mean() ** 2, x.var()], rel=0.01)


def test_a_walk_that_leaves_the_grid_is_refused():
    with pytest.raises(ValueError, match="the walk has left its grid in block"):
        channel_moments(1.0, 12, lambda block, std: 2 * std)
