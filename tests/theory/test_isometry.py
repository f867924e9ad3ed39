"""Closed forms of the isometry gap, by determinants, simulation and the sheet's numbers."""

import math

import numpy as np
import pytest

from icsbench.theory.isometry import (
    gaussian_isometry_gap,
    isometry_gap_with_depth,
    mean_log_gap,
    orthogonality_gap_bound,
)


def gap(x):
    """The isometry gap of a square matrix by its determinant."""
    return math.log((x**2).sum() / len(x)) - 2 * np.linalg.slogdet(x)[1] / len(x)


@pytest.mark.parametrize(("seed", "width"), [(3, 7), (8, 20)])
def test_rows_of_unit_length_take_off_what_is_said_and_orthogonal_weights_nothing(seed, width):
    random = np.random.default_rng(seed)
    x = random.standard_normal((width, width)) * np.exp(random.standard_normal(width))[:, None]
    squares = (x**2).sum(1)
    assert gap(x / np.sqrt(squares)[:, None]) == pytest.approx(gap(x) - mean_log_gap(squares), abs=1e-11)
    q, _ = np.linalg.qr(random.standard_normal((width, width)))
    assert gap(q @ x) == pytest.approx(gap(x), abs=1e-11)
    assert mean_log_gap(squares) > 0 and mean_log_gap([3.0, 3.0]) == 0


def test_gaussian_weights_add_about_one():
    random = np.random.default_rng(5)
    for width in (3, 12):
        w = random.standard_normal((4000, width, width)) / math.sqrt(width)
        found = -2 * np.linalg.slogdet(w)[1] / width
        error = found.std() / math.sqrt(len(found))
        assert abs(found.mean() - gaussian_isometry_gap(width)) < 5 * error
    assert gaussian_isometry_gap(1) == pytest.approx(math.log(2) + np.euler_gamma)  # -E log of a chi-square with 1
    assert gaussian_isometry_gap(5000) == pytest.approx(1, abs=1e-3)


def test_decay_and_bound():
    assert isometry_gap_with_depth(2.406e-4, 100, 50) == pytest.approx(1.73e-5, rel=5e-3)  # the sheet's overlay
    assert isometry_gap_with_depth(0.7, [0, 3], 10)[0] == 0.7
    assert orthogonality_gap_bound(0.3, 2, 4, 64) == pytest.approx(2 * 0.8**2 + 12 / (0.3 * 8))
    assert orthogonality_gap_bound(0.5, 10**4, 4, 10**10) == pytest.approx(3 * 4 / (0.5 * 1e5))


def test_what_has_no_value_is_refused():
    with pytest.raises(ValueError, match="alpha must be"):
        orthogonality_gap_bound(0, 1, 4, 16)
    with pytest.raises(ValueError, match="positive numbers"):
        mean_log_gap([1, 0])
    with pytest.raises(ValueError, match="width is at least 1"):
        gaussian_isometry_gap(0)
