"""Where SGD ends with batches shuffled once and reshuffled, with BN in front of a linear model and without."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import Page, above, below

_LOOKS = {
    "reshuffle": ("reshuffled", COLORS[1], "o"),
    "shuffle_once": ("shuffled once", COLORS[0], "s"),
    "fixed_batches": ("fixed batches, order reshuffled", COLORS[2], "^"),
}
_PANELS = {  # norm, quantity, its theory, title
    "regression": (
        ("bn", "from_full", "theory_from_full", "BN: from the full batch's minimum"),
        ("bn", "from_own", None, "BN: from the minimum of its order"),
        ("none", "from_full", None, "no BN: from the minimum"),
    ),
    "classification": (
        ("bn", "loss", None, "BN: loss of the full batch"),
        ("none", "loss", None, "no BN: loss of the full batch"),
    ),
}


def _panels(group: Group) -> tuple[tuple[str, str, str | None, str], ...]:
    return _PANELS[group.runs[0].setting("lab.task")]


def _numbers(group: Group) -> list[Series]:
    rows, found = lab_rows(group), []
    for norm, quantity, theory, _ in _panels(group):
        of_norm = [LabRows(run.run, run.where(norm=norm).columns) for run in rows]
        found += series(of_norm, "step", quantity, by=("norm", "order"), theory=theory, logarithmic=theory is None)
    return found


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    regression = "from_full" in {one.y_name for one in drawn}
    return caption(
        group,
        "SGD on a linear model of random problems, with BN in front of it and without."
        + (
            " Distances of its weights, in lengths of the minimum of the full batch; dashed: that of the minimum of "
            "the risk of each order."
            if regression
            else " The classes are independent of the inputs; the loss is that of the full batch."
        ),
        number_of(drawn, "random problems"),
        f"The mean is geometric{' where no theory is drawn' if regression else ''}.",
    )


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    panels = _panels(group)
    page = Page(2.5, text, top=0.5, bottom=0.4, left=0.5, right=0.1)
    [row] = page.axes(1, len(panels), wspace=0.3)
    for axes, (norm, quantity, _, title) in zip(row, panels, strict=True):
        shown = [one for one in drawn if one.y_name == quantity and one.of["norm"] == norm]
        for one in shown:
            _, color, marker = _LOOKS[one.of["order"]]
            draw_series(axes, one, color, marker=marker)
        log_axis(axes, 0.8, 1.25 * max(one.x.max() for one in shown), "x", ticks=6)
        log_axis(axes, *extent(*(np.concatenate([one.mean, one.low, one.high]) for one in shown)), ticks=6)
        above(axes, title)
        below(axes, "epoch")
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=3, label=label)
        for label, color, marker in _LOOKS.values()
    ]
    with_theory = any(one.theory is not None for one in drawn)
    page.legend([*handles, *([Line2D([], [], **THEORY, label="minimum by theory")] if with_theory else [])])
    return page.figure


FIGURE = Figure(
    name="shuffling",
    order=290,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "shuffling",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
