"""Registration: a lock says what will be judged before runs exist, and a verdict says whether that was kept to.

A lock is a JSON file: claims with their regions, the code of their measures, the settings and data of their studies,
seeds and looks. Its seal is the SHA-256 of all that; each amendment is sealed together with the seal before it. Anyone
can compute a seal, so it shows a change only to those who know the first one: commit the lock, or publish its seal.

**Looks.** A claim is judged when its studies have the first ``n`` seeds of the lock for a look of ``n`` seeds, on these
seeds alone, at the level of the look, by Student's t and exact sign flips. Family of the first look: all locked claims.
Of each later one: those that are still open. Claims on the same measurements are one member.

**Code.** What is covered of a measure: see :mod:`icsbench.analysis.measure_code`; and that of the tests,
``statistics`` and ``decision``.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.decision import LEVEL, Look, Registration, Rule, looks_of
from icsbench.analysis.files import write_file
from icsbench.analysis.measure_code import checksum_of, described, reached_from
from icsbench.analysis.statistics import MOST_FOR_SIGN_FLIPS
from icsbench.analysis.verdicts import Verdict, decide, measure, refuse_changed
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.strict_json import dumps, loads

NAME = "claims.lock.json"
"""The usual name of a lock."""

_TESTS = ("icsbench.analysis.decision", "icsbench.analysis.statistics")
_WHAT_IT_IS = "a lock is written by icsbench claims lock"

Studies = Mapping[str, Mapping[str, str | None]]
"""By study the folders of its configurations (with their fingerprints), each with that of its data, None: not read."""


# --- what a lock holds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lock:
    """A lock as its file has it; ``seal`` is that of the lock without amendments."""

    path: Path
    seal: str
    locked: datetime
    seeds: tuple[int, ...]
    looks: tuple[Look, ...]
    claims: dict[str, dict[str, Any]]
    studies: Studies
    overrides: Mapping[str, tuple[str, ...]]
    """What each study is composed with."""
    modules: dict[str, str]
    amendments: tuple[dict[str, Any], ...]


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds as they are typed: ``6-17``, ``0,1,5-9``.

    :raises IcsbenchError: it is something else, or names a seed twice.
    """
    if not re.fullmatch(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*", text):
        raise IcsbenchError(f"--seeds {text}: not seeds; they are written 6-17, or 0,1,5-9")
    bounds = [list(map(int, part.split("-"))) for part in text.split(",")]
    if any(b[-1] < b[0] or b[-1] - b[0] >= 10_000 for b in bounds):
        raise IcsbenchError(f"--seeds {text}: a range goes from its first seed up to its last, 6-17")
    seeds = [seed for part in bounds for seed in range(part[0], part[-1] + 1)]
    if len({*seeds}) < len(seeds):
        raise IcsbenchError(f"--seeds {text}: names a seed twice")
    return tuple(seeds)


def looks_with(seeds: Sequence[int], texts: Sequence[str]) -> tuple[Look, ...]:
    """Looks as they are typed, ``12:0.03``; without any, one with all seeds at the whole level.

    :raises IcsbenchError: as of :func:`icsbench.analysis.decision.looks_of`, or they need other seeds than there are.
    """
    looks = looks_of(texts or [f"{len(seeds)}:{LEVEL}"])
    last = looks[-1].seeds
    if last != len(seeds):
        raise IcsbenchError(f"the last look has {last} seeds, and --seeds names {len(seeds)}; name as many")
    if last > MOST_FOR_SIGN_FLIPS:
        raise IcsbenchError(f"a look with {last} seeds; {MOST_FOR_SIGN_FLIPS} are the most for exact sign flips")
    return looks


def chosen_claims(ids: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these ids; without any, all that have parts.

    :raises IcsbenchError: there is no such claim, or it has no parts.
    """
    claims = {claim.id.lower(): claim for claim in all_claims()}
    for id in ids:
        if id.lower() not in claims:
            close = difflib.get_close_matches(id.lower(), claims, n=1, cutoff=0.5)
            hint = f"did you mean {claims[close[0]].id}?" if close else "icsbench claims --list shows them"
            raise IcsbenchError(f"no claim {id!r}; {hint}")
        if not claims[id.lower()].parts:
            raise IcsbenchError(f"claim {id} has no parts, so there is nothing to lock")
    chosen = [claims[id.lower()] for id in ids] or [claim for claim in claims.values() if claim.parts]
    return tuple(dict.fromkeys(chosen))


def studies_of(claims: Iterable[Claim], named: Iterable[str]) -> tuple[str, ...]:
    """The studies that claims are judged on: of each part the first one that is named, or else its first."""
    names = {*named}
    return tuple(dict.fromkeys(_study(part, names) for claim in claims for part in claim.parts))


def _study(part: Part, named: Iterable[str]) -> str:
    return next((study for study in part.studies if study in {*named}), part.studies[0])


def write_lock(
    path: Path,
    claims: Sequence[Claim],
    studies: Studies,
    seeds: Sequence[int],
    looks: Sequence[Look],
    made: Any,
    overrides: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Lock:
    """Write a lock of these claims.

    :param made: what it was made with, ``icsbench`` and ``commit``.
    :param overrides: what each study was composed with.
    :raises IcsbenchError: there is such a file already, or it cannot be written.
    """
    if path.exists():
        raise IcsbenchError(f"{path}: is there already, and a lock is not written over; give another name")
    entries = {claim.id: _content(claim, studies) for claim in claims}
    modules = {module for entry in entries.values() for part in entry["parts"].values() for module in part["modules"]}
    body = {
        "version": 1,
        **made,
        "locked": datetime.now(UTC).isoformat(),
        "seeds": list(seeds),
        "looks": [look._asdict() for look in looks],
        "claims": {id: entry | {"sha256": _sha256(entry)} for id, entry in entries.items()},
        "studies": {study: dict(of) for study, of in studies.items()},
        "overrides": {study: [*overrides.get(study, ())] for study in studies},
        "modules": {module: checksum_of(module) for module in sorted({*modules, *_TESTS})},
    }
    _write(path, body | {"seal": _sha256(body), "amendments": []})
    return read_lock(path)


def amend(path: Path, text: str, ids: Sequence[str]) -> Lock:
    """Add an amendment to a lock: what was changed and why, dated now, for these claims or for all.

    :raises IcsbenchError: the lock cannot be read, has no such claim, or the text is empty.
    """
    lock = read_lock(path)
    for id in ids:
        if id not in lock.claims:
            raise IcsbenchError(f"{path}: has no claim {id!r}; it has {', '.join(lock.claims)}")
    if not text.strip():
        raise IcsbenchError("an amendment says what was changed and why")
    entry = {"date": datetime.now(UTC).isoformat(), "claims": [*ids] or [*lock.claims], "text": text.strip()}
    before = lock.amendments[-1]["seal"] if lock.amendments else lock.seal
    document = loads(path.read_text(encoding="utf-8"))
    document["amendments"].append(entry | {"seal": _sha256([before, entry])})
    _write(path, document)
    return read_lock(path)


def read_lock(path: Path) -> Lock:
    """A lock, as it was made.

    :raises IcsbenchError: it cannot be read, is something else, or it or an amendment was edited since.
    """
    try:
        document = loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IcsbenchError(f"{path}: cannot be read ({error.strerror}); {_WHAT_IT_IS}") from None
    except (ValueError, RecursionError):
        raise IcsbenchError(f"{path}: not JSON; {_WHAT_IT_IS}") from None
    if not isinstance(document, dict) or not {"seal", "amendments", "claims"} <= document.keys():
        raise IcsbenchError(f"{path}: not a lock; {_WHAT_IT_IS}")
    body = {key: value for key, value in document.items() if key not in ("seal", "amendments")}
    if _sha256(body) != document["seal"]:
        raise IcsbenchError(f"{path}: the lock was edited after it was made; put back what was locked")
    try:
        _check_amendments(path, document)
        return Lock(
            path,
            document["seal"],
            datetime.fromisoformat(body["locked"]).astimezone(UTC),
            tuple(map(int, body["seeds"])),
            tuple(Look(int(look["seeds"]), float(look["level"])) for look in body["looks"]),
            {id: {"statement": entry["statement"], "by": entry["by"], "parts": entry["parts"]}
             for id, entry in body["claims"].items()},
            {study: dict(of) for study, of in body["studies"].items()},
            {study: tuple(map(str, of)) for study, of in body["overrides"].items()},
            dict(body["modules"]),
            tuple(document["amendments"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IcsbenchError(f"{path}: not a lock ({type(error).__name__}: {error}); {_WHAT_IT_IS}") from None


def _check_amendments(path: Path, document: Mapping[str, Any]) -> None:
    before = document["seal"]
    for number, entry in enumerate(document["amendments"], 1):
        if _sha256([before, {key: entry[key] for key in ("date", "claims", "text")}]) != entry["seal"]:
            raise IcsbenchError(f"{path}: amendment {number} was edited after it was made; put back what it said")
        before = entry["seal"]


def _write(path: Path, document: Any) -> None:
    text = dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_file(path, lambda file: file.write(text.encode()))


def _sha256(content: Any) -> str:
    return hashlib.sha256(dumps(content, sort_keys=True).encode()).hexdigest()


def _content(claim: Claim, studies: Iterable[str]) -> dict[str, Any]:
    """What of a claim bears on its verdict, as the file of a lock gives it back."""
    entry = {"statement": claim.statement, "by": claim.by, "parts": {p.name: _part(p, studies) for p in claim.parts}}
    return loads(dumps(entry))


def _part(part: Part, studies: Iterable[str]) -> dict[str, Any]:
    modules: set[str] = set()
    stated = ("what", "studies", "kind", "unit", "per", "of", "low", "high", "below", "above")
    return {
        **{key: getattr(part, key) for key in stated},
        "study": _study(part, studies),
        "measure": described(part.measure, modules),
        "modules": sorted({reached for module in modules for reached in reached_from(module)}),
    }


# --- verdicts by a lock ----------------------------------------------------------------------------------------------


def judge_by(runs: Sequence[Run], lock: Lock) -> list[Verdict]:
    """The verdict on each claim of the catalogue and of the lock, those of the lock at its looks, and how registered.

    A claim that the lock does not name is judged as without one, in a family of its own.

    :raises IcsbenchError: as :func:`icsbench.analysis.verdicts.judge`.
    """
    refuse_changed(runs)
    catalogue = {claim.id: claim for claim in all_claims()}
    verdicts = at_looks(runs, lock)
    verdicts = {id: replace(v, registration=_registration(v, look, lock)) for id, (v, look) in verdicts.items()}
    others = [claim for claim in catalogue.values() if claim.id not in lock.claims]
    outside = replace(_nothing(lock), why=f"{lock.path.name} does not name this claim")
    verdicts |= {v.claim.id: replace(v, registration=outside) for v in decide(measure(runs, others))}
    return [verdicts[id] for id in dict.fromkeys([*catalogue, *lock.claims])]


def _nothing(lock: Lock) -> Registration:
    return Registration("exploratory", lock=lock.seal, locked=lock.locked.isoformat())


def _as_locked(claim: Claim | None, id: str, entry: Mapping[str, Any]) -> Claim:
    """A claim whose parts are measured by the studies that the lock names; without parts where it is there no more."""
    if claim is None:
        needs = "its claim in the catalogue back, which the lock names"
        return Claim(_plain(id), _plain(entry["statement"]), _plain(entry["by"]), "", needs=needs)
    of_part = {name: (str(part["study"]),) for name, part in entry["parts"].items()}
    return replace(claim, parts=tuple(replace(p, studies=of_part.get(p.name, p.studies)) for p in claim.parts))


def at_looks(runs: Sequence[Run], lock: Lock) -> dict[str, tuple[Verdict, Look | None]]:
    """Of each locked claim the verdict of the last look that its records have reached, and that look.

    :raises IcsbenchError: as :func:`icsbench.analysis.verdicts.measure`.
    """
    catalogue = {claim.id: claim for claim in all_claims()}
    claims = {id: _as_locked(catalogue.get(id), id, entry) for id, entry in lock.claims.items()}
    present = {study: _present(runs, study, lock.studies.get(study, {})) for study in _all_studies(claims.values())}
    seeds = {id: set.intersection({*lock.seeds}, *(present[s] for s in of.studies)) for id, of in claims.items()}
    member = {
        id: frozenset((name, part["measure"], part["study"]) for name, part in entry["parts"].items())
        for id, entry in lock.claims.items()
    }
    found: dict[str, tuple[Verdict, Look | None]] = {
        id: (_not_yet(claim, lock, seeds[id]), None) for id, claim in claims.items()
    }
    still_open = [*claims]
    for look in lock.looks:
        needed = {*lock.seeds[: look.seeds]}
        here = [claims[id] for id in still_open if needed <= seeds[id] and claims[id].parts]
        measured = measure([run for run in runs if run.seed in needed], here) if here else []
        judged = decide(measured, Rule(look.level, exact=True), len({member[id] for id in still_open}))
        found |= {verdict.claim.id: (verdict, look) for verdict in judged}
        closed = {v.claim.id for v in judged if v.verdict in ("supported", "contradicted")}
        still_open = [id for id in still_open if id not in closed]
    return found


def _all_studies(claims: Iterable[Claim]) -> set[str]:
    return {study for claim in claims for study in claim.studies}


def _present(runs: Sequence[Run], study: str, locked: Iterable[str]) -> set[int]:
    """The seeds of which every configuration of a study has a finished run: of those locked, or, where there are
    others, of those found, whose verdict then says that settings were changed.
    """
    found: dict[str, set[int]] = {}
    for run in runs:
        if run.setting("experiment") == study and run.finished:
            found.setdefault(run.path.parent.name, set()).add(run.seed)
    wanted = {*found} if {*found} - {*locked} else {*locked}
    return set.intersection(*(found.get(folder, set()) for folder in wanted)) if wanted else set()


def _not_yet(claim: Claim, lock: Lock, seeds: set[int]) -> Verdict:
    first = lock.looks[0].seeds
    there = len(seeds & {*lock.seeds[:first]})
    why = f"not measured yet: {there} of the {first} seeds of the first look are finished in every study of it"
    return Verdict(claim, "not measured", "", why if claim.parts else f"it needs {claim.needs}")


def _registration(verdict: Verdict, look: Look | None, lock: Lock) -> Registration:
    changes = tuple(map(_plain, _changes(verdict, lock)))
    older, undated = [], 0
    for run in verdict.runs:
        began, stated = run.began
        undated += not stated
        if began <= lock.locked:
            older.append(f"{run.path.parent.name}/{run.path.name} began {began:%Y-%m-%d %H:%M:%S}")
    said = []
    if older:
        said.append(f"{len(older)} of {len(verdict.runs)} records are older than the lock, one is {older[0]} (UTC)")
    said += [f"changed after it was locked: {'; '.join(changes)}"] if changes else []
    said += [f"when it began is that of its oldest file for {undated} records"] if undated else []
    status = "exploratory" if older else "amended" if changes else "registered" if verdict.runs else "locked"
    said += [] if verdict.runs else ["its first look is still to come"]
    return replace(_nothing(lock), status=status, why="; ".join(said), changes=changes, look=look)


def _changes(verdict: Verdict, lock: Lock) -> Iterator[str]:
    """What is not as the lock has it, in a sentence each."""
    claim, before = next((c for c in all_claims() if c.id == verdict.claim.id), None), lock.claims[verdict.claim.id]
    if claim is None:
        yield "the catalogue has this claim no more"
    else:
        yield from _differences(before, _content(claim, lock.studies))
    modules = {*_TESTS, *(module for part in before["parts"].values() for module in part["modules"])}
    if others := sorted(module for module in modules if checksum_of(module) != lock.modules[module]):
        yield f"code of {', '.join(others)}"
    strange: dict[str, set[str]] = {}
    for run in verdict.runs:
        study, folder = str(run.setting("experiment")), run.path.parent.name
        if folder not in lock.studies.get(study, {}):
            strange.setdefault(f"settings of {study}: {folder} was not locked", set())
            continue
        data, now = lock.studies[study][folder], run.settings.get("data.fingerprint")
        if data is not None and data != now:
            strange.setdefault(f"data of {study}: fingerprint was {data}, is {now}", set())
        if run.at_step is not None:
            strange.setdefault(f"the records are cut at step {run.at_step}", set())
    yield from strange
    for number, entry in enumerate(lock.amendments, 1):
        if verdict.claim.id in entry["claims"]:
            yield f"amendment {number} of {entry['date'][:10]}: {entry['text']}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in ("statement", "by"):
        if before[key] != now[key]:
            yield f"{key} was {before[key]!r}, is {now[key]!r}"
    for name in dict.fromkeys([*before["parts"], *now["parts"]]):
        one, other = before["parts"].get(name), now["parts"].get(name)
        if one is None or other is None:
            yield f"part {name} was {'added' if one is None else 'taken out'}"
            continue
        for key in (key for key in other if key != "modules" and one[key] != other[key]):
            yield f"{key} of {name} was {one[key]}, is {other[key]}"


def _plain(text: Any) -> str:
    """A text of a lock, which may be a stranger's, that no terminal obeys."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
