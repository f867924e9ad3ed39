"""Final test accuracy by evaluation protocol."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from icsbench.analysis.quantities.curves import ProtocolAccuracy
from icsbench.figures.style import (
    FEWEST_FOR_AN_INTERVAL,
    LEGEND_LINE,
    Page,
    beside,
    chance_line,
    legend_rows,
    regime_handle,
    regime_style,
)

_REGIMES_IN_FULL = 4  # of more, means and dots stand closer


def draw(accuracies: Sequence[ProtocolAccuracy], order: Sequence[str], chance: float, caption: str) -> Figure:
    """Test accuracy by protocol, in the given ``order``: a mean with its interval per regime, and every seed beside it.

    A diverged seed is a cross. ``chance`` is the accuracy of guessing, a fraction.
    """
    regimes = list(dict.fromkeys(accuracy.regime for accuracy in accuracies))
    mark: dict[str, Any] = {"linestyle": "-", "markersize": 4}
    legend = legend_rows([regime_handle(regime, **mark, marker=regime_style(regime).marker) for regime in regimes])
    more = LEGEND_LINE * (len(legend) - 1)
    page = Page(2.6 + more, caption, top=0.3 + more, bottom=0.46, left=0.44, right=0.12)
    [[axes]] = page.axes(1, 1)
    dot: dict[str, Any] = {"markersize": 3, "alpha": 0.6, "markeredgewidth": 0.6}
    narrow = min(1, _REGIMES_IN_FULL / len(regimes))
    for place, protocol in enumerate(order):
        shown = [accuracy for accuracy in accuracies if accuracy.protocol == protocol]
        for accuracy, offset in zip(shown, _offsets(len(shown), 0.22 * narrow), strict=True):
            look = regime_style(accuracy.regime)
            x = place + offset
            mean, low, high, n = accuracy.interval
            if n >= FEWEST_FOR_AN_INTERVAL:
                axes.plot([x, x], [100 * low, 100 * high], color=look.color, linewidth=1.2, zorder=2)
            axes.plot(x, 100 * mean, look.marker, color=look.color, markersize=4, zorder=3)
            jitters = _offsets(len(accuracy.seeds), 0.012 * narrow)
            for (seed, value), jitter in zip(accuracy.seeds.items(), jitters, strict=True):
                marker = "x" if seed in accuracy.diverged else "."
                axes.plot(x + 0.1 * narrow + jitter, 100 * value, marker, color=look.color, **dot)
    chance_line(axes, chance)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylim(0, 102)
    axes.set_xticks(range(len(order)), [_label(protocol) for protocol in order])
    axes.tick_params(axis="x", length=0)
    for place in range(1, len(order)):
        axes.axvline(place - 0.5, color="0.9", linewidth=0.6, zorder=0)
    beside(axes, "test accuracy (%)", 20)
    page.legend(*legend)
    return page.figure


def _offsets(count: int, distance: float) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * distance


def _label(protocol: str) -> str:
    statistics, _, noise = protocol.partition("-")
    return f"{statistics}\nstatistics,\nnoise {noise}"
