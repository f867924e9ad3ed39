"""Chances of a verdict and numbers of seeds, against simulations of the tests that are shipped."""

import math

import numpy as np
import pytest
from scipy import stats

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.decision import Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.power import MOST, chance_of_mean, chance_of_share, fewest
from icsbench.analysis.statistics import binomial_test, sign_flip_test, student_t_test
from icsbench.analysis.verdicts import chance_of_verdict, decide

FOUND = [0.9, -0.4, 0.8, 0.2, -0.1, 0.6]  # mean 1/3, standard deviation 0.52


def part(low=0.0, high=math.inf, **options) -> Part:
    return Part("p", lambda group: Measured({}, {}), "what", ("study",), low=low, high=high, **options)


def finding(values, low=0.0, high=math.inf, **options) -> Finding:
    return Finding(part(low, high, **options), None, dict(enumerate(values)), {})


def claim(*findings: Finding) -> Claim:
    return Claim("1", "It is so.", "A", "here", parts=tuple(found.part for found in findings))


def shaped(n: int, mean: float, spread: float = 1.0) -> list[float]:
    """n values with exactly this mean and standard deviation."""
    values = np.random.default_rng(n).normal(size=n)
    return list(mean + spread * (values - values.mean()) / values.std(ddof=1))


def simulated(n, mean, low, high, level, exact, draws=400):
    """The share of normal samples that the shipped tests place on the side of the mean."""
    side = "inside" if low < mean < high else "below" if mean <= low else "above"
    count = 0
    for sample in np.random.default_rng(n).normal(mean, 1.0, (draws, n)):
        places = [student_t_test(sample, low, high), *([sign_flip_test(sample, low, high)] if exact else [])]
        count += all(getattr(place, side) <= level for place in places)
    return count / draws


@pytest.mark.parametrize(
    ("n", "mean", "low", "high", "level", "exact"),
    [
        (8, 1.0, 0.0, math.inf, 0.025, False),
        (8, -1.0, 0.0, math.inf, 0.025, False),
        (9, 2.0, 0.0, math.inf, 0.003, True),
        (10, 1.5, 0.0, math.inf, 0.0125, True),
        (12, 0.2, -1.5, 1.5, 0.025, False),
        (12, 3.0, -2.0, 2.0, 0.025, True),
    ],
)
def test_a_chance_is_that_of_a_simulation(n, mean, low, high, level, exact):
    chance = chance_of_mean(n, shaped(6, mean), (low, high), level, exact)
    assert chance == pytest.approx(simulated(n, mean, low, high, level, exact), abs=0.06)


@pytest.mark.parametrize(("mean", "level"), [(2.0, 0.0125), (1.5, 0.003), (1.2, 0.0125)])
def test_the_seeds_needed_are_those_of_a_simulation_to_within_one(mean, level):
    needed = fewest(lambda n: chance_of_mean(n, shaped(6, mean), (0.0, math.inf), level, True))
    first = next(n for n in range(4, 40) if simulated(n, mean, 0.0, math.inf, level, True, 600) >= 0.8)
    assert needed is not None and abs(needed - first) <= 1


def test_seeds_without_a_floor_are_those_of_the_noncentral_t():
    needed = fewest(lambda n: chance_of_mean(n, FOUND, (0.0, math.inf), 0.025, False))
    effect = np.mean(FOUND) / np.std(FOUND, ddof=1)
    power = [stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n)) for n in range(2, 60)]
    assert needed == 2 + next(place for place, value in enumerate(power) if value >= 0.8)


@pytest.mark.parametrize("level", [0.025, 0.015, 0.0004])
def test_sign_flips_have_a_floor_that_no_effect_gets_below(level):
    needed = fewest(lambda n: chance_of_mean(n, shaped(6, 50.0), (0.0, math.inf), level, True))
    assert needed == math.ceil(math.log2(1 / level))


def test_values_that_are_all_equal_need_as_many_as_the_floor():
    assert fewest(lambda n: chance_of_mean(n, [3.0] * 6, (0.0, math.inf), 0.001, False)) == 10
    assert fewest(lambda n: chance_of_mean(n, [0.0] * 6, (0.0, math.inf), 0.001, False)) is None


def test_a_mean_between_two_bounds_takes_more_than_one_beside_one():
    one, two = (
        fewest(lambda n, bounds=bounds: chance_of_mean(n, shaped(6, 0.0), bounds, 0.025, False))
        for bounds in ((-1.0, math.inf), (-1.0, 1.0))
    )
    assert one is not None and two is not None and two > one


def test_a_mean_at_its_bound_is_never_settled():
    assert fewest(lambda n: chance_of_mean(n, [1e-4, -1e-4, 1.0, -1.0], (0.0, math.inf), 0.025, True)) is None


@pytest.mark.parametrize(
    ("n", "share", "low", "high"),
    [(12, 0.9, 0.5, math.inf), (12, 0.1, 0.5, 1.5), (20, 0.5, 0.1, 0.9), (9, 1.0, 0.5, 2)],
)
def test_the_chance_of_a_count_is_the_sum_over_all_counts(n, share, low, high):
    side = "inside" if low < share < high else "below"
    expected = 0.0
    for ones in range(n + 1):
        place = binomial_test([1.0] * ones + [0.0] * (n - ones), low, high)
        expected += math.comb(n, ones) * share**ones * (1 - share) ** (n - ones) * (getattr(place, side) <= 0.025)
    assert chance_of_share(n, share, (low, high), 0.025) == pytest.approx(expected, abs=1e-12)


def test_ones_alone_need_as_many_as_the_binomial_test_can_do_with():
    assert fewest(lambda n: chance_of_share(n, 1.0, (0.5, math.inf), 0.015)) == 7


def test_a_claim_whose_parts_all_lie_inside_needs_them_all():
    rule, found = Rule(), finding(shaped(6, 1.0))
    one = chance_of_verdict([found], 12, rule, 1)
    assert chance_of_verdict([found, found], 12, rule, 1) == pytest.approx(2 * one - 1)
    assert chance_of_verdict([found], 5, rule, 1) == 0  # fewer than the rule takes


def test_one_part_outside_is_enough_at_its_share_of_the_level():
    outside, inside = finding(shaped(6, -1.0)), finding(shaped(6, 0.01))
    expected = chance_of_mean(12, shaped(6, -1.0), (0.0, math.inf), 0.05 / 2 / 3 / 2, False)
    assert chance_of_verdict([outside, inside], 12, Rule(), 3) == pytest.approx(expected)


def test_a_claim_faces_the_level_that_the_settled_ones_leave():
    open_, settled = finding(shaped(6, 0.8)), finding(shaped(6, 40.0))
    alone, beside, unsettled = (
        decide([(claim(f), [f]) for f in findings])[0].seeds_needed
        for findings in ([open_], [open_, settled], [open_, finding(shaped(6, 0.2, 1.1))])
    )
    assert alone is not None and unsettled is not None
    assert beside == alone < unsettled <= MOST
