"""Internal covariate shift as optimisation meets it, by layer and step."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from icsbench.analysis.quantities.curves import TRAIN_ACCURACY, TRAIN_LOSS, Curve
from icsbench.analysis.quantities.optimisation import BETA_LR, ICS_COSINE, ICS_L2, ICS_RELATIVE, ICS_SCALED
from icsbench.figures.panels import cosine_panel, draw_curve, guide, limits, log_panel
from icsbench.figures.style import (
    LEGEND_LINE,
    Page,
    above,
    beside,
    chance_line,
    legend_rows,
    regime_handle,
    step_axis,
)

_PROGRESS = {TRAIN_ACCURACY: "training accuracy (%)", TRAIN_LOSS: "training loss"}
_HEIGHT, _APART = 1.06, 0.16
_ROWS = {
    ICS_L2: "‖G − G′‖",
    ICS_RELATIVE: "‖G − G′‖ / ‖G‖",
    ICS_COSINE: "cos(G, G′)",
    ICS_SCALED: "‖G − G′‖ · ‖W‖",
}


def draw(curves: Sequence[Curve], chance: float | None, caption: str) -> Figure:
    """The curves of ``ics_curves``: progress and ``beta lr / 2`` on top, below a row per quantity, a column per layer.

    The layers of a row share an axis. ``chance`` is the accuracy of guessing, a fraction, where there is an accuracy.
    """
    layers = list({curve.layer.path: curve.layer for curve in curves if curve.layer}.values())
    legend = legend_rows([regime_handle(regime) for regime in dict.fromkeys(curve.regime for curve in curves)])
    top, apart, below = 0.25 + LEGEND_LINE * len(legend), 0.34, 0.42 + _HEIGHT * len(_ROWS)
    page = Page(top + _HEIGHT + apart + below, caption, top=top, bottom=0.42, left=0.62, right=0.26)
    last = max(int(curve.steps[-1]) for curve in curves)
    on_top = [quantity for quantity in (*_PROGRESS, BETA_LR) if any(curve.quantity == quantity for curve in curves)]
    [row] = page.axes(1, len(on_top), below=_HEIGHT * len(_ROWS) + apart, wspace=_APART)
    for axes, quantity in zip(row, on_top, strict=True):
        shown = [curve for curve in curves if curve.quantity == quantity]
        above(axes, _PROGRESS.get(quantity, "β · lr / 2"))
        step_axis(axes, last, label=False)
        if quantity == TRAIN_ACCURACY:
            for curve in shown:
                draw_curve(axes, curve, scale=100)
            if chance is not None:
                chance_line(axes, chance)
            axes.set_ylim(0, 102)
        elif quantity == BETA_LR:
            log_panel(axes, shown, limits(shown, 1))
            guide(axes, 1, "β =\n2/lr")
        else:
            log_panel(axes, shown, limits(shown))
    grid = page.axes(len(_ROWS), len(layers), above=_HEIGHT + apart, wspace=_APART, hspace=0.16)
    for row, (quantity, label) in zip(grid, _ROWS.items(), strict=True):
        shown = [curve for curve in curves if curve.quantity == quantity]
        for axes, layer in zip(row, layers, strict=True):
            of_layer = [curve for curve in shown if curve.layer and curve.layer.path == layer.path]
            if quantity == ICS_COSINE:
                cosine_panel(axes, of_layer)
            else:
                log_panel(axes, of_layer, limits(shown))
            step_axis(axes, last, label=row is grid[-1])
            if row is grid[0]:
                above(axes, f"layer {layer.depth}")
        beside(row[0], label, 30)
    page.legend(*legend)
    return page.figure
