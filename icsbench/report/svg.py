"""Figures as SVG inside an HTML page: small, without names that clash, the same bytes for the same figure."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from icsbench.figures.style import house_style

_DPI = 120  # of what is drawn as pixels: about those of the page on a screen
_COLOURS = 64  # of those pixels
_HEAVY = 600  # points of the areas in one panel, from which on they are drawn as pixels
_PNG = "data:image/png;base64,"


@contextmanager
def page_style() -> Iterator[None]:
    """``house_style``, with text as text."""
    with house_style():
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "icsbench"})
        yield


class Sheet:
    """Styles that the figures of a page share, each under a class of its own."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    def class_of(self, style: str) -> str:
        """The class of a style."""
        return self._classes.setdefault(style, f"v{len(self._classes)}")

    def __str__(self) -> str:
        return "".join(f".{name}{{{style}}}\n" for style, name in self._classes.items())


def inline_svg(figure: Figure, prefix: str, title: str, sheet: Sheet) -> Markup:
    """The figure as an ``<svg>`` element, drawn within ``page_style``; its name is title and caption.

    Its ids start with ``prefix``, its styles go to ``sheet``. Areas of many points, and the lines among them, become
    pixels.
    """
    figure.patch.set_visible(False)
    for axes in figure.axes:
        for artist in _heavy(axes):
            artist.set_rasterized(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=_DPI, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    referred = (name for element in root.iter() for value in element.attrib.values() for name in _names(value))
    ids = {name: f"{prefix}{number}" for number, name in enumerate(dict.fromkeys(referred))}
    name = " ".join([title, *(word for text in figure.texts for word in text.get_text().split())])
    inside = "".join(_element(child, ids, sheet) for child in root)
    return Markup(f'<svg viewBox="{root.attrib["viewBox"]}" role="img" aria-label="{escape(name)}">{inside}</svg>')


def _heavy(axes: Axes) -> list[Artist]:
    """The areas, and the lines among them, of a panel that has more points of them than a page should carry."""
    areas = [artist for artist in axes.collections if isinstance(artist, PolyCollection)]
    if sum(len(np.asarray(path.vertices)) for area in areas for path in area.get_paths()) < _HEAVY:
        return []
    highest = max(area.get_zorder() for area in areas)
    return [*areas, *(line for line in axes.lines if line.get_zorder() <= highest)]


def _element(element: ElementTree.Element, ids: dict[str, str], sheet: Sheet) -> str:
    tag = element.tag.rpartition("}")[2]
    if tag in ("metadata", "style"):
        return ""
    attributes = {name: value for name, value in _attributes(element, ids, sheet) if value}
    inside = escape(element.text or "", quote=False).strip("\n ")
    inside += "".join(_element(child, ids, sheet) for child in element)
    if not (inside or tag in ("use", "image", "rect", "path")) or (tag == "path" and "d" not in attributes):
        return ""
    if tag == "g" and not attributes:
        return inside
    opened = " ".join([tag, *(f'{name}="{escape(value)}"' for name, value in attributes.items())])
    return f"<{opened}>{inside}</{tag}>" if inside else f"<{opened}/>"


def _attributes(element: ElementTree.Element, ids: dict[str, str], sheet: Sheet) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        name = key.rpartition("}")[2]
        if name == "id":
            yield name, ids.get(value, "")
        elif name == "style":
            yield "class", sheet.class_of(re.sub(r"font-family: [^;]*(; )?", "", _short(value)).replace(": ", ":"))
        elif name == "d":
            yield name, _path(value)
        elif value.startswith(_PNG):
            yield name, _few_colours(value)
        elif referred := _names(value):
            yield name, value.replace(referred[0], ids[referred[0]])
        else:
            yield name, re.sub(r"rotate\(-?0 .*?\)", "", _short(value)).strip()


def _names(value: str) -> list[str]:
    """The ids that the value of an attribute refers to."""
    return re.findall(r"^#(.+)", value) or re.findall(r"url\(#(.+?)\)", value)


def _short(numbers: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), numbers)


def _path(commands: str) -> str:
    """A path; one of straight lines goes in steps from point to point, each where it was to a tenth of a unit."""
    if re.search(r"[^-\d.\sMLz]", commands):
        return " ".join(_short(commands).split())
    steps: list[str] = []
    for line in commands.split("M")[1:]:
        points = [(round(10 * float(x)), round(10 * float(y))) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", line)]
        steps.append("M{:g} {:g}l".format(*(number / 10 for number in points[0])))
        moves = [((right - x) / 10, (down - y) / 10) for (x, y), (right, down) in pairwise(points)]
        steps.append(" ".join(f"{right:g} {down:g}" for right, down in moves if right or down) or "0 0")
        steps.append("z" if "z" in line else "")
    return "".join(steps)


def _few_colours(image: str) -> str:
    """A PNG in few colours, as a data URL."""
    pixels = Image.open(io.BytesIO(base64.b64decode(image.removeprefix(_PNG)))).convert("RGBA")
    buffer = io.BytesIO()
    pixels.quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(buffer, "png", optimize=True)
    return _PNG + base64.b64encode(buffer.getvalue()).decode()
