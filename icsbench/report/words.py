"""Findings and verdicts in words, for every kind of output."""

import math
from collections import Counter
from collections.abc import Sequence

from icsbench.analysis.claims.contract import Part
from icsbench.analysis.findings import Finding
from icsbench.analysis.sensitivity import Sensitivity
from icsbench.analysis.statistics import Interval
from icsbench.analysis.verdicts import Outcome, Verdict, sharing

SYMBOLS: dict[Outcome, str] = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not measured": "–"}

BOUND = (
    "A bound that theory states for every value: one beyond it refutes the claim. There is no test, no p-value, and no "
    "place in the family."
)

MOST_LISTED = 24
"""More values of a part than these are not listed one by one."""


def outcome(verdict: Verdict) -> str:
    """A verdict in a cell of a table: its symbol, and how many seeds would probably settle an open one."""
    settled = f" (about {verdict.seeds_needed} {verdict.of})" if verdict.seeds_needed else ""
    return f"{SYMBOLS[verdict.verdict]} {verdict.verdict}{settled}"


def effect(finding: Finding) -> str:
    """Mean and interval of a part: ``×0.84 [0.8, 0.9]`` for a ratio, ``+3.1 [2, 4] points``; empty without values."""
    if finding.missing or not finding.values:
        return ""
    return interval(finding.interval, finding.part.kind, finding.part.unit) + _unit(finding.part)


def interval(found: Interval, kind: str, unit: str) -> str:
    """A mean and its interval, which one value does not have: ``×0.84 [0.8, 0.9]``, ``+3.1 [2, 4]`` of points.

    Of a bound on every value it is the range: ``0.2 to 0.9``.
    """
    mean, low, high, n = found
    if kind == "bound":
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    sign = "×" if kind == "ratio" else ""
    form = "+.1f" if unit == "points" else ".3g" if kind == "ratio" else ".4f"
    bounds = f" [{low:{form}}, {high:{form}}]" if n > 1 else ""
    return f"{sign}{mean:{form}}{bounds}"


def effects(verdict: Verdict) -> list[str]:
    """The effect of each part, a dash for one without; nothing where no part has one."""
    found = [effect(finding) for finding in verdict.findings]
    return [of_part or "–" for of_part in found] if any(found) else []


def agreement(one: Sensitivity, verdict: Verdict | None = None) -> str:
    """``11 of 12 (92 %); flipped by: window: whole``.

    Each is judged by itself. Where that gives another verdict than the one in a table, which is corrected for the
    other claims, the text begins with it: ``by itself supported: 11 of 12 (92 %)``.
    """
    if not one.counted:
        return "none to compare with: too few seeds to leave one out"
    share = f"{len(one.agreeing)} of {len(one.counted)} ({len(one.agreeing) / len(one.counted):.0%})".replace("%", " %")
    if verdict is not None and verdict.verdict != one.registered.verdict:
        share = f"by itself {one.registered.verdict}: {share}"
    if flip := one.flipped_by:
        return f"{share}; flipped by: {flip.name}"
    return f"{share}; left open by: {opened.name}" if (opened := one.opened_by) else share


def counted(verdict: Verdict) -> str:
    """How many values a verdict rests on: ``6`` seeds, or ``200 networks``; empty without."""
    if not verdict.n:
        return ""
    return str(verdict.n) if verdict.of == "seeds" else f"{verdict.n} {verdict.of}"


def region(part: Part) -> str:
    """The region of a part: ``below ×0.8``, ``between -2 and 2 points``, of a bound ``every value at most 1``."""
    sign = "×" if part.kind == "ratio" else ""
    unit = _unit(part)
    low, high = f"{sign}{part.low:.3g}", f"{sign}{part.high:.3g}"
    if part.kind == "bound":
        return "every value " + " and ".join(
            f"{side} {bound:.3g}{unit}"
            for side, bound in (("at least", part.low), ("at most", part.high))
            if math.isfinite(bound)
        )
    lowest = 0.0 if part.kind == "ratio" else -math.inf
    if part.low <= lowest:
        return f"below {high}{unit}"
    return f"above {low}{unit}" if math.isinf(part.high) else f"between {low} and {high}{unit}"


def _unit(part: Part) -> str:
    return (f" {part.unit}" if part.unit else "") + (f" per {part.per}" if part.per else "")


def summary_line(verdicts: Sequence[Verdict], at_step: int | None = None) -> str:
    """How many of the claims came out how, at what scale, and where the records were cut."""
    counts = [f"{sum(v.verdict == outcome for v in verdicts)} {outcome}" for outcome in SYMBOLS]
    scales = " and ".join(sorted({verdict.scale for verdict in verdicts if verdict.scale}))
    where = [f"at scale {scales}"] if scales else []
    where += [] if at_step is None else [f"records cut at step {at_step:,}"]
    return "; ".join([f"{len(verdicts)} claims: {', '.join(counts)}", *where])


def printable(line: str) -> str:
    """A line without what a terminal would take for a command: a record may be a stranger's."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def registration(verdict: Verdict) -> str:
    """How a verdict was registered: ``registered, look at 12 seeds``; ``amended: low of speed_up was 1.5, is 1.2``."""
    found = verdict.registration
    look = f", look at {found.look.seeds} seeds at level {found.look.level:g}" if found.look else ""
    return f"{found.status}{look}" + (f": {found.why}" if found.why else "")


def by_a_lock(verdicts: Sequence[Verdict]) -> bool:
    """Whether a lock says what was to be judged."""
    return any(verdict.registration.lock for verdict in verdicts)


def registration_line(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts are registered, amended and exploratory, and by which lock."""
    locked = [verdict.registration for verdict in verdicts if verdict.registration.lock]
    if not locked:
        return "exploratory: judged without a lock (icsbench claims lock writes one, before the runs)"
    counts = Counter(found.status for found in locked)
    order = ("registered", "amended", "exploratory", "locked")
    said = ", ".join(f"{counts[status]} {status}" for status in order if counts[status] or status != "locked")
    return f"{said}; by the lock of {locked[0].locked[:19].replace('T', ' ')} UTC, seal {locked[0].lock[:12]}"


def sharing_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Which claims share one measurement, in a line each."""
    together = dict.fromkeys(frozenset([id, *others]) for id, others in sharing(verdicts).items())
    order = [verdict.claim.id for verdict in verdicts]
    return [
        f"One measurement, one member of the family: claims {', '.join(filter(ids.__contains__, order))}."
        for ids in together
    ]


def measured(verdict: Verdict) -> list[str]:
    """What a claim says, and what was measured of its parts, in lines."""
    claim = verdict.claim
    lines = [
        f"Claim {claim.id}: {claim.statement}",
        f"Claimed by {claim.by}: {claim.where}"
        + (f"; disputed by {claim.disputed_by}" if claim.disputed_by else "")
        + ".",
    ]
    for number, finding in enumerate(verdict.findings, 1):
        lines += ["", f"Part {number}: {finding.part.what}.", f"  claimed: {region(finding.part)}"]
        lines += [f"  {line}" if line else "" for line in _explained(finding)]
    if claim.parts:
        lines += ["", f"Why this bound: {claim.margin}", *(f"Note: {note}" for note in claim.fairness)]
    return lines


def decided(verdict: Verdict) -> list[str]:
    """What came out, in lines: p-values of the claim, the verdict and its reason, and how the records are made."""
    claim, lines = verdict.claim, []
    if not math.isnan(verdict.p):
        flips = "" if math.isnan(verdict.p_sign_flip) else f" (sign flips {verdict.p_sign_flip:.3g})"
        lines.append(f"p of the claim: {verdict.p:.3g}{flips}; after Holm {verdict.p_holm:.3g}")
        if verdict.disagree:
            lines.append("The t-test and the exact permutation disagree at 0.05: what comes out leans on normality.")
    where = f" at scale {verdict.scale}" if verdict.scale else ""
    where += f", records cut at step {step:,}" if verdict.runs and (step := verdict.runs[0].at_step) else ""
    against = claim.disputed_by if verdict.verdict == "supported" else claim.by
    speaks = f", which speaks for {verdict.speaks_for}" if verdict.speaks_for else ""
    speaks += f" and against {against}" if speaks and against else ""
    lines += ["", f"Verdict: {verdict.verdict}{where}{speaks}. Because: {verdict.reason}."]
    lines.append(f"Registration: {registration(verdict)}.")
    if verdict.command:
        lines.append(f"Command: {verdict.command}")
    return lines


def _explained(finding: Finding) -> list[str]:
    """What was measured of one part: values per seed, effect, and p-values."""
    if finding.missing:
        return [f"not measured: {finding.missing}"]
    one = finding.part.of[:-1]
    values = ", ".join(f"{key}: {value:.4g}" for key, value in finding.values.items())
    if len(finding.values) > MOST_LISTED:
        values = f"{len(finding.values)} values, which are in claims.json"
    lines = [f"measured on: {finding.group.facts}" if finding.group else ""]
    lines += [f"found: {finding.note}"] if finding.note else []
    lines += [f"per {one}: {values}"] if values else []
    lines += [f"left out: {one} {key} ({why})" for key, why in finding.left_out.items()]
    if not finding.values:
        return lines
    if finding.part.kind == "bound":
        return [*lines, f"range over {len(finding.values)} {finding.part.of}: {effect(finding)}", BOUND]
    unit = "log ratio" if finding.part.kind == "ratio" else finding.part.unit or "value"
    lines.append(f"mean over {len(finding.values)} {finding.part.of} [95 % t-interval]: {effect(finding)}")
    for name, place in (("Student's t", finding.place), ("exact sign flips", finding.sign_flip)):
        if math.isnan(place.inside):
            continue
        lines.append(
            f"one-sided p by {name}, of the mean {unit}: inside {place.inside:.3g}, below {place.below:.3g}, "
            f"above {place.above:.3g}"
        )
    return lines
