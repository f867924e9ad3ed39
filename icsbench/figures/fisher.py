"""The outlier eigenvalue of the Fisher information by width, for BN in the middle, in the last layer, in all."""

from collections.abc import Sequence

import matplotlib.figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import GUIDE, Page, above, below

_LOOKS = {
    "none": ("no BN", COLORS[0], "o"),
    "middle": ("BN in the middle layers", COLORS[4], "s"),
    "last_scale": ("last layer, rescaling only", COLORS[2], "v"),
    "last_mean": ("last layer, mean subtracted only", COLORS[3], "^"),
    "last": ("BN in the last layer", COLORS[1], "D"),
    "all": ("BN in all layers", COLORS[6], "P"),
}
_PANELS = {"largest": "largest eigenvalue", "share": "its share of the trace"}


def _numbers(group: Group) -> list[Series]:
    rows = lab_rows(group)
    largest = series(rows, "width", "largest", by=("where",), logarithmic=True)
    plain = [run.where(where="none") for run in rows]
    told = series(plain, "width", "share", by=("where",), theory="theory_share", logarithmic=True)
    others = [one for one in series(rows, "width", "share", by=("where",), logarithmic=True) if one.of != told[0].of]
    return [*largest, *told, *others]


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "The largest eigenvalue of the Fisher information of random ReLU networks with one output, and its share of "
        "the trace, by width.",
        "Dashed: theory for infinite width without BN. Dotted: the slope of sqrt(width) and of 1 / sqrt(width), which "
        "theory allows at most where there is no outlier.",
        "Means are geometric.",
        number_of(drawn),
    )


def _panel(axes: Axes, drawn: Sequence[Series]) -> None:
    for one in drawn:
        _, color, marker = _LOOKS[one.of["where"]]
        draw_series(axes, one, color, marker=marker)
    [last] = [one for one in drawn if one.of["where"] == "last"]
    power = 0.5 if last.y_name == "largest" else -0.5
    bound = 0.8 * last.mean[0] * (last.x / last.x[0]) ** power
    axes.plot(last.x, bound, color=GUIDE, linewidth=0.8, linestyle=":")
    log_axis(axes, *extent(bound, *(end for one in drawn for end in (one.mean, one.low, one.high))), ticks=6)
    log_axis(axes, last.x[0] / 1.1, last.x[-1] * 1.1, "x")
    axes.set_xticks(last.x, [f"{width:.0f}" for width in last.x])


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(3.0, text, top=0.75, bottom=0.4, left=0.6, right=0.15)
    [row] = page.axes(1, len(_PANELS), wspace=0.25)
    for axes, (quantity, title) in zip(row, _PANELS.items(), strict=True):
        _panel(axes, [one for one in drawn if one.y_name == quantity])
        above(axes, title)
        below(axes, "width")
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=3, label=label)
        for label, color, marker in _LOOKS.values()
    ]
    extra = [
        Line2D([], [], **THEORY, label="theory"),
        Line2D([], [], color=GUIDE, linewidth=0.8, linestyle=":", label="no outlier, at most"),
    ]
    page.legend(handles[:3], handles[3:], extra)
    return page.figure


FIGURE = Figure(
    name="fisher",
    order=265,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "fisher",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
