"""``icsbench claims``: verdicts, what they rest on, and what was fixed before the runs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from icsbench import reading
from icsbench.cli.options import AtStep, LockFile, Scale
from icsbench.errors import IcsbenchError


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
    from icsbench.app.locking import made_with, named_studies, of_any_place, overrides_of, settings_of

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
    composed = {name: overrides_of(overrides, own.get(name, [])) for name in named}
    studies = {name: settings_of(name, of) for name, of in composed.items()}
    stated = {name: of_any_place(of) for name, of in composed.items()}
    lock = write_lock(lockfile, chosen, studies, numbers, looks, made_with(), stated)
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
