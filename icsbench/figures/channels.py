"""Deviations and means of the channels of the untrained network by depth: after Bjorck et al. 2018, section 3."""

from collections.abc import Sequence
from functools import partial

import matplotlib.figure as mpl

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.large_steps import CHANNEL_MEAN, CHANNEL_STD, LAB, channels
from icsbench.figures.caption import caption, geometric, missing
from icsbench.figures.contract import Figure
from icsbench.figures.large_steps import Profile, cut_off_by_layer, draw_by_layer, first_batches, profiles, seeds_of

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
        cut_off_by_layer(drawn, _QUANTITIES),
        missing(drawn),
    )


def _draw(group: Group, drawn: Sequence[Profile], text: str) -> mpl.Figure:
    return draw_by_layer(drawn, _QUANTITIES, text)


FIGURE = Figure(
    name="channels",
    order=281,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
