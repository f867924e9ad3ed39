"""Weights and gradients by layer over the first steps of training: Yang et al. (2019), Fig. 3."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.analysis.statistics import Floats, mean_band
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside

_QUANTITIES = {"log_gradients": "ln ‖∂L/∂h‖²", "log_weights": "ln ‖W‖²"}
_STEPS = (0, 1, 2, 5, 10)
_NORMS = {"bn": "BN", "none": "without BN"}


@dataclass(frozen=True, eq=False)
class Profile:
    """The mean of a log squared norm over n networks by layer, from the second on, at one step: arrays (L - 1,)."""

    quantity: str
    depth: int
    norm: str
    lr: float
    step: int
    n: int
    mean: Floats
    low: Floats
    high: Floats

    @property
    def layers(self) -> Floats:
        """The layers."""
        return np.arange(2, 2 + len(self.mean)).astype(float)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per layer."""
        of = {"depth": self.depth, "norm": self.norm, "lr": self.lr, "step": self.step, "quantity": self.quantity}
        for layer, *values in zip(self.layers, self.mean, self.low, self.high, strict=True):
            yield {**of, "layer": int(layer), "n": self.n} | dict(
                zip(("mean", "low", "high"), map(float, values), strict=True)
            )


def _profiles(group: Group) -> list[Profile]:
    """The deepest networks at the steps 0, 1, 2, 5 and 10, for each norm and learning rate."""
    runs = lab_rows(group)
    depth = max(run["depth"].max() for run in runs)
    deepest = [run.where(depth=depth) for run in runs]
    settings = {key: None for run in deepest for key in zip(run["norm"], run["lr"], run["step"], strict=True)}
    found = []
    for norm, lr, step in settings:
        if step not in _STEPS:
            continue
        of = [run.where(norm=norm, lr=lr, step=step) for run in deepest]
        for quantity in _QUANTITIES:
            band = mean_band([values[1:] for run in of for values in run[quantity]])
            found.append(Profile(quantity, int(depth), norm, lr, int(step), band.n, band.mean, band.low, band.high))
    return found


def _caption(group: Group, profiles: Sequence[Profile]) -> str:
    counts = sorted({profile.n for profile in profiles})
    n = f"n\N{NO-BREAK SPACE}= {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    what = (
        f"ReLU networks of {profiles[0].depth} layers on digits, before training (step 0) and after so many steps: "
        "squared gradient of the features h and squared norm of the weights W by layer."
    )
    return caption(group, what, f"Mean and 95 % t-interval over {n} random networks.")


def _draw(group: Group, profiles: Sequence[Profile], text: str) -> mpl.Figure:
    """A row of panels for each quantity and a column for each norm and learning rate; a colour for each step."""
    columns = list(dict.fromkeys((profile.norm, profile.lr) for profile in profiles))
    steps = sorted({profile.step for profile in profiles})
    colors = {step: colormaps["viridis"](0.9 * place / max(1, len(steps) - 1)) for place, step in enumerate(steps)}
    legend = [Line2D([], [], color=colors[step], label=f"step {step}") for step in steps]
    top = 0.42 + LEGEND_LINE
    page = Page(top + 0.42 + 2 * 1.5, text, top=top, bottom=0.42, left=0.5, right=0.12)
    grid = page.axes(len(_QUANTITIES), len(columns), wspace=0.12, hspace=0.15)
    for row, quantity in zip(grid, _QUANTITIES, strict=True):
        shown = [profile for profile in profiles if profile.quantity == quantity]
        low, high = min(profile.mean.min() for profile in shown), max(profile.mean.max() for profile in shown)
        margin = 0.06 * (high - low) + 0.02
        for axes, column in zip(row, columns, strict=True):
            for profile in (one for one in shown if (one.norm, one.lr) == column):
                color = colors[profile.step]
                axes.plot(profile.layers, profile.mean, color=color, linewidth=0.9)
                axes.fill_between(profile.layers, profile.low, profile.high, color=color, alpha=0.2, linewidth=0)
            axes.set_ylim(low - margin, high + margin)
            axes.tick_params(labelleft=axes is row[0], labelbottom=row is grid[-1])
        beside(row[0], _QUANTITIES[quantity], 24)
    for axes, (norm, lr) in zip(grid[0], columns, strict=True):
        above(axes, f"{_NORMS[norm]}\nlr {lr:g}")
    for axes in grid[-1]:
        below(axes, "layer")
    page.legend(legend)
    return page.figure


FIGURE = Figure(
    name="first-steps",
    order=202,
    numbers=_profiles,
    caption=_caption,
    draw=_draw,
    applies=lambda group: group.runs[0].regime == "first_steps",
    kind="lab",
)
