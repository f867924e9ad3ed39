"""Singular values of layer Jacobians over a batch, in order of size, with and without BN."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.figures.caption import CUT_OFF, caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import guide
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series_of_lists, settings
from icsbench.figures.style import GUIDE, Page, above, below, beside

_FACTORS = ("activation", "weights", "norm", "place", "batch")
_NONE = ("none", "signals")
_STYLES = {_NONE: "-", ("bn", "signals"): "-", ("bn", "normalized"): (0, (1, 1.2))}
_NAMES = {"signals": "h → W φ(BN(h))", "normalized": "x → BN(W φ(x))"}


def spectra(group: Group) -> list[Series]:
    """Quantiles of all singular values at the fixed point, mean over networks: a series for each setting.

    Without BN a batch only repeats the samples: the smallest is taken.
    """
    runs = [run.where(inputs="fixed_point") for run in lab_rows(group)]
    smallest = min(batch for run in runs for batch in run["batch"])
    kept = [of for of in settings(runs, _FACTORS) if of["norm"] == "bn" or of["batch"] == smallest]
    return [_spectrum(runs, of) for of in kept]


def _spectrum(runs: Sequence[LabRows], of: dict[str, Any]) -> Series:
    """Against the share of directions, from 0 to 1."""
    one = series_of_lists(runs, "quantiles", of, "share")
    told = [run.where(**of).columns["theory_quantiles"][0] for run in runs if "theory_quantiles" in run.columns]
    theory = np.array([np.nan, *told[0], np.nan]) if told and told[0] is not None else None
    return replace(one, y_name="singular_value", x=one.x / one.x[-1], theory=theory)


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    what = (
        "Singular values s of the Jacobian of one layer over a batch of B, at initialisation, behind some layers of "
        "the same network (at the fixed point), in order of size: left of a curve is the share of directions with a "
        "smaller one. Grey: from 0.9 to 1.1. Triangles: the share 2/B that BN kills; ReLU alone kills half. Dashed: "
        "theory of wide networks, where there is a closed form."
    )
    beyond = any((one.high > _top(drawn)).any() for one in drawn)
    return caption(group, what, number_of(drawn), CUT_OFF if beyond else "")


def _top(drawn: Sequence[Series]) -> float:
    """Where the axis of singular values ends."""
    return 1.05 * max(float(one.mean[-1]) for one in drawn)


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    """A row per activation, a column per kind of weights."""
    rows = list(dict.fromkeys(one.of["activation"] for one in drawn))
    columns = list(dict.fromkeys(one.of["weights"] for one in drawn))
    batches = sorted({one.of["batch"] for one in drawn if one.of["norm"] == "bn"})
    colors: dict[int, str] = dict(zip(batches, COLORS[1:], strict=False))
    page = Page(0.95 + 1.65 * len(rows), text, top=0.58, bottom=0.42, left=0.62, right=0.3)
    grid = page.axes(len(rows), len(columns), wspace=0.12, hspace=0.14)
    for line, activation in zip(grid, rows, strict=True):
        for axes, weights in zip(line, columns, strict=True):
            shown = [o for o in drawn if (o.of["activation"], o.of["weights"]) == (activation, weights)]
            _panel(axes, shown, colors, _top(drawn))
            axes.tick_params(labelbottom=line is grid[-1], labelleft=axes is line[0])
            if line is grid[0]:
                above(axes, f"{'Gaussian' if weights == 'gaussian' else weights} weights")
            if line is grid[-1]:
                below(axes, "share of directions")
        beside(line[0], f"s, {'ReLU' if activation == 'relu' else activation} layer", 22)
    page.legend(*_legend(colors))
    return page.figure


def _panel(axes: Axes, shown: Sequence[Series], colors: dict[int, str], top: float) -> None:
    axes.axhspan(0.9, 1.1, color="0.9", linewidth=0, zorder=0)
    guide(axes, 1)
    for one in shown:
        bn = one.of["norm"] == "bn"
        color = colors[one.of["batch"]] if bn else COLORS[0]
        draw_series(axes, one, color, linestyle=_STYLES[one.of["norm"], one.of["place"]])
    for batch, color in colors.items():
        axes.plot([2 / batch], [0], "^", color=color, markersize=5, clip_on=False, zorder=5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)


def _legend(colors: dict[int, str]) -> list[list[Line2D]]:
    first = [Line2D([], [], color=COLORS[0], label="no BN")]
    first += [Line2D([], [], color=color, label=f"BN, B = {batch:g}") for batch, color in colors.items()]
    first.append(Line2D([], [], **THEORY, label="theory"))
    dead = Line2D([], [], color=GUIDE, marker="^", linestyle="", markersize=5, label="2/B: dead by BN")
    places = [Line2D([], [], color="0.3", linestyle=_STYLES["bn", place], label=_NAMES[place]) for place in _NAMES]
    return [first, [*places, dead]]


FIGURE = Figure(
    name="jacobians",
    order=230,
    kind="lab",
    numbers=spectra,
    caption=_caption,
    draw=_draw,
    applies=lambda group: group.runs[0].regime == "jacobians",
)
