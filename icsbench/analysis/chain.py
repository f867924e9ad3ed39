"""What a verdict rests on, link by link: verdict, statistic, value per seed, runs, and the files of their records.

Each record is compared with its seal. A link that does not hold is named, and the verdict is not valid.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.committed import Entry, as_committed, read_claims
from icsbench.analysis.decision import Look, Registration, Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.registration import judge_by, read_lock
from icsbench.analysis.verdicts import Verdict, decide, judge, measure, refuse_changed
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run, load_runs, run_folders
from icsbench.record.schema import SEAL
from icsbench.record.seal import Check, checks


@dataclass(frozen=True)
class Origin:
    """What a run was made of: the commit of the code, and name and fingerprint of the data; empty where it has none.

    ``seal``: the SHA-256 of its seal, which holds the checksums of all of its files.
    """

    commit: str
    data: str
    fingerprint: str
    seal: str


@dataclass(frozen=True, eq=False)
class Record:
    """The record of one run.

    ``name``: its folder, from the results folder on. ``origin``: None where it is not here, or cannot be read.
    """

    name: str
    status: str
    origin: Origin | None = None
    checks: Mapping[str, Check] | None = None
    """Of each part of it the checksum in the seal, and what it is now; None where the record is not here."""
    unreadable: str = ""
    """Why it cannot be read."""

    @property
    def broken(self) -> list[str]:
        """What of it is not as it was, in a sentence each."""
        if self.checks is None:
            return []
        said = [self.unreadable] if self.unreadable else []
        if not self.checks and not said:
            return [f"{SEAL} of {self.name}: missing, or no seal"]
        return said + [_said(part, check, self.name) for part, check in self.checks.items() if not check.holds]


def _said(part: str, check: Check, name: str) -> str:
    if part == "run":
        return f"the record in {name}: made in another folder, {check.sealed}"
    if check.now is None:
        return f"{part} of {name}: missing"
    return f"{part} of {name}: not what it was when the run was finished"


@dataclass(frozen=True, eq=False)
class Link:
    """Numbers of a part that rest on the same records, by seed (or network or problem, see :attr:`Part.of`)."""

    values: dict[int, float]
    left_out: dict[int, str]
    records: tuple[Record, ...]

    @property
    def keys(self) -> list[int]:
        """The seeds with a number and those without, ascending."""
        return sorted({*self.values, *self.left_out})


@dataclass(frozen=True, eq=False)
class Chain:
    """A verdict with all that it rests on.

    ``links``: those of each part. ``changed``: records that are not what they were and stand behind no number of this
    claim. The correction over all claims leans on them, and a change may be what keeps a record out of this claim.
    """

    verdict: Verdict
    """Where a link is broken, what the records as they are now would say of this claim alone."""
    links: tuple[tuple[Link, ...], ...]
    broken: tuple[str, ...]
    """Each link that does not hold, in a sentence."""
    reason: str
    """Why the verdict is not valid; empty where it is."""
    changed: tuple[Record, ...] = ()
    file: str = ""
    """The ``claims.json`` where the chain ends."""
    checksum: str = ""
    """The SHA-256 of that file."""

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record, once, in the order of the numbers that rest on them."""
        behind = [record for of_part in self.links for link in of_part for record in link.records]
        return tuple({record.name: record for record in (*behind, *self.changed)}.values())


def runs_behind(finding: Finding) -> list[tuple[list[int], tuple[Run, ...]]]:
    """The runs behind the numbers of a part: of neighbouring keys with the same runs in one.

    Where the numbers are not of seeds and their measure does not say which runs are behind each, all runs are.
    """
    runs = finding.group.runs if finding.group else ()
    of_key = {
        key: finding.behind.get(key) or tuple(run for run in runs if run.seed == key or finding.part.of != "seeds")
        for key in sorted({*finding.values, *finding.left_out})
    }
    return [([*keys], behind) for behind, keys in groupby(of_key, key=of_key.__getitem__)]


def link_of(finding: Finding, keys: Iterable[int], records: Iterable[Record] = ()) -> Link:
    """The numbers of a part with these keys, and the records that they rest on."""
    values = {key: finding.values[key] for key in keys if key in finding.values}
    left_out = {key: finding.left_out[key] for key in keys if key in finding.left_out}
    return Link(values, left_out, tuple(records))


def origin_of(run: Run) -> Origin:
    """What a run was made of, as its record states it."""
    data = run.environment.get("data")
    data = data if isinstance(data, dict) else {}
    commit, name, fingerprint = (
        "" if text is None else str(text)
        for text in (run.environment.get("commit"), data.get("name"), data.get("fingerprint"))
    )
    seal = run.path / SEAL
    return Origin(commit, name, fingerprint, _sha256(seal) if seal.is_file() else "")


def chain_of(claim: Claim, results: Path, scale: str | None = None, lock: Path | None = None) -> Chain:
    """The chain of a claim: from the records below ``results``, or from the values in a ``claims.json``.

    :param scale: only runs of this scale count.
    :param lock: judge by this lock.
    :raises IcsbenchError: there are no records or no claims, or they cannot be judged and none of them was changed.
    """
    if not results.is_file():
        return _of_records(claim, results, scale, lock)
    if lock is not None:
        raise IcsbenchError(f"{results}: a claims.json says itself how it was registered; leave --lock out")
    return _of_file(claim, results)


# --- from records ----------------------------------------------------------------------------------------------------


def _of_records(claim: Claim, root: Path, scale: str | None, lock: Path | None) -> Chain:
    locked = None if lock is None else read_lock(lock)
    runs, unreadable = _readable(root)
    kept = [run for run in runs if scale is None or run.setting("scale") == scale]
    if not kept and not unreadable:
        scales = ", ".join(sorted({str(run.setting("scale")) for run in runs}))
        raise IcsbenchError(f"{root}: no run of scale {scale}; there are {scales}")
    known: dict[Path, Record] = {}

    def record(run: Run) -> Record:
        if run.path not in known:
            known[run.path] = Record(_name(run.path, root), run.status, origin_of(run), checks(run.path))
        return known[run.path]

    damaged = [
        Record(_name(path, root), "unreadable", checks=checks(path), unreadable=why) for path, why in unreadable.items()
    ]
    verdict, refused = None, None
    if not damaged:
        try:
            refuse_changed(run for run in runs if run not in kept)
            found = judge(kept) if locked is None else judge_by(kept, locked)
            verdict = next(of for of in found if of.claim.id == claim.id)
        except IcsbenchError as error:
            refused = error
    if verdict is None:
        sealed = [run for run in runs if run.finished or (run.path / SEAL).exists()]
        damaged += [found for found in map(record, sealed) if found.broken]
        if refused is not None and not damaged:
            raise refused
        verdict = _as_they_are(claim, kept)
    links = tuple(_links(finding, record) for finding in verdict.findings)
    used = {found.name for of_part in links for link in of_part for found in link.records}
    broken = tuple(line for found in damaged for line in found.broken)
    changed = tuple(found for found in damaged if found.name not in used)
    return Chain(verdict, links, broken, _invalid(damaged), changed)


def _readable(root: Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs at or below ``root``, and the reason of each that cannot be read, by its folder."""
    try:
        return load_runs(root), {}
    except IcsbenchError:
        folders = [*run_folders(root)] if root.is_dir() else []
        if not folders:
            raise
    runs: list[Run] = []
    unreadable: dict[Path, str] = {}
    for folder in folders:
        try:
            runs += load_runs(folder)
        except IcsbenchError as error:
            unreadable[folder] = str(error)
    return sorted(runs, key=lambda run: (run.path.parent, run.seed)), unreadable


def _as_they_are(claim: Claim, runs: Sequence[Run]) -> Verdict:
    """The verdict on one claim by records some of which were changed: a part without a number has the reason."""
    findings = []
    for part in claim.parts:
        try:
            [(_, found)] = measure(runs, [replace(claim, parts=(part,))])
        except IcsbenchError as error:
            found = [Finding(part, None, {}, {}, str(error))]
        findings += found
    return decide([(claim, findings)])[0]


def _invalid(damaged: Sequence[Record]) -> str:
    if not damaged:
        return ""
    return "a record cannot be read" if all(found.unreadable for found in damaged) else "a record was changed"


def _links(finding: Finding, record: Callable[[Run], Record]) -> tuple[Link, ...]:
    return tuple(link_of(finding, keys, map(record, runs)) for keys, runs in runs_behind(finding))


def _name(path: Path, root: Path) -> str:
    """The folder of a record from ``root`` on; all of its name that counts where ``root`` is inside it."""
    name = path.relative_to(root).as_posix()
    return name if name.count("/") > 1 else "/".join(path.resolve().parts[-3:])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- from a claims.json ----------------------------------------------------------------------------------------------


def _of_file(claim: Claim, path: Path) -> Chain:
    entries = read_claims(path)
    if claim.id not in entries:
        raise IcsbenchError(f"{path}: has no claim {claim.id}; it has {', '.join(entries)}")
    entry = entries[claim.id]
    found = as_committed(entries, path)
    verdicts = decide([(of, findings) for of, findings, _ in found])
    verdict, differs = next((v, why) for v, (*_, why) in zip(verdicts, found, strict=True) if v.claim.id == claim.id)
    verdict = _by_its_look(verdict, entry)
    verdict = replace(verdict, **{key: str(entry.get(key, "")) for key in ("scale", "facts", "command")})
    runs = {str(run): Record(str(run), "not here") for run in entry.get("runs", ())}
    links = tuple(_committed_links(finding, [*runs.values()]) for finding in verdict.findings)
    broken = ([differs] if differs else []) + _differences(verdict, entry)
    reason = "the claim was changed since" if differs else "the file was changed" if broken else ""
    return Chain(verdict, links, tuple(broken), reason, (), str(path), _sha256(path))


def _by_its_look(verdict: Verdict, entry: Entry) -> Verdict:
    """The verdict on a claim that was judged by a lock, at the level of its look, from its corrected p-value as stated.

    The correction is over claims of several looks, whose values at the look before a file does not hold.
    """
    stated = entry.get("registration")
    look = stated.get("look") if isinstance(stated, dict) else None
    if not isinstance(stated, dict) or not stated.get("lock"):
        return verdict
    registration = Registration(
        stated["status"], str(stated["why"]), tuple(map(str, stated["changes"])), str(stated["lock"])
    )
    if look is None:
        return replace(verdict, registration=registration, **{key: entry[key] for key in ("verdict", "reason")})
    look, p = Look(int(look["seeds"]), float(look["level"])), entry["p_holm"]
    alone = decide([(verdict.claim, verdict.findings)], Rule(look.level, exact=True))[0]
    corrected = math.nan if p is None else float(p)
    sound = math.isnan(alone.p) or corrected >= alone.p
    held = alone.verdict if sound and corrected <= look.level else "inconclusive"
    more = {"speaks_for": alone.speaks_for if held == alone.verdict else "", "reason": str(entry["reason"])}
    return replace(alone, verdict=held, p_holm=corrected, registration=replace(registration, look=look), **more)


def _committed_links(finding: Finding, records: Sequence[Record]) -> tuple[Link, ...]:
    """By seed, whose runs are those in a folder ``seed-<n>``; numbers of networks do not say which run drew them."""
    keys = sorted({*finding.values, *finding.left_out})
    if finding.part.of != "seeds":
        return (link_of(finding, keys, records),) if keys else ()
    return tuple(link_of(finding, [key], (r for r in records if r.name.endswith(f"/seed-{key}"))) for key in keys)


def _differences(verdict: Verdict, entry: Entry) -> list[str]:
    """What a file states of a claim that does not follow from its values."""
    said = []
    if verdict.verdict != entry.get("verdict"):
        said.append(f"verdict {entry.get('verdict')}: its values give {verdict.verdict}")
    for finding, stated in zip(verdict.findings, entry["parts"], strict=True):
        mean, low, high, _ = finding.interval
        computed = {"mean": mean, "low": low, "high": high, "p": finding.p, "p_sign_flip": finding.p_sign_flip}
        said += [
            f"{key} of {finding.part.name}, {stated.get(key)}: its values give {value:.6g}"
            for key, value in computed.items()
            if not _same(value, stated.get(key))
        ]
    return said


def _same(value: float, stated: Any) -> bool:
    if stated is None:  # an earlier version may have been without it
        return True
    return isinstance(stated, int | float) and math.isclose(value, stated, rel_tol=1e-6, abs_tol=1e-12)
