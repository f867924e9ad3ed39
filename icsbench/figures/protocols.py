"""Final test accuracy by evaluation protocol."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.figure as mpl
import numpy as np

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.protocols import protocols
from icsbench.analysis.statistics import Interval, mean_interval
from icsbench.figures.caption import caption, seeds
from icsbench.figures.contract import Figure
from icsbench.figures.style import (
    FEWEST_FOR_AN_INTERVAL,
    LEGEND_LINE,
    Page,
    beside,
    chance_line,
    legend_rows,
    regime_handle,
    regimes_of,
)
from icsbench.record.regime import Regime
from icsbench.record.schema import SUMMARY, TEST_ACCURACY

_REGIMES_IN_FULL = 4  # of more, means and dots stand closer


@dataclass(frozen=True, eq=False)
class ProtocolAccuracy:
    """Final test accuracy (fraction) of a regime under one protocol: every seed, and their interval."""

    regime: Regime
    lr: float
    protocol: str
    interval: Interval
    seeds: dict[int, float]
    diverged: frozenset[int] = field(default_factory=frozenset)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per seed, with the interval repeated."""
        for seed, accuracy in self.seeds.items():
            yield {
                "regime": self.regime,
                "lr": self.lr,
                "protocol": self.protocol,
                "seed": seed,
                "diverged": seed in self.diverged,
                TEST_ACCURACY: accuracy,
                "mean": self.interval.mean,
                "low": self.interval.low,
                "high": self.interval.high,
                "n": self.interval.n,
            }


def _numbers(group: Group) -> list[ProtocolAccuracy]:
    """Final test accuracy by regime and protocol, diverged runs included with the accuracy they have."""
    accuracies: list[ProtocolAccuracy] = []
    for condition in group.single_conditions:
        for protocol in protocols(condition.runs):
            seeds = {run.seed: run.test_accuracy.get(protocol, float("nan")) for run in condition.runs}
            diverged = frozenset(run.seed for run in condition.diverged)
            interval = mean_interval(list(seeds.values()))
            accuracies.append(ProtocolAccuracy(condition.regime, condition.lr, protocol, interval, seeds, diverged))
    if not accuracies:
        raise NotMeasured(f"no run has a {TEST_ACCURACY} in its {SUMMARY}")
    return accuracies


def _caption(group: Group, accuracies: Sequence[ProtocolAccuracy]) -> str:
    number = seeds((point.regime, point.lr, point.interval.n) for point in accuracies)
    crosses = ", crosses those that diverged" if any(point.diverged for point in accuracies) else ""
    return caption(group, number, f"Small dots are single seeds{crosses}.")


def _draw(group: Group, accuracies: Sequence[ProtocolAccuracy], text: str) -> mpl.Figure:
    """By protocol, a mean with its interval per regime, and every seed beside it; a diverged seed is a cross."""
    regimes, order = regimes_of(accuracies), protocols(group.runs)
    mark: dict[str, Any] = {"linestyle": "-", "markersize": 4}
    legend = legend_rows([regime_handle(regime, **mark, marker=regime.marker) for regime in regimes])
    more = LEGEND_LINE * (len(legend) - 1)
    page = Page(2.6 + more, text, top=0.3 + more, bottom=0.46, left=0.44, right=0.12)
    [[axes]] = page.axes(1, 1)
    dot: dict[str, Any] = {"markersize": 3, "alpha": 0.6, "markeredgewidth": 0.6}
    narrow = min(1, _REGIMES_IN_FULL / len(regimes))
    for place, protocol in enumerate(order):
        shown = [accuracy for accuracy in accuracies if accuracy.protocol == protocol]
        for accuracy, offset in zip(shown, _offsets(len(shown), 0.22 * narrow), strict=True):
            look = accuracy.regime
            x = place + offset
            mean, low, high, n = accuracy.interval
            if n >= FEWEST_FOR_AN_INTERVAL:
                axes.plot([x, x], [100 * low, 100 * high], color=look.color, linewidth=1.2, zorder=2)
            axes.plot(x, 100 * mean, look.marker, color=look.color, markersize=4, zorder=3)
            jitters = _offsets(len(accuracy.seeds), 0.012 * narrow)
            for (seed, value), jitter in zip(accuracy.seeds.items(), jitters, strict=True):
                marker = "x" if seed in accuracy.diverged else "."
                axes.plot(x + 0.1 * narrow + jitter, 100 * value, marker, color=look.color, **dot)
    chance_line(axes, 1 / group.num_classes)
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


FIGURE = Figure(
    name="protocols",
    order=60,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
    applies=lambda group: not group.regression,
)
