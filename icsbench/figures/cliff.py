"""The trainability cliff: accuracy by depth and batch size, with 16 depth scales of mean-field theory over it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.cliff import ACCURACY, Cliff, Fit, cliff, cliffs
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Interval, mean_interval
from icsbench.figures.caption import CUT_OFF, caption
from icsbench.figures.contract import Figure
from icsbench.figures.series import COLORS, MARKERS, THEORY, Series, draw_series, series
from icsbench.figures.style import Page, above, below, beside, chance_line

_TITLES = {"bn": "with BN", "none": "without BN"}
_HIGHEST = 1.03  # where the axis of accuracy ends


@dataclass(frozen=True, eq=False)
class AtBatch:
    """Accuracy (fractions) by depth of the networks of one norm and batch size, and where it falls.

    ``measured``: the cliffs that lie within the depths, and ``outside`` how many do not; ``fit``: the curve of the mean
    accuracy, None where that does not fall. ``limit``: 16 xi, None without BN.
    """

    norm: str
    batch: int
    accuracy: Series
    measured: Interval | None
    outside: int
    fit: Fit | None
    limit: float | None
    chance: float

    def rows(self) -> Iterator[dict[str, Any]]:
        """A plain row per depth, and one of the cliff."""
        yield from self.accuracy.rows()
        row = {"norm": self.norm, "batch": self.batch, "quantity": "cliff", "outside": self.outside}
        row |= {} if self.measured is None else self.measured._asdict()
        yield row | ({} if self.limit is None else {"theory": self.limit})


def _numbers(group: Group) -> list[AtBatch]:
    runs = lab_rows(group)
    chance = float(runs[0]["chance"][0])
    found: dict[tuple[str, int], list[Cliff]] = {}
    for run in runs:
        for norm, batch, _, one in cliffs(run):
            found.setdefault((norm, batch), []).append(one)
    drawn = []
    for accuracy in series(runs, "step", ACCURACY, by=("norm", "batch")):
        norm, batch = accuracy.of["norm"], int(accuracy.of["batch"])
        of_networks = found[norm, batch]
        depths = [one.depth.low for one in of_networks if one.depth.measured]
        drawn.append(
            AtBatch(
                norm,
                batch,
                accuracy,
                mean_interval(depths) if depths else None,
                len(of_networks) - len(depths),
                cliff(accuracy.x, accuracy.mean, chance).fit,
                _limit(runs[0], batch) if norm == "bn" else None,
                chance,
            )
        )
    return drawn


def _limit(run: LabRows, batch: int) -> float:
    return float(run.where(norm="bn", batch=batch)["theory_cliff"][0])


def _caption(group: Group, drawn: Sequence[AtBatch]) -> str:
    run = group.runs[0]
    n = drawn[0].accuracy.n
    interval = " with 95 % t-interval" if n >= FEWEST_FOR_AN_INTERVAL else ""
    what = (
        f"Accuracy on training images ({lab_rows(group)[0]['data'][0]}) of plain ReLU networks of width "
        f"{run.setting('lab.width')} after {run.setting('lab.epochs')} epochs of SGD at learning rate "
        f"{run.setting('lab.lr_per_sample'):g} × batch size, in batches with their own statistics. Dashed: 16 ξ, the "
        "depth beyond which networks with BN are said to be untrainable, with ξ of mean-field theory. Circles: where a "
        f"logistic curve through the accuracy of a network is half-way from plateau to chance, mean{interval}. Below: "
        f"means over networks{interval}, and a curve through them (dotted). n\N{NO-BREAK SPACE}= {n} networks at each "
        "depth and batch size."
    )
    outside = [f"{_TITLES[one.norm]} at batch {one.batch}: {one.outside} of {n}" for one in drawn if one.outside]
    beyond = any((one.accuracy.high > _HIGHEST).any() or (one.accuracy.low < 0).any() for one in drawn)
    nowhere = f"No cliff within the depths: {'; '.join(outside)}." if outside else ""
    return caption(group, what, CUT_OFF if beyond else "", nowhere)


def _draw(group: Group, drawn: Sequence[AtBatch], text: str) -> mpl.Figure:
    """Above a map of accuracy for each norm, below the same as curves, one colour for each batch size."""
    page = Page(4.9, text, top=0.58, bottom=0.42, left=0.5, right=0.62)
    batches = list(dict.fromkeys(one.batch for one in drawn))
    norms = [norm for norm in _TITLES if any(one.norm == norm for one in drawn)]
    maps, curves = page.axes(2, len(norms), wspace=0.12, hspace=0.36)
    image = None
    for norm, map_axes, curve_axes in zip(norms, maps, curves, strict=True):
        of_norm = [one for one in drawn if one.norm == norm]
        image = _draw_map(map_axes, of_norm)
        _draw_curves(curve_axes, of_norm, batches)
        above(map_axes, _TITLES[norm])
        below(map_axes, "batch size")
        below(curve_axes, "depth (layers)")
        for axes in (map_axes, curve_axes):
            if axes not in (maps[0], curves[0]):
                axes.tick_params(labelleft=False)
    beside(maps[0], "depth (layers)", 22)
    beside(curves[0], "training accuracy (%)", 22)
    _color_bar(page.figure, image, maps[-1])
    page.legend(
        [_handle(batches, batch) for batch in batches],
        [
            Line2D([], [], **THEORY, label="16 ξ"),
            Line2D(
                [], [], color="black", linestyle="", marker="o", markerfacecolor="white", markersize=4, label="cliff"
            ),
            Line2D([], [], color="0.3", linestyle=":", label="logistic curve"),
        ],
    )
    return page.figure


def _handle(batches: Sequence[int], batch: int) -> Line2D:
    place = batches.index(batch)
    return Line2D(
        [],
        [],
        color=COLORS[place % len(COLORS)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=3,
        label=f"batch {batch}",
    )


def _draw_map(axes: Axes, of_norm: Sequence[AtBatch]) -> Any:
    depths = of_norm[0].accuracy.x.astype(float)
    middles = (depths[1:] + depths[:-1]) / 2
    deepest = depths[-1] + (depths[-1] - middles[-1] if len(depths) > 1 else 1)
    places = np.arange(len(of_norm))
    image = axes.pcolormesh(
        np.arange(len(of_norm) + 1) - 0.5,
        np.r_[0, middles, deepest],
        100 * np.stack([one.accuracy.mean for one in of_norm], 1),
        vmin=0,
        vmax=100,
        cmap="viridis",
    )
    for place, one in zip(places, of_norm, strict=True):
        if one.measured is not None:
            mean, low, high, n = one.measured
            error = [[mean - low], [high - mean]] if n >= FEWEST_FOR_AN_INTERVAL else None
            axes.errorbar(
                place,
                mean,
                error,
                fmt="o",
                color="black",
                markerfacecolor="white",
                markersize=4,
                linewidth=0.9,
                capsize=2,
            )
    limits = [one.limit for one in of_norm if one.limit is not None]
    if limits:
        axes.plot(places, limits, color="white", linewidth=1.8)
        axes.plot(places, limits, **THEORY)
    axes.set_xticks(places, [f"{one.batch:,}" for one in of_norm])
    axes.set_ylim(0, deepest)
    return image


def _draw_curves(axes: Axes, of_norm: Sequence[AtBatch], batches: Sequence[int]) -> None:
    for one in of_norm:
        handle = _handle(batches, one.batch)
        curve, color = one.accuracy, handle.get_color()
        draw_series(axes, curve, str(color), marker=str(handle.get_marker()), scale=100)
        if one.fit is not None:
            depths = np.linspace(curve.x[0], curve.x[-1], 200)
            axes.plot(depths, 100 * one.fit.accuracy(depths), color=color, linestyle=":", linewidth=0.9)
        if one.limit is not None:
            axes.axvline(one.limit, color=color, linewidth=THEORY["linewidth"], linestyle=THEORY["linestyle"], zorder=0)
    axes.set_xlim(0, None)
    axes.set_ylim(0, 100 * _HIGHEST)
    chance_line(axes, of_norm[0].chance)


def _color_bar(figure: mpl.Figure, image: Any, beside_axes: Axes) -> None:
    place = beside_axes.get_position()
    axes = figure.add_axes((place.x1 + 0.014, place.y0, 0.014, place.height))
    bar = figure.colorbar(image, cax=axes, ticks=[0, 50, 100])
    bar.outline.set_linewidth(0)  # pyright: ignore[reportCallIssue]
    axes.annotate(
        "accuracy (%)", (1, 0.5), (22, 0), "axes fraction", "offset points", ha="left", va="center", rotation=90
    )


FIGURE = Figure(
    name="cliff",
    order=220,
    kind="lab",
    applies=lambda group: group.runs[0].regime == "cliff",
    numbers=_numbers,
    caption=_caption,
    draw=_draw,
)
