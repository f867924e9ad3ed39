"""Figures for a paper, drawn from run records. Never imports torch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.errors import IcsbenchError
from icsbench.figures.contract import Figure
from icsbench.figures.style import house_style, save
from icsbench.members import members
from icsbench.record.reader import Run


def draw_all(runs: Sequence[Run], out: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Draw every figure that the finished runs allow; returns the files, a PDF, PNG and CSV for each figure.

    The files lie in ``out``; where the runs fall into several groups that must not share a figure, in a folder of
    ``out`` for each group. ``say`` gets a line for each figure that is left out, with the reason, and one for runs that
    are not finished.

    :raises IcsbenchError: no run is finished, a record is damaged, or ``out`` cannot be written.
    """
    unfinished = [run for run in runs if not run.finished]
    if len(unfinished) == len(runs):
        raise IcsbenchError(f"none of {len(runs)} runs is finished; figures are drawn from finished runs")
    if unfinished:
        say(f"not drawn: {len(unfinished)} of {len(runs)} runs, which are not finished (icsbench runs lists them)")
    groups = group_runs(runs)
    files: list[Path] = []
    with house_style():
        for group in groups:
            folder = out / group.name if len(groups) > 1 else out
            for name, part, kind in plan(group):
                try:
                    figure, rows = kind.page(part)
                except NotMeasured as reason:
                    say(f"not drawn: {folder / name}: {reason}")
                    continue
                files += save(figure, rows, folder / name)
    return files


def plan(group: Group) -> Iterator[tuple[str, Group, Figure[Any]]]:
    """The figures of a group: a name, the runs (all, or those of one learning rate), and the figure to draw of them.

    Draw it within ``house_style``. That raises NotMeasured where the records do not hold what the figure shows.
    """
    figures = sorted(members("figures", Figure).values(), key=lambda figure: (figure.order, figure.name))
    figures = [figure for figure in figures if figure.kind == group.kind]
    for figure in figures:
        if not (figure.per_lr and group.lrs) and figure.applies(group):
            yield figure.name, group, figure
    for lr in group.lrs:
        part = group.at(lr)
        for figure in figures:
            if figure.per_lr and figure.applies(part):
                yield figure.name + (f"-lr{lr:g}" if len(group.lrs) > 1 else ""), part, figure
