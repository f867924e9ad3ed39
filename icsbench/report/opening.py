"""What a page opens with: the training accuracy of the regimes, and what it shows, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib.figure as mpl
from markupsafe import Markup

from icsbench.analysis.groups import Condition, Group, NotMeasured, group_runs
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.training import accuracy_curves
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, mean_interval, paired_difference
from icsbench.analysis.verdicts import Verdict
from icsbench.figures.accuracy import TITLES, draw_curve
from icsbench.figures.caption import caption, seeds_of
from icsbench.figures.style import LEGEND_LINE, Page, above, chance_line, diverged_handle, regime_legend, step_axis
from icsbench.record.reader import Run
from icsbench.record.schema import TRAIN_ACCURACY
from icsbench.report.charts import chart_of
from icsbench.report.svg import Sheet, inline_svg, page_style
from icsbench.report.words import interval

_NAMES = {"none": "without BN", "bn": "with BN", "noisy_bn": "with noisy BN"}
"""The regimes of the debate, in its order."""
_STUDY = "three_regimes"
_ABOUT = ("1", "4", "5")
"""The claims that these curves are about: who trains better, and whose distributions move more."""


@dataclass(frozen=True, eq=False)
class Opening:
    """The runs that a page opens with, of one learning rate; their curves, what they show, the claims about it."""

    runs: Group
    curves: list[Curve]
    sentences: list[str]
    about: list[Verdict]

    def drawn(self, anchor: str, sheet: Sheet) -> tuple[Markup, Markup]:
        """The figure, whose ids begin with ``anchor``, and its numbers as ``chart_of`` has them."""
        with page_style():
            figure = self._draw()
            title = f"{self.runs.name}, training accuracy of the regimes."
            return inline_svg(figure, f"{anchor}--", title, sheet), chart_of(self.curves, TITLES, figure)

    def _draw(self) -> mpl.Figure:
        whole = [curve for curve in self.curves if curve.diverged_at is None]
        legend = regime_legend(self.curves) + ([[diverged_handle()]] if len(whole) < len(self.curves) else [])
        top = 0.26 + LEGEND_LINE * len(legend)
        said = caption(self.runs, seeds_of(whole))
        page = Page(top + 2.7, said, top=top, bottom=0.4, left=0.4, right=0.2)
        [[axes]] = page.axes(1, 1)
        chance_line(axes, 1 / self.runs.num_classes)
        for curve in self.curves:
            draw_curve(axes, curve)
        step_axis(axes, max(int(curve.steps[-1]) for curve in self.curves), label=True)
        axes.set_ylim(0, 102)
        above(axes, "training accuracy (%)")
        page.legend(*legend)
        return page.figure


def opening_of(runs: Sequence[Run], verdicts: Sequence[Verdict] = ()) -> Opening | None:
    """What a page on these runs opens with; None where no study has two of the regimes at one learning rate.

    Of several studies it is the one with the most regimes; of these the main comparison, then that with the most seeds,
    then that with the most steps.

    :raises IcsbenchError: a record is damaged.
    """
    parts = [part for group in group_runs(runs) for lr in group.lrs if (part := _of_the_debate(group.at(lr)))]
    if not parts:
        return None
    part = max(parts, key=_rank)
    about = [verdict for verdict in verdicts if verdict.claim.id in _ABOUT and verdict.verdict != "not measured"]
    curves = [curve for curve in accuracy_curves(part) if curve.quantity == TRAIN_ACCURACY]
    return Opening(part, curves, _sentences(part), about)


def _of_the_debate(group: Group) -> Group | None:
    """The runs of the regimes of the debate; None where there is nothing to compare."""
    runs = tuple(run for run in group.runs if run.regime in _NAMES and not run.regression)
    if len({run.regime for run in runs}) < 2:
        return None
    part = replace(group, runs=runs)
    try:
        quantities = {curve.quantity for curve in accuracy_curves(part)}
    except NotMeasured:  # a regime has several settings, or there is no accuracy
        return None
    return part if TRAIN_ACCURACY in quantities else None


def _rank(part: Group) -> tuple[float, ...]:
    cells, first = part.conditions, part.runs[0]
    study = str(first.setting("experiment"))
    return len(cells), study == _STUDY, min(len(cell.runs) for cell in cells), float(first.setting("steps", 0))


# --- sentences -------------------------------------------------------------------------------------------------------


def _sentences(part: Group) -> list[str]:
    """Where each regime ends, and how far from those before it, seed by seed."""
    cells = part.conditions
    first, second, *others = sorted(cells, key=lambda cell: [*_NAMES].index(cell.regime))
    start = f"{_name(second)} the network ends at {_end(second)} training accuracy, and {_name(first)} at {_end(first)}"
    said = [f"{start[0].upper()}{start[1:]}: {_apart(second, first)}."]
    for cell in others:
        apart = [f"{_apart(cell, other)} against the one {_name(other)}" for other in (first, second)]
        name = _name(cell)
        said.append(f"{name[0].upper()}{name[1:]} it ends at {_end(cell)}: {', and '.join(apart)}.")
    return said


def _name(cell: Condition) -> str:
    return _NAMES[cell.regime]


def _end(cell: Condition) -> str:
    return f"{100 * mean_interval([run.train_accuracy for run in cell.runs]).mean:.1f}\N{NO-BREAK SPACE}%"


def _apart(one: Condition, other: Condition) -> str:
    """``+17.9 points [+15.2, +20.6]`` over the seeds that both have, and where that does not tell them apart."""
    others = {run.seed: run.train_accuracy for run in other.runs}
    pairs = [(100 * run.train_accuracy, 100 * others[run.seed]) for run in one.runs if run.seed in others]
    if not pairs:
        return "no seed in common"
    found = paired_difference([own for own, _ in pairs], [of_other for _, of_other in pairs])
    if found.n < FEWEST_FOR_AN_INTERVAL:
        return f"{found.mean:+.1f} points"
    unclear = " (not told apart)" if found.low <= 0 <= found.high else ""
    return f"{interval(found, 'value', 'points')} points{unclear}"
