"""From run records to verdicts: which claims of the catalogue the measurements support, contradict or leave open.

A part of a claim says that the mean over seeds lies in a region. Its one-sided t-tests (``student_t_test``) give a
p-value of "inside", "below" and "above". A claim is supported if every part lies inside (p: the largest of their
p-values) and contradicted if one lies outside (p: the smallest of theirs times their number). The smaller of the two,
doubled because either verdict could have come out, is the p-value of the claim; it is corrected by Holm over all
measured claims of a report, and the verdict stands where that is at most 0.05 and at least six seeds are behind every
part. The same by exact sign flips stands beside it as a check.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.claims.catalogue import CLAIMS, Claim, Part
from icsbench.analysis.claims.measures import MEASURES, Measured
from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.statistics import (
    Interval,
    Place,
    holm,
    mean_interval,
    seeds_needed,
    sign_flip_test,
    student_t_test,
)
from icsbench.analysis.tables import markdown_table
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.seal import SEAL, broken
from icsbench.record.strict_json import dumps

LEVEL = 0.05
"""The chance of any false verdict in a report, at most."""
FEWEST_SEEDS = 6
"""With fewer pairs of seeds no verdict: the exact test of five cannot reach 0.05 (its floor is 1/16)."""
MOST_FOR_SIGN_FLIPS = 20

Outcome = Literal["supported", "contradicted", "inconclusive", "not measured"]
Side = Literal["inside", "below", "above"]

SYMBOLS: dict[Outcome, str] = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not measured": "–"}
_COLOURS: dict[Outcome, str] = {
    "supported": "green",
    "contradicted": "red",
    "inconclusive": "yellow",
    "not measured": "dim",
}


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
    """What was found on the way, a learning rate chosen, say."""

    @property
    def _averaged(self) -> list[float]:
        return [_averaged(self.part, value) for value in self.values.values()]

    @property
    def interval(self) -> Interval:
        """Mean over the seeds and its 95 % t-interval; NaN where there is no value."""
        if not self.values:
            return Interval(math.nan, math.nan, math.nan, 0)
        mean, low, high, n = mean_interval(self._averaged)
        return Interval(_displayed(self.part, mean), _displayed(self.part, low), _displayed(self.part, high), n)

    @property
    def place(self) -> Place:
        """Where the mean lies, by Student's t."""
        return student_t_test(self._averaged, *_region(self.part))

    @property
    def sign_flip(self) -> Place:
        """The same by exact sign flips; NaN for more seeds than it can be done for."""
        if len(self.values) > MOST_FOR_SIGN_FLIPS:
            return Place(math.nan, math.nan, math.nan)
        return sign_flip_test(self._averaged, *_region(self.part))

    @property
    def side(self) -> Side:
        """Where the mean itself lies."""
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

    def seeds_needed(self, tests: int) -> int | None:
        """With how many seeds this part would probably be settled, were it the first of so many tests by Holm."""
        return seeds_needed(self._averaged, *_region(self.part), LEVEL / 2 / tests)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the records say about one claim. The p-values are NaN where nothing was measured."""

    claim: Claim
    verdict: Outcome
    speaks_for: str
    """Whom the measurement speaks for; empty where for nobody."""
    reason: str
    findings: tuple[Finding, ...] = ()
    n: int = 0
    """The fewest seeds behind a part."""
    p: float = math.nan
    p_holm: float = math.nan
    p_sign_flip: float = math.nan
    seeds_needed: int | None = None
    scale: str = ""
    facts: str = ""
    command: str = ""
    runs: tuple[Run, ...] = field(default=())

    @property
    def outcome(self) -> str:
        """Verdict in a cell of a table: with its symbol, and how many seeds would probably settle an open one."""
        settled = f" (about {self.seeds_needed} seeds)" if self.seeds_needed else ""
        return f"{SYMBOLS[self.verdict]} {self.verdict}{settled}"

    @property
    def disagree(self) -> bool:
        """Whether the t-test and the exact permutation fall on two sides of 0.05, both uncorrected.

        A permutation that is at its floor, all signs alike, cannot say more, and does not disagree.
        """
        if math.isnan(self.p) or math.isnan(self.p_sign_flip):
            return False
        if self.p > LEVEL:
            return self.p_sign_flip <= LEVEL
        floor = 2 * 2.0**-self.n * (len(self.findings) if self.verdict == "contradicted" else 1)
        return self.p_sign_flip > max(LEVEL, floor)


def judge(runs: Sequence[Run], claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """The verdict on each claim, in the order of the catalogue.

    Only finished runs count, the diverged ones and those at chance among them. Raises IcsbenchError for runs that must
    not be pooled (of several scales, or of several settings of one study), and for a record that was changed since it
    was finished, is damaged, or lies in a folder that is not its own.
    """
    studies = _studies(runs, {study for claim in claims for study in claim.studies})
    measured = [(claim, [_measure(part, studies) for part in claim.parts]) for claim in claims]
    return decide(measured)


def decide(measured: Sequence[tuple[Claim, Sequence[Finding]]]) -> list[Verdict]:
    """The verdicts on claims whose parts have been measured: pure arithmetic on the values per seed."""
    summaries = [_Summary(claim, findings) for claim, findings in measured]
    adjusted = holm([summary.p for summary in summaries])
    tests = sum(not math.isnan(p) for p in adjusted)
    return [_verdict(summary, p_holm, tests) for summary, p_holm in zip(summaries, adjusted, strict=True)]


class _Summary:
    """The p-values of a claim as a whole."""

    def __init__(self, claim: Claim, findings: Sequence[Finding]) -> None:
        self.claim, self.findings = claim, tuple(findings)
        self.complete = bool(findings) and not any(finding.missing for finding in findings)
        self.n = min((len(finding.values) for finding in findings), default=0)
        # Fewer seeds cannot lead to a verdict, so they take no part in the correction either.
        self.tested = self.complete and self.n >= FEWEST_SEEDS
        places = [finding.place for finding in findings] if self.tested else []
        self.supports, self.contradicts, self.p = _of_parts(places)
        self.p_sign_flip = _of_parts([finding.sign_flip for finding in findings] if self.tested else [])[2]


def _of_parts(places: Sequence[Place]) -> tuple[float, float, float]:
    """The p of every part inside, that of one outside, and the two-sided p of the two together; NaN without parts."""
    if not places:
        return math.nan, math.nan, math.nan
    supports = max(place.inside for place in places)
    contradicts = min(1.0, len(places) * min(min(place.below, place.above) for place in places))
    return supports, contradicts, _two_sided(supports, contradicts)


def _two_sided(one: float, other: float) -> float:
    return min(1.0, 2 * min(one, other))


def _verdict(summary: _Summary, p_holm: float, tests: int) -> Verdict:
    claim, findings = summary.claim, summary.findings
    groups = [finding.group for finding in findings if finding.group is not None]
    runs = tuple(dict.fromkeys(run for group in groups for run in group.runs))
    scale = str(runs[0].setting("scale")) if runs else ""
    facts = "; ".join(dict.fromkeys(group.facts for group in groups))
    commands = map(_command, groups) if groups else (f"icsbench sweep experiment={name}" for name in claim.studies[:1])
    verdict, speaks_for, reason, needed = _outcome(summary, p_holm, tests)
    return Verdict(
        claim=claim,
        verdict=verdict,
        speaks_for=speaks_for,
        reason=reason,
        findings=findings,
        n=summary.n,
        p=summary.p,
        p_holm=p_holm,
        p_sign_flip=summary.p_sign_flip,
        seeds_needed=needed,
        scale=scale,
        facts=facts,
        command="; ".join(dict.fromkeys(commands)),
        runs=runs,
    )


def _command(group: Group) -> str:
    """The command that makes the records of a group, with what its scale or its experiment may have otherwise."""
    run = group.runs[0]
    steps = {int(run.setting("steps")) for run in group.runs}
    seeds = sorted({run.seed for run in group.runs})
    words = [f"icsbench sweep experiment={run.setting('experiment')} scale={run.setting('scale')}"]
    if not group.regression:
        words += [f"data={run.setting('data.name')}", "data.root=PATH"] if run.setting("data.root") else []
        words += ["data.binary=true"] if run.setting("data.binary") else []
        words += [f"data.val_size={size}"] if (size := run.setting("data.val_size")) is not None else []
    words += [f"model.width={run.setting('model.width'):g}"] if group.network.startswith("vgg") else []
    words += ["amp=true"] if run.setting("amp") else []
    words += [f"optim.lr={','.join(f'{lr:g}' for lr in group.lrs)}"]
    words += [f"steps={min(steps)}"] if len(steps) == 1 else []
    words += [f"seed={','.join(map(str, seeds))}"] if seeds != [*range(FEWEST_SEEDS)] else []
    return " ".join(words)


def _outcome(summary: _Summary, p_holm: float, tests: int) -> tuple[Outcome, str, str, int | None]:
    """Verdict, whom it speaks for, why, and how many seeds would settle it."""
    claim, findings = summary.claim, summary.findings
    missing = list(dict.fromkeys(finding.missing for finding in findings if finding.missing))
    if all(finding.missing for finding in findings):
        return "not measured", "", "; ".join(missing) or f"no study yet: it needs {claim.needs}", None
    if missing:
        return "inconclusive", "", f"a part was not measured: {'; '.join(missing)}", None
    if not summary.tested:
        left_out = {seed: why for finding in findings for seed, why in finding.left_out.items()}
        why = f", left out: {'; '.join(f'seed {s} ({w})' for s, w in left_out.items())}" if left_out else ""
        few = f"{summary.n} seeds with a value{why}; {FEWEST_SEEDS} are the fewest for a verdict"
        return "inconclusive", "", few, None if left_out else FEWEST_SEEDS
    over = f"p = {p_holm:.2g} after Holm over {tests} claims"
    if without := sorted({seed for finding in findings for seed in finding.left_out}):
        over += f"; left out: seed {', '.join(map(str, without))}"
    if p_holm > LEVEL:
        needed = _settled_with(findings, tests)
        with_more = f"about {needed} seeds would probably settle it" if needed else "more seeds would hardly settle it"
        return "inconclusive", "", f"{over}; {with_more}", needed
    if summary.supports < summary.contradicts:
        return "supported", claim.by, f"every part lies in its region; {over}", None
    outside = [f for f in findings if min(f.place.below, f.place.above) * len(findings) <= LEVEL / 2]
    sides = [f.part.below if f.place.below < f.place.above else f.part.above for f in outside]
    speaks_for = "; ".join(dict.fromkeys(side for side in sides if side))
    where = ", ".join(
        f"part {findings.index(f) + 1} {'below' if f.place.below < f.place.above else 'above'}" for f in outside
    )
    return "contradicted", speaks_for, f"outside its region: {where}; {over}", None


def _settled_with(findings: Sequence[Finding], tests: int) -> int | None:
    """Seeds to settle a claim, were the means the truth: for the last part inside, or the first one outside."""
    outside = [finding for finding in findings if finding.side != "inside"]
    needed = [finding.seeds_needed(tests * (len(findings) if outside else 1)) for finding in outside or findings]
    known = [number for number in needed if number is not None]
    if outside:
        return min(known, default=None)
    return max(known) if len(known) == len(needed) else None


def _studies(runs: Sequence[Run], wanted: set[str]) -> dict[str, Group]:
    """The finished runs of each study."""
    refuse_changed(runs)
    kept = [run for run in runs if run.finished and run.setting("experiment") in wanted]
    scales = sorted({str(run.setting("scale")) for run in kept})
    if len(scales) > 1:
        raise IcsbenchError(
            f"the records are of scales {' and '.join(scales)}, which make no report together; choose one with --scale"
        )
    same: dict[tuple[Any, ...], Run] = {}
    for run in kept:
        key = (run.setting("experiment"), run.path.parent.name, run.path.name)
        if (other := same.setdefault(key, run)) is not run:
            raise IcsbenchError(f"{other.path} and {run.path}: the same run twice; delete one")
    studies: dict[str, Group] = {}
    for group in group_runs(kept):
        study = str(group.runs[0].setting("experiment"))
        if study in studies:
            raise IcsbenchError(
                f"{studies[study].runs[0].path} and {group.runs[0].path} must not be pooled: {studies[study].name} and "
                f"{group.name} are studies of their own; move one to a folder of its own (results=) and give the other"
            )
        studies[study] = group
    return studies


def refuse_changed(runs: Iterable[Run]) -> None:
    """Raise IcsbenchError for a record that is not as it was when its run was finished.

    That is for every record with a seal, whatever its files say now, and for every one that says it is finished.
    """
    for run in runs:
        if run.finished or (run.path / SEAL).exists():
            _refuse_changed(run)


def _refuse_changed(run: Run) -> None:
    what = broken(run.path)
    if what == "run":
        raise IcsbenchError(f"{run.path}: the record was made in another folder; put it back, or run it again")
    if what == SEAL and not (run.path / SEAL).exists():
        raise IcsbenchError(f"{run.path}: {SEAL} is missing; delete the run's folder and run it again")
    if what is not None:
        raise IcsbenchError(
            f"{run.path / what}: not what it was when the run was finished; delete the run's folder and run it again"
        )


def _measure(part: Part, studies: dict[str, Group]) -> Finding:
    reasons = []
    for study in part.studies:
        if study not in studies:
            reasons.append(f"no finished run of experiment {study}")
            continue
        try:
            found: Measured = MEASURES[part.measure](studies[study])
        except NotMeasured as reason:
            reasons.append(str(reason))
            continue
        used = Group(studies[study].name, found.runs) if found.runs else studies[study]
        return Finding(part, used, found.values, found.left_out, note=found.note)
    return Finding(part, None, {}, {}, "; ".join(reasons))


def _averaged(part: Part, value: float) -> float:
    return math.log(value) if part.kind == "ratio" else value


def _displayed(part: Part, value: float) -> float:
    return math.exp(value) if part.kind == "ratio" else value


def _region(part: Part) -> tuple[float, float]:
    if part.kind == "value":
        return part.low, part.high
    return math.log(part.low) if part.low > 0 else -math.inf, math.log(part.high)


def used_of(findings: Iterable[Finding]) -> list[Group]:
    """The studies that the findings are of, each with the runs that were used of it."""
    used: dict[str, list[Run]] = {}
    for finding in findings:
        if finding.group is not None:
            used.setdefault(finding.group.name, []).extend(finding.group.runs)
    return [Group(name, tuple(dict.fromkeys(runs))) for name, runs in used.items()]


# --- as text ---------------------------------------------------------------------------------------------------------


def effect(finding: Finding) -> str:
    """Mean and interval of a part in words: ``x0.84 [0.8, 0.9]`` of a ratio, ``+3.1 [2, 4] points``."""
    if finding.missing or not finding.values:
        return ""
    mean, low, high, n = finding.interval
    sign = "×" if finding.part.kind == "ratio" else ""
    form = "+.1f" if finding.part.unit == "points" else ".3g" if finding.part.kind == "ratio" else ".4f"
    bounds = f" [{low:{form}}, {high:{form}}]" if n > 1 else ""
    return f"{sign}{mean:{form}}{bounds}{_unit(finding.part)}"


def _effects(verdict: Verdict) -> list[str]:
    """The effect of each part, a dash for one without; nothing where there is none at all."""
    effects = [effect(finding) or "–" for finding in verdict.findings]
    return effects if any(map(effect, verdict.findings)) else []


def _unit(part: Part) -> str:
    return (f" {part.unit}" if part.unit else "") + (f" per {part.per}" if part.per else "")


def region(part: Part) -> str:
    """The region of a part in words: ``below x0.8``, ``between -2 and 2 points``."""
    sign = "×" if part.kind == "ratio" else ""
    unit = _unit(part)
    low, high = f"{sign}{part.low:.3g}", f"{sign}{part.high:.3g}"
    lowest = -math.inf if part.kind == "value" else 0.0
    if part.low <= lowest:
        return f"below {high}{unit}"
    return f"above {low}{unit}" if math.isinf(part.high) else f"between {low} and {high}{unit}"


def summary_line(verdicts: Sequence[Verdict]) -> str:
    """How many of the claims came out how, and at what scale."""
    counts = [f"{sum(v.verdict == outcome for v in verdicts)} {outcome}" for outcome in SYMBOLS]
    scales = " and ".join(sorted({verdict.scale for verdict in verdicts if verdict.scale}))
    return f"{len(verdicts)} claims: {', '.join(counts)}" + (f"; at scale {scales}" if scales else "")


def print_claims(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print a row per claim, coloured by verdict."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "verdict"):
        table.add_column(Text(name), no_wrap=True)
    for name in ("claim", "measured"):
        table.add_column(Text(name), ratio=1)
    for v in verdicts:
        measured = _effects(v)
        if v.n:
            measured.append(f"{v.n} seeds" + ("" if math.isnan(v.p_holm) else f", p {v.p_holm:.2g} (Holm)"))
        if v.disagree:
            measured.append(f"sign flips disagree (p {v.p_sign_flip:.2g})")
        if v.speaks_for:
            measured.append(f"speaks for {v.speaks_for}")
        verdict = Text(v.outcome.replace(" (", "\n  ("), style=_COLOURS[v.verdict])
        table.add_row(Text(v.claim.id), verdict, Text(v.claim.statement), Text("\n".join(filter(None, measured))))
    console.print(table)
    console.print()
    for line in (summary_line(verdicts), "icsbench claims RESULTS --explain ID shows one in full."):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_catalogue(console: Console, claims: Sequence[Claim] = CLAIMS) -> None:
    """Print every claim: who makes it and where, who disputes it, what measures it."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "claim", "by", "disputed by", "study"):
        table.add_column(Text(name), overflow="fold")
    for claim in claims:
        study = ", ".join(claim.studies) or "none yet"
        table.add_row(*(Text(cell) for cell in (claim.id, claim.statement, claim.by, claim.disputed_by, study)))
    console.print(table)


def explain(verdict: Verdict) -> str:
    """One claim in full, with the arithmetic."""
    claim = verdict.claim
    lines = [
        f"Claim {claim.id}: {claim.statement}",
        f"Claimed by {claim.by}: {claim.where}"
        + (f"; disputed by {claim.disputed_by}" if claim.disputed_by else "")
        + ".",
    ]
    for number, finding in enumerate(verdict.findings, 1):
        lines += ["", f"Part {number}: {finding.part.what}.", f"  claimed: {region(finding.part)}"]
        if finding.missing:
            lines.append(f"  not measured: {finding.missing}")
            continue
        unit = "log ratio" if finding.part.kind == "ratio" else finding.part.unit or "value"
        values = ", ".join(f"{seed}: {value:.4g}" for seed, value in finding.values.items())
        lines.append(f"  measured on: {finding.group.facts}" if finding.group else "")
        lines += [f"  found: {finding.note}"] if finding.note else []
        lines += [f"  per seed: {values}"] if values else []
        lines += [f"  left out: seed {seed} ({why})" for seed, why in finding.left_out.items()]
        if not finding.values:
            continue
        lines.append(f"  mean over {len(finding.values)} seeds [95 % t-interval]: {effect(finding)}")
        places = (("Student's t", finding.place), ("exact sign flips", finding.sign_flip))
        for name, place in places:
            lines.append(
                f"  one-sided p by {name}, of the mean {unit}: inside {place.inside:.3g}, below {place.below:.3g}, "
                f"above {place.above:.3g}"
            )
    if claim.parts:
        lines += ["", f"Why this bound: {claim.margin}", *(f"Note: {note}" for note in claim.fairness)]
    if not math.isnan(verdict.p):
        lines.append(
            f"p of the claim: {verdict.p:.3g} (sign flips {verdict.p_sign_flip:.3g}); after Holm {verdict.p_holm:.3g}"
        )
        if verdict.disagree:
            lines.append("The t-test and the exact permutation disagree at 0.05: what comes out leans on normality.")
    where = f" at scale {verdict.scale}" if verdict.scale else ""
    against = claim.disputed_by if verdict.verdict == "supported" else claim.by
    speaks = f", which speaks for {verdict.speaks_for}" if verdict.speaks_for else ""
    speaks += f" and against {against}" if speaks and against else ""
    lines += ["", f"Verdict: {verdict.verdict}{where}{speaks}. Because: {verdict.reason}."]
    if verdict.command:
        lines.append(f"Command: {verdict.command}")
    return "\n".join(lines)


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a markdown table, with how they were reached below."""
    body = [
        [
            v.claim.id,
            v.claim.statement,
            v.claim.by,
            v.outcome + ("; sign flips disagree" if v.disagree else ""),
            v.speaks_for,
            "; ".join(_effects(v)),
            str(v.n) if v.n else "",
            _p(v.p_holm),
        ]
        for v in verdicts
    ]
    header = ["", "claim", "by", "verdict", "speaks for", "effect [95 %]", "seeds", "p (Holm)"]
    table = markdown_table(header, body, left=6)
    groups = used_of(finding for v in verdicts for finding in v.findings)
    facts = [f"{group.name}: {group.facts}. Made by {group.provenance}." for group in groups]
    return f"{summary_line(verdicts)}\n\n{table}\n" + "".join(f"- {fact}\n" for fact in facts)


# --- as files --------------------------------------------------------------------------------------------------------


def write_claims(verdicts: Sequence[Verdict], out: Path, root: Path) -> list[Path]:
    """Write ``claims.json`` (every number behind the verdicts), ``claims.csv`` (a row per part) and ``claims.md``.

    Paths of runs are relative to ``root``. Raises IcsbenchError where a file cannot be written.
    """
    contents = {
        "claims.json": (dumps(as_json(verdicts, root), indent=1, ensure_ascii=False) + "\n").encode(),
        "claims.csv": csv_bytes([row for verdict in verdicts for row in _rows(verdict)]),
        "claims.md": markdown(verdicts).encode(),
    }
    for name, content in contents.items():
        write_file(out / name, lambda file, content=content: file.write(content))
    return [out / name for name in contents]


def as_json(verdicts: Sequence[Verdict], root: Path) -> dict[str, Any]:
    """The verdicts and all that they were computed from, as plain values; NaN and infinities become null."""
    return {
        "level": LEVEL,
        "fewest_seeds": FEWEST_SEEDS,
        "claims": [
            {
                "id": v.claim.id,
                "statement": v.claim.statement,
                "by": v.claim.by,
                "where": v.claim.where,
                "disputed_by": v.claim.disputed_by,
                "verdict": v.verdict,
                "speaks_for": v.speaks_for,
                "reason": v.reason,
                "n": v.n,
                **{name: _finite(getattr(v, name)) for name in ("p", "p_holm", "p_sign_flip")},
                "seeds_needed": v.seeds_needed,
                "scale": v.scale,
                "facts": v.facts,
                "margin": v.claim.margin,
                "fairness": list(v.claim.fairness),
                "command": v.command,
                "parts": [_part_json(finding) for finding in v.findings],
                "runs": [run.path.relative_to(root).as_posix() for run in v.runs],
            }
            for v in verdicts
        ],
    }


def _part_json(finding: Finding) -> dict[str, Any]:
    part, interval = finding.part, finding.interval
    return {
        "measure": part.measure,
        "what": part.what,
        "kind": part.kind,
        "unit": part.unit,
        "region": [_finite(part.low), _finite(part.high)],
        "values": {str(seed): value for seed, value in finding.values.items()},
        "left_out": {str(seed): why for seed, why in finding.left_out.items()},
        "missing": finding.missing,
        "note": finding.note,
        **{name: _finite(getattr(interval, name)) for name in ("mean", "low", "high")},
        "side": finding.side if finding.values else None,
        "p": _finite(finding.p),
        "p_sign_flip": _finite(finding.p_sign_flip),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cells(**numbers: float) -> dict[str, float | str]:
    return {name: "" if math.isnan(number) else number for name, number in numbers.items()}


def _rows(v: Verdict) -> Iterable[dict[str, Any]]:
    claim = {"id": v.claim.id, "statement": v.claim.statement, "by": v.claim.by, "disputed_by": v.claim.disputed_by}
    decided = {
        "verdict": v.verdict,
        "speaks_for": v.speaks_for,
        **_cells(p_holm=v.p_holm),
        "seeds_needed": v.seeds_needed if v.seeds_needed is not None else "",
        "scale": v.scale,
        "reason": v.reason,
    }
    for number, finding in enumerate(v.findings, 1):
        mean, low, high, n = finding.interval
        yield (
            claim
            | {
                "part": number,
                "measure": finding.part.measure,
                "claimed": region(finding.part),
                **_cells(mean=mean, low=low, high=high),
                "n": n,
                **_cells(p=finding.p, p_sign_flip=finding.p_sign_flip),
            }
            | decided
        )
    if not v.findings:
        yield claim | decided
