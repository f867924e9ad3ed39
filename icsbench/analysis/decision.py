"""From the tests of the parts of claims to verdicts: error rates, families and looks. Pure arithmetic on p-values.

A claim is supported if every part lies inside its region (p: the largest of their p-values) and contradicted if one
lies outside (p: the smallest of theirs times the number of parts; one part is enough, whatever the others have). The
smaller of the two, doubled because either verdict could have come out, is the p-value of the claim.

A part that is a bound of theory says something of every value, and of no mean: one value outside refutes the claim, and
a claim is not supported before all values are inside. That is no matter of chance, so it has no p-value and no place in
the family.

Claims that rest on the same measurements are one member of the family: whichever of them is wrong, it is because the
interval of such a measurement misses its mean. Holm's correction is over the members.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from icsbench.analysis.statistics import Place
from icsbench.errors import IcsbenchError

LEVEL = 0.05
"""The chance of any false verdict in a report, at most."""


@dataclass(frozen=True)
class Rule:
    """How sure a verdict has to be.

    ``level``: the chance of any false verdict, at most. ``exact``: whether the exact test has to agree with Student's
    t, which holds for normal values only; ``least``: the fewest values that a part is tested with.
    """

    level: float = LEVEL
    exact: bool = False
    least: int = 6


class Look(NamedTuple):
    """One of the times at which a family may be judged: when its studies have ``seeds`` seeds, at a share of the level.

    The levels of all looks add up to the chance of any false verdict.
    """

    seeds: int
    level: float


def looks_of(texts: Sequence[str]) -> tuple[Look, ...]:
    """The looks that are written as ``12:0.03``, in the order of their seeds.

    :raises IcsbenchError: a text is something else, or has too few seeds or no level; two have the same seeds; or the
        levels add up to more than :data:`LEVEL`.
    """
    looks = []
    for text in texts:
        seeds, _, level = text.partition(":")
        try:
            look = Look(int(seeds), float(level))
        except ValueError:
            raise IcsbenchError(f"--look {text}: give seeds and a level, such as 12:0.03") from None
        if look.seeds < Rule.least:
            raise IcsbenchError(f"--look {text}: {look.seeds} seeds; {Rule.least} are the fewest for a verdict")
        if not 0 < look.level <= LEVEL:
            raise IcsbenchError(f"--look {text}: the level is above 0 and at most {LEVEL:g}, such as 12:0.03")
        looks.append(look)
    if len({look.seeds for look in looks}) < len(looks):
        raise IcsbenchError("--look: two looks with the same number of seeds; give each its own")
    if (total := sum(look.level for look in looks)) > LEVEL * (1 + 1e-9):
        raise IcsbenchError(f"--look: the levels add up to {total:g}; all looks together have {LEVEL:g} at most")
    return tuple(sorted(looks))


EXPLORATORY = Rule()
"""Without a registration: Student's t, and exact sign flips beside it. The level holds for normal values."""


@dataclass(frozen=True)
class Registration:
    """Whether what a verdict is on was fixed before its records were made, see :mod:`icsbench.analysis.registration`.

    ``registered``: every record is younger than the lock, and nothing was changed. ``amended``: something was.
    ``exploratory``: a record is older, or no lock names the claim. ``locked``: there are no records to judge yet.
    """

    status: Literal["registered", "amended", "exploratory", "locked"]
    why: str = ""
    changes: tuple[str, ...] = ()
    """What is not as it was locked."""
    lock: str = ""
    """The seal of the lock; empty without one."""
    locked: str = ""
    """When it was made, ISO 8601 in UTC."""
    look: Look | None = None
    """The look that the verdict is of; None before the first, and without a lock."""


UNREGISTERED = Registration("exploratory", "judged without a lock")


class Tested(NamedTuple):
    """A claim whose parts were tested: the place of each, None where it could not be, and what identifies them.

    ``bounds``: of each part that is a bound of theory, whether it holds, None where that cannot be said; these parts
    have no place.
    """

    places: tuple[Place | None, ...]
    measurements: Hashable
    bounds: tuple[bool | None, ...] = ()


class PValues(NamedTuple):
    """Of one claim: p of "every part inside", of "one outside", of either, and the last corrected; NaN: no test."""

    supports: float
    contradicts: float
    p: float
    corrected: float


def both(one: Place, other: Place) -> Place:
    """The p-values of two tests that have to agree: the larger ones."""
    return Place(*map(max, one, other))


def of_parts(places: Sequence[Place | None], bounds_hold: bool = True) -> tuple[float, float, float]:
    """P-values of "every part lies inside", of "one lies outside", and of either; NaN where no part was tested.

    A part that was not tested lies inside or outside with p = 1, and so does every part inside where a bound of theory
    does not hold.
    """
    tested = [place for place in places if place is not None and not math.isnan(place.inside)]
    if not tested:
        return math.nan, math.nan, math.nan
    supports = max(place.inside for place in tested) if len(tested) == len(places) and bounds_hold else 1.0
    contradicts = min(1.0, len(places) * min(min(place.below, place.above) for place in tested))
    return supports, contradicts, min(1.0, 2 * min(supports, contradicts))


def decide(claims: Sequence[Tested], members: int | None = None) -> list[PValues]:
    """The p-values of the claims of one family, corrected by Holm over its members.

    With the smallest p-value of each member in ascending order, a claim of the k-th of m members has
    ``(m - k + 1) p``, and at least what the members before it have.

    ``members``: how many the family has in all, where it has others that are not measured (yet).
    """
    found = [of_parts(claim.places, all(claim.bounds)) for claim in claims]
    smallest: dict[Hashable, float] = {}
    for claim, (_, _, p) in zip(claims, found, strict=True):
        if not math.isnan(p):
            smallest[claim.measurements] = min(p, smallest.get(claim.measurements, math.inf))
    factors, floors, floor = {}, {}, 0.0
    count = max(len(smallest), members or 0)
    for rank, member in enumerate(sorted(smallest, key=lambda member: smallest[member])):
        factors[member], floors[member] = count - rank, floor
        floor = max(floor, min(1.0, factors[member] * smallest[member]))
    return [
        PValues(*of_claim, _corrected(of_claim[2], factors.get(claim.measurements), floors.get(claim.measurements)))
        for claim, of_claim in zip(claims, found, strict=True)
    ]


def _corrected(p: float, factor: int | None, floor: float | None) -> float:
    return math.nan if math.isnan(p) or factor is None or floor is None else max(floor, min(1.0, factor * p))
