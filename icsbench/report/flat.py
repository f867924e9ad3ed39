"""Flat tables of records and verdicts, as CSV that any reader takes, and their description as Croissant 1.0.

Every column has one type: a column of numbers that are not all whole has a point or an exponent in every row, text is
quoted, truth is ``true`` or ``false``, a missing value is empty; NaN and the infinities are ``NaN``, ``inf``, ``-inf``.
Numbers keep all their digits. Croissant: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from icsbench.analysis.files import write_file
from icsbench.analysis.verdicts import Verdict
from icsbench.record.reader import Run
from icsbench.record.schema import STEP
from icsbench.record.strict_json import dumps

Kind = Literal["integer", "number", "boolean", "text"]

CROISSANT = "http://mlcommons.org/croissant/1.0"
_TYPES: dict[Kind, str] = {"integer": "sc:Integer", "number": "sc:Float", "boolean": "sc:Boolean", "text": "sc:Text"}
_TERMS = (
    *(
        "column",
        "equivalentProperty",
        "extract",
        "field",
        "fileObject",
        "fileProperty",
        "fileSet",
        "format",
        "includes",
        "isLiveDataset",
    ),
    *("jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
    *("samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}


@dataclass(frozen=True)
class Table:
    """A table: the name of its CSV file, what a row is, the type of each column, and the rows, a value per column."""

    name: str
    what: str
    columns: dict[str, Kind]
    rows: Iterable[Sequence[Any]]


def runs_table(places: Mapping[Run, str]) -> Table:
    """One row per run: number, place, kind, outcome, seconds, and what ``config``, ``summary`` and ``environment`` say.

    ``places``: where the files of each run lie. Settings have the name ``config/<dotted key>``, results
    ``summary/<key>``, versions and machine ``environment/<key>``.
    """
    rows: list[dict[str, Any]] = []
    for number, (run, place) in enumerate(places.items()):
        row = {"run": number, "path": place, "kind": run.kind, "status": run.status, "seconds": run.seconds}
        row |= {f"config/{key}": value for key, value in run.settings.items()}
        row |= {f"summary/{key}": value for key, value in _flat(run.summary)}
        row |= {f"environment/{key}": value for key, value in run.environment.items() if not isinstance(value, dict)}
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Kind] = {name: _kind([row.get(name) for row in rows]) for name in names}
    return Table(
        "runs.csv",
        "one row per finished run: its settings, its results, and what it was made with",
        columns,
        [[_plain(row.get(name), kind) for name, kind in columns.items()] for row in rows],
    )


def metrics_table(runs: Iterable[Run]) -> Table:
    """One row per number of ``metrics.jsonl``: run (its number in ``runs.csv``), line, step, key, index, value, text.

    ``index`` is the place in a list, from 0. What is no number stands in ``text``. A null has neither.
    """
    columns: dict[str, Kind] = {"run": "integer", "line": "integer", "step": "integer", "key": "text"}
    columns |= {"index": "integer", "value": "number", "text": "text"}
    return Table("metrics.csv", "one row per number that a run recorded", columns, _metrics(runs))


def _metrics(runs: Iterable[Run]) -> Iterator[tuple[Any, ...]]:
    for number, run in enumerate(runs):
        for line, row in enumerate(run.metrics.rows):
            for key, value in row.items():
                if key == STEP:
                    continue
                items = enumerate(value) if isinstance(value, list) else [(None, value)]
                for index, item in items:
                    is_number = isinstance(item, int | float) and not isinstance(item, bool)
                    shown = (float(item), None) if is_number else (None, _plain(item, "text"))
                    yield (number, line, row[STEP], key, index, *shown)


def values_table(verdicts: Sequence[Verdict]) -> Table:
    """One row per claim, part and seed: the number that the verdict rests on, or why the seed has none.

    Of a ratio the value is the ratio; its logarithm is what the tests average.
    """
    columns: dict[str, Kind] = {"claim": "text", "part": "integer", "measure": "text", "kind": "text", "unit": "text"}
    columns |= {"of": "text", "seed": "integer", "value": "number", "left_out": "text"}
    rows = []
    for verdict in verdicts:
        for number, finding in enumerate(verdict.findings, 1):
            part = finding.part
            start = (verdict.claim.id, number, part.name, part.kind, part.unit, part.of)
            rows += [(*start, seed, float(value), None) for seed, value in finding.values.items()]
            rows += [(*start, seed, None, why) for seed, why in finding.left_out.items()]
    return Table("values.csv", "one row per claim, part and seed: the number that the verdict rests on", columns, rows)


def table_in(path: Path, what: str) -> Table:
    """The table that a CSV file holds; a column is one of numbers where every value that is there is a number."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    columns: dict[str, Kind] = {}
    for place, name in enumerate(header):
        cells = [row[place] for row in rows if row[place]]
        columns[name] = "number" if cells and all(map(_reads_as_number, cells)) else "text"
    return Table(path.name, what, columns, rows)


def write_table(table: Table, folder: Path) -> Path:
    """Write a table as CSV (UTF-8, LF).

    :raises IcsbenchError: the file cannot be written.
    """

    def write(file: IO[bytes]) -> None:
        cells = list(map(_cell_of, table.columns.values()))
        _write_line(file, map(_cell_of("text"), table.columns))
        for row in table.rows:
            _write_line(file, (cell(value) for cell, value in zip(cells, row, strict=True)))

    return write_file(folder / table.name, write)


def croissant(tables: Sequence[Table], files: Mapping[str, dict[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """The Croissant description of a folder of tables, as JSON-LD.

    ``files``: what is known of each file, by its name (``contentSize``, ``encodingFormat``, ``sha256``). ``about``:
    name, description, date and license of the data set.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "version": "1.0.0",
        **about,
        "distribution": [
            {"@type": "cr:FileObject", "@id": table.name, "name": table.name, "contentUrl": table.name}
            | {key: files[table.name][key] for key in ("contentSize", "encodingFormat", "sha256")}
            for table in tables
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": (name := table.name.removesuffix(".csv")),
                "name": name,
                "description": table.what,
                "field": [_field(table, name, column, kind) for column, kind in table.columns.items()],
            }
            for table in tables
        ],
    }


def _field(table: Table, records: str, column: str, kind: Kind) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{column}",
        "name": f"{records}/{column}",
        "dataType": _TYPES[kind],
        "source": {"fileObject": {"@id": table.name}, "extract": {"column": column}},
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _kind(values: Sequence[Any]) -> Kind:
    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return "boolean"
    if types == {int}:
        return "integer"
    return "number" if types and types <= {int, float} else "text"


def _plain(value: Any, kind: Kind) -> Any:
    if kind != "text" or value is None or isinstance(value, str):
        return value
    return dumps(value, default=str)


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _write_line(file: IO[bytes], cells: Iterable[str]) -> None:
    file.write((",".join(cells) + "\n").encode("utf-8", "backslashreplace"))


def _cell_of(kind: Kind) -> Callable[[Any], str]:
    """How a value of a column is written."""
    return lambda value: "" if value is None else _CELLS[kind](value)


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(float(value))


_CELLS: dict[Kind, Callable[[Any], str]] = {
    "integer": str,
    "number": _number,
    "boolean": lambda value: "true" if value else "false",
    "text": lambda value: '"' + value.replace('"', '""') + '"',
}
