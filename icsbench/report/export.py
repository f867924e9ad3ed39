"""Records and verdicts as one folder that others can read: an RO-Crate 1.1 of the Process Run Crate profile.

RO-Crate: https://w3id.org/ro/crate/1.1. Process Run Crate: https://w3id.org/ro/wfrun/process/0.5. Each run is a
``CreateAction`` and each verdict a ``ClaimReview``. The records lie below ``records/``, sealed as they were, so that
``icsbench claims`` judges the crate as it judges the folder that it was made from.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from icsbench import __version__
from icsbench.analysis.files import write_file
from icsbench.analysis.verdicts import Verdict
from icsbench.errors import IcsbenchError
from icsbench.record.reader import Run
from icsbench.record.schema import CONFIG, ENVIRONMENT, METRICS, PROBES, SEAL, SUMMARY
from icsbench.report.files import write_claims
from icsbench.report.flat import croissant, metrics_table, runs_table, table_in, values_table, write_table
from icsbench.source import commit

METADATA = "ro-crate-metadata.json"
CROISSANT_FILE = "croissant.json"
PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
_RECORD = (CONFIG, ENVIRONMENT, METRICS, SUMMARY, SEAL)
_EXPORT = "#export"
_NO_LICENSE = "none is stated; ask those who made the records before you use them"  # RO-Crate wants some statement
_COMPLETED = "http://schema.org/CompletedActionStatus"
_MEDIA = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
}
_FILES = {
    "claims.json": "the verdicts and every number behind them",
    "claims.csv": "one row per part of a claim: effect, interval, verdict",
    "claims.md": "the verdicts as a table for people",
}


def write_crate(
    runs: Sequence[Run], verdicts: Sequence[Verdict], results: Path, out: Path, license: str | None = None
) -> list[Path]:
    """Write the finished runs of ``results`` and the verdicts on them as a crate; returns the files at its top.

    The folder ``out`` is there whole or not at all; an earlier crate in it is replaced.

    :param license: the address of the license of the data.
    :raises IcsbenchError: no run is finished, ``out`` lies inside ``results`` or holds other files, or a file cannot be
        read or written.
    """
    finished = [run for run in runs if run.finished]
    if not finished:
        raise IcsbenchError(f"{results}: no finished run to export (icsbench runs {results} says how far they are)")
    if license is not None and not (license.startswith(("https://", "http://")) and license.isprintable()):
        raise IcsbenchError(
            f"--license {license!r}: not an address; it would be one such as https://spdx.org/licenses/CC-BY-4.0"
        )
    _refuse_folder(results, out)
    whole = out.resolve()
    staging = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    try:
        staging.mkdir(parents=True)
        names = _fill(_Crate(staging), finished, verdicts, results, license)
        if whole.exists():
            shutil.rmtree(whole)
        staging.rename(whole)
    except OSError as error:
        raise IcsbenchError(f"{error.filename or out}: {error.strerror}; nothing was exported to {out}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [out / name for name in names]


def _refuse_folder(results: Path, out: Path) -> None:
    """Only a folder that is empty, or a crate of this module and nothing besides, is written to."""
    if out.resolve().is_relative_to(results.resolve()):
        raise IcsbenchError(
            f"{out} lies inside {results}, whose runs would then be there twice; choose a folder outside it"
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise IcsbenchError(f"{out} is a file; choose a folder that is new or empty")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    try:
        graph = json.loads((out / METADATA).read_text(encoding="utf-8"))["@graph"]
        ours = {str(entity["@id"]) for entity in graph}
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if found and _EXPORT not in ours:
        raise IcsbenchError(
            f"{out} is not empty, and no crate of icsbench export; choose a folder that is new or empty"
        )
    listed = {unquote(name, errors="surrogateescape") for name in ours} | {METADATA}
    inside = tuple(name for name in listed if name.endswith(f"/{PROBES}/"))
    foreign = sorted(name for name in found - listed if not name.startswith(inside))
    if foreign:
        raise IcsbenchError(f"{out / foreign[0]} is not of the crate in {out}; move it away, or choose another folder")


class _Crate:
    """A folder that is being filled, and the entities that describe it, by their ``@id``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entities: dict[str, dict[str, Any]] = {}

    def add(self, id: str, kind: str, **properties: Any) -> str:
        """Describe something; what is empty is left out. Returns ``id``."""
        kept = {name: value for name, value in properties.items() if value not in (None, "", [])}
        self.entities[id] = {"@id": id, "@type": kind, **kept}
        return id

    def add_file(self, place: str, description: str = "") -> str:
        """Describe a file of the folder."""
        path = self.folder / place
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return self.add(
            _id(place),
            "File",
            name=path.name,
            description=description,
            encodingFormat=_MEDIA.get(path.suffix, "application/octet-stream"),
            contentSize=str(path.stat().st_size),
            sha256=checksum,
        )

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_file(self.folder / name, lambda file: file.write(text.encode()))


def _fill(
    crate: _Crate, runs: Sequence[Run], verdicts: Sequence[Verdict], results: Path, license: str | None
) -> list[str]:
    """Write everything into the folder of ``crate``; returns the names of the files at its top."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    places = _places(runs, results)
    actions, folders = [], []
    for run, place in places.items():
        _copy(run.path, crate.folder / place)
        folders.append(_add_folder(crate, place))
        actions.append(_add_run(crate, run, place))
    moved = {run: replace(run, path=crate.folder / place) for run, place in places.items()}
    there = [replace(verdict, runs=tuple(moved[run] for run in verdict.runs)) for verdict in verdicts]
    for path in write_claims(there, crate.folder, crate.folder):
        crate.add_file(path.name, _FILES.get(path.name, ""))
    tables = [runs_table(places), metrics_table(runs), values_table(verdicts)]
    for table in tables:
        crate.add_file(write_table(table, crate.folder).name, table.what)
    tables.append(table_in(crate.folder / "claims.csv", _FILES["claims.csv"]))
    studies = sorted({str(run.setting("experiment")) for run in runs})
    about = {
        "name": f"icsbench: {len(runs)} runs of {', '.join(studies)}",
        "description": "Records of runs of icsbench, the verdicts that they give on claims about Batch Normalization, "
        "and tables of both",
        "datePublished": now[:10],
    }
    stated = about | ({"license": license} if license else {})
    crate.write(CROISSANT_FILE, croissant(tables, crate.entities, stated))
    crate.add_file(CROISSANT_FILE, "the tables and the types of their columns, as Croissant 1.0")
    top = [id for id in crate.entities if crate.entities[id]["@type"] == "File" and "/" not in id]
    reviews = [_add_verdict(crate, verdict, places) for verdict in verdicts]
    crate.add(
        _EXPORT,
        "CreateAction",
        name="export",
        description="icsbench export: verdicts and tables, from the records",
        instrument=_ref(_add_software(crate, __version__, commit())),
        object=_refs(folders),
        result=_refs(top),
        endTime=now,
        actionStatus=_COMPLETED,
    )
    if license:
        crate.add(license, "CreativeWork", name=license)
    root = about | {"license": _ref(license) if license else _NO_LICENSE}
    crate.write(METADATA, _metadata(crate, root, [*top, *folders], [*actions, _EXPORT, *reviews]))
    return [METADATA, *top]


def _metadata(crate: _Crate, about: dict[str, Any], parts: Iterable[str], mentions: Iterable[str]) -> dict[str, Any]:
    whole = _Crate(crate.folder)
    whole.add(METADATA, "CreativeWork", about=_ref("./"), conformsTo=_ref("https://w3id.org/ro/crate/1.1"))
    root = about | {"conformsTo": _ref(PROCESS_RUN), "hasPart": _refs(parts), "mentions": _refs(mentions)}
    whole.add("./", "Dataset", **root)
    whole.add(PROCESS_RUN, "CreativeWork", name="Process Run Crate", version="0.5")
    return {
        "@context": ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"],
        "@graph": [*(whole.entities | crate.entities).values()],
    }


def _places(runs: Sequence[Run], results: Path) -> dict[Run, str]:
    """The folder of each run in the crate: ``records/<experiment>/<configuration>/seed-<n>``, or what is above it too.

    A seal names the last two.
    """
    paths = [run.path.resolve() for run in runs]
    base = results.resolve()
    for _ in range(3 - min(len(path.relative_to(base).parts) for path in paths)):
        base = base.parent
    return {run: f"records/{path.relative_to(base).as_posix()}" for run, path in zip(runs, paths, strict=True)}


def _copy(source: Path, target: Path) -> None:
    """Copy what a seal covers, and the seal."""
    probes = [path for path in (source / PROBES).rglob("*.*") if path.is_file() and not path.name.startswith(".")]
    for path in [*(source / name for name in _RECORD), *probes]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _add_folder(crate: _Crate, place: str) -> str:
    """Describe the folder of a run and the files in it."""
    files = [crate.add_file(f"{place}/{name}") for name in _RECORD]
    if (crate.folder / place / PROBES).exists():
        what = "what probes stored; seal.json has the checksum of all its files"
        files.append(crate.add(_id(f"{place}/{PROBES}/"), "Dataset", name=PROBES, description=what))
    return crate.add(_id(f"{place}/"), "Dataset", name=place.removeprefix("records/"), hasPart=_refs(files))


def _add_run(crate: _Crate, run: Run, place: str) -> str:
    """Describe a run: what made it, from what, and which files it left."""
    made = run.environment
    config = _id(f"{place}/{CONFIG}")
    files = [part["@id"] for part in crate.entities[_id(f"{place}/")]["hasPart"]]
    data = made.get("data")
    inputs = [config]
    if isinstance(data, dict) and data.get("fingerprint"):
        print_of = str(data["fingerprint"])
        name = str(data.get("label", data.get("name", "data")))
        inputs.append(crate.add(f"#data-{_id(print_of)}", "CreativeWork", name=name, identifier=print_of))
    outcome = f"{run.status}" + ("" if run.seconds is None else f", {run.seconds:.1f} s")
    on = ", ".join(f"{key} {made[key]}" for key in ("torch", "numpy", "python", "machine", "device") if key in made)
    return crate.add(
        f"#run-{_id(place.removeprefix('records/'))}",
        "CreateAction",
        name=f"{run.setting('experiment')}: {run.path.resolve().parent.name}, seed {run.seed}",
        description=f"{outcome}; {on}" if on else outcome,
        instrument=_ref(_add_software(crate, made.get("icsbench"), made.get("commit"))),
        object=_refs(inputs),
        result=_refs(file for file in files if file != config),
        actionStatus=_COMPLETED,
    )


def _add_software(crate: _Crate, version: Any, made_of: Any) -> str:
    """Describe icsbench at a version and a commit; a record may lack either."""
    stated = [str(part) for part in (version, made_of) if part]
    return crate.add(
        f"#{_id('-'.join(('icsbench', *stated)))}",
        "SoftwareApplication",
        name="icsbench",
        softwareVersion=str(version or ""),
        identifier=str(made_of or ""),
        description=f"made from commit {made_of}" if made_of else "",
    )


def _add_verdict(crate: _Crate, verdict: Verdict, places: dict[Run, str]) -> str:
    """Describe a verdict and the runs that it rests on."""
    claim = verdict.claim
    rating = crate.add(f"#{_id(verdict.verdict)}", "Rating", name=verdict.verdict, alternateName=verdict.verdict)
    disputed = f"; disputed by {claim.disputed_by}" if claim.disputed_by else ""
    return crate.add(
        f"#claim-{_id(claim.id)}",
        "ClaimReview",
        name=f"claim {claim.id}: {verdict.verdict}",
        description=f"claimed by {claim.by}, {claim.where}{disputed}",
        claimReviewed=claim.statement,
        reviewBody=verdict.reason,
        reviewRating=_ref(rating),
        isBasedOn=_refs(_id(f"{places[run]}/") for run in verdict.runs),
        subjectOf=_ref("claims.json"),
    )


def _id(place: str) -> str:
    """The ``@id`` of a file or folder of the crate."""
    return quote(place, errors="surrogateescape")


def _ref(id: str) -> dict[str, str]:
    return {"@id": id}


def _refs(ids: Iterable[str]) -> Any:
    """References to some entities: JSON-LD in compact form has no lists of one."""
    refs = [_ref(id) for id in ids]
    return refs[0] if len(refs) == 1 else refs
