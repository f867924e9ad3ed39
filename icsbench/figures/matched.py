"""What an update does to the gradient and the loss, at equal training loss instead of at equal steps."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.updates import (
    BETA_LR,
    DIFFERENCE_RELATIVE,
    ICS_COSINE,
    ICS_RELATIVE,
    ICS_SCALED,
    LOSS_WIDTH,
    MatchedCurve,
    has_landscape,
    matched_curves,
)
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Floats
from icsbench.figures.caption import CUT_OFF, caption, left_out
from icsbench.figures.contract import Figure
from icsbench.figures.panels import COSINE, cosine_axis, extent, guide, log_axis
from icsbench.figures.style import LEGEND_LINE, Page, above, below, legend_rows, regime_handle, regimes_of

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


def _caption(group: Group, curves: Sequence[MatchedCurve]) -> str:
    ics_too = any(curve.quantity == ICS_COSINE for curve in curves)
    most = max(int(curve.n.max()) for curve in curves)
    what = (
        f"Of each run the median over its measurements in a bin of training loss ({len(curves[0].n)} bins equal in log "
        "loss, from the 1\N{NO-BREAK SPACE}% to the 99\N{NO-BREAK SPACE}% quantile of all)"
        + (", ICS and cosine as the median over layers but the first" if ics_too else "")
        + f"; mean over the seeds that have one, {most} at most"
        + (", geometric but for the cosine." if ics_too else ", geometric.")
    )
    bars = "Bars: 95\N{NO-BREAK SPACE}% t-intervals, from 3 seeds on." if most >= FEWEST_FOR_AN_INTERVAL else ""
    cut = CUT_OFF if _cut_off(curves) else ""
    pairs = "Dots: the seeds, where there are two." if any((curve.n == 2).any() for curve in curves) else ""
    lacking = "Bins that less than half of the seeds of a regime have reached are left out for it."
    return caption(group, what, bars, cut, pairs, lacking, left_out(group))


def _draw(group: Group, curves: Sequence[MatchedCurve], text: str) -> mpl.Figure:
    """The loss falls from left to right: for each bin a mean with its interval.

    Where there are two seeds, each is a small dot.
    """
    regimes = regimes_of(curves)
    looks = [{"marker": regime.marker, "markersize": 3.5} for regime in regimes]
    legend = legend_rows([regime_handle(regime, **look) for regime, look in zip(regimes, looks, strict=True)])
    shown = [quantity for quantity in _PANELS if any(curve.quantity == quantity for curve in curves)]
    top, rows = 0.25 + LEGEND_LINE * len(legend), len(shown) // _COLUMNS
    page = Page(top + 0.42 + 1.6 * rows, text, top=top, bottom=0.42, left=0.42, right=0.3)
    grid = page.axes(rows, _COLUMNS, wspace=0.3, hspace=0.24)
    for axes, quantity in zip((axes for row in grid for axes in row), shown, strict=True):
        of_quantity = [curve for curve in curves if curve.quantity == quantity]
        for curve in of_quantity:
            _draw_curve(axes, curve, regimes.index(curve.regime) - (len(regimes) - 1) / 2)
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


def _cut_off(curves: Sequence[MatchedCurve]) -> bool:
    """Whether an interval leaves its panel, which only that of a cosine can."""
    ends = [end for curve in curves if curve.quantity == ICS_COSINE for end in _visible(curve)[1:3]]
    return any(bool(((end < COSINE[0]) | (end > COSINE[1])).any()) for end in ends)


def _draw_curve(axes: Axes, curve: MatchedCurve, place: float) -> None:
    look = curve.regime
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


FIGURE = Figure(
    name="matched",
    order=110,
    numbers=matched_curves,
    caption=_caption,
    draw=_draw,
    applies=lambda group: has_landscape(group.runs),
)
