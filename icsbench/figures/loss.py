"""Training loss over the steps."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.curves import Curve, diverged_curve, has_key, recorded_curve
from icsbench.analysis.statistics import geometric_band
from icsbench.figures.caption import caption, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.panels import draw_curve, limits, log_axis
from icsbench.figures.style import (
    CROSS,
    LEGEND_LINE,
    Page,
    above,
    beside,
    diverged_handle,
    regime_legend,
    step_axis,
)
from icsbench.record.schema import METRICS, TRAIN_LOSS

_COLUMNS = 3
_BEYOND = 10  # times its first loss: what is shown of a run that diverged


def _numbers(group: Group) -> list[Curve]:
    """Training loss: the geometric mean over the seeds, and the curves of diverged runs."""
    curves: list[Curve] = []
    for condition in group.single_conditions:
        if has_key(condition.trained, TRAIN_LOSS):
            curves.append(recorded_curve(condition, condition.trained, TRAIN_LOSS, TRAIN_LOSS, average=geometric_band))
        alone = (diverged_curve(condition, run, TRAIN_LOSS) for run in condition.diverged)
        curves += [curve for curve in alone if len(curve.steps)]
    if not curves:
        raise NotMeasured(f"no run has a finite {TRAIN_LOSS} in its {METRICS}")
    return curves


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    diverged = any(curve.diverged_at is not None for curve in curves)
    return caption(
        group,
        "Half the sum of squares; means are geometric.",
        seeds_of([curve for curve in curves if curve.diverged_at is None]),
        "A cross ends a run that diverged, there or where it leaves the axis." if diverged else "",
    )


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """A panel per learning rate, with one logarithmic axis.

    Lines are geometric means, bands their intervals; a diverged run is a thin line of its own that ends in a cross
    where it went to NaN, or before, where it leaves the axis, at ten times its first loss or more.
    """
    lrs = sorted({curve.lr for curve in curves})
    legend = regime_legend(curves)
    if any(curve.diverged_at is not None for curve in curves):
        legend.append([diverged_handle()])
    columns = min(len(lrs), _COLUMNS)
    rows = -(-len(lrs) // columns)
    top = 0.26 + LEGEND_LINE * len(legend)
    page = Page(top + 0.4 + 1.6 * rows, text, top=top, bottom=0.4, left=0.52, right=0.2)
    panels = [axes for row in page.axes(rows, columns, wspace=0.16, hspace=0.3) for axes in row]
    between = limits([curve if curve.diverged_at is None else _start(curve) for curve in curves])
    last = max(int(curve.steps[-1]) for curve in curves)
    for position, axes in enumerate(panels):
        if position >= len(lrs):
            axes.set_axis_off()
            continue
        log_axis(axes, *between)
        for curve in curves:
            if curve.lr == lrs[position]:
                _draw_curve(axes, curve, between[1])
        step_axis(axes, last, label=position + columns >= len(lrs))
        if len(lrs) > 1:
            above(axes, f"lr {lrs[position]:g}")
        if position % columns:
            axes.tick_params(labelleft=False)
        else:
            beside(axes, "training loss", 28)
    page.legend(*legend)
    return page.figure


def _start(curve: Curve) -> Curve:
    return replace(curve, mean=curve.mean[curve.mean <= _BEYOND * curve.mean[0]])


def _draw_curve(axes: Axes, curve: Curve, high: float) -> None:
    if curve.diverged_at is None:
        draw_curve(axes, curve)
        return
    look = curve.regime
    steps, values, end = curve.steps, curve.mean, curve.diverged_at
    beyond = np.flatnonzero(values > high)
    if len(beyond):
        end = int(steps[beyond[0]])
        steps, values = steps[: beyond[0] + 1], np.minimum(values[: beyond[0] + 1], high)
    axes.plot(steps, values, linewidth=0.6, color=look.color, linestyle=look.linestyle)
    axes.plot(end, values[-1], **CROSS, color=look.color, clip_on=False)


FIGURE = Figure(
    name="loss",
    order=10,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
    applies=lambda group: group.regression,
    per_lr=False,
    titles={TRAIN_LOSS: "training loss"},
)
