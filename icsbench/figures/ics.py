"""Internal covariate shift as optimisation meets it: of two layers over the steps.

Santurkar et al. (2018), Definition 2.1 and Fig. 3, with the relative ICS, ICS times the norm of the weights (which no
rescaling of weights before BN changes), and how near the edge of stability the update was.
"""

from collections.abc import Sequence

import matplotlib.figure as mpl

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.updates import (
    BETA_LR,
    ICS,
    ICS_COSINE,
    ICS_L2,
    ICS_RELATIVE,
    ICS_SCALED,
    curve_of,
    has_ics,
    has_landscape,
    ics_of,
    landscape_of,
    measured,
)
from icsbench.figures.caption import CUT_OFF, caption, geometric, left_out, missing, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.panels import COSINE, cosine_panel, cut_off, draw_curve, guide, limits, log_panel
from icsbench.figures.style import (
    LEGEND_LINE,
    Page,
    above,
    beside,
    chance_line,
    regime_legend,
    step_axis,
)
from icsbench.record.reader import Layer
from icsbench.record.schema import TRAIN_ACCURACY, TRAIN_LOSS

_PROGRESS = {TRAIN_ACCURACY: "training accuracy (%)", TRAIN_LOSS: "training loss"}
_HEIGHT, _APART = 1.06, 0.16
_ROWS = {
    ICS_L2: "‖G − G′‖",
    ICS_RELATIVE: "‖G − G′‖ / ‖G‖",
    ICS_COSINE: "cos(G, G′)",
    ICS_SCALED: "‖G − G′‖ · ‖W‖",
}


def ics_curves(group: Group) -> list[Curve]:
    """Training accuracy (the loss of a regression), ``beta lr / 2`` where recorded, and the ICS of ``third_layers``."""
    conditions = measured(group, has_ics, "the internal covariate shift of Definition 2.1")
    progress = TRAIN_LOSS if group.regression else TRAIN_ACCURACY
    curves = [curve_of(c, progress, [run.metrics.series(progress) for run in c.runs]) for c in conditions]
    for condition in conditions:
        if all(has_landscape([run]) for run in condition.runs):
            curves.append(curve_of(condition, BETA_LR, [landscape_of(run)[BETA_LR] for run in condition.runs]))
    for layer in third_layers(conditions[0].runs[0].layers_of(ICS)):
        for quantity in _ROWS:
            for condition in conditions:
                series = [
                    (steps, values[:, 0]) for steps, values in (ics_of(r, quantity, [layer]) for r in condition.runs)
                ]
                curves.append(curve_of(condition, quantity, series, layer))
    return curves


def third_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Of n layers those number ``ceil(n / 3)`` and ``ceil(2 n / 3)``; the second for the first, which never has ICS.

    They are 5 and 10 of the 14 of VGG16, 9 and 17 of 25: those that the paper shows.
    """
    n = len(layers)
    numbers = {min(n, max(2, -(-n * part // 3))) for part in (1, 2)}
    return [layers[number - 1] for number in sorted(numbers)]


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    layers = [str(depth) for depth in sorted({curve.layer.depth for curve in curves if curve.layer})]
    total = max(len(run.layers_of(ICS)) for run in group.runs)
    what = (
        f"G: gradient of the loss in the weights W of layer {' and '.join(layers)} of {total}; G′: the same once all "
        "layers before it are updated, on the same batch (Definition 2.1). As measured, no smoothing."
    )
    beta = any(curve.quantity == BETA_LR for curve in curves)
    edge = "Line at β = 2/lr: there an update can reverse the gradient by its length alone." if beta else ""
    panels = {curve.quantity: [] for curve in curves if curve.quantity != TRAIN_ACCURACY}
    for curve in curves:
        panels.get(curve.quantity, []).append(curve)
    cut = any(cut_off(shown, COSINE if quantity == ICS_COSINE else None) for quantity, shown in panels.items())
    averages = (geometric(curves), CUT_OFF if cut else "", missing(curves))
    return caption(group, what, edge, seeds_of(curves), *averages, left_out(group))


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """Progress and ``beta lr / 2`` on top; below a row per quantity, whose layers share an axis, a column per layer."""
    layers = list({curve.layer.path: curve.layer for curve in curves if curve.layer}.values())
    legend = regime_legend(curves)
    top, apart, below = 0.25 + LEGEND_LINE * len(legend), 0.34, 0.42 + _HEIGHT * len(_ROWS)
    page = Page(top + _HEIGHT + apart + below, text, top=top, bottom=0.42, left=0.62, right=0.26)
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
            chance_line(axes, 1 / group.num_classes)
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


FIGURE = Figure(
    name="ics",
    order=80,
    numbers=ics_curves,
    caption=_caption,
    draw=_draw,
    applies=lambda group: has_ics(group.runs),
    titles=_PROGRESS | {BETA_LR: "β · lr / 2"} | _ROWS,
)
