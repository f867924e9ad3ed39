"""Tables and verdicts as files: CSV and JSON for programs, Markdown for people."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from icsbench.analysis.decision import LEVEL
from icsbench.analysis.diff import made_with
from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import group_runs
from icsbench.analysis.quantities.optimisation import optimisation_table
from icsbench.analysis.sensitivity import Sensitivity, of_verdicts
from icsbench.analysis.statistics import Interval
from icsbench.analysis.tables import result_table, run_row
from icsbench.analysis.verdicts import FEWEST_SEEDS, Verdict, sharing, used_of
from icsbench.record.reader import Run
from icsbench.record.strict_json import dumps
from icsbench.report.markdown import claims_as_markdown, results_as_markdown, updates_as_markdown
from icsbench.report.words import region


def write_claims(verdicts: Sequence[Verdict], out: Path, root: Path, at_step: int | None = None) -> list[Path]:
    """Write ``claims.json`` (every number behind the verdicts), ``claims.csv`` (a row per part) and ``claims.md``.

    Paths of runs are relative to ``root``. ``at_step``: where the records were cut.

    :raises IcsbenchError: a file cannot be written.
    """
    cut = {} if at_step is None else {"at_step": at_step}
    sensitivity = of_verdicts(verdicts)
    document = claims_as_json(verdicts, root, at_step, sensitivity)
    contents = {
        "claims.json": (dumps(document, indent=1, ensure_ascii=False) + "\n").encode(),
        "claims.csv": csv_bytes([row | cut for verdict in verdicts for row in _claim_rows(verdict)]),
        "claims.md": claims_as_markdown(verdicts, at_step, sensitivity).encode(),
    }
    return _write(out, contents)


def write_results(runs: Sequence[Run], out: Path) -> list[Path]:
    """Write ``results.csv`` and ``results.md``, the rows of ``result_table``, and ``runs.csv``, a row per finished run.

    Labs have no rows in the former two, which are not written of labs alone. In ``results.csv`` an Interval becomes
    columns ``<key>/mean``, ``/low``, ``/high`` and ``/n``.

    :raises IcsbenchError: a file cannot be written.
    """
    rows = result_table(runs)
    contents = {
        "results.csv": csv_bytes([_flat(row) for row in rows]),
        "results.md": results_as_markdown(rows).encode(),
    }
    made = csv_bytes([run_row(group, run) for group in group_runs(runs) for run in group.runs])
    return _write(out, (contents if rows else {}) | {"runs.csv": made})


def write_updates(runs: Sequence[Run], out: Path) -> list[Path]:
    """Write ``optimisation.csv`` and ``.md``, the rows of ``optimisation_table``; nothing where there are none.

    :raises IcsbenchError: a file cannot be written.
    """
    rows = optimisation_table(runs)
    if not rows:
        return []
    contents = {
        "optimisation.csv": csv_bytes([_flat(row) for row in rows]),
        "optimisation.md": updates_as_markdown(rows).encode(),
    }
    return _write(out, contents)


def _write(out: Path, contents: dict[str, bytes]) -> list[Path]:
    for name, content in contents.items():
        write_file(out / name, lambda file, content=content: file.write(content))
    return [out / name for name in contents]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row for CSV: an Interval becomes four columns, steps by seed one text."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Interval):
            flat |= {f"{key}/{name}": part for name, part in value._asdict().items()}
        elif isinstance(value, dict):
            flat[key] = " ".join(f"seed-{seed}@{step}" for seed, step in value.items())
        else:
            flat[key] = value
    return flat


def claims_as_json(
    verdicts: Sequence[Verdict],
    root: Path,
    at_step: int | None = None,
    sensitivity: Mapping[Verdict, Sensitivity] = MappingProxyType({}),
) -> dict[str, Any]:
    """The verdicts and all that they were computed from, as plain values; NaN and infinities become null.

    ``sensitivity``: what is known of it.
    """
    used = used_of(finding for verdict in verdicts for finding in verdict.findings)
    shares = sharing(verdicts)
    return {
        "level": LEVEL,
        "fewest_seeds": FEWEST_SEEDS,
        "at_step": at_step,
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
                **({"sensitivity": _sensitivity_as_json(sensitivity[v])} if v in sensitivity else {}),
                "shares_with": shares.get(v.claim.id, []),
                "registration": _registration_as_json(v),
                "scale": v.scale,
                "facts": v.facts,
                "margin": v.claim.margin,
                "fairness": list(v.claim.fairness),
                "command": v.command,
                "parts": [_part_as_json(finding) for finding in v.findings],
                "runs": [run.path.relative_to(root).as_posix() for run in v.runs],
            }
            for v in verdicts
        ],
        "studies": {group.name: made_with(group.runs) for group in used},
    }


def _sensitivity_as_json(one: Sensitivity) -> dict[str, Any]:
    return {
        "by_itself": one.registered.verdict,
        "agree": len(one.agreeing),
        "of": len(one.counted),
        "flipped_by": one.flipped_by.name if one.flipped_by else None,
        "left_open_by": one.opened_by.name if one.opened_by else None,
    }


def _registration_as_json(v: Verdict) -> dict[str, Any]:
    found = v.registration
    look = found.look._asdict() if found.look else None
    return {
        "status": found.status,
        "why": found.why,
        "changes": list(found.changes),
        "look": look,
        "locked": found.locked,
        "lock": found.lock,
    }


def _part_as_json(finding: Finding) -> dict[str, Any]:
    part, interval = finding.part, finding.interval
    return {
        "measure": part.name,
        "what": part.what,
        "study": finding.group.name if finding.group else "",
        "kind": part.kind,
        "unit": part.unit,
        "per": part.per,
        "of": part.of,
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


def _claim_rows(v: Verdict) -> Iterator[dict[str, Any]]:
    """One row per part; one for a claim without parts."""
    claim = {"id": v.claim.id, "statement": v.claim.statement, "by": v.claim.by, "disputed_by": v.claim.disputed_by}
    decided = {
        "verdict": v.verdict,
        "speaks_for": v.speaks_for,
        **_cells(p_holm=v.p_holm),
        "seeds_needed": v.seeds_needed if v.seeds_needed is not None else "",
        "scale": v.scale,
        "reason": v.reason,
        "registration": v.registration.status,
        "changes": "; ".join(v.registration.changes),
    }
    for number, finding in enumerate(v.findings, 1):
        mean, low, high, n = finding.interval
        measured = {
            "part": number,
            "measure": finding.part.name,
            "claimed": region(finding.part),
            **_cells(mean=mean, low=low, high=high),
            "n": n,
            **_cells(p=finding.p, p_sign_flip=finding.p_sign_flip),
        }
        yield claim | measured | decided
    if not v.findings:
        yield claim | decided


def _cells(**numbers: float) -> dict[str, float | str]:
    return {name: "" if math.isnan(number) else number for name, number in numbers.items()}
