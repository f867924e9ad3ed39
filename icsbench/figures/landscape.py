"""The loss along the gradient: how much it and its gradient vary within reach of an update.

Santurkar et al. (2018), Fig. 4, 10, 12 and 13; below, versions that are fair to a network with a small gradient.
"""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.updates import (
    BETA,
    DIFFERENCE_HIGH,
    DIFFERENCE_LOW,
    DIFFERENCE_RELATIVE,
    GRADIENT_NORM,
    LOSS_HIGH,
    LOSS_LOW,
    LOSS_WIDTH,
    along_gradient,
    curve_of,
    has_landscape,
    landscape_of,
    learning_rate,
    step_sizes,
    with_landscape,
)
from icsbench.analysis.statistics import Floats
from icsbench.figures.caption import CUT_OFF, caption, geometric, left_out, missing, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.panels import cut_off, extent, limits, log_axis, log_panel, name_line
from icsbench.figures.style import (
    GUIDE,
    LEGEND_LINE,
    Page,
    above,
    regime_legend,
    step_axis,
)

_BANDS = {(LOSS_LOW, LOSS_HIGH): "loss", (DIFFERENCE_LOW, DIFFERENCE_HIGH): "‖g′ − g‖"}
_WHICH = ("smallest", "largest")
_ENDS = tuple(end for ends in _BANDS for end in ends)
_LINES = {
    BETA: "effective β",
    LOSS_WIDTH: "log₁₀(max / min loss)",
    DIFFERENCE_RELATIVE: "max ‖g′ − g‖ / ‖g‖",
    GRADIENT_NORM: "‖g‖",
}
_QUANTITIES = (*_ENDS, BETA, LOSS_WIDTH, DIFFERENCE_RELATIVE, GRADIENT_NORM)


def landscape_curves(group: Group) -> list[Curve]:
    """The ends of the bands of loss and of gradient difference, their relative versions, ``||g||``, and beta."""
    step_sizes(group)
    found = [(condition, [landscape_of(run) for run in condition.runs]) for condition in with_landscape(group)]
    return [
        curve_of(condition, quantity, [of_run[quantity] for of_run in of_runs])
        for quantity in _QUANTITIES
        for condition, of_runs in found
    ]


def edge_of_stability(group: Group) -> tuple[NDArray[np.int64], Floats]:
    """``2 / lr`` at the steps where a run of the group measured the landscape: steps and values, of shape (m,)."""
    run = with_landscape(group)[0].runs[0]
    steps = along_gradient(run).steps
    return steps, 2 / learning_rate(run, steps)


def along(group: Group) -> str:
    """The step sizes along the gradient, for a caption."""
    alphas = step_sizes(group)
    return f"{len(alphas)} step sizes α from {alphas[0]:.4g} to {alphas[-1]:.4g} lr"


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    what = (
        f"Loss and gradient g′ at θ − αg, g the gradient at θ, on the batch of the update, for {along(group)}. "
        "Shaded: from the smallest over α to the largest, each the geometric mean. β: max over α of ‖g′ − g‖ / (α‖g‖)."
    )
    lines = [curve for curve in curves if curve.quantity in _LINES]
    cut = any(cut_off([curve for curve in lines if curve.quantity == quantity]) for quantity in _LINES)
    averages = (geometric(lines), CUT_OFF if cut else "", missing(curves))
    return caption(group, what, seeds_of(lines), *averages, left_out(group))


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """Bands and beta; below them what does not depend on the scale of the loss."""
    edge = edge_of_stability(group)
    legend = regime_legend(curves)
    top = 0.25 + LEGEND_LINE * len(legend)
    page = Page(top + 3.5, text, top=top, bottom=0.42, left=0.42, right=0.3)
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
    look = low.regime
    axes.fill_between(low.steps, low.mean, high.mean, color=look.color, alpha=0.3, linewidth=0)
    for end in (low, high):
        axes.plot(end.steps, end.mean, color=look.color, linestyle=look.linestyle, linewidth=0.6)


FIGURE = Figure(
    name="landscape",
    order=90,
    numbers=landscape_curves,
    caption=_caption,
    draw=_draw,
    applies=lambda group: has_landscape(group.runs),
    titles={
        end: f"{title}, {which} over α"
        for ends, title in _BANDS.items()
        for end, which in zip(ends, _WHICH, strict=True)
    }
    | _LINES,
)
