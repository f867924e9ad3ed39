import math

import numpy as np
import pytest
from scipy import stats

from icsbench.analysis.statistics import mean_band, mean_interval, paired_difference
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
