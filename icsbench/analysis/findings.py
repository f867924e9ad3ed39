"""One part of a claim as the records have it: a number per seed, and tests of where their mean lies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from icsbench.analysis.claims.contract import Part
from icsbench.analysis.decision import LEVEL, Rule, both
from icsbench.analysis.groups import Group
from icsbench.analysis.power import chance_of_mean, chance_of_share
from icsbench.analysis.statistics import (
    MOST_FOR_SIGN_FLIPS,
    Interval,
    Place,
    binomial_interval,
    binomial_test,
    mean_interval,
    sign_flip_test,
    student_t_test,
)
from icsbench.record.reader import Run

_NOT_TESTED = Place(math.nan, math.nan, math.nan)


Side = Literal["inside", "below", "above"]


@dataclass(frozen=True, eq=False)
class Finding:
    """One part of a claim, measured: values and interval as displayed (a ratio as a ratio, its mean geometric)."""

    part: Part
    group: Group | None
    values: dict[int, float]
    left_out: dict[int, str]
    missing: str = ""
    """Why it was not measured."""
    note: str = ""
    """What was found on the way: a learning rate that was chosen, say."""
    behind: Mapping[int, tuple[Run, ...]] = field(default_factory=dict)
    """As of :class:`Measured`."""

    @property
    def _averaged(self) -> list[float]:
        return [_averaged(self.part, value) for value in self.values.values()]

    @property
    def interval(self) -> Interval:
        """Mean over the seeds and its 95 % t-interval, of a bound the range; NaN where there is no value."""
        if not self.values:
            return Interval(math.nan, math.nan, math.nan, 0)
        if self.part.kind == "bound":
            numbers = self.values.values()
            return Interval(sum(numbers) / len(numbers), min(numbers), max(numbers), len(numbers))
        mean, low, high, n = (binomial_interval if self.part.kind == "count" else mean_interval)(self._averaged)
        return Interval(_displayed(self.part, mean), _displayed(self.part, low), _displayed(self.part, high), n)

    @cached_property
    def place(self) -> Place:
        """Where the mean lies, by Student's t; of counts by the exact binomial test; of bounds nothing is tested."""
        if self.part.kind == "bound":
            return _NOT_TESTED
        test = binomial_test if self.part.kind == "count" else student_t_test
        return test(self._averaged, *_region(self.part))

    @cached_property
    def sign_flip(self) -> Place:
        """The same by exact sign flips; NaN for more seeds than it can be done for, and for counts and bounds."""
        if len(self.values) > MOST_FOR_SIGN_FLIPS or self.part.kind in ("count", "bound"):
            return _NOT_TESTED
        return sign_flip_test(self._averaged, *_region(self.part))

    def tested(self, rule: Rule) -> Place | None:
        """Where the mean lies by the tests of a rule; None where there are too few values for it."""
        if self.missing or len(self.values) < rule.least:
            return None
        if rule.exact and not math.isnan(self.sign_flip.inside):
            return both(self.place, self.sign_flip)
        return self.place

    def holds(self, rule: Rule) -> bool | None:
        """Whether every value keeps to a bound; None where there are too few, or one that should be there is not."""
        if self.missing or len(self.values) < rule.least:
            return None
        return False if self.beyond else None if self.left_out else True

    @property
    def beyond(self) -> list[int]:
        """The keys of the values that lie outside of the region, to which its ends belong."""
        return [key for key, value in self.values.items() if not self.part.low <= value <= self.part.high]

    @property
    def measurement(self) -> tuple[Any, ...]:
        """What tells one measurement from another: the values."""
        return tuple(self.values.items()) or (self.part.name,)

    @property
    def side(self) -> Side:
        """Where the mean itself lies; of a bound the first value beyond it."""
        if self.part.kind == "bound":
            first = next((self.values[key] for key in self.beyond), None)
            return "inside" if first is None else "below" if first < self.part.low else "above"
        mean = self.interval.mean
        return "below" if mean <= self.part.low else "above" if mean >= self.part.high else "inside"

    @property
    def p(self) -> float:
        """Two-sided p-value of this part alone, unadjusted."""
        return _two_sided(self.place.inside, min(self.place.below, self.place.above)) if self.values else math.nan

    @property
    def p_sign_flip(self) -> float:
        """The same by exact sign flips."""
        place = self.sign_flip
        return _two_sided(place.inside, min(place.below, place.above)) if self.values else math.nan

    @property
    def disagree(self) -> bool:
        """Whether the t-test and the exact sign flips of this part fall on two sides of 0.05."""
        return disagree(self.p, self.p_sign_flip, len(self.values))

    def chance(self, n: int, level: float, exact: bool) -> float:
        """How likely n values put this part where its mean is, at a one-sided level; 0 where its spread is not known.

        The mean and the spread that were found are taken for the true ones.
        """
        values = self._averaged
        if self.missing or len(values) < 2:
            return 0.0
        if self.part.kind == "count":
            return chance_of_share(n, sum(values) / len(values), _region(self.part), level)
        return chance_of_mean(n, values, _region(self.part), level, exact)


def disagree(p: float, p_sign_flip: float, n: int, tests: int = 1) -> bool:
    """Where all signs are alike, sign flips give the smallest p-value that they can give: that is no disagreement."""
    if math.isnan(p) or math.isnan(p_sign_flip):
        return False
    smallest = tests * 2 * 2.0**-n
    return p_sign_flip > max(LEVEL, smallest) if p <= LEVEL else p_sign_flip <= LEVEL


def _two_sided(one: float, other: float) -> float:
    return math.nan if math.isnan(one) else min(1.0, 2 * min(one, other))


def _averaged(part: Part, value: float) -> float:
    return math.log(value) if part.kind == "ratio" else value


def _displayed(part: Part, value: float) -> float:
    return math.exp(value) if part.kind == "ratio" else value


def _region(part: Part) -> tuple[float, float]:
    if part.kind != "ratio":
        return part.low, part.high
    return math.log(part.low) if part.low > 0 else -math.inf, math.log(part.high)
