"""Judge new records together with the committed verdicts, and write results/reference/claims anew.

``python scripts/reference_claims.py RESULTS [RESULTS ...]``: a claim that the records under RESULTS measure is judged
on them; every other one on its values of ``results/reference/claims/claims.json``, which came from earlier records.
Claims that are measured otherwise by now keep their former measures.
Holm's correction is over all of them, as ``icsbench claims`` makes it over the claims of one folder.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from icsbench.analysis.claims import all_claims
from icsbench.analysis.committed import Entry, as_committed
from icsbench.analysis.verdicts import Verdict, decide, judge
from icsbench.errors import IcsbenchError
from icsbench.record.reader import load_runs
from icsbench.record.strict_json import dumps
from icsbench.report.files import claims_as_json, write_claims

OUT = Path(__file__).resolve().parent.parent / "results" / "reference" / "claims"
ABOUT = ("scale", "facts", "command")


def together(new: list[Verdict], old: dict[str, Entry]) -> tuple[list[Verdict], list[str]]:
    """All verdicts, and the ids of those that rest on committed values.

    A claim that is measured otherwise by now keeps its former measure. One that was never measured is left out.
    """
    measured = {v.claim.id: (v.claim, v.findings) for v in new if v.verdict != "not measured"}
    kept = [id for id in old if id not in measured]
    committed = as_committed({id: old[id] for id in kept}, OUT / "claims.json")
    of_id = measured | {claim.id: (claim, tuple(findings)) for claim, findings, _ in committed}
    order = [v.claim.id for v in new if v.claim.id in of_id]
    found = decide([of_id[id] for id in order])
    return [replace(v, **_about(v, old[v.claim.id])) if v.claim.id in kept else v for v in found], kept


def _about(verdict: Verdict, entry: Entry) -> dict[str, Any]:
    """What committed values do not say: who is right, where the verdict is what it was, and with what it was made."""
    same = verdict.verdict == entry["verdict"] and not verdict.speaks_for
    return {key: entry[key] for key in ABOUT} | ({"speaks_for": entry["speaks_for"]} if same else {})


def main() -> None:
    roots = list(map(Path, sys.argv[1:]))
    if not roots:
        sys.exit(__doc__)
    before = json.loads((OUT / "claims.json").read_text())
    old = {entry["id"]: entry for entry in before["claims"]}
    facts = [line for line in (OUT / "claims.md").read_text().splitlines() if line.startswith("- ")]
    try:
        verdicts, kept = together(judge([run for root in roots for run in load_runs(root)], all_claims()), old)
    except IcsbenchError as error:
        sys.exit(str(error))
    root = roots[0] if len(roots) == 1 else Path()
    write_claims(verdicts, OUT, root)

    document = claims_as_json(verdicts, root)
    for entry in document["claims"]:
        entry["runs"] = old[entry["id"]]["runs"] if entry["id"] in kept else entry["runs"]
    document["studies"] = before.get("studies", {}) | document["studies"]
    (OUT / "claims.json").write_text(dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table = (OUT / "claims.md").read_text().splitlines()
    said = {line.split(":")[0] for line in table if line.startswith("- ")}
    table += [line for line in facts if line.split(":")[0] not in said]
    (OUT / "claims.md").write_text("\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
