"""The command line. Nothing heavy is imported before a command needs it; ``--help`` and ``figures`` load no torch."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from icsbench import __version__, reading, terminal
from icsbench.cli.claims import claims
from icsbench.cli.labs import labs
from icsbench.cli.options import AtStep, ConfigDirs, LockFile, Looks, Overrides, Results, Scale, completed
from icsbench.cli.wandb import wandb
from icsbench.errors import IcsbenchError, TypedWrongly

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Why does Batch Normalization help? Train VGG16 without BN, with BN and with noisy BN, measure what each side "
    "of the internal-covariate-shift debate talks about, and draw the comparison.",
)
app.add_typer(claims, name="claims")
app.add_typer(labs, name="lab")
app.add_typer(wandb, name="wandb")
_HYDRA_COMMAND = {"allow_extra_args": True, "ignore_unknown_options": True}


def _version(value: bool) -> None:
    if value:
        print(f"icsbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(context_settings={**_HYDRA_COMMAND, "help_option_names": []})
def train(context: typer.Context, overrides: Overrides = None, config_dir: ConfigDirs = None) -> None:
    """Train one run: icsbench train norm=noisy_bn seed=3. With --help, the whole configuration."""
    from icsbench.app.folders import also

    with also(config_dir or []):
        _launch([*(overrides or []), *context.args])


@app.command(context_settings=_HYDRA_COMMAND)
def sweep(context: typer.Context, overrides: Overrides = None, config_dir: ConfigDirs = None) -> None:
    """Train many runs (Hydra multirun): icsbench sweep norm=none,bn 'seed=range(0,6)'.

    Keys take several values, separated by commas; experiment=NAME is a sweep from configs/experiment, or with a name of
    your own the folder of the records. Values of results and data.root are folders as they stand, commas and all. Runs
    that are complete are skipped, unfinished ones go on. icsbench train --help shows the whole configuration.
    """
    from icsbench.app.folders import also

    with also(config_dir or []):
        _launch(["hydra.mode=MULTIRUN", *(overrides or []), *context.args])


@app.command(context_settings=_HYDRA_COMMAND)
def reproduce(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of studies (default: those that the scale affords) and Hydra overrides.",
            autocompletion=completed,
            show_default=False,
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the studies, the claims they serve, and what they would cost here.")
    ] = False,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Judge the records, and run only the seeds that open claims need: cheapest first, from look to look.",
        ),
    ] = False,
    most_seeds: Annotated[
        int | None, typer.Option(help="With --until-decided: no more seeds of a study than these.", metavar="N")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="With --until-decided: start nothing that would take longer.", metavar="H")
    ] = None,
    look: Looks = None,
    lock: LockFile = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Run the studies that a scale affords, then figures, claims and report: icsbench reproduce scale=demo|cpu|paper.

    A study is an experiment of configs/experiment with all its runs. Names choose some: icsbench reproduce dose lp
    scale=cpu. Typed again, or after an interruption, it does only what is missing. icsbench train --help shows the
    whole configuration.
    """
    from icsbench import reproducing
    from icsbench.app.folders import also

    with also(config_dir or []):
        arguments = [*(overrides or []), *context.args]
        if until_decided:
            reproducing.until_decided(arguments, most_seeds, hours, look or [], lock)
        elif most_seeds is not None or hours is not None or look or lock:
            raise IcsbenchError("--most-seeds, --hours, --look and --lock go with --until-decided")
        else:
            reproducing.reproduce(arguments, list_)


@app.command()
def figures(
    results: Results,
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; default RESULTS/figures.")] = None,
    at_step: AtStep = None,
) -> None:
    """Redraw table and figures from the records alone."""
    reading.draw(results, out, at_step)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A results folder, or a claims.json.", metavar="A", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another one.", metavar="B", show_default=False)],
    md: Annotated[Path | None, typer.Option(help="Write the tables as Markdown too.", metavar="FILE")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every number as JSON too.", metavar="FILE")] = None,
    scale: Scale = None,
) -> None:
    """Compare two judgements claim by claim: what agrees, drifts or contradicts, and what was done otherwise.

    Records are judged anew, a claims.json is taken as it is. Where both have values of a seed, effects are compared
    seed by seed. Exit code 3: a claim is supported on one side and contradicted on the other.
    """
    from rich.console import Console

    from icsbench.analysis.diff import compare
    from icsbench.report.diff import print_diff, write_diff_json, write_diff_markdown

    found = compare(*(reading.judged(side, scale)[0] for side in (a, b)))
    print_diff(Console(), found)
    written = [write_diff_markdown(found, md)] if md else []
    written += [write_diff_json(found, json)] if json else []
    if written:
        print(f"written: {', '.join(map(str, written))}")
    if found.flips:
        raise typer.Exit(3)


@app.command()
def plan(
    results: Annotated[Path, typer.Argument(help="Folder of run records.", metavar="RESULTS")] = Path("results"),
    look: Looks = None,
    scale: Scale = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what would settle each open claim: how many seeds, and the hours that they cost, cheapest first.

    From the records alone: means and spreads that were found are taken for the true ones, and a run for as long as
    those before it. icsbench reproduce --until-decided makes the runs.
    """
    reading.print_plan(results, look or [], scale, json)


@app.command()
def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="Folder of run records; of two to compare also a claims.json.", metavar="RESULTS", show_default=False
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(help="Another one: both on one page, side by side.", metavar="OTHER", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file; default report.html in RESULTS, or for two comparison.html."),
    ] = None,
    scale: Scale = None,
    at_step: AtStep = None,
    lock: LockFile = None,
) -> None:
    """Write one self-contained HTML page: what the regimes show, the verdicts, the figures and the runs.

    Of two folders, icsbench report A B, the page compares: verdicts side by side, effects seed by seed, and what was
    done otherwise.
    """
    if other is None:
        reading.write_page(results, out or reading.folder_of(results, at_step) / "report.html", scale, at_step, lock)
    elif at_step is not None or lock:
        raise IcsbenchError("--at-step and --lock go with one folder; leave them out to compare two")
    else:
        reading.write_comparison(results, other, out, scale)


@app.command()
def export(
    results: Results,
    out: Annotated[Path, typer.Option(help="Folder to write; new, empty, or an earlier export.", show_default=False)],
    license_: Annotated[
        str | None,
        typer.Option("--license", help="Address of the data's license: https://spdx.org/licenses/CC-BY-4.0, say."),
    ] = None,
    scale: Scale = None,
) -> None:
    """Write records and verdicts as an RO-Crate, with tables for pandas or polars and their Croissant description."""
    from icsbench.analysis.verdicts import judge
    from icsbench.report.export import write_crate

    found = reading.finished(results, scale)
    files = write_crate(found, judge(found), results, out, license_)
    unfinished = sum(not run.finished for run in found)
    if unfinished:
        print(f"not exported: {unfinished} of {len(found)} runs, not finished (icsbench runs lists them)")
    print(f"written to {out}: {', '.join(path.name for path in files)}, records/")


@app.command()
def runs(
    results: Results,
    study: Annotated[
        list[str] | None, typer.Option(help="Only those of this study. Several: give it again.", metavar="STUDY")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="Only complete, diverged, chance, incomplete, running or failed ones.", metavar="STATUS"),
    ] = None,
    regime: Annotated[
        list[str] | None, typer.Option(help="Only those of this norm, or of this lab.", metavar="REGIME")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, with the folders in full.")] = False,
) -> None:
    """List the runs: complete, incomplete, running (with the step they are at), diverged, at chance, failed."""
    from rich.console import Console

    from icsbench.record.reader import load_runs
    from icsbench.record.strict_json import dumps
    from icsbench.report.runs import chosen, print_runs, runs_as_json

    found = chosen(load_runs(results), study or [], status or [], regime or [])
    if json:
        print(dumps(runs_as_json(found), indent=1))
    else:
        print_runs(Console(), found)


@app.command()
def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="data.root=FOLDER to look for CIFAR-10, results=FOLDER.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what this machine can do: torch, cores, bfloat16, GPU, data, disk, W&B. Exit code 1: no run can be made.

    Takes a few seconds, contacts nobody and changes nothing.
    """
    from icsbench.doctor import examine
    from icsbench.record.strict_json import dumps
    from icsbench.report.doctor import lines

    found = examine(overrides or [])
    if json:
        print(dumps({**found.facts, "runs": found.reason is None, "reason": found.reason}, indent=1))
    else:
        print("\n".join(lines(found.facts, found.reason)))
    if found.reason is not None:
        raise typer.Exit(1)


def _launch(arguments: list[str]) -> None:
    from icsbench.app.launch import launch

    launch(arguments)


def main() -> None:
    """Entry point: what the user can put right is one line on stderr.

    Exit 0, 1 (failed), 2 (usage), 3 (icsbench diff: a verdict flips), 4 (icsbench claims: a locked claim was
    changed), 130 (Ctrl-C).
    """
    lost = terminal.prepare()
    code = _run()
    if why := lost():
        print(f"icsbench: not all output could be written to stdout ({why})", file=sys.stderr)
        code = code or 1
    sys.exit(code)


def _run() -> int | str | None:
    try:
        os.getcwd()
    except OSError as error:
        return _failed(f"the current directory cannot be used ({error.strerror}); change to another")
    try:
        app()
    except IcsbenchError as error:
        _failed(str(error))
        return 2 if isinstance(error, TypedWrongly) else 1
    except SystemExit as end:
        if end.code == 130:  # what Typer makes of Ctrl-C, without a word
            print("icsbench: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return end.code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}")


def _failed(line: str) -> int:
    print(f"icsbench: {line}", file=sys.stderr)
    return 1
