"""BN taken apart at initialisation: cosines of the samples of a batch by layer, with what theory says."""

from collections.abc import Sequence

import matplotlib.figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, guide, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import Page, above, below, beside

_LOOKS = {  # label, colour
    "none": ("neither", COLORS[0]),
    "recentre": ("recentring only", COLORS[3]),
    "rescale": ("rescaling only", COLORS[2]),
    "both": ("both (BN)", COLORS[1]),
}
_PANELS = ("cosine", "rest_cosine", "odd_cosine", "norm_ratio")
_TITLES = ("cosine, all pairs", "without the odd point", "odd point with the others", "largest norm / median")
_APART = (1, 2)  # panels that show the two variants that recentre


def _numbers(group: Group) -> list[Series]:
    rows = lab_rows(group)
    found = [
        one
        for quantity in _PANELS
        for one in series(rows, "step", quantity, by=("width", "variant"), logarithmic=quantity == "norm_ratio")
    ]
    with_theory = [
        LabRows(run.run, run.where(variant=variant).columns) for run in rows for variant in ("none", "rescale", "both")
    ]
    told = series(with_theory, "step", "cosine", by=("width", "variant"), theory="theory_cosine")
    theory = {(one.of["width"], one.of["variant"]): one for one in told}
    return [theory.get((one.of["width"], one.of["variant"]), one) if one.y_name == "cosine" else one for one in found]


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "Cosine between the samples of a batch after each layer of random ReLU networks, BN taken apart: all pairs, "
        "those without the odd point (the sample whose mean cosine with the others is lowest), the odd point with the "
        "others; and the largest norm of a sample over the median.",
        "A row for each width. Dashed: theory for infinite width.",
        number_of(drawn),
    )


def _panel(axes: Axes, drawn: Sequence[Series], number: int) -> None:
    for one in drawn:
        variant = one.of["variant"]
        if one.y_name == _PANELS[number] and (number not in _APART or variant in ("recentre", "both")):
            draw_series(axes, one, _LOOKS[variant][1], marker="o")
    log_axis(axes, 0.8, 1.25 * max(one.x.max() for one in drawn), "x")
    if _PANELS[number] == "norm_ratio":
        log_axis(
            axes,
            *extent(*(end for one in drawn if one.y_name == "norm_ratio" for end in (one.mean, one.low, one.high))),
            ticks=5,
        )
    else:
        guide(axes, 0)
        axes.set_ylim(-0.06, 1.06)
        axes.set_yticks([0, 0.5, 1])


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    widths = list(dict.fromkeys(one.of["width"] for one in drawn))
    page = Page(0.7 + 1.45 * len(widths), text, top=0.5, bottom=0.35, left=0.6, right=0.1)
    grid = page.axes(len(widths), len(_PANELS), wspace=0.32, hspace=0.3)
    for row, width in zip(grid, widths, strict=True):
        of_width = [one for one in drawn if one.of["width"] == width]
        for number, axes in enumerate(row):
            _panel(axes, of_width, number)
            if width == widths[0]:
                above(axes, _TITLES[number])
            if width == widths[-1]:
                below(axes, "layer")
            else:
                axes.tick_params(labelbottom=False)
        beside(row[0], f"width {width:.0f}", 24)
    handles = [Line2D([], [], color=color, marker="o", markersize=3, label=label) for label, color in _LOOKS.values()]
    page.legend([*handles, Line2D([], [], **THEORY, label="theory")])
    return page.figure


FIGURE = Figure(
    name="parts",
    order=260,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "parts",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
