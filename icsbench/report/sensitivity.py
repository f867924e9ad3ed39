"""The sensitivity of verdicts on the console and as files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.sensitivity import Sensitivity, Specification
from icsbench.report import words
from icsbench.report.cells import TableCells
from icsbench.report.markdown import as_markdown
from icsbench.report.words import agreement

_SAID = (
    "Each specification is judged by itself, without the correction over other claims, the registered one too.",
    "One thing is changed at a time: a window or another choice of one part, a seed left out, the first seeds alone.",
)


def print_sensitivity(console: Console, found: Sequence[Sensitivity]) -> None:
    """Print a row per claim that was measured: its verdict, how many specifications agree, and what flips it."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "verdict by itself", "specifications that agree"):
        table.add_column(Text(name))
    for one in found:
        table.add_row(
            *(Text(cell) for cell in (one.registered.claim.id, words.outcome(one.registered), agreement(one)))
        )
    console.print(table)
    for line in _SAID:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def write_sensitivity(found: Sequence[Sensitivity], out: Path) -> list[Path]:
    """Write ``sensitivity.csv``, a row per claim and specification, and ``sensitivity.md``, a row per claim.

    :raises IcsbenchError: a file cannot be written.
    """
    body = [
        [one.registered.claim.id, one.registered.claim.statement, one.registered.verdict, agreement(one)]
        for one in found
    ]
    header = ["", "claim", "verdict by itself", "specifications that agree"]
    contents = {
        "sensitivity.csv": csv_bytes([row for one in found for row in _rows(one)]),
        "sensitivity.md": f"{' '.join(_SAID)}\n\n{as_markdown(TableCells(header, body), left=4)}".encode(),
    }
    return [write_file(out / name, lambda file, c=content: file.write(c)) for name, content in contents.items()]


def _rows(one: Sensitivity) -> Iterator[dict[str, Any]]:
    registered = Specification("registered", one.registered)
    for specification in (registered, *one.others):
        verdict = specification.verdict
        yield {
            "claim": verdict.claim.id,
            "specification": specification.name,
            "verdict": verdict.verdict,
            "counts": specification.counts,
            "agrees": verdict.verdict == one.registered.verdict if specification.counts else "",
            "n": verdict.n,
            "effect": "; ".join(words.effects(verdict)),
            "p": verdict.p,
            "reason": verdict.reason,
        }
