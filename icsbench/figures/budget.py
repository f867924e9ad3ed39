"""The effect of each part of each claim of a study against the budget: records cut at earlier steps."""

import math
from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes

from icsbench.analysis.budgets import OverBudget, can_be_cut, over_budget, parts_of
from icsbench.analysis.groups import Group
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL
from icsbench.analysis.verdicts import FEWEST_SEEDS
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.style import GUIDE, Page, above, below, beside

_COLUMNS = 3
_TITLE_CHARACTERS = 30
_REGION, _EFFECT = "#009E73", "#0072B2"


def _caption(group: Group, drawn: Sequence[OverBudget]) -> str:
    counts = sorted({int(n) for one in drawn for n in one.n})
    n = f"n\N{NO-BREAK SPACE}= {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    interval = " and 95 % t-interval" if counts[-1] >= FEWEST_FOR_AN_INTERVAL else ""
    budgets = sorted({int(step) for one in drawn for step in one.steps})
    return caption(
        group,
        "The parts of each claim that this study measures, against the budget: all runs cut at "
        f"{', '.join(f'{step:,}' for step in budgets[:-1])} steps, and whole. Shaded: the region that is claimed.",
        f"Mean{interval} over {n} values; of ratios the geometric mean. Only the full budget is judged.",
    )


def _draw(group: Group, drawn: Sequence[OverBudget], text: str) -> mpl.Figure:
    """A panel for each part, all with the same axis of steps."""
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    page = Page(0.3 + 1.55 * rows + 0.2, text, top=0.3, bottom=0.45, left=0.62, right=0.12)
    panels = [axes for row in page.axes(rows, columns, wspace=0.4, hspace=0.45) for axes in row]
    steps = np.concatenate([one.steps for one in drawn])
    for number, (axes, one) in enumerate(zip(panels, drawn, strict=False)):
        _panel(axes, one)
        log_axis(axes, steps.min() / 1.3, steps.max() * 1.3, "x", ticks=4)
        above(axes, _title(one, columns))
        if number + columns < len(drawn):
            axes.tick_params(labelbottom=False)
        else:
            below(axes, "steps")
        beside(axes, one.part.unit or one.part.kind, 30)
    for axes in panels[len(drawn) :]:
        axes.remove()
    return page.figure


def _title(one: OverBudget, columns: int) -> str:
    room = _TITLE_CHARACTERS * _COLUMNS // columns
    name = f"{one.claim.id}: {one.part.name.replace('_', ' ')}"
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _panel(axes: Axes, one: OverBudget) -> None:
    """Mean, interval and region; of a ratio on a logarithmic axis. An interval may leave the panel."""
    ratio, region = one.part.kind == "ratio", (one.part.low, one.part.high)
    there = one.n >= FEWEST_FOR_AN_INTERVAL
    axes.errorbar(
        one.steps,
        one.mean,
        np.where(there, [one.mean - one.low, one.high - one.mean], 0),
        **{"color": _EFFECT, "marker": "o", "markersize": 3, "linewidth": 0.9, "elinewidth": 0.8, "capsize": 1.5},
    )
    bounds = [bound for bound in region if math.isfinite(bound) and (bound > 0 or not ratio)]
    shown = np.concatenate([one.mean, one.low[there], one.high[there], bounds])
    if ratio:
        low, high = extent(shown)
        log_axis(axes, low, high)
    else:
        room = 0.08 * (shown.max() - shown.min()) or 0.1 * abs(shown.max()) or 0.1
        low, high = shown.min() - room, shown.max() + room
        axes.set_ylim(low, high)
    axes.axhspan(max(region[0], low), min(region[1], high), color=_REGION, alpha=0.12, linewidth=0, zorder=0)
    for bound in bounds:
        axes.axhline(bound, color=GUIDE, linewidth=0.5, zorder=0)


FIGURE = Figure(
    name="budget",
    order=190,
    numbers=over_budget,
    caption=_caption,
    draw=_draw,
    applies=lambda group: (
        len({run.seed for run in group.runs}) >= FEWEST_SEEDS and bool(parts_of(group)) and can_be_cut(group)
    ),
    per_lr=False,
)
