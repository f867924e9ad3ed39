"""The loss along the gradient: how much it and its gradient vary within reach of an update."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.optimisation import (
    BETA,
    DIFFERENCE_HIGH,
    DIFFERENCE_LOW,
    DIFFERENCE_RELATIVE,
    GRADIENT_NORM,
    LOSS_HIGH,
    LOSS_LOW,
    LOSS_WIDTH,
)
from icsbench.analysis.statistics import Floats
from icsbench.figures.panels import extent, limits, log_axis, log_panel, name_line
from icsbench.figures.style import (
    GUIDE,
    LEGEND_LINE,
    Page,
    above,
    legend_rows,
    regime_handle,
    regime_style,
    step_axis,
)

_BANDS = {(LOSS_LOW, LOSS_HIGH): "loss", (DIFFERENCE_LOW, DIFFERENCE_HIGH): "‖g′ − g‖"}
ENDS = {end for ends in _BANDS for end in ends}
_LINES = {
    BETA: "effective β",
    LOSS_WIDTH: "log₁₀(max / min loss)",
    DIFFERENCE_RELATIVE: "max ‖g′ − g‖ / ‖g‖",
    GRADIENT_NORM: "‖g‖",
}


def draw(curves: Sequence[Curve], edge: tuple[NDArray[np.int64], Floats], caption: str) -> Figure:
    """The curves of ``landscape_curves``: bands and beta, below them what does not depend on the scale of the loss.

    ``edge`` is the line ``2 / lr`` of ``edge_of_stability``: steps and values.
    """
    legend = legend_rows([regime_handle(regime) for regime in dict.fromkeys(curve.regime for curve in curves)])
    top = 0.25 + LEGEND_LINE * len(legend)
    page = Page(top + 3.5, caption, top=top, bottom=0.42, left=0.42, right=0.3)
    grid = page.axes(2, 3, wspace=0.3, hspace=0.26)
    last = max(int(curve.steps[-1]) for curve in curves)
    panels = [axes for row in grid for axes in row]
    for axes, (ends, title) in zip(panels, _BANDS.items(), strict=False):
        low, high = ([curve for curve in curves if curve.quantity == end] for end in ends)
        for lower, upper in zip(low, high, strict=True):
            _band(axes, lower, upper)
        log_axis(axes, *extent(*(end.mean for end in (*low, *high))))
        above(axes, title)
    for axes, (quantity, title) in zip(panels[len(_BANDS) :], _LINES.items(), strict=True):
        shown = [curve for curve in curves if curve.quantity == quantity]
        log_panel(axes, shown, limits(shown, *(edge[1][:1] if quantity == BETA else [])))
        above(axes, title)
        if quantity == BETA:
            axes.plot(*edge, color=GUIDE, linewidth=0.6, zorder=0)
            name_line(axes, edge[1][-1], "2/lr")
    for axes in panels:
        step_axis(axes, last, label=axes in grid[-1])
    page.legend(*legend)
    return page.figure


def _band(axes: Axes, low: Curve, high: Curve) -> None:
    look = regime_style(low.regime)
    axes.fill_between(low.steps, low.mean, high.mean, color=look.color, alpha=0.3, linewidth=0)
    for end in (low, high):
        axes.plot(end.steps, end.mean, color=look.color, linestyle=look.linestyle, linewidth=0.6)
