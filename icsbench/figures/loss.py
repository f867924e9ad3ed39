"""Training loss over the steps."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icsbench.analysis.quantities.curves import Curve
from icsbench.figures.panels import draw_curve, limits, log_axis
from icsbench.figures.style import (
    CROSS,
    LEGEND_LINE,
    Page,
    above,
    beside,
    diverged_handle,
    legend_rows,
    regime_handle,
    regime_style,
    step_axis,
)

_COLUMNS = 3
_BEYOND = 10  # times its first loss: what is shown of a run that diverged


def draw(curves: Sequence[Curve], caption: str) -> Figure:
    """The curves of ``loss_curves``, a panel per learning rate, with one logarithmic axis.

    Lines are geometric means, bands their intervals; a diverged run is a thin line of its own that ends in a cross
    where it went to NaN, or before, where it leaves the axis, at ten times its first loss or more.
    """
    lrs = sorted({curve.lr for curve in curves})
    legend = legend_rows([regime_handle(regime) for regime in dict.fromkeys(curve.regime for curve in curves)])
    if any(curve.diverged_at is not None for curve in curves):
        legend.append([diverged_handle()])
    columns = min(len(lrs), _COLUMNS)
    rows = -(-len(lrs) // columns)
    top = 0.26 + LEGEND_LINE * len(legend)
    page = Page(top + 0.4 + 1.6 * rows, caption, top=top, bottom=0.4, left=0.52, right=0.2)
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
                _draw(axes, curve, between[1])
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


def _draw(axes: Axes, curve: Curve, high: float) -> None:
    if curve.diverged_at is None:
        draw_curve(axes, curve)
        return
    look = regime_style(curve.regime)
    steps, values, end = curve.steps, curve.mean, curve.diverged_at
    beyond = np.flatnonzero(values > high)
    if len(beyond):
        end = int(steps[beyond[0]])
        steps, values = steps[: beyond[0] + 1], np.minimum(values[: beyond[0] + 1], high)
    axes.plot(steps, values, linewidth=0.6, color=look.color, linestyle=look.linestyle)
    axes.plot(end, values[-1], **CROSS, color=look.color, clip_on=False)
