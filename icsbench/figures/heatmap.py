"""Shift of every layer at every probe."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullLocator

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.shift import SHIFT, probed, shift_curve
from icsbench.figures.caption import caption, left_out, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.style import Page, below, beside, power_of_ten, regime_titles, regimes_of, titles_height

_ROWS = {"w1_from_start": "from step 0", "w1": "per step"}
_ROOMY = 5  # columns that have room for three steps below
_MISSING = "0.8"


def _numbers(group: Group) -> list[Curve]:
    """Normalized Wasserstein-1 shift from step 0 and per step, of every layer; runs that diverged left out."""
    conditions = probed(group)
    return [
        shift_curve(condition, quantity, layer)
        for quantity in _ROWS
        for condition in conditions
        for layer in conditions[0].runs[0].layers_of(SHIFT)
    ]


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    what = (
        "Pre-activations, mean over channels, a column per probe; the scale is the standard deviation of the layer at "
        f"the reference, step 0 above, the step before below. From {group.runs[0].setting('probes.samples', 1024):,} "
        "positions a channel, which makes W₁ too large: 1,024 by 5\N{NO-BREAK SPACE}% on average, by "
        "42\N{NO-BREAK SPACE}% at most."
    )
    blank = any(not (curve.mean > 0).all() or np.isinf(curve.mean).any() for curve in curves)
    grey = "Grey: no shift at all, or none that is finite." if blank else ""
    return caption(group, what, grey, seeds_of(curves, interval=False), left_out(group))


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """Layers upwards by depth, one column per probe, one colour scale for all.

    The upper panels are the shift from step 0, the lower ones the shift in one step; grey is a value that is missing,
    not finite or not positive. Colours are logarithmic.
    """
    regimes = regimes_of(curves)
    top = titles_height(regimes)
    page = Page(top + 0.4 + 1.5 * len(_ROWS), text, top=top, bottom=0.4, left=0.52, right=0.68)
    grid = page.axes(len(_ROWS), len(regimes), wspace=0.08, hspace=0.2)
    regime_titles(grid[0], regimes)
    norm = _norm(curves)
    image = None
    for row, (quantity, label) in zip(grid, _ROWS.items(), strict=True):
        of_row = [curve for curve in curves if curve.quantity == quantity]
        for axes, regime in zip(row, regimes, strict=True):
            ticks = 3 if len(regimes) <= _ROOMY else 2
            image = _draw_image(axes, [curve for curve in of_row if curve.regime == regime], norm, ticks)
            if row is grid[-1]:
                below(axes, "step")
            if axes is row[0]:
                beside(axes, f"{label}\nlayer", 16)
            else:
                axes.tick_params(labelleft=False)
    _color_bar(page.figure, image, grid[0][-1], grid[-1][-1])
    return page.figure


def _draw_image(axes: Axes, curves: Sequence[Curve], norm: LogNorm, ticks: int) -> Any:
    values = np.stack([curve.mean for curve in curves])
    steps = curves[0].steps
    axes.set_facecolor(_MISSING)
    masked = np.ma.masked_where(~(np.isfinite(values) & (values > 0)), values)
    image = axes.imshow(masked, origin="lower", aspect="auto", interpolation="nearest", norm=norm, cmap="viridis")
    columns = sorted({round(position) for position in np.linspace(0, len(steps) - 1, ticks)})
    axes.set_xticks(columns, [f"{steps[column]:,}" for column in columns])
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    rows = range(0, len(curves), -(-len(curves) // 7))
    axes.set_yticks(rows, [str(layer.depth) if (layer := curves[row].layer) else "" for row in rows])
    axes.spines[["left", "bottom"]].set_visible(False)
    return image


def _norm(curves: Sequence[Curve]) -> LogNorm:
    values = np.concatenate([curve.mean for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.1, 1.0)
    return LogNorm(low, high if high > low else low * 10)


def _color_bar(figure: mpl.Figure, image: Any, top: Axes, bottom: Axes) -> None:
    upper, lower = top.get_position(), bottom.get_position()
    axes = figure.add_axes((upper.x1 + 0.014, lower.y0, 0.014, upper.y1 - lower.y0))
    bar = figure.colorbar(image, cax=axes, ticks=LogLocator(10), format=power_of_ten)
    bar.outline.set_linewidth(0)  # pyright: ignore[reportCallIssue]
    axes.yaxis.set_minor_locator(NullLocator())
    axes.annotate(
        "W₁ / scale", (1, 0.5), (26, 0), "axes fraction", "offset points", ha="left", va="center", rotation=90
    )


FIGURE = Figure(name="heatmap", order=50, numbers=_numbers, caption=_caption, draw=_draw)
