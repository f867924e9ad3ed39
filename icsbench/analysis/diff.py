"""Two judgements of the claims, A and B, side by side: what agrees, drifts and flips, and what was done otherwise.

A judgement is the content of a ``claims.json``, whether read from a file or made of records anew. Of a claim that both
sides measured:

* it **contradicts** where one side supports it and the other contradicts it;
* it **drifts** where the verdicts differ otherwise (one is decided, the other open), or where a part was measured on
  one side only, is in another unit, or has 95 % intervals that do not overlap;
* it **agrees** in every other case. A part with one value has no interval, and none to overlap.

A claim that is measured on one side only is said to be so: there is nothing to compare.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from icsbench.analysis.groups import settings_of_numbers
from icsbench.analysis.statistics import Interval, paired_difference, paired_ratio
from icsbench.analysis.verdicts import Outcome
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.schema import SEED_FOLDER

Relation = Literal["contradicts", "drifts", "agrees", "A only", "B only", "not measured"]
Topic = Literal["claims", "settings", "versions", "hardware", "data"]
Scalar = str | int | float | None
Made = dict[str, dict[str, list[Scalar]]]
"""By topic and key the different values among the runs of a study, None where a run has none."""

_STATED = {
    "versions": ("icsbench", "commit", "python", "torch", "torchvision", "numpy"),
    "hardware": ("machine", "device", "device_name", "threads"),
}
"""What of ``environment.json`` is compared, the data apart."""

_SAME = 1e-9
"""Bounds of intervals that are as close as this, relatively, touch: another machine may round otherwise."""


# --- a judgement -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """A part of a claim as one side measured it. ``per_seed``: whether its values are."""

    what: str
    kind: str
    unit: str
    region: tuple[float, float]
    values: dict[int, float]
    interval: Interval
    study: str
    per_seed: bool


@dataclass(frozen=True)
class Judged:
    """A claim as one side judged it. ``p``: corrected. ``effects``: of the parts with a value, by measure."""

    statement: str
    verdict: Outcome
    p: float
    facts: str
    effects: dict[str, Effect]
    registration: str = ""
    """Registered, amended or exploratory; empty where the side does not say."""


@dataclass(frozen=True)
class Side:
    """A judgement: its claims by id, and what its studies were made with, as far as it says so."""

    name: str
    claims: dict[str, Judged]
    studies: dict[str, Made]


def made_with(runs: Sequence[Run]) -> Made:
    """The settings, versions, hardware and data of the runs of a study."""
    settings = [settings_of_numbers(run) for run in runs]
    environments = [run.environment for run in runs]
    data = [of_run.get("data") for of_run in environments]
    stated = {topic: [{k: e[k] for k in keys if k in e} for e in environments] for topic, keys in _STATED.items()}
    described = [
        {key: of_run[key] for key in ("label", "fingerprint") if key in of_run} if isinstance(of_run, dict) else {}
        for of_run in data
    ]
    return {topic: _distinct(found) for topic, found in {"settings": settings, **stated, "data": described}.items()}


def _distinct(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Scalar]]:
    keys = dict.fromkeys(key for one in found for key in one)
    return {key: sorted({_scalar(one.get(key)) for one in found}, key=_order) for key in keys}


def _scalar(value: Any) -> Scalar:
    """A value that JSON can hold, and that equals itself."""
    plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def _order(value: Scalar) -> tuple[int, Any]:
    return (2, 0) if value is None else (1, value) if isinstance(value, str) else (0, value)


def side_of(content: Any, name: str) -> Side:
    """A judgement from the content of a ``claims.json``, which may be of a stranger or of an earlier version.

    :raises IcsbenchError: it is not what ``icsbench claims`` writes.
    """
    if not isinstance(content, dict):
        raise IcsbenchError(f"{name}: not a JSON object; give a claims.json, as icsbench claims writes it")
    claims: dict[str, Judged] = {}
    for number, entry in enumerate(_field(content, "claims", list, name), 1):
        where = f"{name}, claim {number}"
        if not isinstance(entry, dict):
            raise IcsbenchError(f"{where}: {_short(entry)}; it would be an object")
        id = _field(entry, "id", str, where)
        if id in claims:
            raise IcsbenchError(f"{where}: the id {_short(id)} for a second time; each claim has its own")
        claims[id] = _judged(entry, where)
    studies = _field(content, "studies", dict, name, {})
    return Side(name, claims, {study: _made(made, f"{name}, study {_short(study)}") for study, made in studies.items()})


def _judged(entry: dict[str, Any], where: str) -> Judged:
    outcomes = get_args(Outcome)
    verdict = next((outcome for outcome in outcomes if outcome == entry.get("verdict")), None)
    if verdict is None:
        raise IcsbenchError(
            f"{where}: verdict is {_short(entry.get('verdict'))}; it would be one of {', '.join(outcomes)}"
        )
    folders = [PurePosixPath(str(run)).name for run in _field(entry, "runs", list, where, [])]
    seeds = {folder.removeprefix("seed-") for folder in folders if re.fullmatch(SEED_FOLDER, folder)}
    effects: dict[str, Effect] = {}
    for number, part in enumerate(_field(entry, "parts", list, where), 1):
        of_part = f"{where}, part {number}"
        if not isinstance(part, dict):
            raise IcsbenchError(f"{of_part}: {_short(part)}; it would be an object")
        measure = _field(part, "measure", str, of_part)
        if measure in effects:
            raise IcsbenchError(f"{of_part}: the measure {_short(measure)} for a second time; each part has its own")
        if _field(part, "values", dict, of_part):
            effects[measure] = _effect(part, seeds, of_part)
    statement, facts = _field(entry, "statement", str, where), _field(entry, "facts", str, where, "")
    p = _number(entry.get("p_holm"), f"{where}, p_holm", math.nan)
    registration = _field(_field(entry, "registration", dict, where, {}), "status", str, where, "")
    return Judged(statement, verdict, p, facts, effects, registration)


def _effect(part: dict[str, Any], seeds: set[str], where: str) -> Effect:
    kind = _field(part, "kind", str, where)
    values: dict[int, float] = {}
    for key, value in part["values"].items():
        if not re.fullmatch("[0-9]{1,18}", key):
            raise IcsbenchError(f"{where}: a value of {_short(key)}; it would be the number of a seed or network")
        values[int(key)] = number = _number(value, f"{where}, value of {key}")
        if kind == "ratio" and number <= 0:
            raise IcsbenchError(f"{where}, value of {key}: {number:g}; it would be positive, as a ratio is")
    region = _field(part, "region", list, where)
    if len(region) != 2:
        raise IcsbenchError(f"{where}: region is {_short(region)}; it would be two bounds")
    low, high = (
        _number(bound, f"{where}, region", far) for bound, far in zip(region, (-math.inf, math.inf), strict=True)
    )
    mean, *bounds = (_number(part.get(name), f"{where}, {name}", math.nan) for name in ("mean", "low", "high"))
    # Networks are numbered through over all seeds: their numbers are seeds only where each seed drew one.
    numbered = part["values"].keys() | _field(part, "left_out", dict, where, {}).keys()
    return Effect(
        _field(part, "what", str, where),
        kind,
        _field(part, "unit", str, where, ""),
        (low, high),
        values,
        Interval(mean, bounds[0], bounds[1], len(values)),
        _field(part, "study", str, where, ""),
        numbered <= seeds,
    )


def _made(made: Any, where: str) -> Made:
    if not isinstance(made, dict) or not all(isinstance(keys, dict) for keys in made.values()):
        raise IcsbenchError(f"{where}: {_short(made)}; it would be an object of objects")
    return {
        topic: {key: list(map(_scalar, _field(keys, key, list, f"{where}, {_short(topic)}"))) for key in keys}
        for topic, keys in made.items()
    }


_KINDS = {str: "a text", list: "a list", dict: "an object"}


def _field(entry: dict[str, Any], key: str, kind: type, where: str, default: Any = None) -> Any:
    value = entry.get(key, default)
    if not isinstance(value, kind):
        raise IcsbenchError(f"{where}: {_short(key)} is {_short(value)}; it would be {_KINDS[kind]}")
    return value


def _number(value: Any, where: str, missing: float | None = None) -> float:
    if value is None and missing is not None:
        return missing
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        return float(value)
    raise IcsbenchError(f"{where}: {_short(value)}; it would be a number")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


# --- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartDiff:
    """A part of a claim on both sides, None where one did not measure it.

    ``paired``: the mean over the seeds that both have of B - A, of ratios of B / A, and its 95 % t-interval; None where
    there is no such seed. ``why``: what makes the part drift; empty where nothing does.
    """

    measure: str
    a: Effect | None
    b: Effect | None
    paired: Interval | None
    why: str


@dataclass(frozen=True)
class ClaimDiff:
    """A claim on both sides; one that a side does not have is not measured there. The p-values are corrected ones."""

    id: str
    statement: str
    a: Outcome
    b: Outcome
    p_a: float
    p_b: float
    relation: Relation
    parts: tuple[PartDiff, ...]

    @property
    def on_both_sides(self) -> bool:
        """Whether both sides measured it."""
        return "not measured" not in (self.a, self.b)


@dataclass(frozen=True)
class Difference:
    """What A and B did otherwise: the values of each, None for not set, and the studies or claims that it is of."""

    topic: Topic
    key: str
    a: tuple[Scalar, ...]
    b: tuple[Scalar, ...]
    of: tuple[str, ...]


@dataclass(frozen=True)
class Diff:
    """A and B compared. ``unstated``: the claims of which a side does not say what their studies were made with."""

    a: str
    b: str
    claims: tuple[ClaimDiff, ...]
    differences: tuple[Difference, ...]
    unstated: tuple[str, ...]

    @property
    def flips(self) -> tuple[ClaimDiff, ...]:
        """The claims that one side supports and the other contradicts."""
        return tuple(claim for claim in self.claims if claim.relation == "contradicts")


def compare(a: Side, b: Side) -> Diff:
    """Compare two judgements claim by claim, by the rule in the head of this module."""
    claims = [_compare(id, a.claims.get(id), b.claims.get(id)) for id in dict.fromkeys([*a.claims, *b.claims])]
    found = _Differences(a, b)
    for claim in claims:
        if claim.on_both_sides:
            found.look_at(claim)
    return Diff(a.name, b.name, tuple(claims), found.sorted(), tuple(found.unstated))


class _Differences:
    """Collects what two sides did otherwise; what several studies or claims have alike is one difference."""

    def __init__(self, a: Side, b: Side) -> None:
        self._a, self._b = a, b
        self._found: dict[tuple[Topic, str, tuple[Scalar, ...], tuple[Scalar, ...]], dict[str, None]] = {}
        self.unstated: dict[str, None] = {}

    def look_at(self, claim: ClaimDiff) -> None:
        """Compare what a claim is, and what the studies of its parts were made with."""
        a, b = self._a.claims[claim.id], self._b.claims[claim.id]
        self._note("claims", "statement", [a.statement], [b.statement], claim.id)
        if a.registration and b.registration:
            self._note("claims", "registration", [a.registration], [b.registration], claim.id)
        for part in claim.parts:
            if part.a is None or part.b is None:
                continue
            self._note("claims", f"{part.measure}: measure", [part.a.what], [part.b.what], claim.id)
            self._note("claims", f"{part.measure}: region", [_region(part.a)], [_region(part.b)], claim.id)
            if part.a.study in self._a.studies and part.b.study in self._b.studies:
                self._look_at_studies(part.a.study, part.b.study)
            else:
                self.unstated[claim.id] = None
                self._note("settings", "measured on", [a.facts], [b.facts], claim.id)

    def _look_at_studies(self, a: str, b: str) -> None:
        of = " / ".join(dict.fromkeys([a, b]))
        for topic in get_args(Topic)[1:]:
            one, other = self._a.studies[a].get(topic, {}), self._b.studies[b].get(topic, {})
            for key in dict.fromkeys([*one, *other]):
                self._note(topic, key, one.get(key, [None]), other.get(key, [None]), of)

    def _note(self, topic: Topic, key: str, a: Sequence[Scalar], b: Sequence[Scalar], of: str) -> None:
        if {*a} != {*b}:
            self._found.setdefault((topic, key, tuple(a), tuple(b)), {})[of] = None

    def sorted(self) -> tuple[Difference, ...]:
        """By topic, and within one in the order in which they were found."""
        found = [Difference(*what, tuple(of)) for what, of in self._found.items()]
        return tuple(sorted(found, key=lambda difference: get_args(Topic).index(difference.topic)))


def _compare(id: str, a: Judged | None, b: Judged | None) -> ClaimDiff:
    absent = Judged("", "not measured", math.nan, "", {})
    one, other = a or absent, b or absent
    measures = dict.fromkeys([*one.effects, *other.effects])
    parts = tuple(_compare_parts(measure, one.effects.get(measure), other.effects.get(measure)) for measure in measures)
    relation = _relation(one.verdict, other.verdict, any(part.why for part in parts))
    statement = other.statement or one.statement
    return ClaimDiff(id, statement, one.verdict, other.verdict, one.p, other.p, relation, parts)


def _relation(a: Outcome, b: Outcome, apart: bool) -> Relation:
    if "not measured" in (a, b):
        return "not measured" if a == b else "B only" if a == "not measured" else "A only"
    if {a, b} == {"supported", "contradicted"}:
        return "contradicts"
    return "drifts" if a != b or apart else "agrees"


def _compare_parts(measure: str, a: Effect | None, b: Effect | None) -> PartDiff:
    if a is None or b is None:
        return PartDiff(measure, a, b, None, "measured in A only" if b is None else "measured in B only")
    if (a.kind, a.unit) != (b.kind, b.unit):
        return PartDiff(measure, a, b, None, "in another unit")
    why = "intervals do not overlap" if _apart(a.interval, b.interval) else ""
    return PartDiff(measure, a, b, _paired(a, b), why)


def _apart(a: Interval, b: Interval) -> bool:
    """Whether two intervals have nothing in common; an interval that is not there has no place."""
    gap = max(a.low - b.high, b.low - a.high)
    return gap > _SAME * max(map(abs, (a.low, a.high, b.low, b.high)))


def _paired(a: Effect, b: Effect) -> Interval | None:
    shared = sorted(a.values.keys() & b.values.keys()) if a.per_seed and b.per_seed else []
    if not shared or a.kind not in ("ratio", "value"):
        return None
    before, after = ([side.values[seed] for seed in shared] for side in (a, b))
    return (paired_ratio if a.kind == "ratio" else paired_difference)(after, before)


def _region(effect: Effect) -> str:
    low, high = effect.region
    if math.isinf(low):
        return f"below {high:g}"
    return f"above {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
