"""Exponential or polynomial growth: planted curves with noise."""

import math

import numpy as np
import pytest

from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.quantities.growth import growth

DEPTHS = np.arange(10, 101, 5)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_power_is_found_with_its_exponent(seed):
    noise = 0.05 * np.random.default_rng(seed).standard_normal(len(DEPTHS))
    found = growth(DEPTHS, 3 - 1.467 * np.log(DEPTHS) + noise)
    assert found.for_polynomial > 10
    assert abs(found.polynomial.slope + 1.467) < 4 * found.polynomial.error
    assert found.polynomial.height == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_exponential_is_found_with_its_rate(seed):
    noise = 0.05 * np.random.default_rng(seed).standard_normal(len(DEPTHS))
    found = growth(DEPTHS, 1 + 0.38 * DEPTHS + noise)
    assert found.for_polynomial < -10
    assert abs(found.exponential.slope - 0.38) < 4 * found.exponential.error


def test_the_line_and_the_criterion_are_those_of_the_textbook():
    from scipy.stats import linregress

    values = np.sin(DEPTHS)
    found = growth(DEPTHS, values)
    for line, x in ((found.exponential, DEPTHS), (found.polynomial, np.log(DEPTHS))):
        said = linregress(x, values)
        assert (line.slope, line.height, line.error) == pytest.approx((said.slope, said.intercept, said.stderr))
        n, squares = len(x), np.square(values - said.intercept - said.slope * x).sum()
        assert line.aic == pytest.approx(n * math.log(squares / n) + 6)


def test_the_errors_cover():
    random = np.random.default_rng(1)
    lines = [growth(DEPTHS, 2 * np.log(DEPTHS) + random.standard_normal(len(DEPTHS))).polynomial for _ in range(400)]
    within = np.mean([abs(line.slope - 2) < 2.11 * line.error for line in lines])  # t of 17 degrees of freedom
    assert 0.92 < within < 0.98


def test_what_cannot_be_fitted():
    assert math.isnan(growth([1, 2, 3, 4], [0, 1, math.nan, 2]).for_polynomial)
    assert growth([1, 2, 3, 4], [1, 2, 3, 4]).exponential.aic == -math.inf
    for depths in ([1, 2, 3], [0, 1, 2, 3]):
        with pytest.raises(NotMeasured, match="growth needs 4 depths from 1 up"):
            growth(depths, [0.0] * len(depths))
