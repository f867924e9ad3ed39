"""Weights and gradients by layer over the first steps of training: Yang et al. (2019), Fig. 3."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.figure as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.figures.caption import CUT_OFF, caption
from icsbench.figures.contract import Figure
from icsbench.figures.series import Series, draw_series, number_of, series_of_lists, settings
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside

_QUANTITIES = {"log_gradients": "ln ‖∂L/∂h‖²", "log_weights": "ln ‖W‖²"}
_STEPS = (0, 1, 2, 5, 10)
_NORMS = {"bn": "BN", "none": "without BN"}


def _profiles(group: Group) -> list[Series]:
    """The mean of a log squared norm by layer, from the second on, of the deepest networks at the steps 0, 1, 2, 5, 10.

    One for each norm and learning rate, depth, step and quantity.
    """
    runs = lab_rows(group)
    depth = max(run["depth"].max() for run in runs)
    deepest = [run.where(depth=depth) for run in runs]
    # place i of a list is layer i + 1
    return [
        replace(one, x=one.x + 1)
        for of in settings(deepest, ("depth", "norm", "lr", "step"))
        if of["step"] in _STEPS
        for one in (series_of_lists(deepest, quantity, of, "layer", first=1) for quantity in _QUANTITIES)
    ]


def _caption(group: Group, profiles: Sequence[Series]) -> str:
    what = (
        f"ReLU networks of {profiles[0].of['depth']:g} layers on digits, before training (step 0) and after so many "
        "steps: squared gradient of the features h and squared norm of the weights W by layer."
    )
    fewer = len({one.n for one in profiles}) > 1
    beyond = any(
        (one.low < _limits(profiles, one.y_name)[0]).any() or (one.high > _limits(profiles, one.y_name)[1]).any()
        for one in profiles
    )
    lost = "A network that diverged is left out from there on." if fewer else ""
    return caption(group, what, number_of(profiles), lost, CUT_OFF if beyond else "")


def _limits(profiles: Sequence[Series], quantity: str) -> tuple[float, float]:
    """The ends of the axis of a quantity: those of its means, and a margin."""
    means = np.concatenate([one.mean for one in profiles if one.y_name == quantity])
    margin = 0.06 * np.ptp(means) + 0.02
    return float(means.min() - margin), float(means.max() + margin)


def _draw(group: Group, profiles: Sequence[Series], text: str) -> mpl.Figure:
    """A row of panels for each quantity and a column for each norm and learning rate; a colour for each step."""
    columns = list(dict.fromkeys((profile.of["norm"], profile.of["lr"]) for profile in profiles))
    steps = sorted({profile.of["step"] for profile in profiles})
    colors = {step: colormaps["viridis"](0.9 * place / max(1, len(steps) - 1)) for place, step in enumerate(steps)}
    legend = [Line2D([], [], color=colors[step], label=f"step {step:g}") for step in steps]
    top = 0.42 + LEGEND_LINE
    page = Page(top + 0.42 + 2 * 1.5, text, top=top, bottom=0.42, left=0.5, right=0.12)
    grid = page.axes(len(_QUANTITIES), len(columns), wspace=0.12, hspace=0.15)
    for row, quantity in zip(grid, _QUANTITIES, strict=True):
        for axes, column in zip(row, columns, strict=True):
            for one in profiles:
                if (one.y_name, one.of["norm"], one.of["lr"]) == (quantity, *column):
                    draw_series(axes, one, colors[one.of["step"]])
            axes.set_ylim(*_limits(profiles, quantity))
            axes.tick_params(labelleft=axes is row[0], labelbottom=row is grid[-1])
        beside(row[0], _QUANTITIES[quantity], 24)
    for axes, (norm, lr) in zip(grid[0], columns, strict=True):
        above(axes, f"{_NORMS[norm]}\nlr {lr:g}")
    for axes in grid[-1]:
        below(axes, "layer")
    page.legend(legend)
    return page.figure


FIGURE = Figure(
    name="first-steps",
    order=202,
    numbers=_profiles,
    caption=_caption,
    draw=_draw,
    applies=lambda group: group.runs[0].regime == "first_steps",
    kind="lab",
)
