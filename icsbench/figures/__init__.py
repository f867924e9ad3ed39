"""Figures for a paper, drawn from run records. Never imports torch."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from icsbench.analysis import curves
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.results import Run
from icsbench.errors import IcsbenchError
from icsbench.figures import accuracy, heatmap, moments, protocols, ridges
from icsbench.figures.caption import caption, seeds
from icsbench.figures.style import FEWEST_FOR_AN_INTERVAL, house_style, save

Drawing = tuple[Figure, list[dict[str, Any]]]


def draw_all(runs: Sequence[Run], out: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Draw every figure that the finished runs allow; returns the files, a PDF, PNG and CSV for each figure.

    The files lie in ``out``, or, where the runs fall into several groups that must not share a figure, in a sub-folder
    of ``out`` per group. All but accuracy are drawn per learning rate, with its value in the file's name where there
    are several. ``say`` gets a line for each figure that is left out, with the reason, and one for runs that are not
    finished. Raises IcsbenchError where no run is finished, a record is damaged, or ``out`` cannot be written.
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
            for name, part, draw in _plan(group):
                try:
                    figure, rows = draw(part)
                except NotMeasured as reason:
                    say(f"not drawn: {folder / name}: {reason}")
                    continue
                files += save(figure, rows, folder / name)
    return files


def _plan(group: Group) -> Iterable[tuple[str, Group, Callable[[Group], Drawing]]]:
    yield "accuracy", group, draw_accuracy
    for lr in group.lrs:
        suffix = f"-lr{lr:g}" if len(group.lrs) > 1 else ""
        yield "ridges" + suffix, group.at(lr), draw_ridges
        yield "moments" + suffix, group.at(lr), draw_moments
        yield "heatmap" + suffix, group.at(lr), draw_heatmap
        yield "protocols" + suffix, group.at(lr), draw_protocols


def draw_accuracy(group: Group) -> Drawing:
    """Training and test accuracy of each regime over the steps, and the numbers drawn."""
    drawn = curves.accuracy_curves(group)
    text = caption(group, _seeds_of([curve for curve in drawn if curve.diverged_at is None]))
    return accuracy.draw(drawn, 1 / group.num_classes, text), _rows(drawn)


def draw_ridges(group: Group) -> Drawing:
    """Distributions of pre-activations of three layers over training, and the numbers drawn."""
    drawn = curves.ridges(group)
    chosen = sorted({ridge.seed for ridge in drawn})
    text = caption(
        group,
        "Pre-activations pooled over channels, each distribution scaled to its own maximum,",
        f"tails beyond the range of a row cut off; seed {' and '.join(map(str, chosen))}.",
    )
    return ridges.draw(drawn, text), _rows(drawn)


def draw_moments(group: Group) -> Drawing:
    """Raw shift of the mean and variance of pre-activations, per step and from step 0, and the numbers drawn."""
    drawn = curves.moment_curves(group)
    cut = any((curve.low <= 0).any() for curve in drawn if len(curve.seeds) >= FEWEST_FOR_AN_INTERVAL)
    below = "Intervals that reach below zero go on to the axis." if cut else ""
    text = caption(group, "Pre-activations, mean over channels.", _seeds_of(drawn), below, _left_out(group))
    return moments.draw(drawn, text), _rows(drawn)


def draw_heatmap(group: Group) -> Drawing:
    """Normalised Wasserstein-1 shift of pre-activations by layer and step, and the numbers drawn."""
    drawn = curves.w1_curves(group)
    what = (
        "Pre-activations, mean over channels, a column per probe; the scale is the standard deviation of the layer at "
        "the reference, step 0 above, the step before below."
    )
    blank = any(not (curve.mean > 0).all() or np.isinf(curve.mean).any() for curve in drawn)
    grey = "Grey: no shift at all, or none that is finite." if blank else ""
    text = caption(group, what, grey, _seeds_of(drawn, interval=False), _left_out(group))
    return heatmap.draw(drawn, text), _rows(drawn)


def draw_protocols(group: Group) -> Drawing:
    """Final test accuracy by evaluation protocol, and the numbers drawn."""
    drawn = curves.protocol_accuracies(group)
    number = seeds((point.regime, point.lr, point.interval.n) for point in drawn)
    crosses = ", crosses those that diverged" if any(point.diverged for point in drawn) else ""
    text = caption(group, number, f"Small dots are single seeds{crosses}.")
    return protocols.draw(drawn, curves.protocols(group.runs), 1 / group.num_classes, text), _rows(drawn)


def _seeds_of(drawn: Sequence[curves.Curve], interval: bool = True) -> str:
    return seeds(((curve.regime, curve.lr, len(curve.seeds)) for curve in drawn), interval) if drawn else ""


def _left_out(group: Group) -> str:
    return "Diverged runs are left out." if any(condition.diverged for condition in group.conditions) else ""


def _rows(drawn: Sequence[Any]) -> list[dict[str, Any]]:
    return [row for item in drawn for row in item.rows()]
