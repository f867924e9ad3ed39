"""Gradients by their number: length and direction of weights optimised apart, beside gradient descent."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.analysis.statistics import Floats, geometric_band
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, settings
from icsbench.figures.style import GUIDE, LEGEND_LINE, Page, above, below, beside

_LOOKS = {
    "gd": ("gradient descent", COLORS[0], "-"),
    "gd_best": ("the same, best step", COLORS[0], (0, (1, 1.2))),
    "agd": ("accelerated", COLORS[3], "-"),
    "weight_norm": ("weight normalization, apart", COLORS[2], "-"),
    "bn": ("BN's norm, at once", COLORS[5], "-"),
    "gdnp": ("BN's norm, apart", COLORS[1], "-"),
    "gdnp_printed": ("the same, step as printed", COLORS[1], (0, (1, 1.2))),
}
_LOSSES = {"square": "least squares", "softplus": "softplus", "sigmoid": "sigmoid"}
_OTHERS = {"first": "first tanh unit", "second": "second tanh unit", "breast_cancer": "breast cancer"}
_TITLES = _LOSSES | _OTHERS
_FACTORS = ("objective", "method")


def _numbers(group: Group) -> list[Series]:
    """A series for each objective, condition number and method, up to where the first run ended."""
    runs = lab_rows(group)
    found = []
    for of in settings(runs, _FACTORS):
        rows = [run.where(**of) for run in runs]
        if of["objective"] in _OTHERS:
            found.append(_series(of | {"condition": _middle(rows)}, rows))
            continue
        for condition in dict.fromkeys(value for run in rows for value in run["condition"].tolist()):
            found.append(_series(of | {"condition": condition}, [run.where(condition=condition) for run in rows]))
    return found


def _middle(rows: Sequence[LabRows]) -> float:
    return float(np.median(np.concatenate([run["condition"] for run in rows])))


def _series(of: Mapping[str, Any], rows: Sequence[LabRows]) -> Series:
    lists = [(at, norms) for run in rows for at, norms in zip(run["at"], run["gradient"], strict=True)]
    at = np.array(min((at for at, _ in lists), key=len))
    norms = np.array([norms[: len(at)] for _, norms in lists])
    said = None
    if of["method"] == "gdnp":
        rates = np.concatenate([run["theory_rate"] for run in rows])
        said = np.exp((np.log(norms[:, :1]) + np.log(rates)[:, None] * (at - 1)).mean(0))
    return Series(dict(of), "evaluations", "gradient", at, *geometric_band(norms), theory=said)


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    """What is drawn, with the medians of gradients that each method needs."""
    real = next((one for one in drawn if one.of["objective"] == "breast_cancer"), None)
    return caption(
        group,
        "Norm of the gradient of the loss by the number of gradients taken, by method, loss and condition number of "
        "the data's covariance. Geometric mean.",
        "Dashed: from the first gradient on, a decay by 1 - μ/L in each step, the rate that Kohler et al. 2019 prove "
        "for length and direction apart. Grey: the tolerance.",
        "Bottom: two tanh units of a network one after the other, on Gaussian data; random shares of real data"
        + (f", of which the condition number is {real.of['condition']:.3g}." if real else "."),
        _needed(group),
        number_of(drawn, "random problems"),
    )


def _needed(group: Group) -> str:
    """Medians over problems, for the softplus loss at the largest condition number."""
    rows = [run.where(objective="softplus") for run in lab_rows(group)]
    largest = max(float(run["condition"].max()) for run in rows)
    medians = []
    for method, (label, _, _) in _LOOKS.items():
        of_method = [run.where(condition=largest, method=method) for run in rows]
        reached = np.concatenate([run["reached"] for run in of_method])
        if len(reached):
            count = np.median(np.concatenate([run["step"] for run in of_method]))
            open_end = "" if reached.mean() > 0.5 else "more than "
            medians.append(f"{label} {open_end}{count:,.0f}")
    return f"Gradients needed for softplus at condition {largest:g} (median): {', '.join(medians)}."


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    """A row per loss with a column per condition number, and one of the other problems."""
    conditions = sorted({one.of["condition"] for one in drawn if one.of["objective"] in _LOSSES})
    columns = max(len(conditions), len(_OTHERS))
    page = Page(6.2, text, top=0.3 + 2 * LEGEND_LINE, bottom=0.42, left=0.55, right=0.12)
    grid = page.axes(len(_LOSSES) + 1, columns, hspace=0.5, wspace=0.24)
    tolerance = group.runs[0].setting("lab.tolerance")
    panels = [[(name, condition) for condition in conditions] for name in _LOSSES] + [
        [(name, None) for name in _OTHERS]
    ]
    for line, row in zip(panels, grid, strict=True):
        for place, axes in enumerate(row):
            if place >= len(line):
                axes.set_axis_off()
                continue
            name, condition = line[place]
            shown = [one for one in drawn if one.of["objective"] == name]
            shown = [one for one in shown if condition in (None, one.of["condition"])]
            _panel(axes, shown, tolerance)
            above(axes, f"{_TITLES[name]}, condition {shown[0].of['condition']:.3g}")
            if row is grid[-1]:
                below(axes, "gradients taken")
        beside(row[0], "‖∇f‖", 24)
    handles = [Line2D([], [], color=color, linestyle=style, label=label) for label, color, style in _LOOKS.values()]
    page.legend(handles[:4], [*handles[4:], Line2D([], [], **THEORY, label="decay by 1 - μ/L")])
    return page.figure


def _panel(axes: Axes, shown: Sequence[Series], tolerance: float) -> None:
    for one in shown:
        _, color, style = _LOOKS[one.of["method"]]
        draw_series(axes, one, color, linestyle=style)
    axes.axhline(tolerance, color=GUIDE, linewidth=0.6, zorder=0)
    log_axis(axes, 1, 1.1 * max(one.x.max() for one in shown), "x")
    log_axis(axes, tolerance / 3, 1.5 * _highest(shown))


def _highest(shown: Sequence[Series]) -> float:
    """Without what a step as printed, or one on both at once, overshoots."""
    firsts: list[Floats] = [one.mean[:1] for one in shown]
    return float(np.max(firsts))


FIGURE = Figure(
    name="halfspaces",
    order=140,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "halfspaces",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
