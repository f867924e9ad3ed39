"""Labs from the command line: ``icsbench lab NAME``, and the runs of labs in a sweep."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from icsbench.app.compose import composed
from icsbench.app.errors import asking_hydra
from icsbench.app.overrides import as_typed, sweeps
from icsbench.app.progress import Shown, ending, say, who
from icsbench.atomic import write_atomically
from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab, Row
from icsbench.labs.run import rows_of, run
from icsbench.record.writer import folder_of


def run_lab(config: Config, *, in_pool: bool, shown: Callable[[Config], Shown] = Shown) -> dict[str, Any]:
    """Make the record of one run of a lab; its summary.

    :param shown: shows a run; by default on stderr.
    :raises IcsbenchError: what the lab refuses, in one line.
    """
    threads = 1 if in_pool else None

    def train(training: Config) -> dict[str, Any]:
        from icsbench.training import run as make

        summary = make(training, threads=threads, show=shown(training))
        say(f"{who(training)}: {ending(summary)}; record {folder_of(training)}")
        return summary

    return run(config, train=train, threads=threads, show=shown(config))


def run_and_show(lab: Lab, overrides: list[str], out: Path | None) -> None:
    """Run a lab once on what was typed, print what it found, and write its rows as the CSV file ``out``.

    By default that is ``NAME.csv`` in the folder of the record; of a lab with a network, in that of the training.

    :raises IcsbenchError: the overrides, what the lab refuses, or the file, in one line.
    """
    with asking_hydra():
        typed = as_typed(overrides)
        for several in filter(sweeps, typed):
            raise IcsbenchError(f"{several} names several {'networks' if lab.network else 'runs'}; give one")
        config = composed([f"lab={lab.name}", *typed])
    if config.lab is None or config.lab.name != lab.name:
        raise IcsbenchError(f"lab={lab.name} is the lab; leave out what chooses another")
    if out is not None and out.is_dir():
        raise IcsbenchError(f"{out} is a folder; --out names a CSV file")
    summary = run_lab(config, in_pool=False)
    say(f"{who(config)}: {ending(summary)}; record {folder_of(config)}")
    rows = rows_of(config)
    home = replace(config, lab=None) if lab.network else config
    if lab.show is not None:
        lab.show(Console(), home, rows)
    out = out or folder_of(home) / f"{lab.name}.csv"
    _write(out, home, rows)
    print(f"written to {out}")


def _write(path: Path, config: Config, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    table = csv.DictWriter(text, ["run", "seed", *columns], lineterminator="\n")
    table.writeheader()
    table.writerows({"run": config.run_name, "seed": config.seed, **row} for row in rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
