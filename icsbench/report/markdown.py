"""Tables as Markdown: verdicts, results, and what updates did."""

import html
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from icsbench.analysis.sensitivity import Sensitivity
from icsbench.analysis.verdicts import Verdict, used_of
from icsbench.report import words
from icsbench.report.cells import TableCells, results_in_cells, updates_in_cells


def claims_as_markdown(
    verdicts: Sequence[Verdict],
    at_step: int | None = None,
    sensitivity: Mapping[Verdict, Sensitivity] = MappingProxyType({}),
) -> str:
    """The verdicts as a table, and below it the facts of the studies that they come from.

    ``at_step``: where the records were cut. ``sensitivity``: a column of what is known of it; none where nothing is.
    """
    body = [
        [
            v.claim.id,
            v.claim.statement,
            v.claim.by,
            words.outcome(v) + ("; sign flips disagree" if v.disagree else ""),
            v.speaks_for,
            "; ".join(words.effects(v)),
            words.counted(v),
            "" if math.isnan(v.p_holm) else f"{v.p_holm:.2g}",
            *([words.agreement(sensitivity[v], v) if v in sensitivity else ""] if sensitivity else []),
        ]
        for v in verdicts
    ]
    locked = words.by_a_lock(verdicts)
    if locked:
        for row, v in zip(body, verdicts, strict=True):
            row.append(escaped(words.registration(v)))
    effect = "effect [95 %]" if at_step is None else f"effect at step {at_step:,} [95 %]"
    header = [
        "",
        "claim",
        "by",
        "verdict",
        "speaks for",
        effect,
        "n",
        "p (Holm)",
        *(["specifications that agree"] if sensitivity else []),
        *(["registration"] if locked else []),
    ]
    groups = used_of(finding for v in verdicts for finding in v.findings)
    facts = [f"{group.name}: {group.facts}. Made by {group.provenance}." for group in groups]
    lines = [*words.sharing_lines(verdicts), *([words.registration_line(verdicts) + "."] if locked else []), *facts]
    table = as_markdown(TableCells(header, body), left=6)
    return f"{words.summary_line(verdicts, at_step)}\n\n{table}\n" + "".join(f"- {line}\n" for line in lines)


def results_as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of ``result_table``: of each group its facts, results, protocols, and what made them."""
    made = {row["group"]: row["provenance"] for row in rows}.values()
    return "\n".join(
        f"{title}\n\n" + "".join(as_markdown(table) + "\n" for table in tables) + f"Made by {provenance}.\n"
        for (title, tables), provenance in zip(results_in_cells(rows), made, strict=True)
    )


def updates_as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of ``optimisation_table``: of each group its facts, and a table per learning rate and window."""
    return "\n".join(
        f"{title}\n\n" + "\n".join(f"{heading}\n\n{as_markdown(table)}" for heading, table in tables)
        for title, tables in updates_in_cells(rows)
    )


def as_markdown(table: TableCells, left: int = 1) -> str:
    """A table as Markdown. The first columns are set to the ``left``, the others to the right."""
    rule = ["---"] * left + ["---:"] * (len(table.header) - left)
    names = [name.replace("recal.", "recalibrated").replace("\n", ", ") for name in table.header]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (names, rule, *table.body))


def escaped(text: str) -> str:
    """A text without what a terminal or Markdown would obey."""
    found = html.escape(words.printable(text).replace("\\", "\\\\"), quote=False)
    for mark in ("|", "`", "*"):
        found = found.replace(mark, f"\\{mark}")
    return found.replace("](", "]\\(")
