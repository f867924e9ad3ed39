"""The numbers of a figure for the script of a page, which lets a reader explore them.

``charts.js`` reads what is made here: ``regimes`` (label, colour, dashes), ``x`` (what the axis is called), ``xs`` (the
places that lines share), ``panels`` (title, lines), ``steps`` of distributions, whether the axis is ``log`` at first,
and what is said below: ``note`` and ``caption``. A line has the numbers of its regime and of its xs. Its ``mean`` is
drawn; ``low`` and ``high`` are the interval, ``values`` the single seeds, in the order of ``seeds``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.quantities.shift import Drift
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL
from icsbench.figures.ridges import Ridge, shown_range
from icsbench.figures.style import regimes_of
from icsbench.record.regime import Regime

MOST_POINTS = 150
"""More points of a curve are not embedded. Where a figure has many panels, it has fewer, and the page stays small."""
_POINTS_OF_PANELS, _FEWEST_POINTS = 450, 50
_DASHES = {"-": (), "--": (4, 2), "-.": (5, 2, 1, 2), ":": (1, 2)}
_DIGITS, _DIGITS_OF_SEEDS, _DIGITS_OF_PLACES = 4, 3, 6
_Json = dict[str, Any]


def chart_of(numbers: Sequence[object], titles: Mapping[str, str], figure: mpl.Figure) -> Markup:
    """What a reader may explore of a figure, as JSON that can stand in a page; empty where it is nothing.

    That is the curves that have a title, or the distributions. The axis is logarithmic at first where one is in the
    figure.
    """
    curves = [number.curve if isinstance(number, Drift) else number for number in numbers]
    curves = [curve for curve in curves if isinstance(curve, Curve) and curve.quantity in titles]
    ridges = [number for number in numbers if isinstance(number, Ridge)]
    if curves:
        found = _of_curves(curves, titles)
    elif ridges:
        found = _of_ridges(ridges)
    else:
        return Markup("")
    found["caption"] = " ".join(word for text in figure.texts for word in text.get_text().split())
    found["log"] = bool(curves) and any(axes.get_yscale() == "log" for axes in figure.axes)
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


class _Places:
    """The places that lines share, each once."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[float | None, ...], int] = {}

    def number_of(self, places: ArrayLike) -> int:
        return self._numbers.setdefault(tuple(_plain(places, _DIGITS_OF_PLACES)), len(self._numbers))

    @property
    def all(self) -> list[list[float | None]]:
        return [list(places) for places in self._numbers]


def _of_curves(curves: Sequence[Curve], titles: Mapping[str, str]) -> _Json:
    places, panels = _Places(), {}
    regimes, several = regimes_of(curves), len({curve.lr for curve in curves}) > 1
    shown = {(curve.quantity, curve.layer.depth if curve.layer else 0, curve.lr) for curve in curves}
    most = max(_FEWEST_POINTS, min(MOST_POINTS, _POINTS_OF_PANELS // len(shown)))
    for curve in curves:
        title = titles[curve.quantity]
        title += f", layer {curve.layer.depth}" if curve.layer else ""
        title += f", lr {curve.lr:g}" if several else ""
        accuracy = "accuracy" in curve.quantity.split("/")
        panel = panels.setdefault(title, {"title": title, "lines": []} | ({"y": [0, 100]} if accuracy else {}))
        panel["lines"].append(_line(curve, regimes, places, most, 100 if accuracy else 1))
    longest = max(len(curve.steps) for curve in curves)
    note = f"Thinned: the chart has {most} of up to {longest:,} points of a curve. The drawing has all."
    return {
        "x": "step",
        "regimes": [*map(_look, regimes)],
        "xs": places.all,
        "panels": [*panels.values()],
        "note": note if longest > most else "",
    }


def _line(curve: Curve, regimes: Sequence[Regime], places: _Places, most: int, scale: float) -> _Json:
    kept = np.unique(np.linspace(0, len(curve.steps) - 1, min(most, len(curve.steps))).round().astype(int))
    line: _Json = {"regime": regimes.index(curve.regime), "x": places.number_of(curve.steps[kept])}
    line |= {"mean": _plain(scale * curve.mean[kept]), "seeds": [*curve.seeds]}
    if len(curve.seeds) >= FEWEST_FOR_AN_INTERVAL:
        line |= {"low": _plain(scale * curve.low[kept]), "high": _plain(scale * curve.high[kept])}
    if curve.values is not None and len(curve.seeds) > 1:
        line["values"] = [_plain(scale * values[kept], _DIGITS_OF_SEEDS) for values in curve.values]
    return line | ({} if curve.diverged_at is None else {"diverged": curve.diverged_at})


def _of_ridges(ridges: Sequence[Ridge]) -> _Json:
    places, panels = _Places(), []
    regimes, steps = regimes_of(ridges), sorted({ridge.step for ridge in ridges})
    for depth in sorted({ridge.layer.depth for ridge in ridges}):
        shown = [ridge for ridge in ridges if ridge.layer.depth == depth]
        lines = [
            {
                "regime": regimes.index(ridge.regime),
                "step": steps.index(ridge.step),
                "x": places.number_of((ridge.edges[:-1] + ridge.edges[1:]) / 2),
                "mean": _plain(ridge.density),
                "seeds": [ridge.seed],
            }
            for ridge in shown
            if np.isfinite(ridge.edges).all()
        ]
        panels.append({"title": f"density, layer {depth}", "range": _plain(shown_range(shown)), "lines": lines})
    note = "Here the densities are not scaled, and each step has an axis of its own. In the drawing:"
    looks = [*map(_look, regimes)]
    return {"x": "pre-activation", "regimes": looks, "xs": places.all, "panels": panels, "steps": steps, "note": note}


def _look(regime: Regime) -> _Json:
    line = regime.linestyle
    return {
        "label": regime.label,
        "color": regime.color,
        "dash": [*(_DASHES[line] if isinstance(line, str) else line[1])],
    }


def _plain(values: ArrayLike, digits: int = _DIGITS) -> list[float | None]:
    """Numbers to a few digits, of whole ones all; None for those that are not finite."""
    found: Iterable[float] = np.asarray(values, dtype=np.float64).tolist()
    return [_rounded(value, digits) if np.isfinite(value) else None for value in found]


def _rounded(value: float, digits: int) -> float:
    return int(value) if value.is_integer() else float(f"{value:.{digits}g}")
