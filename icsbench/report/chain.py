"""The chain of a verdict in words, and as plain values."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from icsbench.analysis.chain import Chain, Link, Record
from icsbench.report.files import claims_as_json
from icsbench.report.words import MOST_LISTED, decided, measured, printable

_SHORT = 12


def short(text: str) -> str:
    """The first digits of a checksum or commit; a ``+`` behind a commit, of a tree that was changed, is kept."""
    return text if len(text) <= _SHORT else text[:_SHORT] + ("+" if text.endswith("+") else "")


def chain_in_words(chain: Chain) -> str:
    """The claim in full, and below it the chain: numbers, the runs that they rest on, the checksums of their files."""
    lines = measured(chain.verdict)
    lines += ["", f"Verdict: not valid: {chain.reason}."] if chain.broken else decided(chain.verdict)
    if chain.file:
        where = f"{chain.file}, SHA-256 {short(chain.checksum)}"
        lines += ["", f"The chain ends in {where}: the values are there, the records are not here."]
    for number, (finding, links) in enumerate(zip(chain.verdict.findings, chain.links, strict=True), 1):
        if links:
            lines += ["", f"Part {number} rests on"]
            lines += [f"  {line}" for link in links for line in _link(link, finding.part.of[:-1])]
    if chain.records and not chain.file:
        lines += ["", "Records"]
        lines += [f"  {line}" for record in chain.records for line in _record(record)]
    checked = sum(record.checks is not None for record in chain.records)
    if chain.broken:
        lines += ["", "Broken", *(f"  {line}" for line in chain.broken)]
    elif checked:
        lines += ["", f"Every link holds: {checked} records are what they were when their runs were finished."]
    return "\n".join(map(printable, lines))


def keys_in_words(link: Link) -> str:
    """Its seeds, networks or problems: ``3``, or ``0 to 31``."""
    return " to ".join(map(str, dict.fromkeys((link.keys[0], link.keys[-1]))))


def values_in_words(link: Link) -> str:
    """The numbers of a link; how many there are, where they are too many to list."""
    if len(link.values) > MOST_LISTED:
        return f"{len(link.values)} values"
    whys = dict.fromkeys(link.left_out.values())
    found = [f"{link.values[key]:.4g}" for key in link.keys if key in link.values]
    return ", ".join(found + [f"left out ({why})" for why in whys])


def _link(link: Link, one: str) -> Iterable[str]:
    yield f"{one}{'s' if len(link.keys) > 1 else ''} {keys_in_words(link)}: {values_in_words(link)}"
    for record in link.records:
        known = " BROKEN" if record.broken else " (not here)" if record.checks is None else ""
        yield f"  <- {record.name}{known}"


def _record(record: Record) -> Iterable[str]:
    made = ""
    if origin := record.origin:
        data = f"data {origin.data} {short(origin.fingerprint)}" if origin.data else "no data"
        seal = f"seal {short(origin.seal)}" if origin.seal else "no seal"
        made = f", commit {short(origin.commit) or 'not known'}, {data}, {seal}"
    yield f"{record.name}: {record.status}{made}"
    checks = record.checks or {}
    sound = [f"{part} {short(check.now or '')}" for part, check in checks.items() if check.holds and part != "run"]
    if sound:
        yield f"  as sealed: {', '.join(sound)}"
    if record.unreadable:
        yield f"  BROKEN {record.unreadable}"
    elif record.checks == {}:
        yield "  BROKEN seal.json: missing, or no seal"
    for part, check in checks.items():
        if not check.holds:
            now, sealed = (text if part == "run" else short(text) for text in (check.now or "", check.sealed or ""))
            yield f"  BROKEN {part}: now {now or 'missing'}, sealed {sealed or 'nothing'}"


def chain_as_json(chain: Chain, root: Path) -> dict[str, Any]:
    """The claim as ``claims.json`` has it, and the chain: numbers by part with their runs, records, what is broken.

    Checksums are whole. Of a chain with a broken link the verdict is ``not valid``, without p-values of the claim.
    """
    entry = claims_as_json([chain.verdict], root)["claims"][0]
    if chain.broken:
        entry |= {"verdict": "not valid", "reason": chain.reason, "speaks_for": "", "seeds_needed": None}
        entry |= dict.fromkeys(("p", "p_holm", "p_sign_flip"))
    for part, links in zip(entry["parts"], chain.links, strict=True):
        part["chain"] = [
            {"keys": link.keys, "values": [*map(link.values.get, link.keys)], "runs": [r.name for r in link.records]}
            for link in links
        ]
    entry["runs"] = [_record_as_json(record) for record in chain.records]
    entry["file"] = {"path": chain.file, "sha256": chain.checksum} if chain.file else None
    entry["broken"] = [*chain.broken]
    return entry


def _record_as_json(record: Record) -> dict[str, Any]:
    origin = record.origin
    return {
        "run": record.name,
        "status": record.status,
        "commit": origin.commit if origin else "",
        "data": origin.data if origin else "",
        "data_fingerprint": origin.fingerprint if origin else "",
        "seal": origin.seal if origin else "",
        "checks": {part: check._asdict() | {"holds": check.holds} for part, check in (record.checks or {}).items()},
        "broken": record.broken,
    }
