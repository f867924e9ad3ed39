"""What an update does to the gradient and the loss, at equal training loss instead of at equal steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icsbench.analysis.quantities.optimisation import (
    BETA_LR,
    DIFFERENCE_RELATIVE,
    ICS_COSINE,
    ICS_RELATIVE,
    ICS_SCALED,
    LOSS_WIDTH,
    MatchedCurve,
)
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Floats
from icsbench.figures.panels import COSINE, cosine_axis, extent, guide, log_axis
from icsbench.figures.style import LEGEND_LINE, Page, above, below, legend_rows, regime_handle, regime_style

_PANELS = {
    LOSS_WIDTH: "log₁₀(max / min loss)",
    DIFFERENCE_RELATIVE: "max ‖g′ − g‖ / ‖g‖",
    BETA_LR: "β · lr / 2",
    ICS_RELATIVE: "‖G − G′‖ / ‖G‖",
    ICS_COSINE: "cos(G, G′)",
    ICS_SCALED: "‖G − G′‖ · ‖W‖",
}
_COLUMNS = 3
_APART = 0.11  # from one regime to the next, in widths of a bin


def draw(curves: Sequence[MatchedCurve], caption: str) -> Figure:
    """The curves of ``matched_curves``, the loss falling from left to right: a mean with its interval for each bin.

    Where there are two seeds, each is a small dot.
    """
    regimes = list(dict.fromkeys(curve.regime for curve in curves))
    looks = [{"marker": regime_style(regime).marker, "markersize": 3.5} for regime in regimes]
    legend = legend_rows([regime_handle(regime, **look) for regime, look in zip(regimes, looks, strict=True)])
    shown = [quantity for quantity in _PANELS if any(curve.quantity == quantity for curve in curves)]
    top, rows = 0.25 + LEGEND_LINE * len(legend), len(shown) // _COLUMNS
    page = Page(top + 0.42 + 1.6 * rows, caption, top=top, bottom=0.42, left=0.42, right=0.3)
    grid = page.axes(rows, _COLUMNS, wspace=0.3, hspace=0.24)
    for axes, quantity in zip((axes for row in grid for axes in row), shown, strict=True):
        of_quantity = [curve for curve in curves if curve.quantity == quantity]
        for curve in of_quantity:
            _draw(axes, curve, regimes.index(curve.regime) - (len(regimes) - 1) / 2)
        if quantity == ICS_COSINE:
            guide(axes, 0)
            cosine_axis(axes)
        else:
            also = np.array([1.0] if quantity == BETA_LR else [])
            log_axis(axes, *extent(also, *(part for curve in of_quantity for part in _visible(curve))))
        if quantity == BETA_LR:
            guide(axes, 1, "β =\n2/lr")
        above(axes, _PANELS[quantity])
        edges = of_quantity[0].edges
        for edge in edges[1:-1]:
            axes.axvline(edge, color="0.9", linewidth=0.5, zorder=0)
        log_axis(axes, float(edges[-1]), float(edges[0]), "x")
        if axes in grid[-1]:
            below(axes, "training loss")
        else:
            axes.tick_params(labelbottom=False)
    page.legend(*legend)
    return page.figure


def cut_off(curves: Sequence[MatchedCurve]) -> bool:
    """Whether an interval leaves its panel, which only that of a cosine can."""
    ends = [end for curve in curves if curve.quantity == ICS_COSINE for end in _visible(curve)[1:3]]
    return any(bool(((end < COSINE[0]) | (end > COSINE[1])).any()) for end in ends)


def _draw(axes: Axes, curve: MatchedCurve, place: float) -> None:
    look = regime_style(curve.regime)
    x = curve.x * (curve.edges[1] / curve.edges[0]) ** (-_APART * place)
    mean, low, high, seeds = _visible(curve)
    line: dict[str, Any] = {"linestyle": look.linestyle, "linewidth": 0.9, "marker": look.marker, "markersize": 3}
    axes.plot(x, mean, color=look.color, **line)
    axes.vlines(x, low, high, color=look.color, linewidth=0.8)
    for values in seeds:
        axes.plot(x, values, ".", color=look.color, markersize=2.5, alpha=0.6)


def _visible(curve: MatchedCurve) -> tuple[Floats, Floats, Floats, Floats]:
    """The mean, its interval where the seeds are enough for one, and where there are two, each."""
    enough = curve.n >= FEWEST_FOR_AN_INTERVAL
    low, high = (np.where(enough, end, np.nan) for end in (curve.low, curve.high))
    return curve.mean, low, high, np.where(enough, np.nan, curve.values)
