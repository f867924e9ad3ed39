"""Distributions of pre-activations over training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.shift import SHIFT, chosen_layers, one_seed, probed, second_of_pairs
from icsbench.analysis.statistics import Floats
from icsbench.errors import IcsbenchError
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.style import Page, below, beside, regime_titles, regimes_of, titles_height
from icsbench.record.reader import Layer
from icsbench.record.regime import Regime

_HISTOGRAM = ("histogram_counts_preactivation", "histogram_edges_preactivation")  # (layers, bins), (layers, bins + 1)
_RIDGES = 10  # steps, at most
_OVERLAP = 1.7  # height of a ridge, in distances from one to the next
_ROOMY = 4  # columns that have room for four numbers below
_COLORS = matplotlib.colormaps["viridis"]


@dataclass(frozen=True, eq=False)
class Ridge:
    """Pre-activations of a layer at one step, of one seed: a density, shape (bins,), over ``edges``, (bins + 1,)."""

    regime: Regime
    lr: float
    seed: int
    layer: Layer
    step: int
    edges: Floats
    density: Floats

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per bin."""
        for left, right, density in zip(self.edges[:-1], self.edges[1:], self.density, strict=True):
            yield {
                "regime": self.regime,
                "lr": self.lr,
                "seed": self.seed,
                "layer": self.layer.path,
                "depth": self.layer.depth,
                "step": self.step,
                "left": float(left),
                "right": float(right),
                "density": float(density),
            }


def _numbers(group: Group) -> list[Ridge]:
    """Densities of the ``chosen_layers`` of one seed per regime, at up to 10 steps spread evenly over the probes.

    The seed is the lowest one that finished without diverging in every regime; where there is none, the lowest of each
    regime. The first and the last probe are always among the steps. Probes come in pairs (t - 1, t), of which only the
    second is considered.
    """
    drawn: list[Ridge] = []
    for condition, run in one_seed(probed(group)):
        positions = {layer.path: position for position, layer in enumerate(run.layers_of(SHIFT))}
        for step in spread_steps(run.steps_of(SHIFT), _RIDGES):
            counts, edges = run.arrays(SHIFT, step, *_HISTOGRAM)
            for layer in chosen_layers(run.layers_of(SHIFT)):
                row = positions[layer.path]
                if row >= len(counts):
                    raise IcsbenchError(
                        f"{run.path}: probe at step {step} has {len(counts)} layers, not {len(positions)}"
                    )
                width = np.diff(edges[row])
                area = counts[row].sum() * width
                density = np.divide(counts[row], area, out=np.zeros_like(area), where=area > 0)
                drawn.append(Ridge(condition.regime, condition.lr, run.seed, layer, step, edges[row], density))
    return drawn


def spread_steps(steps: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the ascending probe steps, evenly spread from the first to the last.

    Of a pair (t - 1, t) only t is a candidate, except for the first.
    """
    candidates = np.array(steps)[second_of_pairs(steps)]
    wanted = np.linspace(candidates[0], candidates[-1], count)
    return sorted({int(candidates[np.abs(candidates - step).argmin()]) for step in wanted})


def _caption(group: Group, ridges: Sequence[Ridge]) -> str:
    chosen = sorted({ridge.seed for ridge in ridges})
    return caption(
        group,
        "Pre-activations pooled over channels, each distribution scaled to its own maximum,",
        f"tails beyond the range of a row cut off; seed {' and '.join(map(str, chosen))}.",
    )


def _draw(group: Group, ridges: Sequence[Ridge], text: str) -> mpl.Figure:
    """A column per regime, a row per layer, time upwards and from dark to light.

    Each ridge is scaled to its own maximum. A row shares one range: from the first decile, over its ridges, of their
    1 % points to the ninth decile of their 99 % points; what lies outside is cut off, and a distribution that is
    not finite leaves its line empty.
    """
    regimes = regimes_of(ridges)
    layers = {ridge.layer.depth: ridge.layer for ridge in ridges}
    top = titles_height(regimes)
    page = Page(top + 0.36 + 1.4 * len(layers), text, top=top, bottom=0.4, left=0.66, right=0.1)
    grid = page.axes(len(layers), len(regimes), wspace=0.06, hspace=0.24)
    regime_titles(grid[0], regimes)
    for row, depth in zip(grid, sorted(layers), strict=True):
        low, high = shown_range([ridge for ridge in ridges if ridge.layer.depth == depth])
        for axes, regime in zip(row, regimes, strict=True):
            shown = [ridge for ridge in ridges if (ridge.layer.depth, ridge.regime) == (depth, regime)]
            _draw_ridges(axes, shown, low, high)
            axes.xaxis.set_major_locator(MaxNLocator(4) if len(regimes) <= _ROOMY else MaxNLocator(3, prune="both"))
            if row is grid[-1]:
                below(axes, "pre-activation")
            if axes is row[0]:
                axes.set_yticks(range(len(shown)), [f"{ridge.step:,}" for ridge in shown])
                axes.tick_params(axis="y", labelsize=6, length=0, pad=2)
                beside(axes, f"layer {depth}\nstep", 27)
            else:
                axes.set_yticks([])
    return page.figure


def _draw_ridges(axes: Axes, ridges: Sequence[Ridge], low: float, high: float) -> None:
    for position, ridge in enumerate(ridges):
        if not _finite(ridge):
            continue
        color = _COLORS(0.92 * position / max(1, len(ridges) - 1))
        x, heights = _outline(ridge, low, high)
        y = position + _OVERLAP * heights
        layer = len(ridges) - position
        axes.fill_between(x, position, y, color=color, alpha=0.85, linewidth=0, zorder=layer)
        # A white line sets it off from the ridge behind; one in its own colour shows even a distribution of no width.
        axes.plot(x, y, color="white", linewidth=1.4, zorder=layer - 0.5)
        axes.plot(x, y, color=color, linewidth=0.5, zorder=layer)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.3, len(ridges) - 1 + _OVERLAP + 0.15)
    axes.spines["left"].set_visible(False)


def _outline(ridge: Ridge, low: float, high: float) -> tuple[Floats, Floats]:
    """The density at the centres of its bins, relative to its peak; zero from the outer edges on."""
    first, last = ridge.edges[0], ridge.edges[-1]
    centers = (ridge.edges[:-1] + ridge.edges[1:]) / 2
    peak = ridge.density.max()
    x = np.concatenate([[min(low, first), first], centers, [last, max(high, last)]])
    return x, np.concatenate([[0, 0], ridge.density / peak if peak > 0 else ridge.density, [0, 0]])


def shown_range(ridges: Sequence[Ridge]) -> tuple[float, float]:
    """What is shown of the distributions of one layer, as :func:`_draw` says."""
    points = np.array([_quantiles(ridge) for ridge in ridges if _finite(ridge)] or [(0.0, 1.0)])
    low, high = np.quantile(points[:, 0], 0.1), np.quantile(points[:, 1], 0.9)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _finite(ridge: Ridge) -> bool:
    return bool(np.isfinite(ridge.edges).all())


def _quantiles(ridge: Ridge) -> tuple[float, float]:
    cumulative = np.concatenate([[0.0], np.cumsum(ridge.density * np.diff(ridge.edges))])
    return float(np.interp(0.01, cumulative, ridge.edges)), float(np.interp(0.99, cumulative, ridge.edges))


FIGURE = Figure(name="ridges", order=30, numbers=_numbers, caption=_caption, draw=_draw)
