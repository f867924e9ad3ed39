"""Shift of the mean and variance of pre-activations."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from icsbench.analysis.quantities.curves import (
    MEAN_FROM_START,
    MEAN_PER_STEP,
    VARIANCE_FROM_START,
    VARIANCE_PER_STEP,
    Curve,
)
from icsbench.figures.style import (
    FEWEST_FOR_AN_INTERVAL,
    LEGEND_LINE,
    Page,
    above,
    beside,
    legend_rows,
    power_of_ten,
    regime_handle,
    regime_style,
    spread,
    step_axis,
)

_COLUMNS = {
    MEAN_PER_STEP: "|μₜ − μₜ₋₁|",
    VARIANCE_PER_STEP: "|σ²ₜ − σ²ₜ₋₁|",
    MEAN_FROM_START: "|μₜ − μ₀|",
    VARIANCE_FROM_START: "|σ²ₜ − σ²₀|",
}


def draw(curves: Sequence[Curve], caption: str) -> Figure:
    """The curves of ``moment_curves``: a row per layer, a column per quantity with one logarithmic axis."""
    depths = sorted({curve.layer.depth for curve in curves if curve.layer})
    legend = legend_rows([regime_handle(regime) for regime in dict.fromkeys(curve.regime for curve in curves)])
    more = LEGEND_LINE * (len(legend) - 1)
    page = Page(0.8 + more + 1.05 * len(depths), caption, top=0.42 + more, bottom=0.4, left=0.52, right=0.2)
    grid = page.axes(len(depths), len(_COLUMNS), wspace=0.36, hspace=0.16)
    last = max(int(curve.steps[-1]) for curve in curves)
    for column, (quantity, title) in enumerate(_COLUMNS.items()):
        of_column = [curve for curve in curves if curve.quantity == quantity]
        limits = _limits(of_column)
        for row, depth in zip(grid, depths, strict=True):
            axes = row[column]
            for curve in of_column:
                if curve.layer and curve.layer.depth == depth:
                    _draw(axes, curve, limits[0])
            _log_axis(axes, limits)
            step_axis(axes, last, label=row is grid[-1], ticks=2)
            if row is grid[0]:
                above(axes, title)
            if column == 0:
                beside(axes, f"layer {depth}", 26)
    page.legend(*legend)
    return page.figure


def _draw(axes: Axes, curve: Curve, floor: float) -> None:
    look = regime_style(curve.regime)
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
