"""How well networks end with parts of batch normalization, and with its relatives, at each learning rate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Interval, mean_interval
from icsbench.figures.caption import caption, seeds
from icsbench.figures.contract import Figure
from icsbench.figures.style import GUIDE, LEGEND_LINE, Page, above, below, regimes_of
from icsbench.record.reader import Run
from icsbench.record.regime import Regime
from icsbench.record.schema import TEST_ACCURACY, TRAIN_ACCURACY

_PARTS = {"bn_mean", "bn_var", "bn_detached", "bn_last"}
_QUANTITIES: dict[str, Callable[[Run], float]] = {TRAIN_ACCURACY: last_tenth, TEST_ACCURACY: final_accuracy}
_LINE = 0.2
"""Height of a norm, in inches."""
_APART = 0.16
"""From a norm's line to either of its two accuracies, in lines."""


@dataclass(frozen=True, eq=False)
class Ending:
    """An accuracy, a fraction, that a norm ends with at a learning rate: of each seed, and their interval."""

    regime: Regime
    lr: float
    quantity: str
    seeds: dict[int, float]
    interval: Interval

    def rows(self) -> Iterator[dict[str, object]]:
        """One plain row per seed, with the interval repeated."""
        for seed, value in self.seeds.items():
            named = {"regime": self.regime, "lr": self.lr, "quantity": self.quantity, "seed": seed, "accuracy": value}
            yield named | self.interval._asdict()


def _numbers(group: Group) -> list[Ending]:
    """Both accuracies of every norm at every learning rate."""
    found = []
    for condition in group.single_conditions:
        for quantity, accuracy in _QUANTITIES.items():
            values = {run.seed: accuracy(run) for run in condition.runs}
            interval = mean_interval(list(values.values()))
            found.append(Ending(condition.regime, condition.lr, quantity, values, interval))
    return found


def _caption(group: Group, endings: Sequence[Ending]) -> str:
    return caption(
        group,
        seeds((one.regime, one.lr, one.interval.n) for one in endings),
        "Full: training accuracy of the last tenth of the steps; open: final test accuracy, on recomputed population "
        "statistics. Small dots are single seeds. Grey line: chance, which a run that diverged counts with.",
    )


def _draw(group: Group, endings: Sequence[Ending], text: str) -> mpl.Figure:
    """A line for each norm, a panel for each learning rate."""
    regimes, lrs = regimes_of(endings), group.lrs
    top = 0.24 + LEGEND_LINE
    page = Page(top + 0.4 + _LINE * len(regimes), text, top=top, bottom=0.4, left=1.75, right=0.12)
    [row] = page.axes(1, len(lrs), wspace=0.08)
    for axes, lr in zip(row, lrs, strict=True):
        for one in endings:
            if one.lr == lr:
                _draw_ending(axes, one, regimes.index(one.regime))
        axes.axvline(100 / group.num_classes, color=GUIDE, linewidth=0.6, zorder=0)
        axes.set(xlim=(0, 102), ylim=(len(regimes) - 0.5, -0.5))
        axes.set_yticks(range(len(regimes)), [regime.label for regime in regimes] if axes is row[0] else [])
        axes.tick_params(axis="y", length=0)
        above(axes, f"learning rate {lr:g}")
        below(axes, "accuracy (%)")
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "color": "0.3", "markersize": 4}
    page.legend([Line2D([], [], **look, label="training"), Line2D([], [], **look, fillstyle="none", label="test")])
    return page.figure


def _draw_ending(axes: Axes, one: Ending, line: int) -> None:
    test = one.quantity == TEST_ACCURACY
    y, color = line + (_APART if test else -_APART), one.regime.color
    axes.plot([100 * value for value in one.seeds.values()], [y] * len(one.seeds), ".", color=color, alpha=0.5, ms=2)
    if one.interval.n >= FEWEST_FOR_AN_INTERVAL:
        axes.plot([100 * one.interval.low, 100 * one.interval.high], [y, y], color=color, linewidth=1)
    face: dict[str, Any] = {"markerfacecolor": "white"} if test else {}
    axes.plot(100 * one.interval.mean, y, "o", color=color, markersize=4, markeredgewidth=0.8, **face)


FIGURE = Figure(
    name="bn_parts",
    order=170,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
    applies=lambda group: not group.regression and bool(_PARTS & {run.regime for run in group.runs}),
    per_lr=False,
)
