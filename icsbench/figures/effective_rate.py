"""Training with BN, on weights of fixed length with the rates that BN had, and those rates by layer."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Condition, Group
from icsbench.analysis.quantities.effective_rate import LAB
from icsbench.analysis.quantities.lab import rows_of
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.series import COLORS, Series, draw_series, number_of, series
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, chance_line, step_axis

_LOOKS: dict[str, tuple[str, str, Any]] = {
    "free": ("free", "#000000", "-"),
    "recorded": ("fixed length, recorded rates", COLORS[1], (0, (5, 1.2))),
    "one_for_all": ("one rate for all layers", COLORS[5], (0, (2.5, 1.2))),
    "constant": ("constant rate", COLORS[0], "-"),
    "shuffled": ("recorded rates in random order", COLORS[2], (0, (1.2, 1.2))),
}
_PANELS = ("accuracy", "loss", "relative_rate")


def _numbers(group: Group) -> list[Series]:
    return [one for condition in group.conditions for one in _of_condition(condition)]


def _of_condition(condition: Condition) -> list[Series]:
    rows = [rows_of(run) for run in condition.runs]
    training, rates = ([run.where(measure=measure) for run in rows] for measure in ("training", "rate"))
    found = series(training, "step", "accuracy", by=("variant",))
    found += series(training, "step", "loss", by=("variant",), logarithmic=True)
    if any(len(run["step"]) for run in rates):
        found += series(rates, "step", "relative_rate", by=("layer",), logarithmic=True)
    run = condition.runs[0]
    about = {"norm": run.setting("norm.name"), "momentum": run.setting("optim.momentum"), "lr": run.setting("optim.lr")}
    return [replace(one, of={**about, **one.of}) for one in found]


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    run = group.runs[0]
    return caption(
        group,
        "Training accuracy and loss, of windows of updates, of a network as it is (free) and with its hidden weights "
        "scaled back to their first length after every update, at the learning rates said.",
        "Right: the effective rate of each hidden layer of the free network, lr / ‖w‖² in that of the start; darker "
        "lines are deeper layers.",
        f"SGD, batch {run.setting('batch_size')}, {run.setting('steps')} steps.",
        "Without momentum and with BN the recorded rates are the same training by theory.",
        number_of(drawn, "networks"),
        "On logarithmic axes the mean is geometric.",
    )


def _rows_of_page(drawn: Sequence[Series]) -> list[dict[str, Any]]:
    settings = ({key: one.of[key] for key in ("norm", "momentum", "lr")} for one in drawn)
    return list({tuple(of.items()): of for of in settings}.values())


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    conditions = _rows_of_page(drawn)
    page = Page(
        0.7 + 2 * LEGEND_LINE + 1.5 * len(conditions),
        text,
        top=0.3 + 2 * LEGEND_LINE,
        bottom=0.4,
        left=0.62,
        right=0.12,
    )
    grid = page.axes(len(conditions), len(_PANELS), wspace=0.3, hspace=0.3)
    for row, condition in zip(grid, conditions, strict=True):
        of_row = [one for one in drawn if condition.items() <= one.of.items()]
        for axes, quantity in zip(row, _PANELS, strict=True):
            _draw_panel(axes, quantity, [one for one in of_row if one.y_name == quantity], group.runs[0].chance)
            step_axis(axes, max(int(one.x[-1]) for one in drawn), label=False)
            axes.tick_params(labelbottom=True)
        where = f"lr {condition['lr']:g}, " if len({one["lr"] for one in conditions}) > 1 else ""
        beside(row[0], f"{condition['norm']}, {where}momentum {condition['momentum']:g}", 27)
    for axes, title in zip(grid[0], ("training accuracy (%)", "training loss", "relative effective rate"), strict=True):
        above(axes, title)
    for axes in grid[-1]:
        below(axes, "step")
    handles = [Line2D([], [], color=color, linestyle=line, label=label) for label, color, line in _LOOKS.values()]
    page.legend(handles[:2], handles[2:])
    return page.figure


def _draw_panel(axes: Axes, quantity: str, shown: Sequence[Series], chance: float) -> None:
    for number, one in enumerate(shown):
        if quantity == "relative_rate":
            draw_series(axes, one, str(round(0.75 * (1 - number / len(shown)), 3)))
        else:
            _, color, linestyle = _LOOKS[one.of["variant"]]
            draw_series(axes, one, color, linestyle=linestyle, scale=100 if quantity == "accuracy" else 1)
    if quantity == "accuracy":
        axes.set_ylim(0, 102)
        if math.isfinite(chance):
            chance_line(axes, chance)
    elif shown:
        log_axis(axes, *extent(*(one.mean for one in shown)))


FIGURE = Figure(
    name="effective-rate",
    order=191,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
