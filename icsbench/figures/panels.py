"""Panels of positive quantities on logarithmic axes that may span fifteen decades or a tenth of one."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Floats
from icsbench.figures.style import GUIDE, Line, power_of_ten, spread

COSINE = (-1.08, 1.08)  # the axis of a cosine, whose t-interval may go further
_BEYOND = 0.02  # the share of the ends of intervals, on either side, that a panel may cut off


def draw_curve(axes: Axes, curve: Line, scale: float = 1) -> None:
    """A mean with the spread of its seeds; a point without neighbours is a dot."""
    look = curve.regime
    axes.plot(curve.x, scale * curve.mean, color=look.color, linestyle=look.linestyle, linewidth=0.9)
    there = np.pad(np.isfinite(curve.mean), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    axes.plot(curve.x[alone], scale * curve.mean[alone], ".", color=look.color, markersize=3)
    spread(axes, curve, look.color, scale)


def limits(curves: Iterable[Line], *also: float) -> tuple[float, float]:
    """The ``extent`` of all means, of seeds that are drawn alone, of 98 % of the ends of intervals, and of ``also``."""
    shown = [np.array(also)]
    for curve in curves:
        shown.append(curve.mean)
        if len(curve.seeds) >= FEWEST_FOR_AN_INTERVAL:
            low, high = positive(curve.low), positive(curve.high)
            shown += [np.quantile(low, [_BEYOND]), np.quantile(high, [1 - _BEYOND])] if len(low) else []
        elif curve.values is not None:
            shown.append(curve.values)
    return extent(*shown)


def extent(*shown: Floats) -> tuple[float, float]:
    """The range of a logarithmic axis: what is positive and finite, and a margin of 4 % of that or a factor 1.08."""
    values = positive(np.concatenate([np.ravel(part) for part in shown]))
    low, high = (values.min(), values.max()) if len(values) else (0.1, 1.0)
    margin = max(1.08, (high / low) ** 0.04)
    return float(low / margin), float(high * margin)


def cut_off(curves: Sequence[Line], between: tuple[float, float] | None = None) -> bool:
    """Whether an interval of the curves of one panel leaves it: their ``limits``, or what is given."""
    low, high = between or limits(curves)
    drawn = [curve for curve in curves if len(curve.seeds) >= FEWEST_FOR_AN_INTERVAL]
    return any((curve.low < low).any() or (curve.high > high).any() for curve in drawn)


def log_axis(axes: Axes, low: float, high: float, which: str = "y", ticks: int = 4) -> None:
    """A logarithmic axis with at most so many ticks: decades, or where it spans none, round numbers."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    places = _ticks(min(low, high), max(low, high), ticks)
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(places.values())))
    axis.set_minor_locator(NullLocator())


def log_panel(axes: Axes, curves: Sequence[Line], between: tuple[float, float]) -> None:
    """Curves on a logarithmic axis."""
    for curve in curves:
        draw_curve(axes, curve)
    log_axis(axes, *between)


def cosine_panel(axes: Axes, curves: Sequence[Line]) -> None:
    """Curves of a cosine, with a line at 0."""
    guide(axes, 0)
    for curve in curves:
        draw_curve(axes, curve)
    cosine_axis(axes)


def cosine_axis(axes: Axes) -> None:
    """The axis of a cosine."""
    axes.set_ylim(*COSINE)
    axes.set_yticks([-1, 0, 1])


def guide(axes: Axes, value: float, text: str = "") -> None:
    """A thin horizontal line with its name to the right of the axes."""
    axes.axhline(value, color=GUIDE, linewidth=0.6, zorder=0)
    name_line(axes, value, text)


def name_line(axes: Axes, value: float, text: str) -> None:
    """The name of a thin line to the right of the axes, at its last value, or as near to it as the axes reach."""
    at, away = (1, np.clip(value, *axes.get_ylim())), (2, 0)
    axes.annotate(text, at, away, ("axes fraction", "data"), "offset points", va="center", size=6, color=GUIDE)


def positive(values: Floats) -> Floats:
    """Those that are positive and finite, in a row."""
    return values[np.isfinite(values) & (values > 0)]


def _ticks(low: float, high: float, count: int) -> dict[float, str]:
    """Places and labels."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for mantissas in ((1, 2, 5), (1, 3)):
        places = [mantissa * 10.0**power for power in range(first, last + 1) for mantissa in mantissas]
        places = [place for place in places if low <= place <= high]
        if 2 <= len(places) <= count:
            return {place: _label(place) for place in places}
    powers = [power for power in range(first, last + 1) if low <= 10.0**power <= high]
    if len(powers) >= 2:
        every = -(-len(powers) // count)
        return {10.0**power: power_of_ten(10.0**power) for power in powers[(len(powers) - 1) % every :: every]}
    places = MaxNLocator(3).tick_values(low, high)
    return {float(place): _label(place) for place in places if low <= place <= high}


def _label(value: float) -> str:
    if 1e-3 <= value < 1e4:
        return f"{value:.4g}"
    mantissa, _, power = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}·{power_of_ten(10.0 ** int(power))}"
