import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from icsbench.report import svg
from icsbench.report.svg import Sheet, inline_svg, page_style


class Elements(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def curve(points, areas=0):
    """A figure of a sine through so many points, with so many areas below it."""
    figure = Figure(figsize=(4, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    x = np.linspace(0, 1, points)
    y = 0.5 + 0.4 * np.sin(9 * x)
    axes.plot(x, y)
    for _ in range(areas):
        axes.fill_between(x, 0, y, color="green", alpha=0.2)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    figure.text(0.1, 0.1, "a < b,\nand c")
    return figure


def drawn(figure, prefix="one-", sheet=None):
    with page_style():
        return inline_svg(figure, prefix, "A & B.", sheet or Sheet())


def vertices(path):
    """The points of a path in steps, and nothing else."""
    start, steps = re.fullmatch(r"M(\S+ \S+)l(.*)", path).groups()
    moves = np.array((start + " " + steps).split(), float).reshape(-1, 2)
    return moves.cumsum(axis=0)


def test_a_path_in_steps_is_where_it_was_to_a_tenth_of_a_point():
    points = np.random.default_rng(0).normal(0, 100, (500, 2))
    corners = "".join(f"{'L' if number else 'M'} {x:f} {y:f} \n" for number, (x, y) in enumerate(points))
    np.testing.assert_allclose(vertices(svg._path(corners)), points, atol=0.051)
    assert svg._path(corners + "z") == svg._path(corners) + "z"
    assert len(svg._path(corners)) < len(corners) / 2


def test_a_path_with_bends_and_one_of_a_single_point():
    assert svg._path("M 0 1.123456 \nC 0.5 1 2 -1.999999 3 3 \nz\n") == "M 0 1.12 C 0.5 1 2 -2 3 3 z"
    assert svg._path("M 1 2 \nL 1 2 \n") == "M1 2l0 0"


def test_the_name_is_title_and_caption_and_text_is_text():
    figure = drawn(curve(5))
    elements = Elements(figure)
    assert elements.all("svg") == [{"viewbox": "0 0 288 216", "role": "img", "aria-label": "A & B. a < b, and c"}]
    assert ">a &lt; b,</text>" in figure and ">and c</text>" in figure


@pytest.mark.parametrize(("areas", "images"), [(1, 0), (3, 1)])
def test_areas_of_many_points_become_pixels(areas, images):
    elements = Elements(drawn(curve(300 if areas == 3 else 100, areas)))
    assert len(elements.all("image")) == images
    assert all(image["href"].startswith("data:image/png;base64,") for image in elements.all("image"))


def test_no_style_and_no_id_but_those_that_are_referred_to():
    sheet = Sheet()
    figures = [drawn(curve(50, areas=2), prefix, sheet) for prefix in ("one-", "two-")]
    for figure, prefix in zip(figures, ("one-", "two-"), strict=True):
        found = Elements(figure).found
        ids = [attrs["id"] for _, attrs in found if "id" in attrs]
        referred = re.findall(r"""href="#([^"]+)|url\(#([^)]+)""", figure)
        assert len(set(ids)) == len(ids) and {one or other for one, other in referred} == set(ids)
        assert all(id.startswith(prefix) for id in ids)
        assert not any("style" in attrs for _, attrs in found)
        assert {attrs["class"] for _, attrs in found if "class" in attrs} <= set(re.findall(r"\.(v\d+)\{", str(sheet)))
    assert figures[1] == figures[0].replace("one-", "two-")
