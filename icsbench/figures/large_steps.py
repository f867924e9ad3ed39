"""The loss of the untrained network along its first gradient, and how the gradients at its output agree: Bjorck et al.

After the figures of section 3: relative loss against step size, and gradients at the output by class.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.groups import Group, regime_order
from icsbench.analysis.quantities.large_steps import LAB, divergence_step, relative_losses, sign_shares
from icsbench.analysis.statistics import Band, Floats, geometric_band, mean_band
from icsbench.figures.caption import CUT_OFF, caption, geometric, seeds
from icsbench.figures.contract import Figure
from icsbench.figures.panels import cut_off, draw_curve, extent, guide, limits, log_axis, log_panel
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, regime_legend
from icsbench.record.reader import Run
from icsbench.record.regime import Regime
from icsbench.record.schema import STEP_DIVERGES

_LOSS = "relative loss"
_SHARE = "share of the commoner sign"
_LOSSES = (1e-3, 1e6)
_ROW = 1.75  # inches from one network to the next


@dataclass(frozen=True, eq=False)
class Profile:
    """A quantity of a network with a norm, against something: the mean over ``seeds``, arrays of shape (m,)."""

    network: str
    regime: Regime
    seeds: tuple[int, ...]
    x_name: str
    quantity: str
    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    values: Floats
    """The single seeds behind the mean, (n, m)."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per point."""
        for x, mean, low, high in zip(self.x, self.mean, self.low, self.high, strict=True):
            yield {
                "network": self.network,
                "regime": self.regime,
                "seeds": " ".join(map(str, self.seeds)),
                self.x_name: float(x),
                "quantity": self.quantity,
                "mean": float(mean),
                "low": float(low),
                "high": float(high),
            }


def profiles(
    group: Group,
    x_name: str,
    quantity: str,
    of_run: Callable[[Run], tuple[Floats, Floats]],
    average: Callable[[Floats], Band] = geometric_band,
) -> list[Profile]:
    """A profile of each condition, by network and regime."""
    found = []
    for condition in group.conditions:
        run = condition.runs[0]
        curves = [of_run(one) for one in condition.runs]
        values = np.array([curve for _, curve in curves])
        values[~(np.isfinite(values) & (values > 0))] = np.nan
        band = average(values)
        of_seeds = tuple(one.seed for one in condition.runs)
        ends = (band.mean, band.low, band.high)
        found.append(Profile(run.model.label, run.norm, of_seeds, x_name, quantity, curves[0][0], *ends, values))
    return sorted(found, key=lambda profile: (profile.network, *regime_order(profile.regime)))


def networks_of(drawn: Iterable[Profile]) -> list[str]:
    """The networks, in the order of the rows of a page."""
    return list(dict.fromkeys(profile.network for profile in drawn))


def seeds_of(drawn: Sequence[Profile]) -> str:
    """What is averaged, for the caption: of a norm that has several networks, the fewest seeds."""
    fewest: dict[Regime, int] = {}
    for profile in drawn:
        fewest[profile.regime] = min(len(profile.seeds), fewest.get(profile.regime, len(profile.seeds)))
    return seeds((regime, 0.0, n) for regime, n in fewest.items())


def first_batches(group: Group) -> str:
    """Which batches were measured, for the caption."""
    count, size = (group.runs[0].setting(key) for key in ("lab.batches", "batch_size"))
    return f"first batch, of {size}" if count == 1 else f"first {count} batches of {size}"


def grid_of(drawn: Sequence[Profile], text: str, wspace: float) -> tuple[Page, list[list[Axes]]]:
    """A page with the legend of the norms and two panels for each network."""
    legend = regime_legend(drawn)
    rows = len(networks_of(drawn))
    top = 0.25 + LEGEND_LINE * len(legend)
    page = Page(top + 0.42 + _ROW * rows - 0.3, text, top=top, bottom=0.42, left=0.62, right=0.5)
    page.legend(*legend)
    return page, page.axes(rows, 2, wspace=wspace, hspace=0.36)


def of_quantity(drawn: Iterable[Profile], key: str, network: str | None = None) -> list[Profile]:
    """The profiles of a quantity, of all networks or of one."""
    return [one for one in drawn if one.quantity == key and network in (None, one.network)]


def cut_off_by_layer(drawn: Sequence[Profile], quantities: Iterable[str]) -> str:
    """For the caption: whether :func:`draw_by_layer` cuts intervals off."""
    return CUT_OFF if any(cut_off(of_quantity(drawn, key)) for key in quantities) else ""


def draw_by_layer(drawn: Sequence[Profile], quantities: Mapping[str, str], text: str) -> mpl.Figure:
    """Two positive quantities by layer, a row of panels for each network; ``quantities``: their keys and names."""
    page, grid = grid_of(drawn, text, 0.24)
    for network, row in zip(networks_of(drawn), grid, strict=True):
        for axes, (key, name) in zip(row, quantities.items(), strict=True):
            log_panel(axes, of_quantity(drawn, key, network), limits(of_quantity(drawn, key)))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            above(axes, network)
            beside(axes, name, 30)
    for axes in grid[-1]:
        below(axes, "layer")
    return page.figure


@dataclass(frozen=True, eq=False)
class Mark:
    """The divergence steps of the seeds of a network with a norm; infinite where one lies beyond the grid."""

    network: str
    regime: Regime
    steps: tuple[tuple[int, float], ...]
    """Seed and step."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per seed."""
        for seed, step in self.steps:
            yield {
                "network": self.network,
                "regime": self.regime,
                "seeds": str(seed),
                "quantity": "divergence step",
                "mean": step,
            }


def _numbers(group: Group) -> list[Profile | Mark]:
    marks = [
        Mark(
            condition.runs[0].model.label,
            condition.runs[0].norm,
            tuple((run.seed, divergence_step(run)) for run in condition.runs),
        )
        for condition in group.conditions
    ]
    losses = profiles(group, "alpha", _LOSS, relative_losses)
    return [*losses, *profiles(group, "class", _SHARE, sign_shares, mean_band), *marks]


def _parts(numbers: Sequence[Profile | Mark]) -> tuple[list[Profile], list[Profile], list[Mark]]:
    drawn = [one for one in numbers if isinstance(one, Profile)]
    losses = [one for one in drawn if one.quantity == _LOSS]
    return losses, [one for one in drawn if one.quantity == _SHARE], [o for o in numbers if isinstance(o, Mark)]


def _caption(group: Group, numbers: Sequence[Profile | Mark]) -> str:
    losses, _, marks = _parts(numbers)
    beyond = [
        f"{sum(np.isinf(step) for _, step in mark.steps)} of {len(mark.steps)} with {mark.regime.label}, {mark.network}"
        for mark in marks
        if any(np.isinf(step) for _, step in mark.steps)
    ]
    return caption(
        group,
        "Left: loss at w − αg over that at w, w the initial weights and g the gradient there, on the same batch; "
        f"geometric mean over the {first_batches(group)}. Marks: the smallest α, median of the batches, at "
        f"which the loss of a seed is above {STEP_DIVERGES:,.0f} times what it was, or not finite.",
        f"No α of the grid does so for {'; '.join(beyond)} (seeds)." if beyond else "",
        "A curve ends where the loss of a seed is not finite, or at the end of the axis.",
        "Right: of the gradient by each logit, summed over the samples in absolute value, the share that has the "
        "commoner sign; ½ where it cancels, 1 where it pulls every sample the same way.",
        seeds_of(losses),
        geometric(losses),
        CUT_OFF if cut_off(losses, _limits(losses)) else "",
    )


def _limits(losses: Sequence[Profile]) -> tuple[float, float]:
    """The axis of the relative loss, which may span many more decades than can be shown."""
    return extent(*(np.clip(profile.mean, *_LOSSES) for profile in losses), np.array([STEP_DIVERGES]))


def _draw(group: Group, numbers: Sequence[Profile | Mark], text: str) -> mpl.Figure:
    losses, shares, marks = _parts(numbers)
    page, grid = grid_of(losses, text, 0.38)
    y, x = _limits(losses), extent(*(profile.x for profile in losses))
    for network, (left, right) in zip(networks_of(losses), grid, strict=True):
        log_axis(left, *y)
        log_axis(left, *x, "x")
        guide(left, STEP_DIVERGES, f"{STEP_DIVERGES:,.0f}")
        guide(left, 1)
        for profile in (one for one in losses if one.network == network):
            draw_curve(left, profile)
        for mark in (one for one in marks if one.network == network):
            steps = [step for _, step in mark.steps if np.isfinite(step)]
            style = {"marker": mark.regime.marker, "color": mark.regime.color, "linestyle": "none", "markersize": 3}
            left.plot(steps, [STEP_DIVERGES] * len(steps), **style)
        _classes(right, [one for one in shares if one.network == network])
        above(left, f"{network}: first step")
        above(right, "gradients at the output")
        beside(left, "L(w − αg) / L(w)", 30)
        beside(right, "commoner sign", 24)
    below(grid[-1][0], "α")
    below(grid[-1][1], "class")
    return page.figure


def _classes(axes: Axes, shares: Sequence[Profile]) -> None:
    axes.set_ylim(0.45, 1.05)
    guide(axes, 0.5, "cancels")
    guide(axes, 1, "agrees")
    for number, profile in enumerate(shares):
        x = profile.x + 0.16 * (number - (len(shares) - 1) / 2)
        errors = np.nan_to_num([profile.mean - profile.low, profile.high - profile.mean])
        look = {"color": profile.regime.color, "marker": profile.regime.marker, "markersize": 3, "linestyle": "none"}
        axes.errorbar(x, profile.mean, errors, elinewidth=0.7, **look)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))


FIGURE = Figure(
    name="large-steps",
    order=280,
    kind="lab",
    applies=lambda group: group.runs[0].regime == LAB,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
