"""Shattered gradients: how alike the gradients of two inputs are, by the depth of the network."""

from collections.abc import Sequence

import matplotlib.figure as mpl
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import guide, log_axis
from icsbench.figures.series import COLORS, MARKERS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import Page, below, beside

CONDITIONS = {
    "plain": "plain",
    "plain_bn_held": "plain + BN, constant",
    "residual": "skip",
    "residual_bn_held": "skip + BN, constant",
    "plain_bn": "plain + BN, differentiated",
    "residual_bn": "skip + BN, differentiated",
    "looks_linear": "looks-linear",
}
"""Labels."""
_LOWEST = 1e-3  # of the logarithmic panel: noise is of this size


def _numbers(group: Group) -> list[Series]:
    return series(lab_rows(group), "step", "correlation", by=("condition",), theory="theory_correlation")


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "Mean correlation (uncentred, over pairs of independent Gaussian inputs) of the gradients at the input of "
        "random ReLU networks, one common random gradient at the output; right: the same on logarithmic axes, down to "
        f"{_LOWEST:g}. Dashed: theory for infinite width.",
        "Constant, differentiated: whether the backward pass goes through BN's mean and variance. Where it does and "
        "there is no skip, the mean is -1/(B-1) at every depth.",
        number_of(drawn),
    )


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(3.0, text, top=0.5, bottom=0.42, left=0.5, right=0.12)
    [[plain, logarithmic]] = page.axes(1, 2, wspace=0.22)
    looks = dict(zip(CONDITIONS, zip(COLORS, MARKERS, strict=True), strict=False))
    guide(plain, 0)
    for one in drawn:
        color, marker = looks[one.of["condition"]]
        draw_series(plain, one, color, marker=marker)
        if one.mean[0] > 0:
            draw_series(logarithmic, one, color, marker=marker)
    last = max(float(one.x[-1]) for one in drawn)
    plain.set_ylim(-0.08, 1.05)
    log_axis(logarithmic, _LOWEST, 1.2)
    for axes in (plain, logarithmic):
        log_axis(axes, 0.9, 1.1 * last, "x")
        below(axes, "blocks")
    beside(plain, "correlation of gradients", 26)
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=3, label=CONDITIONS[condition])
        for condition, (color, marker) in looks.items()
    ]
    page.legend(handles[:4], [*handles[4:], Line2D([], [], label="theory", **THEORY)])
    return page.figure


FIGURE = Figure(
    "shattered",
    order=245,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "shattered",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
