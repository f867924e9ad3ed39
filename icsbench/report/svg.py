"""Figures as SVG to stand inside an HTML page: small, without names that clash, the same bytes for the same figure."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from icsbench.figures.style import house_style

_DPI = 120  # of what is drawn as pixels: that of the page on a common screen
_COLOURS = 64  # of those pixels
_HEAVY = 600  # points of the areas and their outlines in one panel, from which on they are drawn as pixels
_AREA = 8  # points that make an area worth it
_XLINK = "{http://www.w3.org/1999/xlink}href"
_FONT = "DejaVu Sans,Verdana,sans-serif"


@contextmanager
def page_style() -> Iterator[None]:
    """``house_style``, with text as text and curves simplified to what a screen can show."""
    with house_style():
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "icsbench", "path.simplify_threshold": 0.2})
        yield


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an ``<svg>`` element whose ids start with ``prefix``; ``label`` is what it is called aloud.

    To be called within ``page_style``. Areas of many points become pixels.
    """
    for axes in figure.axes:
        for artist in _heavy(axes):
            artist.set_rasterized(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=_DPI, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    used = {name for element in root.iter() for value in element.attrib.values() for name in _references(value)}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = dict(_attributes(element, used, prefix))
        if not (element.text or "").strip():
            element.text = None
        element.tail = None
    width, height = (float(root.attrib.pop(name).removesuffix("pt")) for name in ("width", "height"))
    root.attrib = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria-label": label,
        "stroke-linejoin": "round",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _heavy(axes: Axes) -> list[Artist]:
    """Areas, and the lines among them, of a panel that has more points of them than a page should carry."""
    areas = [artist for artist in axes.collections if isinstance(artist, PolyCollection)]
    points = [sum(len(path.vertices) for path in area.get_paths()) for area in areas]
    if sum(points) < _HEAVY:
        return []
    most = max(area.get_zorder() for area in areas)
    lines = [line for line in axes.lines if isinstance(line, Line2D) and line.get_zorder() <= most]
    return [*(area for area, number in zip(areas, points, strict=True) if number > _AREA), *lines]


def _references(value: str) -> list[str]:
    return re.findall(r"url\(#([^)]+)\)|^#(.+)$", value) and [
        one or other for one, other in re.findall(r"url\(#([^)]+)\)|^#(.+)$", value)
    ]


def _attributes(element: ElementTree.Element, used: set[str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name == "id":
            if value in used:
                yield name, prefix + value
        elif name == _XLINK:
            yield "href", prefix_reference(value, prefix)
        elif name == "d":
            yield name, re.sub(r"\s+L\s+", " ", _rounded(value)).strip()
        elif name == "style":
            yield name, re.sub(r"(font: [^;]*?px) [^;]*", rf"\1 {_FONT}", _rounded(value).replace("url(#", f"url(#{prefix}"))
        elif name == "clip-path":
            yield name, value.replace("url(#", f"url(#{prefix}")
        else:
            yield name, _rounded(value) if name in ("x", "y", "width", "height", "transform") else value


def _rounded(numbers: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), numbers)


def prefix_reference(value: str, prefix: str) -> str:
    if not value.startswith("data:image/png;base64,"):
        return value.replace("#", f"#{prefix}", 1)
    image = Image.open(io.BytesIO(base64.b64decode(value.partition(",")[2])))
    small = io.BytesIO()
    image.convert("RGBA").quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()
