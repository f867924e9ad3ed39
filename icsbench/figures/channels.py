"""Deviations and means of the channels of the untrained network by depth: after Bjorck et al. 2018, section 3."""

from collections.abc import Sequence
from functools import partial

import matplotlib.figure as mpl
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.large_steps import CHANNEL_MEAN, CHANNEL_STD, LAB, channels
from icsbench.figures.caption import CUT_OFF, caption, geometric, missing
from icsbench.figures.contract import Figure
from icsbench.figures.large_steps import Profile, first_batches, grid_of, networks_of, profiles, seeds_of
from icsbench.figures.panels import cut_off, limits, log_panel
from icsbench.figures.style import above, below, beside

_QUANTITIES = {CHANNEL_STD: "standard deviation", CHANNEL_MEAN: "|mean|"}


def _numbers(group: Group) -> list[Profile]:
    return [one for key in _QUANTITIES for one in profiles(group, "depth", key, partial(channels, key=key))]


def _caption(group: Group, drawn: Sequence[Profile]) -> str:
    return caption(
        group,
        "Standard deviation and absolute mean of the channels of each layer, over samples and positions, before the "
        f"first update: averages over channels, geometric over the {first_batches(group)}. At the output of the "
        "layer's transform, ahead of its norm.",
        seeds_of(drawn),
        geometric(drawn),
        CUT_OFF if any(cut_off(_of(drawn, key)) for key in _QUANTITIES) else "",
        missing(drawn),
    )


def _of(drawn: Sequence[Profile], key: str, network: str | None = None) -> list[Profile]:
    return [one for one in drawn if one.quantity == key and network in (None, one.network)]


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
    name="channels",
    order=281,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
