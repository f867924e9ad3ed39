"""Random residual networks block by block: their two variances, and the growth of their gradients."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.claims.residual import SETTLED
from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.growth import Growth, growth
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.analysis.statistics import slope
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import extent, log_axis
from icsbench.figures.series import COLORS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import GUIDE, Page, above, below, beside

DOTTED = (0, (1, 1))
KINDS: dict[str, tuple[str, str, Any]] = {
    "residual": ("skip", COLORS[0], "-"),
    "residual_bn": ("skip + BN", COLORS[1], "-"),
    "plain": ("plain", COLORS[4], "-"),
    "plain_bn": ("plain + BN", COLORS[5], "-"),
    "residual_half": ("skip, sum / √2", COLORS[2], "-"),
    "residual_depth": ("skip, branch / √L", COLORS[3], "-"),
    "residual_skipinit": ("SkipInit", GUIDE, "-"),
    "residual_fixup": ("Fixup", COLORS[6], DOTTED),
}
"""Label, colour and line of each kind of network."""
_MOMENTS = {"second_moment": "second moment", "batch_variance": "variance over the batch"}
_HIGHEST = 1e3
_FITTED = ("plain_bn", "residual", "residual_bn")


def _of_lab(group: Group) -> bool:
    return group.runs[0].regime == "residual"


def _variances(group: Group) -> list[Series]:
    rows = lab_rows(group)
    return [
        one
        for name in _MOMENTS
        for one in series(rows, "step", name, by=("kind",), theory=f"theory_{name}", logarithmic=True)
    ]


def _variance_caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "What comes into each block of a random ReLU network, over inputs (left) and as the variance over the batch, "
        "which BN divides by (right); dashed: theory for infinite width.",
        number_of(drawn).replace("Mean", "Geometric mean", 1),
        _growth_said(drawn),
        "SkipInit and Fixup start as the identity.",
    )


def _growth_said(drawn: Sequence[Series]) -> str:
    """By what both variances grow per block, as fitted to the means from the tenth block on; nothing of fewer."""
    if max(one.x[-1] for one in drawn) <= SETTLED:
        return ""
    rates: dict[str, list[float]] = {"residual": [], "residual_bn": []}
    for one in drawn:
        if (kind := one.of["kind"]) in rates:
            fitted = one.x >= SETTLED
            values = one.mean if kind == "residual_bn" else np.log(one.mean)
            rates[kind].append(slope(one.x[fitted].tolist(), values[fitted].tolist()))
    left, right = rates["residual_bn"]
    factors = " and ".join(f"{math.exp(rate):.2f}" for rate in rates["residual"])
    return (
        f"With a skip and no norm they grow by the factors {factors} per block, out of the panels; with BN by "
        f"{left:.2f} and {right:.2f} per block (fits from block {SETTLED} on)."
    )


def _draw_variances(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    page = Page(2.9, text, top=0.62, bottom=0.42, left=0.55, right=0.12)
    [panels] = page.axes(1, 2, wspace=0.2)
    for axes, (name, title) in zip(panels, _MOMENTS.items(), strict=True):
        shown = [one for one in drawn if one.y_name == name]
        for one in shown:
            _, color, line = KINDS[one.of["kind"]]
            draw_series(axes, one, color, linestyle=line)
        low, high = extent(*(one.mean[one.mean < _HIGHEST] for one in shown))
        log_axis(axes, low, high)
        log_axis(axes, 1, max(one.x[-1] for one in shown), "x")
        above(axes, title)
        below(axes, "block")
    handles = [_handle(kind) for kind in KINDS]
    page.legend(handles[:4], [*handles[4:], _THEORY_HANDLE])
    return page.figure


def _handle(kind: str) -> Line2D:
    label, color, line = KINDS[kind]
    return Line2D([], [], color=color, linestyle=line, label=label)


_THEORY_HANDLE = Line2D([], [], label="theory", **THEORY)


@dataclass(frozen=True, eq=False)
class Grown:
    """The mean ln squared gradient of a kind of network, with both models of its growth."""

    series: Series
    growth: Growth

    def fit(self, model: str) -> np.ndarray:
        """What the model ``exponential`` or ``polynomial`` says at each block."""
        line = getattr(self.growth, model)
        return line.height + line.slope * (self.series.x if model == "exponential" else np.log(self.series.x))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per block."""
        fits = zip(self.fit("exponential"), self.fit("polynomial"), strict=True)
        for row, (exponential, polynomial) in zip(self.series.rows(), fits, strict=True):
            yield row | {"exponential": float(exponential), "polynomial": float(polynomial)}


def _gradients(group: Group) -> list[Grown]:
    rows = [run.where(kind=kind) for run in lab_rows(group) for kind in _FITTED]
    found = []
    for one in series(rows, "step", "log_gradient", by=("kind",), theory="theory_log_gradient"):
        fitted = one.x >= SETTLED
        found.append(Grown(one, growth(one.x[fitted], one.mean[fitted])))
    return found


def _gradient_caption(group: Group, drawn: Sequence[Grown]) -> str:
    said = []
    for one in drawn:
        label, line = KINDS[one.series.of["kind"]][0], one.growth
        said.append(
            f"{label}: e^({line.exponential.slope:.3f} l) or l^({line.polynomial.slope:.2f}), AIC for the "
            f"{'polynomial' if line.for_polynomial > 0 else 'exponential'} by {abs(line.for_polynomial):.0f}"
        )
    return caption(
        group,
        "ln of the squared gradient at the input of block l over that at the output, against l (above) and against "
        f"ln l (below, the same numbers), with both fits from block {SETTLED} on; dashed: theory.",
        "Fits to the means: " + "; ".join(said) + ".",
        number_of([one.series for one in drawn]),
    )


def _draw_gradients(group: Group, drawn: Sequence[Grown], text: str) -> mpl.Figure:
    page = Page(4.2, text, top=0.45, bottom=0.42, left=0.55, right=0.12)
    grid = page.axes(2, len(drawn), wspace=0.25, hspace=0.35)
    for row, panels in enumerate(grid):
        for axes, one in zip(panels, drawn, strict=True):
            label, color, _ = KINDS[one.series.of["kind"]]
            for model, line in _MODELS.items():
                fitted = one.series.x >= SETTLED
                axes.plot(one.series.x[fitted], one.fit(model)[fitted], color=GUIDE, linewidth=2.2, linestyle=line)
            draw_series(axes, one.series, color, marker="o")
            low, high = min(one.series.mean), max(one.series.mean)
            axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
            if row:
                log_axis(axes, 1, one.series.x[-1] * 1.05, "x")
                below(axes, "block, logarithmic")
            else:
                above(axes, label, color=color)
                axes.set_xlim(0, one.series.x[-1] * 1.02)
        beside(panels[0], "ln squared gradient", 24)
    models = [
        Line2D([], [], color=GUIDE, linewidth=2.2, linestyle=line, label=f"{name} fit")
        for name, line in _MODELS.items()
    ]
    page.legend([Line2D([], [], color="0.3", marker="o", markersize=3, label="measured"), *models, _THEORY_HANDLE])
    return page.figure


_MODELS = {"exponential": DOTTED, "polynomial": "-"}

VARIANCE = Figure(
    "residual_variance",
    order=240,
    kind="lab",
    applies=_of_lab,
    numbers=_variances,
    caption=_variance_caption,
    draw=_draw_variances,
)
GRADIENTS = Figure(
    "residual_gradients",
    order=241,
    kind="lab",
    applies=_of_lab,
    numbers=_gradients,
    caption=_gradient_caption,
    draw=_draw_gradients,
)
