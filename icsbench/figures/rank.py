"""How many directions the signals of random networks take: rank, orthogonality and isometry by depth and width."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.analysis.statistics import slope
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, guide, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import GUIDE, LEGEND_LINE, Page, above, below

_NONE, _RESCALE, _BN, _SKIP, _POSITIVE, _CONTROL = COLORS[:6]
_STYLES: dict[tuple[str, ...], dict[str, Any]] = {
    ("linear", "none", "gaussian"): {"color": _NONE, "label": "no norm"},
    ("linear", "rescale", "gaussian"): {"color": _RESCALE, "label": "BN, not centred"},
    ("linear", "bn", "gaussian"): {"color": _BN, "label": "BN"},
    ("relu", "none", "gaussian"): {"color": _NONE, "linestyle": ":", "label": "no norm"},
    ("relu", "rescale", "gaussian"): {"color": _RESCALE, "linestyle": ":", "label": "BN, not centred"},
    ("relu", "bn", "gaussian"): {"color": _BN, "linestyle": ":", "label": "BN"},
    ("linear", "none", "orthogonal"): {"color": _NONE, "linestyle": "-."},
    ("linear", "rescale", "orthogonal"): {"color": _RESCALE, "linestyle": "-."},
    ("linear", "bn", "orthogonal"): {"color": _BN, "linestyle": "-."},
    ("linear", "rescale", "positive"): {"color": _POSITIVE, "label": "BN, positive weights"},
    ("skip", "rescale", "gaussian"): {"color": _SKIP, "label": "skip layers, BN not centred"},
}
"""By activation (``skip`` for linear skip layers), norm and weights. Dots: ReLU; dash-dotted: orthogonal weights."""
_THEOREM = ("linear", "rescale", "gaussian")
"""The linear networks with BN as Daneshmand et al. (2021) have them."""
_FACTORS = ("layers", "activation", "norm", "weights", "start")
_MEASURES = {"rank": "soft_rank", "orthogonality": "orthogonality_gap", "isometry": "isometry_gap"}


def _numbers(group: Group) -> list[Series]:
    """Each measure against depth at the largest width, and its late mean against the width; the gradient by depth."""
    rows = lab_rows(group)
    found: list[Series] = []
    for part, measure in _MEASURES.items():
        of_part = [run.where(part=part) for run in rows]
        widest = [run.where(width=run["width"].max()) for run in of_part]
        found += _series(part, widest, "step", measure)
        if part != "isometry":
            found += _series(part, [_late_means(run, measure) for run in of_part], "width", measure)
    return found + _series("gradient", [run.where(part="gradient") for run in rows], "step", "log_gradient")


def _late_means(rows: LabRows, measure: str) -> LabRows:
    """Of each system, width and network one row: the mean over the depths of the second half of the layers."""
    names = ("part", *_FACTORS, "width", "network")
    depths: dict[tuple[Any, ...], list[int]] = {}
    for number, key in enumerate(zip(*(rows[name].tolist() for name in names), strict=True)):
        if rows["step"][number] >= rows["step"].max() / 2:
            depths.setdefault(key, []).append(number)
    columns = {name: np.array(column) for name, column in zip(names, zip(*depths, strict=True), strict=True)}
    for key in {measure, f"theory_{measure}"} & rows.columns.keys():
        columns[key] = np.array([rows[key][of_network].mean() for of_network in depths.values()])
    return LabRows(rows.run, columns)


def _series(part: str, rows: Sequence[LabRows], x: str, y: str) -> list[Series]:
    """Means over networks; theory where the rows have it, which never is of all systems of a part."""
    theory = f"theory_{y}" if any(f"theory_{y}" in run.columns for run in rows) else None
    found = series(rows, x, y, by=("part", *_FACTORS), theory=theory, logarithmic=y != "log_gradient")
    said = (
        one if one.theory is None or not np.isnan(one.theory[-1:]).all() else replace(one, theory=None) for one in found
    )
    return [one for one in said if _key(one) in _STYLES]


def _key(one: Series) -> tuple[str, ...]:
    layers = one.of["layers"]
    return (layers if layers == "skip" else one.of["activation"], one.of["norm"], one.of["weights"])


def _of(found: Sequence[Series], part: str, x: str) -> list[Series]:
    return [one for one in found if one.of["part"] == part and one.x_name == x]


def _caption(group: Group, found: Sequence[Series]) -> str:
    """What is drawn, with the slopes on the width."""
    run = group.runs[0]
    slopes = []
    for part, what in (("rank", "soft rank"), ("orthogonality", "orthogonality gap")):
        for one in _of(found, part, "width"):
            if _key(one) == _THEOREM:
                exponent = slope(np.log(one.x).tolist(), np.log(one.mean).tolist())
                slopes.append(f"{what} {exponent:.2f}")
    return caption(
        group,
        f"Top: soft rank, batch = width; orthogonality gap, batch of {run.setting('lab.batch')} nearly equal inputs; "
        f"isometry gap, batch = width = {run.setting('lab.isometry_width')}; each by layer, at the largest width.",
        "Bottom: the first two against the width, mean over the second half of the layers; gradient of the first "
        f"layer's weights against the depth of the network, batch = width = {run.setting('lab.gradient_width')}.",
        "Full lines: linear layers; dots: ReLU; dashes and dots: linear with orthogonal weights.",
        f"Exponents on the width, linear, BN not centred: {', '.join(slopes)}.",
        "Dashed: √d; the decay of Meterez et al. from the first value, with their fitted constant. Dotted grey: the "
        "slope of 1/√d.",
        _bound(group),
        _lost(group),
        number_of(found),
    )


def _lost(group: Group) -> str:
    """From where on the isometry gap is a bound."""
    rows = [run.where(part="isometry", singular=1) for run in lab_rows(group)]
    least = min((float(run["isometry_gap"].min()) for run in rows if len(run["step"])), default=None)
    if least is None:
        return ""
    return f"Isometry gaps from {least:.2g} on are lower bounds where a direction is lost to rounding."


def _bound(group: Group) -> str:
    """What Theorem 1 of Daneshmand et al. (2021) says of these networks."""
    least = min(np.nanmin(run["bound_orthogonality_gap"]) for run in lab_rows(group))
    most = np.sqrt(1 - 1 / group.runs[0].setting("lab.batch"))
    return f"Theorem 1 of Daneshmand et al. 2021 bounds the gap by {least:.2g} at best; it cannot be above {most:.2g}."


def _draw(group: Group, found: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(5.0, text, top=0.32 + 2 * LEGEND_LINE, bottom=0.42, left=0.5, right=0.12)
    axes = page.axes(2, 3, hspace=0.48, wspace=0.32)
    for column, (part, title) in enumerate((("rank", "soft rank"), ("orthogonality", "orthogonality gap"))):
        _panel(axes[0][column], _of(found, part, "step"), title, "layer")
        _panel(axes[1][column], _of(found, part, "width"), title, "width d")
    _inverse_root(axes[1][1], _of(found, "orthogonality", "width"))
    _panel(axes[0][2], _of(found, "isometry", "step"), "isometry gap", "layer")
    _gradient(axes[1][2], _of(found, "gradient", "step"))
    drawn = {label: look for look in _STYLES.values() if (label := look.get("label"))}
    handles = [Line2D([], [], color=look["color"], label=label) for label, look in drawn.items()]
    kinds = [
        Line2D([], [], color="0.4", linestyle=":", label="ReLU"),
        Line2D([], [], color="0.4", linestyle="-.", label="orthogonal weights"),
        Line2D([], [], **THEORY, label="theory, see below"),
    ]
    page.legend(handles, kinds)
    return page.figure


def _panel(axes: Axes, drawn: Sequence[Series], title: str, x: str) -> None:
    """Positive measures on two logarithmic axes; depth 0 is left out."""
    for one in drawn:
        look = _STYLES[_key(one)]
        marker = "o" if one.x_name == "width" else ""
        draw_series(axes, one, look["color"], marker=marker, linestyle=look.get("linestyle", "-"))
    log_axis(axes, *extent(*(one.x for one in drawn)), which="x")
    log_axis(axes, *extent(*(one.mean for one in drawn)))
    above(axes, title)
    below(axes, x)


def _inverse_root(axes: Axes, drawn: Sequence[Series]) -> None:
    """The slope of the theorem, whose constant it leaves open: a little below the linear networks that it is about."""
    for one in drawn:
        if _key(one) == _THEOREM:
            bound = 0.9 * one.mean[0] * np.sqrt(one.x[0] / one.x)
            axes.plot(one.x, bound, color=GUIDE, linewidth=0.8, linestyle=":")


def _gradient(axes: Axes, drawn: Sequence[Series]) -> None:
    guide(axes, 0)
    for one in drawn:
        look = _STYLES[_key(one)]
        draw_series(axes, one, look["color"], marker="o", linestyle=look.get("linestyle", "-"))
    above(axes, "ln ‖∂L/∂W₁‖")
    below(axes, "depth of the network")


FIGURE = Figure(
    "rank",
    order=250,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "rank",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
