"""Two judgements of the claims compared: as tables on the console, as Markdown and as JSON."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.diff import ClaimDiff, Diff, Difference, PartDiff, Scalar
from icsbench.analysis.files import write_file
from icsbench.analysis.verdicts import Outcome
from icsbench.record.strict_json import dumps
from icsbench.report import words
from icsbench.report.cells import TableCells
from icsbench.report.markdown import escaped

RELATIONS = {"contradicts": "✗", "drifts": "~", "agrees": "✓"}
"""How the sides of a claim that both measured compare, the worst first, and the symbol of each."""
_STYLES = {"contradicts": "bold red", "drifts": "yellow", "agrees": "green"}
_HOW = (
    "p: after the correction for many claims. B against A: the mean over shared seeds of B - A, of ratios (×) of B / A "
    "[95 % t-interval]. A claim contradicts where its verdict flips; it drifts where one side is open and the other "
    "decided, or where a part has intervals that do not overlap, another unit, or values on one side only."
)


def print_diff(console: Console, diff: Diff) -> None:
    """Print a row per claim and per part, coloured by how the sides compare; then what they did otherwise."""
    for line in _sides(diff):
        console.print(Text(words.printable(line)), soft_wrap=True)
    for table in (_claims(diff), differences_in_cells(diff)):
        if table.body:
            console.print()
            console.print(_table(table))
    console.print()
    for line in (*notes(diff), summary(diff)):
        console.print(Text(words.printable(line)), soft_wrap=True)


def write_diff_markdown(diff: Diff, out: Path) -> Path:
    """Write the tables as Markdown; returns ``out``.

    :raises IcsbenchError: the file cannot be written.
    """
    lines = [*map(escaped, (*_sides(diff), "", summary(diff), ""))]
    for table in (_claims(diff), differences_in_cells(diff)):
        rows = [table.header, ["---"] * len(table.header), *table.body] if table.body else []
        lines += ["| " + " | ".join(map(escaped, cells)) + " |" for cells in rows] + [""]
    content = "\n".join([*lines, *map(escaped, notes(diff)), ""])
    return write_file(out, lambda file: file.write(content.encode()))


def write_diff_json(diff: Diff, out: Path) -> Path:
    """Write every number of the comparison; NaN and infinities become null. Returns ``out``.

    :raises IcsbenchError: the file cannot be written.
    """
    content = {**asdict(diff), "flips": [claim.id for claim in diff.flips]}
    text = dumps(_plain(content), indent=1, ensure_ascii=False) + "\n"
    return write_file(out, lambda file: file.write(text.encode()))


# --- tables ----------------------------------------------------------------------------------------------------------


def _claims(diff: Diff) -> TableCells:
    header = ["", "claim, and its parts", "A", "B", "B against A"]
    return TableCells(header, [row for claim in diff.claims if claim.on_both_sides for row in _rows(claim)])


def _rows(claim: ClaimDiff) -> Iterator[list[str]]:
    verdicts = [verdict_cell(claim.a, claim.p_a), verdict_cell(claim.b, claim.p_b)]
    yield [claim.id, claim.statement, *verdicts, f"{RELATIONS[claim.relation]} {claim.relation}"]
    for part in claim.parts:
        yield ["", _named(part), *(effect_cell(part, side) for side in "ab"), against_cell(part)]


def verdict_cell(verdict: Outcome, p: float) -> str:
    """A verdict with its symbol, and the corrected p-value where there is one: ``✓ supported, p 0.01``."""
    return f"{words.SYMBOLS[verdict]} {verdict}" + ("" if math.isnan(p) else f", p {p:.2g}")


def _named(part: PartDiff) -> str:
    unit = next(effect.unit for effect in (part.b, part.a) if effect)
    return f"- {part.measure}" + (f", {unit}" if unit else "")


def effect_cell(part: PartDiff, side: str) -> str:
    """Mean, interval and number of values of side ``a`` or ``b``; a dash where it did not measure the part."""
    effect = getattr(part, side)
    return f"{words.interval(effect.interval, effect.kind, effect.unit)}, n {effect.interval.n}" if effect else "–"


def against_cell(part: PartDiff) -> str:
    """B against A over the seeds that both have, and what makes the part drift."""
    said = [part.why] if part.why else []
    if part.paired and part.b:
        seeds = "1 seed" if part.paired.n == 1 else f"{part.paired.n} seeds"
        said.insert(0, f"{words.interval(part.paired, part.b.kind, part.b.unit)}, {seeds}")
    return "; ".join(said)


def differences_in_cells(diff: Diff) -> TableCells:
    """What the sides did otherwise, a row each."""
    body = [
        [found.topic, found.key, *(_listed(values, found) for values in (found.a, found.b)), ", ".join(found.of)]
        for found in diff.differences
    ]
    return TableCells(["differs in", "", "A", "B", "of"], body)


def _listed(values: Sequence[Scalar], found: Difference) -> str:
    whole = [value for value in values if isinstance(value, int)]
    if len(whole) == len(values) > 2 and whole == [*range(whole[0], whole[0] + len(whole))]:
        return f"{whole[0]} to {whole[-1]}"
    shortened = [str(value)[:10] if found.key == "commit" and value else value for value in values]
    return ", ".join("not set" if value is None else str(value) for value in shortened)


def _table(cells: TableCells) -> Table:
    styles = {f"{RELATIONS[relation]} {relation}": style for relation, style in _STYLES.items()}
    table = Table(box=None, pad_edge=False)
    for name in cells.header:
        table.add_column(Text(name), overflow="fold")
    for row in cells.body:
        table.add_row(*(Text(words.printable(cell), style=styles.get(cell, "")) for cell in row))
    return table


# --- words -----------------------------------------------------------------------------------------------------------


def _sides(diff: Diff) -> list[str]:
    return [f"A: {diff.a}", f"B: {diff.b}"]


def notes(diff: Diff) -> list[str]:
    """How to read the comparison, and what of it is missing."""
    said = [_HOW] if any(claim.on_both_sides for claim in diff.claims) else []
    if diff.unstated:
        said.append(
            f"Of claims {', '.join(diff.unstated)} a side does not say what settings, versions and hardware its runs "
            "had (a claims.json of an earlier version): compared is only what they were measured on."
        )
    for side in ("A", "B"):
        if alone := [claim.id for claim in diff.claims if claim.relation == f"{side} only"]:
            said.append(f"Measured in {side} only: {', '.join(alone)}.")
    return said


def summary(diff: Diff) -> str:
    """How many claims agree, drift and contradict, and which flipped."""
    by = Counter(claim.relation for claim in diff.claims)
    said = f"{len(diff.claims)} claims: {by['contradicts']} contradict, {by['drifts']} drift, {by['agrees']} agree"
    said += f", {by['A only']} measured in A only, {by['B only']} in B only, {by['not measured']} in neither"
    flips = [f"{claim.id} ({claim.a} in A, {claim.b} in B)" for claim in diff.flips]
    return said + (f". Flipped: {', '.join(flips)}" if flips else "")


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        named = getattr(content, "_asdict", None)
        return _plain(named()) if named else [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
