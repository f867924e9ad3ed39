"""Gradients of the untrained network by layer, with each norm: after Lubana et al. 2021."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.start_gradients import LAB, gradients
from icsbench.analysis.statistics import Floats
from icsbench.figures.caption import caption, geometric, missing
from icsbench.figures.contract import Figure
from icsbench.figures.large_steps import Profile, cut_off_by_layer, draw_by_layer, first_batches, profiles, seeds_of
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


def _caption(group: Group, drawn: Sequence[Profile]) -> str:
    return caption(
        group,
        "Gradient of the loss in the outputs y of each layer's transform, ahead of its norm, before the first update: "
        f"Euclidean norm over samples, channels and positions, geometric mean over the {first_batches(group)}.",
        seeds_of(drawn),
        geometric(drawn),
        cut_off_by_layer(drawn, _QUANTITIES),
        missing(drawn),
    )


def _draw(group: Group, drawn: Sequence[Profile], text: str) -> mpl.Figure:
    return draw_by_layer(drawn, _QUANTITIES, text)


FIGURE = Figure(
    name="start-gradients",
    order=160,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
