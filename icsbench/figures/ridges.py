"""Distributions of pre-activations over training."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.quantities.curves import Ridge
from icsbench.figures.style import Page, below, beside, regime_titles, titles_height

_OVERLAP = 1.7  # height of a ridge, in distances from one to the next
_ROOMY = 4  # columns that have room for four numbers below
_COLORS = matplotlib.colormaps["viridis"]


def draw(ridges: Sequence[Ridge], caption: str) -> Figure:
    """The densities of ``ridges``: a column per regime, a row per layer, time upwards and from dark to light.

    Each ridge is scaled to its own maximum. A row shares one range: from the first decile, over its ridges, of their
    1 % points to the ninth decile of their 99 % points; what lies outside is cut off, and a distribution that is
    not finite leaves its line empty.
    """
    regimes = list(dict.fromkeys(ridge.regime for ridge in ridges))
    layers = {ridge.layer.depth: ridge.layer for ridge in ridges}
    top = titles_height(regimes)
    page = Page(top + 0.36 + 1.4 * len(layers), caption, top=top, bottom=0.4, left=0.66, right=0.1)
    grid = page.axes(len(layers), len(regimes), wspace=0.06, hspace=0.24)
    regime_titles(grid[0], regimes)
    for row, depth in zip(grid, sorted(layers), strict=True):
        low, high = _range([ridge for ridge in ridges if ridge.layer.depth == depth])
        for axes, regime in zip(row, regimes, strict=True):
            shown = [ridge for ridge in ridges if (ridge.layer.depth, ridge.regime) == (depth, regime)]
            _draw(axes, shown, low, high)
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


def _draw(axes: Axes, ridges: Sequence[Ridge], low: float, high: float) -> None:
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


def _outline(ridge: Ridge, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The density at the centres of its bins, relative to its peak; zero from the outer edges on."""
    first, last = ridge.edges[0], ridge.edges[-1]
    centers = (ridge.edges[:-1] + ridge.edges[1:]) / 2
    peak = ridge.density.max()
    x = np.concatenate([[min(low, first), first], centers, [last, max(high, last)]])
    return x, np.concatenate([[0, 0], ridge.density / peak if peak > 0 else ridge.density, [0, 0]])


def _range(ridges: Sequence[Ridge]) -> tuple[float, float]:
    points = np.array([_quantiles(ridge) for ridge in ridges if _finite(ridge)] or [(0.0, 1.0)])
    low, high = np.quantile(points[:, 0], 0.1), np.quantile(points[:, 1], 0.9)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _finite(ridge: Ridge) -> bool:
    return bool(np.isfinite(ridge.edges).all())


def _quantiles(ridge: Ridge) -> tuple[float, float]:
    cumulative = np.concatenate([[0.0], np.cumsum(ridge.density * np.diff(ridge.edges))])
    return float(np.interp(0.01, cumulative, ridge.edges)), float(np.interp(0.99, cumulative, ridge.edges))
