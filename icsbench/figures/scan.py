"""What a network ends with over the setting that an experiment sweeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icsbench.analysis.quantities.scans import BETA, GAP, SHIFT, TEST, TRAIN, Scan
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.style import (
    GUIDE,
    LEGEND_LINE,
    Page,
    above,
    below,
    chance_line,
    legend_rows,
    regime_handle,
    regime_style,
)

_TITLES = {
    TRAIN: "training accuracy (%)",
    TEST: "test accuracy (%)",
    GAP: "training − test (points)",
    BETA: "effective β",
}


def draw(scans: Sequence[Scan], chance: float, caption: str) -> Figure:
    """The curves of ``scans``, a panel per quantity: means joined by lines, with their intervals."""
    quantities = list(dict.fromkeys(scan.quantity for scan in scans))
    legend = legend_rows([regime_handle(regime) for regime in dict.fromkeys(scan.regime for scan in scans)])
    top = 0.26 + LEGEND_LINE * len(legend)
    page = Page(top + 2.2, caption, top=top, bottom=0.4, left=0.4, right=0.15)
    (row,) = page.axes(1, len(quantities), wspace=0.25)
    everywhere = np.concatenate([scan.x for scan in scans])
    for axes, quantity in zip(row, quantities, strict=True):
        shown = [scan for scan in scans if scan.quantity == quantity]
        scale = 1 if quantity == BETA else 100
        for scan in shown:
            _draw(axes, scan, scale)
        log_axis(axes, everywhere.min() / 1.15, everywhere.max() * 1.15, "x", ticks=6)
        if scans[0].setting != SHIFT:
            axes.set_xticks(np.unique(everywhere), [f"{x:g}" for x in np.unique(everywhere)])
        below(axes, scans[0].setting)
        above(axes, _TITLES[quantity])
        if quantity == BETA:
            axes.plot(np.unique(everywhere), 2 / np.unique(everywhere), color=GUIDE, linewidth=0.6, zorder=0)
            axes.annotate("2/lr", (everywhere.max(), 2 / everywhere.max()), color=GUIDE, size=6, ha="right", va="top")
            log_axis(axes, *extent(*(_ends(scan) for scan in shown), 2 / everywhere))
        elif quantity in (TRAIN, TEST):
            axes.set_ylim(0, 102)
            chance_line(axes, chance)
    page.legend(*legend)
    return page.figure


def _ends(scan: Scan) -> np.ndarray:
    return np.array([end for interval in scan.intervals for end in interval[:3]])


def _draw(axes: Axes, scan: Scan, scale: float) -> None:
    look = regime_style(scan.regime)
    mean, low, high = scale * np.array([interval[:3] for interval in scan.intervals]).T
    axes.plot(scan.x, mean, color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=3)
    axes.errorbar(scan.x, mean, [mean - low, high - mean], fmt="none", ecolor=look.color, elinewidth=0.8, capsize=1.5)
    if scan.setting == SHIFT and scan.quantity == TRAIN:
        for place, (x, y, label) in enumerate(zip(scan.x, mean, scan.labels, strict=True), 1):
            beside: dict[str, Any] = (
                {"xytext": (4, 4), "ha": "left"} if place < len(mean) else {"xytext": (-6, -2), "ha": "right"}
            )
            axes.annotate(label, (x, y), textcoords="offset points", size=6, color=GUIDE, **beside)
