"""Figures as inline SVG, and the small plots of values per seed."""

import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icsbench.analysis.verdicts import Finding, effect, region

_DPI = 130
"""Of what is an image within a figure."""
_MOST_POINTS = 6000
"""A panel of more points of outlines is an image."""
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def inline_svg(figure: Figure, prefix: str, title: str) -> Markup:
    """The figure as an ``<svg>`` element for a page: its ids begin with ``prefix``, its name is title and caption."""
    for axes in figure.axes:
        _rasterize(axes)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", dpi=_DPI, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    _shorten(root, prefix)
    for size in ("width", "height", "version"):
        del root.attrib[size]
    caption = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    root.attrib |= {"role": "img", "aria-label": f"{title} {caption}".strip()}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _rasterize(axes: Axes) -> None:
    fills = [artist for artist in axes.collections if isinstance(artist, PolyCollection)]
    if sum(np.shape(path.vertices)[0] for fill in fills for path in fill.get_paths()) > _MOST_POINTS:
        outlines: Sequence[Artist] = [*fills, *axes.lines]
        for artist in outlines:
            artist.set_rasterized(True)


def _shorten(root: ElementTree.Element, prefix: str) -> None:
    """Take out what a page does not need, and make the ids that are referred to those of this figure."""
    used: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return f"{match[1]}{used.setdefault(match[2], f'{prefix}-{len(used)}')}{match[3]}"

    for element in root.iter():
        for child in [child for child in element if child.tag in (f"{_SVG}style", f"{_SVG}metadata")]:
            element.remove(child)
        if _HREF in element.attrib:
            element.attrib["href"] = re.sub(r"^(#)(.*)()$", renamed, element.attrib.pop(_HREF))
        for name, value in element.attrib.items():
            if name == "d":
                value = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
                value = " ".join(value.split())
            element.attrib[name] = re.sub(r"^(url\(#)(.*)(\))$", renamed, value)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if element.attrib.get("id") in used:
            element.attrib["id"] = used[element.attrib["id"]]
        else:
            element.attrib.pop("id", None)
        if element.tag != "text" and not (element.text or "").strip():
            element.text = None
        if not (element.tail or "").strip():
            element.tail = None


class DotPlot(NamedTuple):
    """Where things are in a plot ``WIDTH`` wide: from left to right in its units."""

    label: str
    dots: list[float]
    mean: float
    interval: tuple[float, float] | None
    region: tuple[float, float]
    ticks: list[tuple[float, str]]

    WIDTH = 320


def dot_plot(finding: Finding) -> DotPlot:
    """The values of a finding per seed, their interval and the region: of a ratio on a logarithmic axis."""
    part, (mean, low, high, n) = finding.part, finding.interval
    ratio = part.kind == "ratio"
    shown = [*finding.values.values(), low, high, part.low, part.high]
    ends = [_on_axis(value, ratio) for value in shown if math.isfinite(value) and (value > 0 or not ratio)]
    room = 0.08 * (max(ends) - min(ends)) or 0.1 * abs(max(ends)) or 0.1
    first, last = min(ends) - room, max(ends) + room

    def place(value: float) -> float:
        at = min(max(_on_axis(value, ratio), first), last)
        return round(DotPlot.WIDTH * (at - first) / (last - first), 1)

    return DotPlot(
        label=f"{n} seeds, mean {effect(finding)}; claimed: {region(part)}",
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
