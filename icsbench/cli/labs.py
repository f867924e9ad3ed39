"""``icsbench lab NAME``: a command for each lab."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from icsbench.cli.options import ConfigDirs, completed
from icsbench.members import member, members

if TYPE_CHECKING:
    from icsbench.labs.contract import Lab


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
                autocompletion=completed,
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
