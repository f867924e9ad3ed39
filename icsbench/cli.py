"""The command line. Nothing heavy is imported before a command needs it; ``--help`` and ``figures`` load no torch."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from icsbench import __version__, reading, terminal
from icsbench.errors import IcsbenchError
from icsbench.members import member, members

if TYPE_CHECKING:
    from icsbench.labs.contract import Lab

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Why does Batch Normalization help? Train VGG16 without BN, with BN and with noisy BN, measure what each side "
    "of the internal-covariate-shift debate talks about, and draw the comparison.",
)
_HYDRA_COMMAND = {"allow_extra_args": True, "ignore_unknown_options": True}


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    from icsbench.app.completion import complete_override

    return complete_override(incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Hydra overrides (key=value, group=option) and Hydra flags.", autocompletion=_complete, show_default=False
    ),
]
ConfigDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config-dir",
        "-cd",
        help="A folder with YAML of your own: experiment/NAME.yaml, norm/NAME.yaml, lab/NAME.yaml, ...",
        metavar="DIR",
        show_default=False,
    ),
]
Looks = Annotated[
    list[str] | None,
    typer.Option(
        help="Judge with N seeds at a level, and with no other number: 12:0.03. Give one for each look.",
        metavar="N:LEVEL",
        show_default=False,
    ),
]
Results = Annotated[Path, typer.Argument(help="Folder of run records.", metavar="RESULTS", show_default=False)]


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
            autocompletion=_complete,
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
            reproducing.until_decided(arguments, most_seeds, hours, look or [])
        elif most_seeds is not None or hours is not None or look:
            raise IcsbenchError("--most-seeds, --hours and --look go with --until-decided")
        else:
            reproducing.reproduce(arguments, list_)


AtStep = Annotated[
    int | None,
    typer.Option(
        help="Take only the first STEPS steps of every run, as if it had ended there; output goes to "
        "RESULTS/at-step-STEPS. For learning rates that do not depend on how long a run is.",
        metavar="STEPS",
    ),
]


@app.command()
def figures(
    results: Results,
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; default RESULTS/figures.")] = None,
    at_step: AtStep = None,
) -> None:
    """Redraw table and figures from the records alone."""
    reading.draw(results, out, at_step)


Scale = Annotated[
    str | None, typer.Option(help="Only runs of this scale, where the folder has several.", metavar="SCALE")
]


LockFile = Annotated[
    Path | None,
    typer.Option(
        "--lock",
        help="Judge by this lock of icsbench claims lock, at its looks.",
        metavar="LOCKFILE",
        show_default=False,
    ),
]


class _Claims(TyperGroup):
    """``icsbench claims RESULTS`` is ``icsbench claims judge RESULTS``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["judge", *args]
        return super().parse_args(ctx, args)


claims = typer.Typer(
    cls=_Claims,
    help="Say which claims of the debate the records support, contradict or leave open: icsbench claims RESULTS.",
)
app.add_typer(claims, name="claims")


@claims.command()
def judge(
    results: Annotated[Path, typer.Argument(help="Folder of run records.", metavar="RESULTS")] = Path("results"),
    list_: Annotated[bool, typer.Option("--list", help="List the catalogue, without any measurement.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for claims.json, .csv and .md; default RESULTS.")] = None,
    scale: Scale = None,
    at_step: AtStep = None,
    lock: LockFile = None,
) -> None:
    """Judge every claim by the records: icsbench claims RESULTS means this.

    With --lock a verdict says whether it is registered, amended or exploratory. Exit code 4: a claim that the lock
    names, its measure, its study or its data were changed after it was locked.
    """
    if not list_:
        if not reading.judge_and_write(results, out or reading.folder_of(results, at_step), scale, at_step, lock):
            raise typer.Exit(4)
        return
    from rich.console import Console

    from icsbench.analysis.claims import all_claims
    from icsbench.report import console

    console.print_catalogue(Console(), all_claims())


@claims.command()
def why(
    claim: Annotated[str, typer.Argument(help="A claim, by its id.", metavar="ID", show_default=False)],
    results: Annotated[Path, typer.Argument(help="Folder of run records, or a claims.json.", metavar="RESULTS")] = Path(
        "results"
    ),
    scale: Scale = None,
    lock: LockFile = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, with whole checksums.")] = False,
) -> None:
    """Show what the verdict on one claim rests on, and check every link of it.

    The verdict, its arithmetic, the number of each seed, the runs behind it, their config, commit and data, and the
    checksums of their files. A link that does not hold is named, and the exit code is 1.
    """
    from icsbench.analysis.chain import chain_of
    from icsbench.analysis.claims import claim_of
    from icsbench.record.strict_json import dumps
    from icsbench.report.chain import chain_as_json, chain_in_words

    chain = chain_of(claim_of(claim), results, scale, lock)
    print(dumps(chain_as_json(chain, results), indent=1) if json else chain_in_words(chain))
    if chain.broken:
        raise typer.Exit(1)


@claims.command("lock")
def lock_claims(
    lockfile: Annotated[
        Path, typer.Argument(help="The file to write: claims.lock.json.", metavar="LOCKFILE", show_default=False)
    ],
    seeds: Annotated[str, typer.Option(help="The seeds that count: 6-29.", metavar="SEEDS", show_default=False)],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Claims by id (default: all with a measure), and overrides as of icsbench sweep.",
            metavar="[CLAIM_ID...] [OVERRIDES...]",
            show_default=False,
        ),
    ] = None,
    look: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge when the first N seeds are there, at LEVEL: 12:0.03. Several add up to at most 0.05; default: "
            "all seeds at 0.05.",
            metavar="N:LEVEL",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(help="A study with overrides of its own: 'long norm=none,bn'.", metavar="'NAME OVERRIDES'"),
    ] = None,
) -> None:
    """Write down what will be judged, before the runs: icsbench claims lock FILE 7 10 --seeds 6-17 scale=cpu.

    Claims with their regions, the code of their measures, the settings and data of their studies, seeds and looks, by
    content hash. icsbench claims RESULTS --lock LOCKFILE then judges by it. Of a part that several studies measure,
    one given by --study counts, otherwise the first.
    """
    from icsbench.analysis.registration import chosen_claims, looks_with, seeds_of, studies_of, write_lock
    from icsbench.app.locking import made_with, named_studies, settings_of

    overrides = [word for word in words or [] if "=" in word]
    chosen = chosen_claims([word for word in words or [] if "=" not in word])
    numbers = seeds_of(seeds)
    looks = looks_with(numbers, look or [])
    if lockfile.exists():
        raise IcsbenchError(f"{lockfile}: is there already, and a lock is not written over; give another name")
    own = named_studies(study or [])
    named = studies_of(chosen, own)
    if unused := [name for name in own if name not in named]:
        raise IcsbenchError(f"--study {unused[0]}: measures none of these claims; leave it out")
    studies = {name: settings_of(name, overrides, own.get(name, [])) for name in named}
    lock = write_lock(lockfile, chosen, studies, numbers, looks, made_with())
    runs_ = sum(map(len, studies.values()))
    unread = [name for name, of in studies.items() if None in of.values()]
    print(f"{lockfile}: {len(chosen)} claims, {len(studies)} studies with {runs_} settings, {len(numbers)} seeds")
    for one in looks:
        print(f"look at {one.seeds} seeds ({', '.join(map(str, numbers[: one.seeds]))}), level {one.level:g}")
    if unread:
        print(f"without data, or they could not be read here: {', '.join(unread)}")
    print(f"seal {lock.seal}; commit the file, or publish the seal, before the first run")


@claims.command()
def amend(
    lockfile: Annotated[Path, typer.Argument(help="A lock.", metavar="LOCKFILE", show_default=False)],
    text: Annotated[str, typer.Argument(help="What was changed, and why.", metavar="TEXT", show_default=False)],
    ids: Annotated[
        list[str] | None, typer.Argument(help="Claims by id; default: all of the lock.", metavar="[CLAIM_ID...]")
    ] = None,
) -> None:
    """Note in a lock, dated, what was changed and why. What was locked stays, and the verdicts say amended."""
    from icsbench.analysis.registration import amend as add

    lock = add(lockfile, text, ids or [])
    print(f"{lockfile}: amendment {len(lock.amendments)}, seal {lock.amendments[-1]['seal']}")


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

    found = compare(reading.judged(a, scale), reading.judged(b, scale))
    print_diff(Console(), found)
    written = [write_diff_markdown(found, md)] if md else []
    written += [write_diff_json(found, json)] if json else []
    if written:
        print(f"written: {', '.join(map(str, written))}")
    if found.flips:
        raise typer.Exit(3)


@claims.command()
def sensitivity(
    results: Annotated[Path, typer.Argument(help="Folder of run records.", metavar="RESULTS")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Folder for sensitivity.csv and .md; default RESULTS.")] = None,
    scale: Scale = None,
    at_step: AtStep = None,
) -> None:
    """Show what each verdict rests on: other windows, protocols and units, a seed less, fewer seeds."""
    from rich.console import Console

    from icsbench.analysis.sensitivity import sensitivities
    from icsbench.analysis.verdicts import judge
    from icsbench.report.sensitivity import print_sensitivity, write_sensitivity

    found = sensitivities(judge(reading.finished(results, scale, at_step)))
    print_sensitivity(Console(), found)
    folder = out or reading.folder_of(results, at_step)
    files = write_sensitivity(found, folder)
    print(f"written to {folder}: {', '.join(path.name for path in files)}")


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
    results: Results,
    out: Annotated[Path | None, typer.Option(help="The HTML file; default RESULTS/report.html.")] = None,
    scale: Scale = None,
    at_step: AtStep = None,
    lock: LockFile = None,
) -> None:
    """Write one self-contained HTML page: the debate, the verdicts, the figures and the runs."""
    reading.write_page(results, out or reading.folder_of(results, at_step) / "report.html", scale, at_step, lock)


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
def runs(results: Results) -> None:
    """List the runs: complete, incomplete, running, diverged, at chance, failed."""
    from rich.console import Console

    from icsbench.record.reader import load_runs
    from icsbench.report.console import print_runs

    print_runs(Console(), load_runs(results))


class _Labs(TyperGroup):
    """One command for each lab that is found."""

    def list_commands(self, ctx: Any) -> list[str]:
        from icsbench.labs.contract import Lab

        return [*members("labs", Lab)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from icsbench.labs.contract import Lab

        return _command_of(member("labs", Lab, cmd_name))


labs = typer.Typer(
    cls=_Labs,
    invoke_without_command=True,
    help="Run a lab, a study without a training of its own: icsbench lab NAME. Without a name, the labs.",
)
app.add_typer(labs, name="lab")


@labs.callback()
def lab(context: typer.Context) -> None:
    """Run a lab, a study without a training of its own: icsbench lab NAME. Without a name, the labs."""
    if context.invoked_subcommand is None:
        from icsbench.labs.contract import Lab

        for name, found in members("labs", Lab).items():
            print(f"{name:<16} {found.label}")


def _command_of(lab: "Lab") -> Any:
    alone = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, add_completion=False)

    @alone.command(
        name=lab.name,
        help=f"{lab.label}: icsbench lab {lab.name} scale=cpu.\n\n{lab.help} icsbench train --help shows the whole "
        f"configuration, configs/lab the lab's own keys.",
    )
    def command(
        overrides: Annotated[
            list[str] | None,
            typer.Argument(
                help="Hydra overrides (key=value, group=option), as of icsbench train.",
                autocompletion=_complete,
                show_default=False,
            ),
        ] = None,
        out: Annotated[
            Path | None, typer.Option(help="CSV file; default NAME.csv in the run's folder.", metavar="FILE")
        ] = None,
        config_dir: ConfigDirs = None,
    ) -> None:
        from icsbench.app.folders import also
        from icsbench.app.lab import run_and_show

        with also(config_dir or []):
            run_and_show(lab, overrides or [], out)

    return typer.main.get_command(alone)


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
        return _failed(str(error))
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
