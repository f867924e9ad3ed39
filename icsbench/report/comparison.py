"""Two judgements of the claims on one self-contained HTML page. Never imports torch."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from markupsafe import Markup

from icsbench.analysis.diff import Diff
from icsbench.analysis.files import write_file
from icsbench.record.reader import Run
from icsbench.report.diff import (
    RELATIONS,
    against_cell,
    differences_in_cells,
    effect_cell,
    notes,
    summary,
    verdict_cell,
)
from icsbench.report.opening import Opening, opening_of
from icsbench.report.page import page_of
from icsbench.report.svg import Sheet

_FILTERS = {"against": against_cell, "effect": effect_cell, "verdict": verdict_cell}


def write_comparison(diff: Diff, runs_of_a: Sequence[Run], runs_of_b: Sequence[Run], out: Path) -> Path:
    """Write the page of a comparison, with what the regimes of each side show; returns ``out``.

    The runs of a side are none where it is a ``claims.json``.

    :raises IcsbenchError: a record is damaged, or ``out`` cannot be written.
    """
    sheet = Sheet()
    sides = (("A", diff.a, runs_of_a), ("B", diff.b, runs_of_b))
    html = page_of(
        "comparison.html.j2",
        sheet,
        _FILTERS,
        diff=diff,
        shown=[claim for claim in diff.claims if claim.on_both_sides],
        sides=[(letter, name, runs, *_opening(letter, runs, sheet)) for letter, name, runs in sides],
        differences=differences_in_cells(diff),
        notes=notes(diff),
        summary=summary(diff),
        RELATIONS=RELATIONS,
    )
    return write_file(out, lambda file: file.write(html))


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """The names of two folders or files, with as many folders above them as it takes to tell the two apart."""
    one, other = (path.resolve().parts[1:] for path in (a, b))
    if one == other:
        return one[-1], other[-1]
    number = next(n for n in count(1) if one[-n:] != other[-n:])
    return "/".join(one[-number:]), "/".join(other[-number:])


def _opening(letter: str, runs: Sequence[Run], sheet: Sheet) -> tuple[Opening | None, tuple[Markup, ...]]:
    opening = opening_of(runs)
    return opening, opening.drawn(f"regimes-{letter.lower()}-figure", sheet) if opening else ()
