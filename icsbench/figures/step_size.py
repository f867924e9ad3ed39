"""How far the gradient changes with the length of the step along it: Santurkar et al. (2018), Fig. 11."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import matplotlib.figure as mpl
import numpy as np

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.updates import (
    along_gradient,
    has_landscape,
    learning_rate,
    positive,
    step_sizes,
    with_landscape,
)
from icsbench.analysis.statistics import Floats, geometric_band
from icsbench.figures.caption import CUT_OFF, caption, geometric, left_out, missing, seeds
from icsbench.figures.contract import Figure
from icsbench.figures.landscape import along
from icsbench.figures.panels import cut_off, draw_curve, extent, limits, log_axis
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, regime_legend
from icsbench.record.regime import Regime

_STEPS = 6
_COLUMNS = 3


@dataclass(frozen=True, eq=False)
class Profile:
    """``||g' - g||`` against the step size alpha at one step: the mean over ``seeds``, arrays of shape (K,)."""

    regime: Regime
    lr: float
    seeds: tuple[int, ...]
    step: int
    x: Floats
    """The step sizes, ascending."""
    mean: Floats
    low: Floats
    high: Floats
    values: Floats
    """The single seeds behind the mean, (n, K)."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per step size."""
        for alpha, mean, low, high in zip(self.x, self.mean, self.low, self.high, strict=True):
            yield {
                "regime": self.regime,
                "lr": self.lr,
                "seeds": " ".join(map(str, self.seeds)),
                "step": self.step,
                "alpha": float(alpha),
                "mean": float(mean),
                "low": float(low),
                "high": float(high),
            }


def profiles(group: Group) -> list[Profile]:
    """``||g' - g||`` against the step size, at up to 6 steps spread evenly over those that all runs measured.

    The first and the last are always among them.
    """
    multiples = step_sizes(group)
    found = {condition: [along_gradient(run) for run in condition.runs] for condition in with_landscape(group)}
    steps = reduce(np.intersect1d, [one.steps for of_runs in found.values() for one in of_runs])
    if not len(steps):
        raise NotMeasured("no step at which all runs measured the landscape")
    wanted = np.linspace(steps[0], steps[-1], _STEPS)
    drawn = []
    for step in sorted({int(steps[np.abs(steps - one).argmin()]) for one in wanted}):
        for condition, of_runs in found.items():
            alphas = multiples * learning_rate(condition.runs[0], np.array([step]))
            values = positive(np.concatenate([one.differences[one.steps == step] for one in of_runs]))
            band = geometric_band(values)
            seeds = tuple(run.seed for run in condition.runs)
            ends = (band.mean, band.low, band.high)
            drawn.append(Profile(condition.regime, condition.lr, seeds, step, alphas, *ends, values))
    return drawn


def _caption(group: Group, profiles: Sequence[Profile]) -> str:
    what = (
        f"g: gradient after so many steps, on the batch of the next update; g′: the same at θ − αg, for {along(group)}."
    )
    number = seeds((profile.regime, profile.lr, len(profile.seeds)) for profile in profiles)
    averages = (geometric(profiles), CUT_OFF if cut_off(profiles) else "", missing(profiles))
    return caption(group, what, number, *averages, left_out(group))


def _draw(group: Group, profiles: Sequence[Profile], text: str) -> mpl.Figure:
    """A panel per step, all with the same two logarithmic axes."""
    steps = sorted({profile.step for profile in profiles})
    legend = regime_legend(profiles)
    top, rows, columns = 0.25 + LEGEND_LINE * len(legend), -(-len(steps) // _COLUMNS), min(_COLUMNS, len(steps))
    page = Page(top + 0.42 + 1.5 * rows, text, top=top, bottom=0.42, left=0.62, right=0.14)
    grid = page.axes(rows, columns, wspace=0.08, hspace=0.24)
    panels = [axes for row in grid for axes in row]
    x, y = extent(*(profile.x for profile in profiles)), limits(profiles)
    for number, (axes, step) in enumerate(zip(panels, steps, strict=False)):
        for profile in profiles:
            if profile.step == step:
                draw_curve(axes, profile)
        log_axis(axes, *y)
        log_axis(axes, *x, "x")
        above(axes, f"step {step:,}")
        if number % columns:
            axes.tick_params(labelleft=False)
        else:
            beside(axes, "‖g′ − g‖", 30)
        if number + columns < len(steps):
            axes.tick_params(labelbottom=False)
        else:
            below(axes, "α")
    for axes in panels[len(steps) :]:
        axes.remove()
    page.legend(*legend)
    return page.figure


FIGURE = Figure(
    name="step-size",
    order=100,
    numbers=profiles,
    caption=_caption,
    draw=_draw,
    applies=lambda group: has_landscape(group.runs),
)
