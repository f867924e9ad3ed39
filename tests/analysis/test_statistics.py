import itertools
import math

import numpy as np
import pytest
from scipy import stats

from icsbench.analysis import decision
from icsbench.analysis.statistics import (
    Place,
    binomial_test,
    geometric_band,
    mean_band,
    mean_interval,
    paired_difference,
    paired_ratio,
    sign_flip_test,
    student_t_test,
)
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


# --- where a mean lies -----------------------------------------------------------------------------------------------


def brute_sign_flips(values, bound):
    """Share of all sign patterns whose mean of x - bound is at least the observed one."""
    centred = [value - bound for value in values]
    means = [sum(s * c for s, c in zip(signs, centred, strict=True)) for signs in itertools.product((1, -1), repeat=6)]
    return sum(mean >= sum(centred) - 1e-12 for mean in means) / len(means)


@pytest.mark.parametrize("bound", [-0.5, 0.0, 0.7])
def test_one_sided_p_values_are_scipys(bound):
    values = np.random.default_rng(3).normal(0.3, 1.0, 6)
    above = stats.ttest_1samp(values, bound, alternative="greater").pvalue
    below = stats.ttest_1samp(values, bound, alternative="less").pvalue
    assert student_t_test(values, bound, math.inf) == pytest.approx((above, below, 1.0))
    assert student_t_test(values, -math.inf, bound) == pytest.approx((below, 1.0, above))
    assert sign_flip_test(values, bound, math.inf).inside == brute_sign_flips(values, bound)
    assert sign_flip_test(values, -math.inf, bound).inside == brute_sign_flips(list(-values), -bound)


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e12])
def test_small_p_values_are_not_lost(distance):
    """With three values t has 2 degrees of freedom: P(T <= -t) = 1 / (sqrt(t^2 + 2) (sqrt(t^2 + 2) + t))."""
    values = distance + np.array([-1.0, 0.0, 1.0])
    t = distance * math.sqrt(3)
    tail = 1 / (math.sqrt(t * t + 2) * (math.sqrt(t * t + 2) + t))
    assert 0 < tail < 1e-6
    above, below = student_t_test(values, -math.inf, 0.0), student_t_test(-values, 0.0, math.inf)
    assert (above.above, below.below) == pytest.approx((tail, tail), rel=1e-9)
    assert student_t_test(values, 0.0, math.inf).inside == pytest.approx(tail, rel=1e-9)
    assert student_t_test(-values, -math.inf, 0.0).inside == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("n", [6, 12, 24])
def test_tails_in_both_directions_are_scipys_survival_function(n):
    sample = np.random.default_rng(n).normal(5.0, 0.01, n)
    t = sample.mean() / (sample.std(ddof=1) / math.sqrt(n))
    tail = stats.t.sf(t, n - 1)
    assert tail < 1e-12
    assert student_t_test(sample, 0, math.inf).inside == pytest.approx(tail, rel=1e-8)
    assert student_t_test(sample, -math.inf, 0).above == pytest.approx(tail, rel=1e-8)
    assert student_t_test(-sample, 0, math.inf).below == pytest.approx(tail, rel=1e-8)
    assert student_t_test(-sample, -1, 0).inside >= tail > 0


def test_equivalence_is_the_larger_of_two_one_sided_tests():
    values = [0.1, -0.3, 0.4, 0.0, -0.2, 0.3]
    greater = stats.ttest_1samp(values, -1, alternative="greater").pvalue
    less = stats.ttest_1samp(values, 1, alternative="less").pvalue
    assert student_t_test(values, -1, 1).inside == pytest.approx(max(greater, less))
    assert student_t_test(values, -1, 1).above == pytest.approx(1 - less)


@pytest.mark.parametrize("n", [2, 5, 12, 13])
def test_sign_flips_are_scipys_permutations(n):
    values = np.random.default_rng(n).normal(0.4, 1.0, n)
    for bound in (-0.2, 0.0, 0.7):
        expected = stats.permutation_test(
            (values - bound,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="greater"
        )
        assert sign_flip_test(values, bound, math.inf).inside == pytest.approx(expected.pvalue, abs=1e-15)


def test_sign_flips_of_many_values_with_ties():
    """Of whole numbers the sums are counted exactly: those of 24 ones are 24 - 2 k, with binomial numbers."""
    values = [1.0] * 18 + [-1.0] * 6
    expected = stats.binom.cdf(6, 24, 0.5)
    assert sign_flip_test(values, 0, math.inf).inside == pytest.approx(expected, rel=1e-12)
    assert sign_flip_test([2.0] * 40, 0, math.inf).inside == 2.0**-40


@pytest.mark.parametrize(
    ("ones", "n", "bound"), [(12, 12, 0.5), (10, 12, 0.5), (3, 6, 0.5), (0, 6, 0.3), (20, 24, 0.6)]
)
def test_a_share_is_tested_as_by_scipy(ones, n, bound):
    values = [1.0] * ones + [0.0] * (n - ones)
    above = stats.binomtest(ones, n, bound, alternative="greater").pvalue
    below = stats.binomtest(ones, n, bound, alternative="less").pvalue
    assert binomial_test(values, bound, math.inf) == pytest.approx((above, below, 1.0))
    assert binomial_test(values, -math.inf, bound) == pytest.approx((below, 1.0, above))
    with pytest.raises(IcsbenchError, match="zeros and ones"):
        binomial_test([0.5, 1.0], 0.5, math.inf)


def test_six_pairs_cannot_go_below_the_floor_of_the_permutation():
    assert sign_flip_test([1.0, 1.1, 0.9, 1.2, 0.8, 1.0], 0, math.inf).inside == 2**-6


def test_values_without_spread_are_as_sure_as_sign_flips_and_one_value_is_not():
    floor = 2**-6
    assert student_t_test([2.0] * 6, 1, math.inf) == (floor, 1 - floor, 1.0)
    assert student_t_test([2.0] * 6, 1, math.inf).inside == sign_flip_test([2.0] * 6, 1, math.inf).inside
    assert student_t_test([2.0] * 6, 2, math.inf).inside == 0.5
    assert student_t_test([2.0], 1, math.inf) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("place", [student_t_test, sign_flip_test])
def test_what_cannot_be_tested_is_refused(place):
    with pytest.raises(IcsbenchError, match="not finite"):
        place([1.0, math.nan], 0, 1)
    with pytest.raises(IcsbenchError, match="empty"):
        place([1.0, 2.0], 1, 1)
    with pytest.raises(IcsbenchError, match="40 at most"):
        sign_flip_test([0.0] * 41, -1, 1)


def holm(p_values):
    """The corrected p-values of claims of one part each, every one with a measurement of its own."""
    places = [None if math.isnan(p) else Place(p / 2, 1.0, 1.0) for p in p_values]
    return [
        found.corrected
        for found in decision.decide([decision.Tested((place,), number) for number, place in enumerate(places)])
    ]


def test_holm_by_hand_and_without_the_untested():
    assert holm([0.01, 0.04, 0.03, math.nan, 0.005]) == pytest.approx([0.03, 0.06, 0.06, math.nan, 0.02], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_rejection():
    p = np.random.default_rng(0).random((4000, 12))
    assert np.mean([min(holm(list(row))) <= 0.05 for row in p]) == pytest.approx(0.05, abs=0.011)


# Of flat or peaked distributions t covers a little less or more than it says; of normal ones exactly as much.
@pytest.mark.parametrize(("draw", "within"), [("normal", 0.011), ("uniform", 0.025), ("laplace", 0.025)])
@pytest.mark.parametrize("n", [6, 8])
def test_the_interval_covers_and_the_tests_keep_their_level(n, draw, within):
    samples = getattr(np.random.default_rng(n), draw)(size=(4000, n)) - (0.5 if draw == "uniform" else 0.0)
    bands = [mean_interval(sample) for sample in samples]
    assert np.mean([band.low <= 0 <= band.high for band in bands]) == pytest.approx(0.95, abs=within)
    t = [student_t_test(sample, 0, math.inf).inside for sample in samples]
    flips = [sign_flip_test(sample, 0, math.inf).inside for sample in samples]
    assert np.mean(np.array(t) <= 0.025) == pytest.approx(0.025, abs=within)
    assert np.mean(np.array(flips) <= 0.025) <= 0.025 + 0.008


def test_a_percentile_bootstrap_would_not_have_covered():
    rng = np.random.default_rng(0)
    covered = []
    for sample in rng.normal(size=(1000, 6)):
        means = sample[rng.integers(0, 6, (400, 6))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.91
