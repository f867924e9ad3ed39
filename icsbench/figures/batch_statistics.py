"""Test accuracy by BN's statistics, in random batches and in batches by class, along training and by batch size."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import log_axis
from icsbench.figures.series import COLORS, MARKERS, Series, draw_series, number_of, series
from icsbench.figures.style import Page, above, below, beside

_LOOKS = {
    ("running", "random"): ("running statistics", COLORS[0], MARKERS[0]),
    ("precise", "random"): ("precise statistics", COLORS[1], MARKERS[1]),
    ("batch", "random"): ("random batch's", COLORS[2], MARKERS[2]),
    ("batch", "by_class"): ("by-class batch's", COLORS[3], MARKERS[3]),
}
_ORDERS = {"reshuffle": "random batches", "by_class": "batches by class"}
_BY = ("norm", "order", "statistics", "batches")


def _numbers(group: Group) -> list[Series]:
    """Along training at its own batch size, then with BN after the last step by the size of the evaluated batches."""
    along, at_end = [], []
    for rows in lab_rows(group):
        steps, sizes = rows["step"], rows["size"]
        along.append(_rows_at(rows, sizes == rows.run.setting("batch_size")))
        at_end.append(_rows_at(rows, (steps == steps.max()) & (rows["statistics"] == "batch")))
    by_size = [rows for rows in at_end if len(rows["size"])]
    if not by_size:
        raise NotMeasured(f"{group.name}: no network has statistics of a batch")
    return [*series(along, "step", "accuracy", by=_BY), *series(by_size, "size", "accuracy", by=_BY)]


def _rows_at(rows: LabRows, kept: np.ndarray) -> LabRows:
    return LabRows(rows.run, {key: column[kept] for key, column in rows.columns.items()})


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "Test accuracy along training on random batches and on batches by class, by the statistics that BN normalizes "
        "with, and with those of the evaluated batch by its size after the last step (dashed: trained by class).",
        "A network without BN has one accuracy.",
        number_of(drawn, "seeds"),
    )


def _panels(drawn: Sequence[Series]) -> list[tuple[str, str]]:
    """The norms and orders that are drawn along training, BN first."""
    found = dict.fromkeys((one.of["norm"], one.of["order"]) for one in drawn)
    return sorted(found, key=lambda panel: (panel[0] != "bn", panel[0], [*_ORDERS].index(panel[1])))


def _accuracy_axis(axes: Axes, last: float) -> None:
    axes.set_ylim(0, 103)
    log_axis(axes, 0.8, 1.25 * last, "x", ticks=5)


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    panels = _panels(drawn)
    page = Page(2.5, text, top=0.5, bottom=0.4, left=0.45, right=0.1)
    [row] = page.axes(1, len(panels) + 1, wspace=0.28)
    for axes, (norm, order) in zip(row, panels, strict=False):
        shown = [one for one in drawn if one.x_name == "step" and (one.of["norm"], one.of["order"]) == (norm, order)]
        for one in shown:
            _, color, marker = _LOOKS[one.of["statistics"], one.of["batches"]]
            draw_series(axes, one, color, marker=marker, scale=100)
        _accuracy_axis(axes, max(one.x.max() for one in shown))
        above(axes, f"{norm}, {_ORDERS[order]}")
        below(axes, "step")
    by_size = [one for one in drawn if one.x_name == "size"]
    for one in by_size:
        _, color, marker = _LOOKS[one.of["statistics"], one.of["batches"]]
        dashed = one.of["order"] == "by_class"
        draw_series(row[-1], one, color, marker=marker, linestyle="--" if dashed else "-", scale=100)
    row[-1].set_ylim(0, 103)
    sizes = [size for one in by_size for size in one.x]
    log_axis(row[-1], 0.8 * min(sizes), 1.25 * max(sizes), "x", ticks=4)
    above(row[-1], "after the last step")
    below(row[-1], "evaluated batch")
    beside(row[0], "test accuracy (%)", 22)
    page.legend(
        [
            Line2D([], [], color=color, marker=marker, markersize=3, label=label)
            for label, color, marker in _LOOKS.values()
        ]
    )
    return page.figure


FIGURE = Figure(
    name="batch_statistics",
    order=291,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "batch_statistics",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
