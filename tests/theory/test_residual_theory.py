"""Golden numbers of residual networks and shattered gradients, and the limits that papers state."""

import math

import numpy as np
import pytest

from icsbench.analysis.claims.residual import EXPONENT
from icsbench.theory.arc_cosine import gate_overlap
from icsbench.theory.residual import (
    Block,
    blocks,
    correlation_through_statistics,
    fixup_scale,
    gradient_correlation,
    log_gradient,
    signals,
)

KINDS = blocks(100)


def test_variances_per_block():
    bn, none = signals(KINDS["residual_bn"], 100), signals(KINDS["residual"], 100)
    assert bn.second_moment == pytest.approx(np.arange(1, 102), rel=1e-12)
    assert np.diff(bn.batch_variance) == pytest.approx(1 - 1 / math.pi, rel=1e-10)
    assert none.second_moment == pytest.approx(2.0 ** np.arange(101), rel=1e-12)
    # with 512 units and 128 inputs +0.684 and +0.6807 per block were measured
    assert np.diff(signals(KINDS["residual_bn"], 10, 128).batch_variance) == pytest.approx(0.6803, abs=1e-4)


def test_the_scaled_sum_makes_samples_alike():
    half = signals(KINDS["residual_half"], 100, 128)
    assert half.second_moment == pytest.approx(1)
    # measured on 512 units, one draw: 0.987, 0.304, 0.081, 0.035 at 0, 10, 50, 100 blocks; samples of finite width stay
    # further apart than theory has them, as their lengths differ
    assert half.batch_variance[[0, 10]] == pytest.approx([0.987, 0.304], abs=0.02)
    assert (half.batch_variance[[50, 100]] < [0.081, 0.035]).all() and (np.diff(half.batch_variance) < 0).all()


def test_small_branches_keep_the_second_moment():
    assert signals(KINDS["residual_depth"], 100).second_moment[-1] == pytest.approx(1.01**100)  # 2.705; measured 2.77
    for kind in ("residual_skipinit", "residual_fixup"):
        found = signals(KINDS[kind], 100, 64)
        assert np.ptp(found.batch_variance) == 0 and (found.branch_second_moment == 0).all()
        assert (log_gradient(KINDS[kind], 100, 64) == 0).all()


def test_gradients_grow_as_a_power_with_bn_and_a_skip_and_exponentially_otherwise():
    bn, plain, none = (log_gradient(KINDS[kind], 4000) for kind in ("residual_bn", "plain_bn", "residual"))
    variance = signals(KINDS["residual_bn"], 4000).batch_variance[:-1]
    assert bn[0] == pytest.approx(np.log(np.prod(1 + 1 / variance))) and bn[-1] == 0
    assert (bn[1000] - bn[2000]) / math.log(4000 / 2000) == pytest.approx(EXPONENT, abs=2e-3)
    assert EXPONENT == pytest.approx(1.46694220692426, rel=1e-13)
    assert -np.diff(plain)[1:] == pytest.approx(math.log(EXPONENT), rel=1e-6) and plain[0] == plain[1]
    assert -np.diff(none) == pytest.approx(math.log(2), rel=1e-6)
    assert log_gradient(KINDS["plain"], 50) == pytest.approx(0)
    assert log_gradient(KINDS["residual_half"], 50) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "depths", "expected"),
    [
        ("plain", [1, 2, 3, 5, 10, 20, 40], [0.5, 0.302, 0.200, 0.105, 0.034, 0.0082, 0.0016]),
        ("plain_bn", [1, 2, 3, 5, 10], [2**-1, 2**-2, 2**-3, 2**-5, 2**-10]),
        ("residual", [1, 2, 3], [0.75, 0.582, 0.4625]),
        ("residual_bn", [1, 2, 3, 5, 10, 20, 40, 80], [0.75, 0.610, 0.520, 0.407, 0.275, 0.177, 0.110, 0.067]),
    ],
)
def test_correlations_of_gradients(kind, depths, expected):
    found = gradient_correlation(KINDS[kind], 80)
    digits = [0.6 * 10.0 ** -len(str(number).partition(".")[2]) for number in expected]
    for depth, number, error in zip(depths, expected, digits, strict=True):
        assert found[depth - 1] == pytest.approx(number, abs=error)


def test_the_powers_to_which_correlations_tend():
    plain, bn = (np.log(gradient_correlation(KINDS[kind], 4000)) for kind in ("plain", "residual_bn"))
    assert (plain[399] - plain[199]) / math.log(2) == pytest.approx(-2.89, abs=0.005)  # from 200 to 400
    assert (plain[3999] - plain[1999]) / math.log(2) == pytest.approx(-3, abs=0.02)
    assert (bn[3999] - bn[1999]) / math.log(2) == pytest.approx(-EXPONENT / 2, abs=2e-3)
    # the textbook's square root: BN divides by a variance that grows by one per block
    s = np.arange(1, 4001)
    textbook = np.log(np.cumprod((s + 0.5) / (s + 1)))
    assert (textbook[3999] - textbook[1999]) / math.log(2) == pytest.approx(-0.5, abs=1e-3)


def test_a_finite_batch():
    assert gradient_correlation(KINDS["plain_bn"], 3, 32) == pytest.approx(gate_overlap(-1 / 31) ** np.arange(1, 4))
    assert correlation_through_statistics(KINDS["plain_bn"], 9, 32) == pytest.approx(-1 / 31)  # -0.0322...
    residual = correlation_through_statistics(KINDS["residual_bn"], 40, 32)
    assert (np.diff(residual) < 0).all() and residual[-1] > -1 / 31
    for kind in KINDS.values():
        assert gradient_correlation(kind, 20, 1e9) == pytest.approx(gradient_correlation(kind, 20), rel=1e-6)


@pytest.mark.parametrize(
    ("batch", "rate"),
    [(4, 3.084060948088), (8, 1.788189976659), (32, 1.521952830552), (128, 1.479681272322), (1024, 1.468500991973)],
)
def test_a_plain_network_with_bn_has_yangs_rate(batch, rate):
    found = np.exp(-np.diff(log_gradient(KINDS["plain_bn"], 6, batch)))
    assert found[1:-1] == pytest.approx(rate, rel=1e-11)  # neither the input's variance nor the output's gradient
    with pytest.raises(ValueError, match="need a batch of 4"):
        log_gradient(KINDS["plain_bn"], 6, 3)


def test_fixup():
    assert fixup_scale(9) == pytest.approx(0.333333333333, abs=1e-12)
    assert fixup_scale(15) == pytest.approx(0.258198889747, abs=1e-12)
    assert fixup_scale(54) == pytest.approx(0.136082763488, abs=1e-12)
    assert fixup_scale(33, 3) == pytest.approx(0.4172261449, abs=1e-10)
    for bad in ((0, 2), (9, 1)):
        with pytest.raises(ValueError, match="Fixup needs a branch of two layers"):
            fixup_scale(*bad)


@pytest.mark.parametrize(("depth", "batch"), [(0, 8), (3, 1)])
def test_no_theory_without_a_block_or_a_pair(depth, batch):
    with pytest.raises(ValueError, match="theory needs a block and two samples"):
        signals(Block(), depth, batch)
