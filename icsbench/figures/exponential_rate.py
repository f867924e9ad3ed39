"""Weight decay and its twin, a learning rate that grows exponentially: losses, difference, length of the weights."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.exponential_rate import LAB, ROUNDING
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, guide, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import Page, above, step_axis

_LOOKS = {
    "bn": ("BN", COLORS[1]),
    "bn_uncorrected": ("BN, momentum starts at 0", COLORS[5]),
    "bn_eps": ("BN with eps", COLORS[2]),
    "none": ("no BN", COLORS[0]),
}
_LOSSES = {"loss_decay": "-", "loss_growth": (0, (1, 1))}
_PANELS = {"loss": "training loss", "difference": "difference of the functions", "length_ratio": "|u| / |w|"}


def _numbers(group: Group) -> list[Series]:
    rows = lab_rows(group)
    found = [one for name in _LOSSES for one in series(rows, "step", name, by=("variant",), logarithmic=True)]
    found += series(rows, "step", "difference", by=("variant",), logarithmic=True)
    ratio = {"theory": "theory_length_ratio", "logarithmic": True}
    return found + series(rows, "step", "length_ratio", by=("variant",), **ratio)


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "A network trained twice on the same batches: with weight decay at a constant learning rate (weights w, solid) "
        "and without it at the rate that grows exponentially (weights u, dotted). Middle: |f - f'| / (|f| + |f'|) of "
        "their outputs on fixed images, 1 where one is not finite. Right, dashed: theory for weights without scale.",
        f"{number_of(drawn, 'seeds')} Means are geometric.",
    )


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(2.5, text, top=0.45, bottom=0.4, left=0.5, right=0.3)
    [row] = page.axes(1, len(_PANELS), wspace=0.32)
    for axes, (quantity, title) in zip(row, _PANELS.items(), strict=True):
        shown = [one for one in drawn if one.y_name.startswith(quantity)]
        for one in shown:
            _, color = _LOOKS[one.of["variant"]]
            draw_series(axes, one, color, linestyle=_LOSSES.get(one.y_name, "-"))
        also = [np.array([ROUNDING])] if quantity == "difference" else []
        log_axis(axes, *extent(*(one.mean for one in shown), *also), ticks=5)
        if also:
            guide(axes, ROUNDING, "2⁻²⁶")
        step_axis(axes, int(max(one.x.max() for one in shown)), label=True)
        above(axes, title)
    variants = dict.fromkeys(one.of["variant"] for one in drawn)
    handles = [Line2D([], [], color=color, label=label) for name, (label, color) in _LOOKS.items() if name in variants]
    page.legend([*handles, Line2D([], [], **THEORY, label="theory")])
    return page.figure


FIGURE = Figure(
    name="exponential-rate",
    order=182,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
