"""What deep networks learn from an orthogonal start without BN, and with BN, by depth."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.series import COLORS, MARKERS, Series, draw_series, number_of, series
from icsbench.figures.style import LEGEND_LINE, Page, above, below, chance_line

_LABELS = {
    "glorot": "Glorot, no norm",
    "scaled": "scaled, no norm",
    "orthogonal": "orthogonal, no norm",
    "bn": "Glorot, BN",
}
_PANELS = {
    "accuracy": "training accuracy (%)",
    "loss": "training loss",
    "orthogonality_gap": "orthogonality gap before training",
}
_CHANCE = 0.1


def _numbers(group: Group) -> list[Series]:
    """Each quantity by depth and start: the mean over networks, each at its best learning rate."""
    best = [_at_best_rate(run) for run in lab_rows(group)]
    return [one for key in _PANELS for one in series(best, "step", key, by=("start",), logarithmic=key == "loss")]


def _at_best_rate(rows: LabRows) -> LabRows:
    """Of each depth, start and network the row with the smallest loss."""
    of = list(zip(rows["step"], rows["start"], rows["network"], strict=True))
    best: dict[Any, int] = {}
    for number in np.argsort(rows["loss"], kind="stable"):
        best.setdefault(of[number], int(number))
    return LabRows(rows.run, {key: column[sorted(best.values())] for key, column in rows.columns.items()})


def _caption(group: Group, found: Sequence[Series]) -> str:
    run, rows = group.runs[0], lab_rows(group)
    diverged = sum(int(one["diverged"].sum()) for one in rows)
    trained = sum(len(one["diverged"]) for one in rows)
    rates = ", ".join(f"{rate:g}" for rate in run.setting("lab.rates"))
    return caption(
        group,
        f"ReLU networks of {run.setting('lab.width')} units after {run.setting('lab.steps')} steps of SGD on digits, "
        f"batch {run.setting('lab.batch')}; each network at the learning rate of {rates} with its smallest loss.",
        "Scaled and orthogonal: every layer scaled to outputs of mean square 1, without and with orthogonal signals; "
        "the scaled start has the gap of Glorot's.",
        "Accuracy and loss are over all training images, with BN's statistics of these.",
        f"{diverged} of {trained} trainings diverged, and count as chance.",
        number_of(found),
        "The mean loss is geometric.",
    )


def _draw(group: Group, found: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(2.6, text, top=0.3 + LEGEND_LINE, bottom=0.42, left=0.45, right=0.12)
    [row] = page.axes(1, 3, wspace=0.28)
    for axes, (key, title) in zip(row, _PANELS.items(), strict=True):
        drawn = [one for one in found if one.y_name == key]
        for one in drawn:
            number = list(_LABELS).index(one.of["start"])
            scale = 100 if key == "accuracy" else 1
            draw_series(axes, one, COLORS[number], marker=MARKERS[number], scale=scale)
        if key == "loss":
            log_axis(axes, *extent(*(one.mean for one in drawn)))
        above(axes, title)
        below(axes, "hidden layers")
        axes.set_xticks(drawn[0].x)
    row[0].set_ylim(0, 103)
    chance_line(row[0], _CHANCE)
    row[2].set_ylim(0, 1.03)
    looks = enumerate(_LABELS.values())
    page.legend([Line2D([], [], color=COLORS[n], marker=MARKERS[n], markersize=3, label=label) for n, label in looks])
    return page.figure


FIGURE = Figure(
    "orthogonal_start",
    order=255,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "orthogonal_start",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
