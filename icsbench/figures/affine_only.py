"""Training of gamma and beta alone, of as many random weights, and of everything."""

from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Condition, Group
from icsbench.analysis.quantities.training import accuracy_to_the_end
from icsbench.analysis.statistics import mean_band
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.series import COLORS, Series, draw_series, number_of
from icsbench.figures.style import Page, above, chance_line, step_axis
from icsbench.record.schema import TRAIN_ACCURACY

_LOOKS = {
    "all": ("all parameters", COLORS[6]),
    "affine": ("only those of the norms", COLORS[1]),
    "random": ("as many random weights", COLORS[0]),
}
_TRAIN = "optim.train"


def _numbers(group: Group) -> list[Series]:
    return [_of_condition(condition) for condition in group.conditions]


def _of_condition(condition: Condition) -> Series:
    steps, values = zip(*map(accuracy_to_the_end, condition.runs), strict=True)
    run = condition.runs[0]
    of = {"regime": str(run.regime), "train": run.setting(_TRAIN), "lr": run.lr}
    return Series(of, "step", TRAIN_ACCURACY, steps[0], *mean_band(np.array(values)))


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "Training accuracy where all parameters are trained, only those of the norms (gamma and beta), or as many "
        "random weights of each layer; what is not trained stays as it was drawn, and so does the output layer.",
        number_of(drawn, "seeds"),
        "A run that diverged has the accuracy of chance.",
    )


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    panels = list(dict.fromkeys((one.of["regime"], one.of["lr"]) for one in drawn))
    page = Page(2.5, text, top=0.5, bottom=0.4, left=0.4, right=0.15)
    [row] = page.axes(1, len(panels), wspace=0.15)
    for axes, (regime, lr) in zip(row, panels, strict=True):
        for one in drawn:
            if (one.of["regime"], one.of["lr"]) == (regime, lr):
                draw_series(axes, one, _LOOKS[one.of["train"]][1], scale=100)
        step_axis(axes, max(int(one.x[-1]) for one in drawn), label=True)
        axes.set_ylim(0, 102)
        chance_line(axes, 1 / group.num_classes)
        above(axes, f"{regime}, lr {lr:g}: training accuracy (%)")
    for axes in row[1:]:
        axes.tick_params(labelleft=False)
    page.legend([Line2D([], [], color=color, label=label) for label, color in _LOOKS.values()])
    return page.figure


FIGURE = Figure(
    name="affine-only",
    order=190,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
    applies=lambda group: _TRAIN in group.factors and not group.regression,
    per_lr=False,
)
