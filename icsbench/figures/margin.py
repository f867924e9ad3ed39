"""Margins of a linear classifier under gradient descent, with BN and without, and the limits that theory gives."""

from collections.abc import Sequence

import matplotlib.figure as mpl
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, guide, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import Page, above, below

_LOOKS = {
    "none": ("no BN", COLORS[0], "o"),
    "weight_norm": ("weight normalization", COLORS[2], "s"),
    "bn": ("BN (without centring)", COLORS[1], "D"),
}
_PANELS = {
    "min_over_max": "smallest margin / largest",
    "spread": "1 - smallest margin / largest",
    "loss": "training loss",
}


def _numbers(group: Group) -> list[Series]:
    rows = lab_rows(group)
    found = series(rows, "step", "min_over_max", by=("variant",), theory="theory_min_over_max")
    for quantity in ("spread", "loss"):
        found += series(rows, "step", quantity, by=("variant",), logarithmic=True)
    return found


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "Margins of the training samples of a linear classifier along gradient descent on random separable problems: "
        "the smallest over the largest, what it lacks of 1, and the loss.",
        "Dashed: the limits of theory, 1 with BN and the classifier of largest margin for the others.",
        "On logarithmic axes the mean is geometric, and missing where margins are equal to rounding.",
        number_of(drawn, "random problems"),
    )


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(2.4, text, top=0.5, bottom=0.4, left=0.45, right=0.1)
    [row] = page.axes(1, len(_PANELS), wspace=0.32)
    for axes, (quantity, title) in zip(row, _PANELS.items(), strict=True):
        shown = [one for one in drawn if one.y_name == quantity]
        for one in shown:
            _, color, marker = _LOOKS[one.of["variant"]]
            draw_series(axes, one, color, marker=marker)
        log_axis(axes, 0.8, 1.25 * max(one.x.max() for one in shown), "x", ticks=6)
        if quantity == "min_over_max":
            guide(axes, 0)
        else:
            log_axis(axes, *extent(*(one.mean for one in shown)), ticks=6)
        above(axes, title)
        below(axes, "step")
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=3, label=label)
        for label, color, marker in _LOOKS.values()
    ]
    page.legend([*handles, Line2D([], [], **THEORY, label="limit by theory")])
    return page.figure


FIGURE = Figure(
    name="margin",
    order=270,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "margin",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
