"""Signal propagation plots: squared means and variances of channels by depth, after Brock et al. 2021a."""

from collections.abc import Sequence
from functools import partial

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.signal_propagation import LAB, SQUARED_MEAN, VARIANCE, signals, theory
from icsbench.analysis.statistics import Floats, mean_band
from icsbench.figures.caption import CUT_OFF, caption, geometric
from icsbench.figures.contract import Figure
from icsbench.figures.large_steps import Profile, profiles, seeds_of
from icsbench.figures.panels import cut_off, limits, log_panel
from icsbench.figures.series import THEORY
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, regime_legend
from icsbench.record.reader import Run

_QUANTITIES = {SQUARED_MEAN: "squared mean", VARIANCE: "variance"}
_ROUNDING = 1e-10
"""A squared mean below it is 0: BN's."""
_PLACES = {"layer": "pre-activations of the layers", "block": "behind the residual blocks"}


def _drawable(run: Run, place: str, key: str) -> tuple[Floats, Floats]:
    steps, values = signals(run, place, key)
    return steps, np.where(values < _ROUNDING, np.nan, values)


def _numbers(group: Group) -> list[Profile]:
    found = []
    for place in _PLACES:
        for key in _QUANTITIES:
            try:
                found += profiles(group, place, key, partial(_drawable, place=place, key=key))
            except NotMeasured:
                continue  # a network without blocks
            if place == "block":
                said = profiles(group, place, f"theory of {key}", partial(theory, key=key), mean_band)
                found += [one for one in said if len(one.x)]
    return found


def _of(drawn: Sequence[Profile], place: str, quantity: str) -> list[Profile]:
    return [one for one in drawn if (one.x_name, one.quantity) == (place, quantity)]


def _theories(drawn: Sequence[Profile]) -> list[Profile]:
    return [one for one in drawn if one.quantity not in _QUANTITIES]


def _caption(group: Group, drawn: Sequence[Profile]) -> str:
    measured = [one for one in drawn if one.quantity in _QUANTITIES]
    panels = [(place, key) for place in _PLACES for key in _QUANTITIES]
    return caption(
        group,
        "Squared mean and variance of a channel over samples and positions, averaged over channels, before the first "
        "update, on inputs drawn from N(0, 1). Pre-activations are those behind the norm.",
        "Below: behind each residual block (0: ahead of the first). Scalars at the ends of branches are set to 1: at "
        "0, a block is its shortcut."
        if _of(drawn, "block", VARIANCE)
        else "",
        "Dashed: theory for infinite width." if _theories(drawn) else "",
        "A value of 0, or one that is not finite, is not drawn."
        if any(np.isnan(one.mean).any() for one in measured)
        else "",
        seeds_of(measured),
        geometric(measured),
        CUT_OFF if any(cut_off(shown) for panel in panels if (shown := _of(drawn, *panel))) else "",
    )


def _draw(group: Group, drawn: Sequence[Profile], text: str) -> mpl.Figure:
    """A row per place, a column per quantity."""
    places = [place for place in _PLACES if _of(drawn, place, VARIANCE)]
    handles = regime_legend(drawn)
    theories = [Line2D([], [], label="theory", **THEORY)] if _theories(drawn) else []
    top = 0.26 + LEGEND_LINE * (len(handles) + bool(theories))
    page = Page(top + 0.3 + 1.75 * len(places), text, top=top, bottom=0.42, left=0.62, right=0.15)
    grid = page.axes(len(places), len(_QUANTITIES), wspace=0.28, hspace=0.5)
    for row, place in zip(grid, places, strict=True):
        for axes, (key, name) in zip(row, _QUANTITIES.items(), strict=True):
            shown = _of(drawn, place, key)
            log_panel(axes, shown, limits(shown))
            for one in _of(drawn, place, f"theory of {key}"):
                axes.plot(one.x, one.mean, **THEORY)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            above(axes, _PLACES[place])
            beside(axes, name, 30)
            below(axes, place)
    page.legend(*handles, theories)
    return page.figure


FIGURE = Figure(
    name="signal-propagation",
    order=151,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
