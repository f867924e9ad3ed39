"""Tables on the console: verdicts, the claims, results, and what updates did."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.quantities.optimisation import optimisation_table
from icsbench.analysis.tables import result_table
from icsbench.analysis.verdicts import Outcome, Verdict, sharing
from icsbench.record.reader import Run
from icsbench.report import words
from icsbench.report.cells import TableCells, results_in_cells, updates_in_cells

_COLOURS: dict[Outcome, str] = {
    "supported": "green",
    "contradicted": "red",
    "inconclusive": "yellow",
    "not measured": "dim",
}


def print_claims(console: Console, verdicts: Sequence[Verdict], at_step: int | None = None) -> None:
    """Print a row per claim, coloured by verdict; ``at_step``: where the records were cut."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "verdict"):
        table.add_column(Text(name), no_wrap=True)
    for name in ("claim", "measured" if at_step is None else f"measured at step {at_step:,}"):
        table.add_column(Text(name), ratio=1)
    locked, shares = words.by_a_lock(verdicts), sharing(verdicts)
    for v in verdicts:
        measured = words.effects(v)
        if v.n:
            measured.append(f"{v.n} {v.of}" + ("" if math.isnan(v.p_holm) else f", p {v.p_holm:.2g} (Holm)"))
        if v.disagree:
            measured.append(f"sign flips disagree (p {v.p_sign_flip:.2g})")
        if v.speaks_for:
            measured.append(f"speaks for {v.speaks_for}")
        if v.claim.id in shares:
            measured.append(f"shares its measurement with {', '.join(shares[v.claim.id])}")
        if locked:
            measured.append(words.registration(v))
        verdict = Text(words.outcome(v).replace(" (", "\n  ("), style=_COLOURS[v.verdict])
        table.add_row(Text(v.claim.id), verdict, Text(v.claim.statement), Text("\n".join(filter(None, measured))))
    console.print(table)
    console.print()
    for line in (
        words.summary_line(verdicts, at_step),
        words.registration_line(verdicts),
        "icsbench claims why ID RESULTS shows one in full.",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_catalogue(console: Console, claims: Sequence[Claim]) -> None:
    """Print every claim: who makes it, who disputes it, and which studies measure it."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "claim", "by", "disputed by", "study"):
        table.add_column(Text(name), overflow="fold")
    for claim in claims:
        study = ", ".join(claim.studies) or "none yet"
        table.add_row(*(Text(cell) for cell in (claim.id, claim.statement, claim.by, claim.disputed_by, study)))
    console.print(table)


def print_results(console: Console, runs: Sequence[Run]) -> None:
    """Print ``result_table``: for each group its results and its test protocols; then a line on unfinished runs."""
    for title, tables in results_in_cells(result_table(runs)):
        console.print(title, markup=False, highlight=False)
        for table in tables:
            console.print(_table(table, left={"regime", "outcome"}))
            console.print()
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        console.print(f"not counted: {len(unfinished)} of {len(runs)} runs, not finished (icsbench runs lists them)")


def print_updates(console: Console, runs: Sequence[Run]) -> None:
    """Print ``optimisation_table``, a column per regime; nothing where it has no rows."""
    for title, tables in updates_in_cells(optimisation_table(runs)):
        console.print(title, markup=False, highlight=False)
        for heading, table in tables:
            console.print(heading, markup=False, highlight=False)
            console.print(_table(table, left={table.header[0]}))
            console.print()


def _table(table: TableCells, left: set[str]) -> Table:
    """The columns named in ``left`` are set to the left, the others to the right."""
    shown = Table(box=None, pad_edge=False)
    for name in table.header:
        shown.add_column(Text(name), justify="left" if name in left else "right", overflow="fold")
    for cells in table.body:
        shown.add_row(*(Text(cell.replace(" ± ", "±")) for cell in cells))
    return shown
