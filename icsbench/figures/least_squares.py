"""What batch normalization removes of the gradient, by depth and over the steps."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve, mean_curve
from icsbench.analysis.quantities.updates import measured
from icsbench.figures.caption import caption, left_out, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.series import THEORY
from icsbench.figures.style import Page, above, below, beside, regimes_of
from icsbench.record import schema
from icsbench.record.reader import Run

LEAST_SQUARES = "least_squares"
"""The probe, and its folder in a record."""
_COLUMNS = {"removed": "R²: removed in all", "mean_share": "share of the mean", "xhat_share": "share along x̂"}
_RANDOM = "random"
_STEPS = 5
_COLORS = "viridis"


def has_least_squares(runs: Iterable[Run]) -> bool:
    """Whether a run has recorded what batch normalization removes of the gradient."""
    return any(
        schema.least_squares(layer.path, "removed") in row
        for run in runs
        for layer in run.layers_of(LEAST_SQUARES)
        for row in run.metrics.rows
    )


def removed_shares(group: Group) -> list[Curve]:
    """The shares of every layer with batch normalization, and ``random``, over the steps, for each regime."""
    conditions = measured(group, has_least_squares, "what batch normalization removes of the gradient")
    curves = []
    for condition in conditions:
        for quantity in (*_COLUMNS, _RANDOM):
            for layer in condition.runs[0].layers_of(LEAST_SQUARES):
                key = schema.least_squares(layer.path, quantity)
                series = [run.metrics.series(key) for run in condition.runs]
                if all(len(steps) for steps, _ in series):  # else no gradient ever reached the layer
                    curves.append(mean_curve(condition, condition.runs, quantity, series, layer))
    return curves


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    what = (
        "Share of the squared gradient that batch normalization removes on its way back, summed over the channels of a "
        "layer: all that a least-squares fit by a constant and by the normalized values x̂ explains, and its two parts. "
        "On the batch of the update. Dashed: a gradient in a random direction, 2/m in all for m values per channel."
    )
    return caption(group, what, seeds_of(curves, interval=False), left_out(group))


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """A row per regime, a column per share with one axis; the layers from left to right, a line for some steps."""
    regimes = regimes_of(curves)
    measured_at = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = measured_at[np.unique(np.linspace(0, len(measured_at) - 1, _STEPS).round().astype(int))].tolist()
    colors = dict(zip(steps, matplotlib.colormaps[_COLORS](np.linspace(0, 0.9, len(steps))), strict=True))
    page = Page(0.95 + 1.3 * len(regimes), text, top=0.45, bottom=0.42, left=0.78, right=0.2)
    grid = page.axes(len(regimes), len(_COLUMNS), wspace=0.12, hspace=0.18)
    between = extent(*(curve.mean for curve in curves))
    for row, regime in zip(grid, regimes, strict=True):
        for axes, (quantity, title) in zip(row, _COLUMNS.items(), strict=True):
            _panel(axes, [curve for curve in curves if curve.regime == regime], quantity, colors)
            log_axis(axes, *between)
            axes.tick_params(labelbottom=row is grid[-1], labelleft=axes is row[0])
            if row is grid[0]:
                above(axes, title)
            if row is grid[-1]:
                below(axes, "layer")
        beside(row[0], regime.label.replace(" + ", "\n+ "), 30)
    handles = [Line2D([], [], color=color, label=f"step {step:,}") for step, color in colors.items()]
    page.legend([*handles, Line2D([], [], **THEORY, label="random direction")])
    return page.figure


def _panel(axes: Axes, curves: Sequence[Curve], quantity: str, colors: dict[int, Any]) -> None:
    for step, color in colors.items():
        axes.plot(*_by_depth(curves, quantity, step), ".-", color=color, linewidth=0.9, markersize=3)
    depths, random = _by_depth(curves, _RANDOM, next(iter(colors)))
    axes.plot(depths, random if quantity == "removed" else np.array(random) / 2, **THEORY)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _by_depth(curves: Sequence[Curve], quantity: str, step: int) -> tuple[list[int], list[float]]:
    """Depths, and what the quantity is there after a step."""
    shown = [(curve, curve.layer.depth) for curve in curves if curve.layer and curve.quantity == quantity]
    found = [(depth, curve.mean[curve.steps == step]) for curve, depth in shown]
    return [depth for depth, mean in found if len(mean)], [float(mean[0]) for _, mean in found if len(mean)]


FIGURE = Figure(
    name="least-squares",
    order=235,
    numbers=removed_shares,
    caption=_caption,
    draw=_draw,
    applies=lambda group: has_least_squares(group.runs),
)
