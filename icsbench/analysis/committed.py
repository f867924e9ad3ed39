"""Verdicts that were written to a ``claims.json``, read back: the values per seed are there, the records are not."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import NotMeasured
from icsbench.errors import IcsbenchError
from icsbench.record.strict_json import loads

Entry = Mapping[str, Any]
"""A claim as ``claims.json`` has it."""


def read_file(path: Path) -> Any:
    """The content of a ``claims.json``.

    :raises IcsbenchError: there is no such file, or it is not JSON.
    """
    try:
        return loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IcsbenchError(f"{path}: no such file or folder; give a results folder or a claims.json") from None
    except OSError as error:
        raise IcsbenchError(
            f"{path}: cannot be read ({error.strerror}); give a results folder or a claims.json"
        ) from None
    except (ValueError, RecursionError):
        raise IcsbenchError(f"{path}: not JSON; give a results folder, or a claims.json of icsbench claims") from None


def read_claims(path: Path) -> dict[str, Entry]:
    """The claims of a ``claims.json``, by id.

    :raises IcsbenchError: it is another file, or cannot be read.
    """
    content = read_file(path)
    try:
        entries = {entry["id"]: entry for entry in content["claims"]}
        if entries and all(isinstance(id, str) for id in entries):
            return entries
    except (KeyError, TypeError):
        pass
    raise IcsbenchError(f"{path}: holds no claims; give a claims.json that icsbench claims wrote, or a results folder")


def committed_findings(claim: Claim, entry: Entry) -> list[Finding]:
    """The parts of a claim with their committed values.

    :raises IcsbenchError: the claim was changed since: its records are to be judged again.
    """
    if len(claim.parts) != len(entry["parts"]):
        raise IcsbenchError(
            f"claim {claim.id} has {len(claim.parts)} parts, {len(entry['parts'])} are committed: give its records"
        )
    for part, found in zip(claim.parts, entry["parts"], strict=True):
        bounds = [bound if math.isfinite(bound) else None for bound in (part.low, part.high)]
        if (part.name, part.kind, bounds) != (found["measure"], found["kind"], found["region"]):
            raise IcsbenchError(f"claim {claim.id}: {part.name} is not what is committed: give its records")
    return _findings(claim.parts, entry)


def as_committed(entries: Mapping[str, Entry], path: Path) -> list[tuple[Claim, list[Finding], str]]:
    """Each claim of a file with its values, and in what the catalogue differs: empty where it does not.

    A claim whose parts are others in the catalogue, or that it lacks, is as the file states it.

    :raises IcsbenchError: the file lacks what is needed, or a value is none that a part can have.
    """
    catalogue = {claim.id: claim for claim in all_claims()}
    found = []
    for id, entry in entries.items():
        try:
            found.append(_as_committed(catalogue.get(id), id, entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IcsbenchError(
                f"{path}: claim {id} is not as icsbench claims writes it ({type(error).__name__}: {error}); write it "
                "again from the records"
            ) from None
    return found


def _as_committed(known: Claim | None, id: str, entry: Entry) -> tuple[Claim, list[Finding], str]:
    if known is not None:
        try:
            return known, committed_findings(known, entry), ""
        except IcsbenchError as error:
            differs = str(error)
    else:
        differs = f"claim {id}: the catalogue has none of this id"
    parts = tuple(_part(found) for found in entry["parts"])
    statement, by, where, disputed_by, margin = (
        str(entry[key]) for key in ("statement", "by", "where", "disputed_by", "margin")
    )
    claim = Claim(id, statement, by, where, disputed_by, parts, margin, tuple(map(str, entry["fairness"])))
    return claim, _findings(parts, entry), differs


def _part(found: Entry) -> Part:
    low, high = found["region"]
    return Part(
        name=str(found["measure"]),
        measure=_not_here,
        what=str(found["what"]),
        studies=(),
        kind=found["kind"],
        unit=found["unit"],
        per=str(found.get("per", "")),
        of=found.get("of", "seeds"),
        low=-math.inf if low is None else float(low),
        high=math.inf if high is None else float(high),
    )


def _not_here(_: Any) -> Any:
    raise NotMeasured("the file states the measure by its name only")


def _findings(parts: Sequence[Part], entry: Entry) -> list[Finding]:
    findings = []
    for part, found in zip(parts, entry["parts"], strict=True):
        values = {int(key): _number(value, part) for key, value in found["values"].items()}
        left_out = {int(key): str(why) for key, why in found["left_out"].items()}
        findings.append(Finding(part, None, values, left_out, str(found["missing"]), str(found["note"])))
    return findings


def _number(value: Any, part: Part) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{part.name} has the value {value!r}")
    if part.kind == "ratio" and value <= 0:
        raise ValueError(f"{part.name} is a ratio and has the value {value!r}")
    return value
