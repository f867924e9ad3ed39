"""Training and test accuracy over the steps."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.training import TEST_ACCURACY_BATCH_ON, accuracy_curves
from icsbench.figures.caption import caption, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.style import (
    CROSS,
    LEGEND_LINE,
    Page,
    above,
    chance_line,
    diverged_handle,
    regime_handle,
    regime_legend,
    regimes_of,
    spread,
    step_axis,
)
from icsbench.record.schema import TEST_ACCURACY, TRAIN_ACCURACY

TITLES = {
    TRAIN_ACCURACY: "training accuracy (%)",
    TEST_ACCURACY: "test accuracy (%): running statistics, noise off",
    TEST_ACCURACY_BATCH_ON: "test accuracy (%): batch statistics, noise on",
}
_BATCH_ON: dict[str, Any] = {
    "linestyle": (0, (2, 1)),
    "marker": "o",
    "markersize": 3,
    "markerfacecolor": "white",
    "markeredgewidth": 0.8,
}


def _caption(group: Group, curves: Sequence[Curve]) -> str:
    return caption(group, seeds_of([curve for curve in curves if curve.diverged_at is None]))


def _draw(group: Group, curves: Sequence[Curve], text: str) -> mpl.Figure:
    """The curves of ``accuracy_curves``: training on the left, test on the right, a row per learning rate.

    Lines are means, bands their intervals; a diverged run is a thin line of its own that ends in a cross where it went
    to NaN.
    """
    lrs = sorted({curve.lr for curve in curves})
    legend = regime_legend(curves)
    details = _details(curves)
    top = 0.26 + LEGEND_LINE * (len(legend) + bool(details))
    page = Page(top + 1.9 * len(lrs), text, top=top, bottom=0.4, left=0.4, right=0.2)
    grid = page.axes(len(lrs), 2, wspace=0.12, hspace=0.22)
    last = max(int(curve.steps[-1]) for curve in curves)
    for row, lr in zip(grid, lrs, strict=True):
        for axes, title, quantities in (
            (row[0], "training accuracy (%)", [TRAIN_ACCURACY]),
            (row[1], "test accuracy (%)", [TEST_ACCURACY, TEST_ACCURACY_BATCH_ON]),
        ):
            chance_line(axes, 1 / group.num_classes)
            for curve in curves:
                if curve.lr == lr and curve.quantity in quantities:
                    draw_curve(axes, curve)
            step_axis(axes, last, label=row is grid[-1])
            axes.set_ylim(0, 102)
            above(axes, title + (f", lr {lr:g}" if len(lrs) > 1 else ""))
        row[1].tick_params(labelleft=False)
    page.legend(*legend, details)
    return page.figure


def draw_curve(axes: Axes, curve: Curve) -> None:
    """One curve of ``accuracy_curves`` on an axis in per cent."""
    look = curve.regime
    if curve.diverged_at is not None:
        line: dict[str, Any] = {"linewidth": 0.6, "linestyle": look.linestyle, "color": look.color}
        axes.plot(curve.steps, 100 * curve.mean, **line)
        axes.plot(curve.diverged_at, 100 * curve.mean[-1], **CROSS, color=look.color, clip_on=False)
        return
    line = {"linestyle": look.linestyle}
    if curve.quantity == TEST_ACCURACY_BATCH_ON:
        line = _BATCH_ON | {"markevery": max(1, len(curve.steps) // 8)}
    axes.plot(curve.steps, 100 * curve.mean, color=look.color, **line)
    spread(axes, curve, look.color, scale=100)


def _details(curves: Sequence[Curve]) -> list[Line2D]:
    handles = []
    for regime in regimes_of(curve for curve in curves if curve.quantity == TEST_ACCURACY_BATCH_ON):
        handles += [
            regime_handle(regime, label="test: running statistics, noise off"),
            regime_handle(regime, **_BATCH_ON, label="test: batch statistics, noise on"),
        ]
    if any(curve.diverged_at is not None for curve in curves):
        handles.append(diverged_handle())
    return handles


FIGURE = Figure(
    name="accuracy",
    order=10,
    numbers=accuracy_curves,
    caption=_caption,
    draw=_draw,
    applies=lambda group: not group.regression,
    per_lr=False,
    titles=TITLES,
)
