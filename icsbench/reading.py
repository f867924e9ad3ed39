"""What the commands do that read records: judge, draw, write tables and the page. Imports are made where needed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from icsbench import terminal
from icsbench.errors import IcsbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icsbench.analysis.diff import Side
    from icsbench.analysis.verdicts import Verdict
    from icsbench.record.reader import Run


def folder_of(results: Path, at_step: int | None) -> Path:
    """Where what is judged at a step goes: a folder of its own in that of the records."""
    return results if at_step is None else results / f"at-step-{at_step}"


def loaded(results: Path, at_step: int | None) -> "list[Run]":
    """The runs of a folder, cut at a step where one is given."""
    from icsbench.record.cut import cut
    from icsbench.record.reader import load_runs

    found = load_runs(results)
    return found if at_step is None else [cut(run, at_step) for run in found]


def finished(results: Path, scale: str | None, at_step: int | None = None) -> "list[Run]":
    """The runs that are judged, of one scale where it is given.

    :raises IcsbenchError: there are none, or one that is not of the scale was changed.
    """
    from icsbench.analysis.verdicts import refuse_changed

    found = loaded(results, at_step)
    kept = [run for run in found if scale is None or run.setting("scale") == scale]
    refuse_changed(run for run in found if run not in kept)
    if not kept:
        scales = ", ".join(sorted({str(run.setting("scale")) for run in found}))
        raise IcsbenchError(f"{results}: no run of scale {scale}; there are {scales}")
    return kept


def judged(path: Path, scale: str | None) -> "tuple[Side, list[Run]]":
    """One side of a comparison: a folder of records, judged anew, with its runs; or a claims.json as it is."""
    from icsbench.analysis.committed import read_file
    from icsbench.analysis.diff import side_of
    from icsbench.analysis.verdicts import judge
    from icsbench.report.files import claims_as_json

    runs = finished(path, scale) if path.is_dir() else []
    content = claims_as_json(judge(runs), path) if runs else read_file(path)
    return side_of(content, str(path)), runs


def verdicts_on(runs: "list[Run]", lock: Path | None) -> "list[Verdict]":
    """The verdict on every claim; by a lock on those that it names, and on others that the records measure."""
    from icsbench.analysis.registration import judge_by, read_lock
    from icsbench.analysis.verdicts import judge

    if lock is None:
        return judge(runs)
    locked = read_lock(lock)
    found = judge_by(runs, locked)
    return [verdict for verdict in found if verdict.claim.id in locked.claims or verdict.verdict != "not measured"]


def judge_and_write(
    results: Path, out: Path, scale: str | None, at_step: int | None = None, lock: Path | None = None
) -> bool:
    """Judge every claim; print the verdicts, and write claims.json, .csv and .md.

    :returns: whether a locked claim is as it was locked, with its studies and data; True without a lock.
    """
    from rich.console import Console

    from icsbench.report.console import print_claims
    from icsbench.report.files import write_claims

    found = finished(results, scale, at_step)
    verdicts = verdicts_on(found, lock)
    print_claims(Console(), verdicts, at_step)
    files = write_claims(verdicts, out, results, at_step)
    unfinished = sum(not run.finished for run in found)
    if unfinished:
        print(f"not counted: {unfinished} of {len(found)} runs, not finished (icsbench runs lists them)")
    print(f"written to {out}: {', '.join(path.name for path in files)}")
    return not any(verdict.registration.changes for verdict in verdicts)


def print_plan(results: Path, look_texts: "Sequence[str]", scale: str | None, as_json: bool) -> None:
    """Print what open claims need, as a table or as JSON."""
    from rich.console import Console

    from icsbench.analysis.decision import looks_of
    from icsbench.analysis.plan import needs
    from icsbench.record.strict_json import dumps
    from icsbench.report.plan import needs_as_json, print_needs

    looks = looks_of(look_texts)
    open_claims = needs(finished(results, scale), looks=looks)
    if as_json:
        print(dumps(needs_as_json(open_claims, looks), indent=1))
    else:
        print_needs(Console(), open_claims, looks)


def write_page(
    results: Path, out: Path, scale: str | None, at_step: int | None = None, lock: Path | None = None
) -> None:
    """Write the page of debate, verdicts, figures and runs."""
    terminal.import_matplotlib()
    from icsbench.report.html import write_report

    found = finished(results, scale, at_step)
    print(f"written to {write_report(_with_steps(found), verdicts_on(found, lock), out)}")


def write_comparison(a: Path, b: Path, out: Path | None, scale: str | None) -> None:
    """Write the page of two judgements side by side; without ``out`` as comparison.html where A is."""
    terminal.import_matplotlib()
    from icsbench.analysis.diff import compare
    from icsbench.report.comparison import names_of, write_comparison

    (one, runs_of_one), (other, runs_of_other) = judged(a, scale), judged(b, scale)
    name, other_name = names_of(a, b)
    found = compare(replace(one, name=name), replace(other, name=other_name))
    out = out or (a if a.is_dir() else a.parent) / "comparison.html"
    print(f"written to {write_comparison(found, runs_of_one, runs_of_other, out)}")


def _with_steps(runs: "list[Run]") -> "list[Run]":
    """Where records were cut, without those of labs, which have no steps.

    :raises IcsbenchError: there are no others.
    """
    kept = [run for run in runs if run.at_step is None or run.kind == "training"]
    if not kept:
        raise IcsbenchError("all runs are of labs, which have no steps to be cut at; leave --at-step out")
    return kept


def draw(results: Path, out: Path | None, at_step: int | None = None, *, brief: bool = False) -> None:
    """Print the tables, and draw the figures that the records do not have yet.

    :param brief: print where the files are, and no tables or reasons why a figure was not drawn.
    """
    from rich.console import Console

    from icsbench.report.console import print_results, print_updates

    found = _with_steps(loaded(results, at_step))
    out = out or folder_of(results, at_step) / "figures"
    files, said, fresh = drawn_files(found, results, out)
    if not brief:
        print_results(Console(), found)
        print_updates(Console(), found)
        for line in said:
            print(line)
    news = "written" if fresh else "up to date"
    print(f"{len(files)} files {news} in {out} (figures as PDF, PNG and CSV; tables as CSV and markdown)")


def drawn_files(runs: "list[Run]", results: Path, out: Path) -> tuple[list[Path], list[str], bool]:
    """The files of figures and tables in ``out``, what was said when they were drawn, and whether that was now."""
    from icsbench.analysis.files import Drawn
    from icsbench.report.files import write_results, write_updates

    drawn = Drawn(out, results, runs)
    before = drawn.read()
    if before is not None:
        return *before, False
    terminal.import_matplotlib()
    from icsbench.figures import draw_all

    said: list[str] = []
    files = [*draw_all(runs, out, said.append), *write_results(runs, out), *write_updates(runs, out)]
    drawn.note(files, said)
    return files, said, True
