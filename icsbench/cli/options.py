"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer


def completed(context: typer.Context, incomplete: str) -> list[str]:
    """What an override that is being typed can go on with."""
    from icsbench.app.completion import complete_override

    return complete_override(incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Hydra overrides (key=value, group=option) and Hydra flags.", autocompletion=completed, show_default=False
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
AtStep = Annotated[
    int | None,
    typer.Option(
        help="Take only the first STEPS steps of every run, as if it had ended there; output goes to "
        "RESULTS/at-step-STEPS. For learning rates that do not depend on how long a run is.",
        metavar="STEPS",
    ),
]
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
