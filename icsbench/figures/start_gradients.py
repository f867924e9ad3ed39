"""Gradients of the untrained network by layer, with each norm: after Lubana et al. 2021, section 5."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.start_gradients import LAB, gradients
from icsbench.analysis.statistics import Floats
from icsbench.figures.caption import CUT_OFF, caption, geometric, missing
from icsbench.figures.contract import Figure
from icsbench.figures.large_steps import Profile, first_batches, grid_of, networks_of, profiles, seeds_of
from icsbench.figures.panels import cut_off, limits, log_panel
from icsbench.figures.style import above, below, beside
from icsbench.record.reader import Run

_QUANTITIES = {"gradient": "‖∂L/∂y‖", "gradient over the last": "over that of the last hidden layer"}


def _by_depth(run: Run) -> tuple[Floats, Floats]:
    found = gradients(run)
    return np.arange(1.0, len(found) + 1), found


def _over_the_last(run: Run) -> tuple[Floats, Floats]:
    depths, found = _by_depth(run)
    return depths[:-1], found[:-1] / found[-2]


def _numbers(group: Group) -> list[Profile]:
    measures = (_by_depth, _over_the_last)
    return [
        one for key, of_run in zip(_QUANTITIES, measures, strict=True) for one in profiles(group, "depth", key, of_run)
    ]


def _of(drawn: Sequence[Profile], key: str, network: str | None = None) -> list[Profile]:
    return [one for one in drawn if one.quantity == key and network in (None, one.network)]


def _caption(group: Group, drawn: Sequence[Profile]) -> str:
    return caption(
        group,
        "Gradient of the loss in the outputs y of each layer's transform, ahead of its norm, before the first update: "
        f"Euclidean norm over samples, channels and positions, geometric mean over the {first_batches(group)}.",
        seeds_of(drawn),
        geometric(drawn),
        CUT_OFF if any(cut_off(_of(drawn, key)) for key in _QUANTITIES) else "",
        missing(drawn),
    )


def _draw(group: Group, drawn: Sequence[Profile], text: str) -> mpl.Figure:
    page, grid = grid_of(drawn, text, 0.24)
    for network, row in zip(networks_of(drawn), grid, strict=True):
        for axes, (key, name) in zip(row, _QUANTITIES.items(), strict=True):
            log_panel(axes, _of(drawn, key, network), limits(_of(drawn, key)))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            above(axes, network)
            beside(axes, name, 30)
    for axes in grid[-1]:
        below(axes, "layer")
    return page.figure


FIGURE = Figure(
    name="start-gradients",
    order=160,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
