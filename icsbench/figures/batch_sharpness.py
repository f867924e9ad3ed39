"""Batch sharpness over the steps, beside the edge of stability."""

from collections.abc import Iterable, Sequence

import matplotlib.figure as mpl

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve, mean_curve
from icsbench.analysis.quantities.sharpness import sharpness_over_edge
from icsbench.analysis.quantities.updates import measured
from icsbench.figures.caption import caption, left_out, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.panels import guide, limits, log_panel
from icsbench.figures.style import LEGEND_LINE, Page, above, beside, regime_legend, step_axis
from icsbench.record import schema
from icsbench.record.reader import Run

_QUANTITY = "batch_sharpness/lr_half"


def _has_sharpness(runs: Iterable[Run]) -> bool:
    return any(schema.batch_sharpness("mean") in row for run in runs for row in run.metrics.rows)


def _curves(group: Group) -> list[Curve]:
    return [
        mean_curve(condition, condition.runs, _QUANTITY, [*map(sharpness_over_edge, condition.runs)])
        for condition in measured(group, _has_sharpness, "batch sharpness")
    ]


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    return caption(
        group,
        "Batch sharpness, the mean over batches of g'Hg / ‖g‖² with gradient g and Hessian H of the loss of one batch, "
        "times lr / 2. At 1 a step reverses the gradient of its own batch by its length.",
        seeds_of(curves),
        left_out(group),
    )


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """A panel for each learning rate, all with one axis."""
    rates, legend = sorted({curve.lr for curve in curves}), regime_legend(curves)
    top = 0.26 + LEGEND_LINE * len(legend)
    page = Page(top + 2.1, text, top=top, bottom=0.4, left=0.6, right=0.3)
    [row] = page.axes(1, len(rates), wspace=0.1)
    between = limits(curves, 0.5, 2.0)
    for axes, lr in zip(row, rates, strict=True):
        shown = [curve for curve in curves if curve.lr == lr]
        log_panel(axes, shown, between)
        step_axis(axes, int(max(curve.steps[-1] for curve in shown)), label=True)
        above(axes, f"lr {lr:g}")
        axes.tick_params(labelleft=axes is row[0])
        guide(axes, 1, "2/lr" if axes is row[-1] else "")
    beside(row[0], "batch sharpness × lr / 2", 26)
    page.legend(*legend)
    return page.figure


FIGURE = Figure(
    name="batch-sharpness",
    order=181,
    numbers=_curves,
    caption=_caption,
    draw=_draw,
    applies=lambda group: _has_sharpness(group.runs),
    per_lr=False,
    titles={_QUANTITY: "batch sharpness × lr / 2"},
)
