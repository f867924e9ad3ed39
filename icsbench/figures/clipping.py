"""What networks end with, their gradients clipped and not, at each learning rate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import Interval, mean_interval
from icsbench.figures.caption import caption, seeds
from icsbench.figures.contract import Figure
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, chance_line, regime_legend
from icsbench.record.reader import Run
from icsbench.record.regime import Regime
from icsbench.record.schema import TEST_ACCURACY, TRAIN_ACCURACY

_CLIPPING = "optim.wrap.agc.clipping"
_QUANTITIES: dict[str, tuple[str, Callable[[Run], float]]] = {
    TRAIN_ACCURACY: ("training accuracy (%)", last_tenth),
    TEST_ACCURACY: ("test accuracy (%)", final_accuracy),
}


@dataclass(frozen=True)
class Cell:
    """A quantity of the runs of a norm at a learning rate, a fraction; ``clipping`` is None without."""

    quantity: str
    regime: Regime
    lr: float
    clipping: float | None
    interval: Interval

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row."""
        about = {"quantity": self.quantity, "regime": self.regime, "lr": self.lr, "clipping": self.clipping}
        yield about | self.interval._asdict()


def _numbers(group: Group) -> list[Cell]:
    return [
        Cell(
            quantity,
            condition.regime,
            condition.lr,
            condition.runs[0].settings.get(_CLIPPING),
            mean_interval([of_run(run) for run in condition.runs]),
        )
        for quantity, (_, of_run) in _QUANTITIES.items()
        for condition in group.conditions
    ]


def _caption(group: Group, cells: Sequence[Cell]) -> str:
    return caption(
        group,
        "Training accuracy of the last tenth of the steps, and final test accuracy (population statistics recomputed "
        "where there are any), with adaptive gradient clipping and without.",
        seeds((cell.regime, cell.lr, cell.interval.n) for cell in cells),
        "A run that diverged has the accuracy of chance.",
    )


def _draw(group: Group, cells: Sequence[Cell], text: str) -> mpl.Figure:
    """A row per quantity and a column per threshold; at a rate the norms stand side by side."""
    legend = regime_legend(cells)
    columns = sorted({cell.clipping for cell in cells}, key=lambda clipping: clipping or 0)
    top = 0.26 + LEGEND_LINE * len(legend)
    page = Page(top + 3.2, text, top=top, bottom=0.4, left=0.5, right=0.15)
    grid = page.axes(len(_QUANTITIES), len(columns), wspace=0.1, hspace=0.25)
    regimes = list(dict.fromkeys(cell.regime for cell in cells))
    for row, (quantity, (title, _)) in zip(grid, _QUANTITIES.items(), strict=True):
        for axes, clipping in zip(row, columns, strict=True):
            chance_line(axes, 1 / group.num_classes)
            for place, regime in enumerate(regimes):
                shown = [c for c in cells if (c.quantity, c.regime, c.clipping) == (quantity, regime, clipping)]
                aside = 0.12 * (place - (len(regimes) - 1) / 2)
                x = [group.lrs.index(cell.lr) + aside for cell in shown]
                mean, low, high = 100 * np.array([c.interval[:3] for c in shown]).reshape(-1, 3).T
                look = {"color": regime.color, "linestyle": regime.linestyle, "marker": regime.marker}
                axes.plot(x, mean, **look, markersize=3.5, linewidth=0.8)
                axes.errorbar(x, mean, [mean - low, high - mean], fmt="none", ecolor=regime.color, elinewidth=0.8)
            axes.set(ylim=(0, 102), xlim=(-0.5, len(group.lrs) - 0.5))
            axes.set_xticks(range(len(group.lrs)), [f"{lr:g}" for lr in group.lrs])
            axes.tick_params(labelbottom=row is grid[-1], labelleft=axes is row[0])
            if row is grid[0]:
                above(axes, "not clipped" if clipping is None else f"clipped at λ = {clipping:g}")
            else:
                below(axes, "learning rate")
        beside(row[0], title, 24)
    page.legend(*legend)
    return page.figure


FIGURE = Figure(
    name="clipping",
    order=150,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
    applies=lambda group: not group.regression and any(_CLIPPING in run.settings for run in group.runs),
    per_lr=False,
)
