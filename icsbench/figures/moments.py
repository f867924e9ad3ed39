"""Shift of the mean and variance of pre-activations."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.shift import (
    MEAN_PER_STEP,
    SHIFT,
    VARIANCE_PER_STEP,
    chosen_layers,
    probed,
    shift_curve,
)
from icsbench.figures.caption import caption, left_out, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.style import (
    FEWEST_FOR_AN_INTERVAL,
    LEGEND_LINE,
    Page,
    above,
    beside,
    power_of_ten,
    regime_legend,
    spread,
    step_axis,
)

_COLUMNS = {
    MEAN_PER_STEP: "|μₜ − μₜ₋₁|",
    VARIANCE_PER_STEP: "|σ²ₜ − σ²ₜ₋₁|",
    "mean_from_start_raw": "|μₜ − μ₀|",
    "variance_from_start_raw": "|σ²ₜ − σ²₀|",
}


def _numbers(group: Group) -> list[Curve]:
    """Raw shifts of mean and variance, per step and from step 0, of the ``chosen_layers``; diverged runs left out."""
    conditions = probed(group)
    return [
        shift_curve(condition, quantity, layer)
        for layer in chosen_layers(conditions[0].runs[0].layers_of(SHIFT))
        for quantity in _COLUMNS
        for condition in conditions
    ]


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    cut = any((curve.low <= 0).any() for curve in curves if len(curve.seeds) >= FEWEST_FOR_AN_INTERVAL)
    below = "Intervals that reach below zero go on to the axis." if cut else ""
    return caption(group, "Pre-activations, mean over channels.", seeds_of(curves), below, left_out(group))


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """A row per layer, a column per quantity with one logarithmic axis."""
    depths = sorted({curve.layer.depth for curve in curves if curve.layer})
    legend = regime_legend(curves)
    more = LEGEND_LINE * (len(legend) - 1)
    page = Page(0.8 + more + 1.05 * len(depths), text, top=0.42 + more, bottom=0.4, left=0.52, right=0.2)
    grid = page.axes(len(depths), len(_COLUMNS), wspace=0.36, hspace=0.16)
    last = max(int(curve.steps[-1]) for curve in curves)
    for column, (quantity, title) in enumerate(_COLUMNS.items()):
        of_column = [curve for curve in curves if curve.quantity == quantity]
        limits = _limits(of_column)
        for row, depth in zip(grid, depths, strict=True):
            axes = row[column]
            for curve in of_column:
                if curve.layer and curve.layer.depth == depth:
                    _draw_curve(axes, curve, limits[0])
            _log_axis(axes, limits)
            step_axis(axes, last, label=row is grid[-1], ticks=2)
            if row is grid[0]:
                above(axes, title)
            if column == 0:
                beside(axes, f"layer {depth}", 26)
    page.legend(*legend)
    return page.figure


def _draw_curve(axes: Axes, curve: Curve, floor: float) -> None:
    look = curve.regime
    axes.plot(curve.steps, np.where(curve.mean > 0, curve.mean, np.nan), color=look.color, linestyle=look.linestyle)
    spread(axes, curve, look.color, floor=floor / 10)


def _log_axis(axes: Axes, limits: tuple[float, float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(LogLocator(10, numticks=4))
    axes.yaxis.set_major_formatter(power_of_ten)
    axes.yaxis.set_minor_locator(NullLocator())


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    values = np.concatenate([curve.mean for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.1, 1.0
    few = [c.values.max() for c in curves if c.values is not None and len(c.values) < FEWEST_FOR_AN_INTERVAL]
    return float(values.min()) / 1.6, float(np.nanmax([values.max(), *few])) * 1.6


FIGURE = Figure(name="moments", order=40, numbers=_numbers, caption=_caption, draw=_draw, titles=_COLUMNS)
