"""Percentiles of the units of a layer over training, and how far they drift.

Ioffe & Szegedy (2015), Fig. 1, there of one unit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.shift import (
    DRIFT,
    PERCENTILES,
    Drift,
    last_hidden_layer,
    one_seed,
    percentile_drift,
    percentiles,
    probed,
)
from icsbench.analysis.quantities.training import accuracy_curves
from icsbench.analysis.statistics import Floats
from icsbench.figures.accuracy import TITLES, draw_curve
from icsbench.figures.caption import caption, left_out, seeds_of
from icsbench.figures.contract import Figure
from icsbench.figures.style import (
    LEGEND_LINE,
    Page,
    above,
    beside,
    chance_line,
    diverged_handle,
    regime_legend,
    regime_titles,
    spread,
    step_axis,
    titles_height,
)
from icsbench.record.reader import Layer
from icsbench.record.regime import Regime
from icsbench.record.schema import TEST_ACCURACY

_CURVES, _TRACKS, _BETWEEN = 1.5, 1.6, 0.4  # inches: height of the two rows, and what the steps between them take
_GAP = 0.2  # between panels, in widths of one
_SHARES = ((0.9, 0.16), (0.5, 0.3))  # of the units in a band, and its opacity


@dataclass(frozen=True, eq=False)
class Tracks:
    """Percentiles of the pre-activation of every unit of a layer over the steps (m,), of one seed.

    ``values`` has shape (m, 3, units): the 15th, 50th and 85th percentile over the probe batch.
    """

    regime: Regime
    lr: float
    seed: int
    layer: Layer
    steps: NDArray[np.int64]
    values: Floats

    def band(self, share: float) -> tuple[Floats, Floats]:
        """Between which values the middle ``share`` of the units lies, of each step and percentile: two of (m, 3)."""
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(self.values, [(1 - share) / 2, (1 + share) / 2], axis=2)
        return low, high

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per percentile and step: the median over the units, and their middle 50 and 90 %."""
        (middle, _), (low_50, high_50), (low_90, high_90) = self.band(0), self.band(0.5), self.band(0.9)
        for position, percentile in enumerate(PERCENTILES):
            for at, step in enumerate(self.steps):
                yield {
                    "quantity": f"percentile-{percentile}",
                    "regime": self.regime,
                    "lr": self.lr,
                    "layer": self.layer.path,
                    "depth": self.layer.depth,
                    "seeds": str(self.seed),
                    "step": int(step),
                    "units": self.values.shape[2],
                    "median": float(middle[at, position]),
                    "low-50": float(low_50[at, position]),
                    "high-50": float(high_50[at, position]),
                    "low-90": float(low_90[at, position]),
                    "high-90": float(high_90[at, position]),
                }


def _numbers(group: Group) -> list[Curve | Tracks | Drift]:
    """Test accuracy, then of the last hidden layer the percentiles of all units, and their drift."""
    layer = last_hidden_layer(group)
    accuracies = [curve for curve in accuracy_curves(group) if curve.quantity == TEST_ACCURACY]
    return [*accuracies, *percentile_tracks(group, layer), *percentile_drift(group, layer)]


def percentile_tracks(group: Group, layer: Layer) -> list[Tracks]:
    """The percentiles of every unit of a probed layer over the steps, of one seed per regime, that of ``ridges``.

    Of a pair of probes (t - 1, t) only the second counts. Ioffe & Szegedy (2015), Fig. 1 (b, c), have one unit.
    """
    return [
        Tracks(condition.regime, condition.lr, run.seed, layer, *percentiles(run, layer))
        for condition, run in one_seed(probed(group))
    ]


def _parts(numbers: Sequence[Curve | Tracks | Drift]) -> tuple[list[Curve], list[Tracks], list[Drift]]:
    return (
        [part for part in numbers if isinstance(part, Curve)],
        [part for part in numbers if isinstance(part, Tracks)],
        [part for part in numbers if isinstance(part, Drift)],
    )


def _caption(group: Group, numbers: Sequence[Curve | Tracks | Drift]) -> str:
    accuracies, tracks, drifts = _parts(numbers)
    of = ", ".join(map(str, PERCENTILES))
    chosen = " and ".join(map(str, sorted({track.seed for track in tracks})))
    what = (
        f"Below: percentiles {of} over the probe batch of the pre-activation of each of the {drifts[0].units} units of "
        f"layer {tracks[0].layer.depth}, median (line), middle 50\N{NO-BREAK SPACE}% and 90\N{NO-BREAK SPACE}% (bands) "
        f"of the units, seed {chosen}. Drift: mean over "
        f"units and percentiles of |q(t) − q(T)| / (q₈₅(T) − q₁₅(T)), T the last probe, where it is 0."
    )
    number = seeds_of([*(curve for curve in accuracies if curve.diverged_at is None), *(d.curve for d in drifts)])
    return caption(group, what, number, _units_left_out(drifts), left_out(group))


def _units_left_out(drifts: Sequence[Drift]) -> str:
    counts = [
        f"{drift.curve.regime.label} {number:,} of {drift.units * len(drift.left_out):,}"
        for drift in drifts
        if (number := sum(drift.left_out.values()))
    ]
    return f"Left out of the drift, as their range at T is zero: units of {', '.join(counts)}." if counts else ""


def _draw(group: Group, numbers: Sequence[Curve | Tracks | Drift], text: str) -> mpl.Figure:
    """Test accuracy and the ``percentile_drift``; below, the ``percentile_tracks``, a panel per regime, on one axis.

    Of each percentile the median over the units is a line, their middle 50 % and 90 % are bands.
    """
    accuracies, tracks, drifts = _parts(numbers)
    regimes = [track.regime for track in tracks]
    legend = regime_legend([*accuracies, *tracks])
    if any(curve.diverged_at is not None for curve in accuracies):
        legend.append([diverged_handle()])
    top, between = 0.4 + LEGEND_LINE * len(legend), _BETWEEN + titles_height(regimes)
    page = Page(top + _CURVES + between + _TRACKS + 0.4, text, top=top, bottom=0.4, left=0.46, right=0.2)
    last = max(int(curve.steps[-1]) for curve in (*accuracies, *(drift.curve for drift in drifts)))

    [[left, right]] = page.axes(1, 2, below=_TRACKS + between, wspace=_GAP)
    for curve in accuracies:
        draw_curve(left, curve)
    chance_line(left, 1 / group.num_classes)
    left.set_ylim(0, 102)
    above(left, "test accuracy (%)")
    for drift in drifts:
        look = drift.curve.regime
        right.plot(drift.curve.steps, drift.curve.mean, color=look.color, linestyle=look.linestyle)
        spread(right, drift.curve, look.color, floor=0)
    right.set_ylim(bottom=0)
    above(right, "drift of the percentiles to the end,\nin units of the final 15–85 range")
    for axes in (left, right):
        step_axis(axes, last, label=True)

    [row] = page.axes(1, len(tracks), above=_CURVES + between, wspace=_GAP)
    regime_titles(row, regimes)
    low, high = _limits(tracks)
    for axes, track in zip(row, tracks, strict=True):
        _draw_tracks(axes, track)
        step_axis(axes, last, label=True, ticks=4 if len(tracks) <= 3 else 2)
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if axes is row[0]:
            beside(axes, "pre-activation", 24)
        else:
            axes.tick_params(labelleft=False)
    page.legend(*legend)
    return page.figure


def _draw_tracks(axes: Axes, track: Tracks) -> None:
    color = track.regime.color
    bands = [(track.band(share), opacity) for share, opacity in _SHARES]
    middle, _ = track.band(0)
    for percentile in range(len(PERCENTILES)):
        for (low, high), opacity in bands:
            axes.fill_between(
                track.steps, low[:, percentile], high[:, percentile], color=color, alpha=opacity, linewidth=0
            )
        axes.plot(track.steps, middle[:, percentile], color=color)


def _limits(tracks: Sequence[Tracks]) -> tuple[float, float]:
    ends = np.concatenate([np.ravel(track.band(_SHARES[0][0])) for track in tracks])
    ends = ends[np.isfinite(ends)]
    low, high = (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 0.0)
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


FIGURE = Figure(
    name="percentiles",
    order=70,
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
    applies=lambda group: group.units and not group.regression,
    titles={DRIFT: "drift of the percentiles"} | TITLES,
)
