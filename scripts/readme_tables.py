"""Copy what was committed into README.md and the pages of docs, between comments that name it.

``--check`` only compares. A block begins with one of these comments and ends with ``<!-- end -->``:

- ``<!-- from results/reference/X.md -->``: the whole file;
- ``<!-- verdicts 1 3 18b -->``: these claims of ``results/reference/claims/claims.json`` in a table;
- ``<!-- verdicts counted -->``: how many claims have which verdict, in a sentence.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from icsbench.analysis.committed import as_committed, read_claims
from icsbench.analysis.verdicts import Verdict, decide
from icsbench.report import words
from icsbench.report.cells import TableCells
from icsbench.report.markdown import as_markdown

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "results" / "reference" / "claims" / "claims.json"
BLOCK = re.compile(r"(<!-- (from|verdicts) ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """README.md and the pages of the site that are written by hand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def committed() -> dict[str, tuple[dict[str, Any], Verdict]]:
    """By id, what the file says of a claim, and the verdict that its values give."""
    entries = read_claims(CLAIMS)
    verdicts = decide([(claim, findings) for claim, findings, _ in as_committed(entries, CLAIMS)])
    return {verdict.claim.id: (dict(entries[verdict.claim.id]), verdict) for verdict in verdicts}


def verdict_table(ids: Iterable[str]) -> str:
    """Claim, verdict, effect and n of some claims, with the effect of each part and its 95 % interval."""
    rows = []
    for id in ids:
        entry, verdict = committed()[id]
        outcome = f"{words.SYMBOLS[entry['verdict']]} {entry['verdict']}"
        rows.append([id, entry["statement"], outcome, "; ".join(words.effects(verdict)), words.counted(verdict)])
    return as_markdown(TableCells(["", "claim", "verdict", "effect [95 %]", "n"], rows), left=4)


def verdict_count() -> str:
    """The verdicts of the whole file, counted."""
    count = Counter(entry["verdict"] for entry, _ in committed().values())
    return (
        f"Of {sum(count.values())} claims {count['supported']} are supported, {count['contradicted']} contradicted and "
        f"{count['inconclusive']} inconclusive.\n"
    )


def _content(kind: str, names: str) -> str:
    if kind == "from":
        return (ROOT / names).read_text(encoding="utf-8")
    return verdict_count() if names == "counted" else verdict_table(names.split())


def filled(page: str) -> str:
    """The page with the content of every block as it is committed now."""
    return BLOCK.sub(lambda block: block[1] + _content(block[2], block[3]) + block[5], page)


def main() -> None:
    for path in pages():
        page = path.read_text(encoding="utf-8")
        if "--check" not in sys.argv:
            path.write_text(filled(page), encoding="utf-8")
        elif filled(page) != page:
            sys.exit(f"{path.name} differs from the committed tables: run python scripts/readme_tables.py")


if __name__ == "__main__":
    main()
