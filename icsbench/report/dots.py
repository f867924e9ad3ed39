"""The small plots of values per seed."""

import math
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from icsbench.analysis.findings import Finding
from icsbench.report.words import effect, region

WIDTH = 320


class DotPlot(NamedTuple):
    """Where things are from left to right in a plot that is ``WIDTH`` wide."""

    label: str
    dots: list[float]
    mean: float
    interval: tuple[float, float] | None
    region: tuple[float, float]
    ticks: list[tuple[float, str]]


def dot_plot(finding: Finding) -> DotPlot:
    """The values of a finding per seed, their interval and the region: of a ratio on a logarithmic axis."""
    part, (mean, low, high, n) = finding.part, finding.interval
    ratio = part.kind == "ratio"
    what = "range" if part.kind == "bound" else "mean"
    shown = [*finding.values.values(), low, high, part.low, part.high]
    ends = [_on_axis(value, ratio) for value in shown if math.isfinite(value) and (value > 0 or not ratio)]
    room = 0.08 * (max(ends) - min(ends)) or 0.1 * abs(max(ends)) or 0.1
    first, last = min(ends) - room, max(ends) + room

    def place(value: float) -> float:
        at = min(max(_on_axis(value, ratio), first), last)
        return round(WIDTH * (at - first) / (last - first), 1)

    return DotPlot(
        label=f"{n} {part.of}, {what} {effect(finding)}; claimed: {region(part)}",
        dots=[place(value) for value in finding.values.values()],
        mean=place(mean),
        interval=None if math.isnan(low) else (place(low), place(high)),
        region=(place(part.low), place(part.high)),
        ticks=[(place(tick), ("×" if ratio else "") + f"{tick:.4g}") for tick in _ticks(first, last, ratio)],
    )


def _on_axis(value: float, ratio: bool) -> float:
    if not ratio:
        return value
    return -math.inf if value <= 0 else math.log(value)


def _ticks(first: float, last: float, ratio: bool) -> list[float]:
    if ratio:
        low, high = math.exp(first), math.exp(last)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = math.ceil(len(decades) / 5)
        for digits, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), every)):
            ticks = [digit * 10.0**decade for decade in decades[::step] for digit in digits]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) <= 5:
                break
        if len(ticks) >= 2:
            return ticks
        first, last = low, high
    return [float(tick) for tick in MaxNLocator(4).tick_values(first, last) if first <= tick <= last]
