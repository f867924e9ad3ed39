"""Percentiles of the units of a layer over training, and how far they drift."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.quantities.curves import PERCENTILES, Curve, Drift, Tracks
from icsbench.figures.accuracy import draw_curve
from icsbench.figures.style import (
    LEGEND_LINE,
    Page,
    above,
    beside,
    chance_line,
    diverged_handle,
    legend_rows,
    regime_handle,
    regime_style,
    regime_titles,
    spread,
    step_axis,
    titles_height,
)

_CURVES, _TRACKS, _BETWEEN = 1.5, 1.6, 0.4  # inches: height of the two rows, and what the steps between them take
_GAP = 0.2  # between panels, in widths of one
_SHARES = ((0.9, 0.16), (0.5, 0.3))  # of the units in a band, and its opacity


def draw(
    accuracies: Sequence[Curve], tracks: Sequence[Tracks], drifts: Sequence[Drift], chance: float, caption: str
) -> Figure:
    """Test accuracy and the ``percentile_drift``; below, the ``percentile_tracks``, a panel per regime, on one axis.

    Of each percentile the median over the units is a line, their middle 50 % and 90 % are bands. ``chance`` is the
    accuracy of guessing, a fraction.
    """
    regimes = [track.regime for track in tracks]
    everyone = dict.fromkeys([*(curve.regime for curve in accuracies), *regimes])
    legend = legend_rows([regime_handle(regime) for regime in everyone])
    if any(curve.diverged_at is not None for curve in accuracies):
        legend.append([diverged_handle()])
    top, between = 0.4 + LEGEND_LINE * len(legend), _BETWEEN + titles_height(regimes)
    page = Page(top + _CURVES + between + _TRACKS + 0.4, caption, top=top, bottom=0.4, left=0.46, right=0.2)
    last = max(int(curve.steps[-1]) for curve in (*accuracies, *(drift.curve for drift in drifts)))

    [[left, right]] = page.axes(1, 2, below=_TRACKS + between, wspace=_GAP)
    for curve in accuracies:
        draw_curve(left, curve)
    chance_line(left, chance)
    left.set_ylim(0, 102)
    above(left, "test accuracy (%)")
    for drift in drifts:
        look = regime_style(drift.curve.regime)
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
        _draw(axes, track)
        step_axis(axes, last, label=True, ticks=4 if len(tracks) <= 3 else 2)
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if axes is row[0]:
            beside(axes, "input of the sigmoid", 24)
        else:
            axes.tick_params(labelleft=False)
    page.legend(*legend)
    return page.figure


def _draw(axes: Axes, track: Tracks) -> None:
    color = regime_style(track.regime).color
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
