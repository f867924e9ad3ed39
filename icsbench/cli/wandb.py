"""``icsbench wandb``: what was mirrored offline, brought to Weights & Biases."""

import typer

from icsbench import publishing
from icsbench.cli.options import Results

wandb = typer.Typer(no_args_is_help=True, help="Bring offline runs and their summary to Weights & Biases.")


@wandb.callback()
def _root() -> None:
    pass


@wandb.command()
def sync(results: Results) -> None:
    """Upload each offline run once, and a run with the summary: shift per layer, figures, verdicts.

    What was uploaded is not uploaded again. What could not be uploaded is named, and the exit code is 1; the same
    command tries it again. A run that is still training waits for the next call.
    """
    publishing.sync(results)
