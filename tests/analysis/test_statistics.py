import math

import numpy as np
import pytest
from scipy import stats

from icsbench.analysis.statistics import geometric_band, mean_band, mean_interval, paired_difference, paired_ratio
from icsbench.errors import IcsbenchError


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 6, 50])
def test_interval_is_that_of_scipy(n, level):
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    expected = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    interval = mean_interval(values, level)
    assert interval.n == n
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-10)
    assert interval.half == pytest.approx((expected[1] - expected[0]) / 2, rel=1e-10)


def test_paired_difference_is_the_paired_t_test_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=6), rng.normal(size=6)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    interval = paired_difference(a, b)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    with pytest.raises(IcsbenchError, match="6 and 5"):
        paired_difference(a, b[:5])


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    values = np.random.default_rng(2).normal(1.0, 3.0, (6, 40_000))
    band = mean_band(values)
    covered = np.mean((band.low <= 1.0) & (band.high >= 1.0))
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 40_000))


def test_one_value_has_no_interval_and_none_is_an_error():
    interval = mean_interval([0.5])
    assert interval.mean == 0.5 and interval.n == 1
    assert math.isnan(interval.low) and math.isnan(interval.high)
    with pytest.raises(IcsbenchError, match="no values"):
        mean_interval([])


def test_nan_is_passed_on_not_dropped():
    band = mean_band([[1.0, np.nan], [2.0, 3.0]])
    assert mean_interval([np.inf, 1.0]).mean == np.inf and np.isnan(mean_interval([np.inf, 1.0]).low)
    assert band.mean[0] == 1.5 and np.isnan(band.mean[1]) and np.isnan(band.low[1])


def test_geometric_mean_and_interval_are_those_of_the_logarithms():
    values = np.exp(np.random.default_rng(3).normal(-2.0, 3.0, (5, 4)))
    band = geometric_band(values)
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 4, loc=logs.mean(axis=0), scale=stats.sem(logs))
    assert band.n == 5
    assert band.mean == pytest.approx(stats.gmean(values), rel=1e-12)
    assert band.low == pytest.approx(np.exp(low), rel=1e-10) and band.high == pytest.approx(np.exp(high), rel=1e-10)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan])
def test_a_geometric_mean_is_of_positive_numbers_or_missing(bad):
    band = geometric_band([[4.0, bad], [9.0, 1.0]])
    assert band.mean[0] == pytest.approx(6.0)
    assert np.isnan([band.mean[1], band.low[1], band.high[1]]).all()


def test_one_curve_is_its_own_geometric_mean_without_interval_and_wide_intervals_overflow_to_infinity():
    band = geometric_band([[4.0, 0.1]])
    assert band.mean == pytest.approx([4.0, 0.1]) and np.isnan([*band.low, *band.high]).all()
    wide = geometric_band([[1e-200], [1e200]])
    assert wide.mean[0] == pytest.approx(1) and wide.low[0] == 0 and np.isinf(wide.high[0])


def test_paired_ratio_is_the_paired_t_test_of_the_logarithms():
    rng = np.random.default_rng(4)
    a, b = np.exp(rng.normal(size=6)), np.exp(rng.normal(size=6))
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    ratio = paired_ratio(a, b)
    assert ratio.mean == pytest.approx(np.prod(a / b) ** (1 / 6), rel=1e-12)
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)), rel=1e-10)
    assert paired_ratio([6.0], [2.0])[:1] == pytest.approx((3.0,)) and math.isnan(paired_ratio([6.0], [2.0]).low)
    assert math.isnan(paired_ratio([np.nan, 1.0], [1.0, 1.0]).mean)
    with pytest.raises(IcsbenchError, match="2 and 1"):
        paired_ratio([1.0, 2.0], [1.0])
