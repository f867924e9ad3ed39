"""Which learning rates a network bears, with and without a warm-up."""

import math
from collections.abc import Sequence

import matplotlib.figure as mpl
import numpy as np

from icsbench.analysis.groups import Condition, Group
from icsbench.analysis.quantities.training import largest_rate, last_tenth
from icsbench.analysis.quantities.warmup import AT_ONCE, HELD, LINEAR, WARMUP, starts
from icsbench.analysis.statistics import Band, geometric_band, mean_interval
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import log_axis
from icsbench.figures.series import Series, draw_series, number_of
from icsbench.figures.style import Page, above, below, beside, chance_line, legend_rows, regime_handle
from icsbench.record.regime import Regime
from icsbench.record.schema import LEFT_CHANCE, TRAIN_ACCURACY

_LARGEST = "largest_lr"
_TITLES = {AT_ONCE: "the whole rate at once", LINEAR: "linear warm-up", HELD: "held at the first rate"}
_SAID = {
    AT_ONCE: "that rate from the first step on",
    LINEAR: "a rate that rises linearly to it",
    HELD: "the control, the first rate of that rise in as many steps, then the whole rate",
}


def _curves(group: Group) -> list[Series]:
    """For each start and regime training accuracy against the learning rate, and the largest rate that trains."""
    found = []
    for start, settings in starts(group).items():
        conditions = [condition for condition in group.conditions if _has(condition, settings)]
        for regime in dict.fromkeys(condition.regime for condition in conditions):
            points = [condition for condition in conditions if condition.regime == regime]
            intervals = [mean_interval([last_tenth(run) for run in condition.runs]) for condition in points]
            mean, low, high = np.array([interval[:3] for interval in intervals]).T
            rates, n = np.array([condition.lr for condition in points]), min(interval.n for interval in intervals)
            of = {"start": start, "regime": regime}
            found.append(Series(of, "lr", TRAIN_ACCURACY, rates, mean, low, high, n))
            found.append(_largest(of, points))
    return found


def _largest(of: dict[str, object], points: Sequence[Condition]) -> Series:
    """The largest rate at which a seed trains, over those that have every rate and train at one; at the grid's end."""
    runs = [{run.seed: run for run in condition.runs} for condition in points]
    seeds = set.intersection(*map(set, runs))
    values = [[rate] for seed in sorted(seeds) if (rate := largest_rate(at[seed] for at in runs))]
    band = geometric_band(values) if values else Band(*np.full((3, 1), math.nan), n=0)
    return Series(of, "lr", _LARGEST, np.array([points[-1].lr]), *band)


def _has(condition: Condition, settings: dict[str, object]) -> bool:
    return all(condition.runs[0].setting(key) == value for key, value in settings.items())


def _caption(group: Group, drawn: Sequence[Series]) -> str:
    return caption(
        group,
        "Training accuracy of the last tenth of the steps against the learning rate. Left to right: "
        f"{'; '.join(_SAID[start] for start in dict.fromkeys(one.of['start'] for one in drawn))}.",
        number_of([one for one in drawn if one.y_name == TRAIN_ACCURACY], "seeds"),
        "A run that diverged has the accuracy of chance. Triangles: the largest rate at which a seed trains, that is, "
        f"ends at {LEFT_CHANCE:g} times chance or more; geometric mean and interval of the seeds that train at some "
        "rate.",
    )


def _draw(group: Group, drawn: Sequence[Series], text: str) -> mpl.Figure:
    columns = list(dict.fromkeys(one.of["start"] for one in drawn))
    regimes: list[Regime] = list(dict.fromkeys(one.of["regime"] for one in drawn))
    page = Page(2.6, text, top=0.45, bottom=0.4, left=0.5, right=0.15)
    [row] = page.axes(1, len(columns), wspace=0.1)
    everywhere = np.concatenate([one.x for one in drawn if one.y_name == TRAIN_ACCURACY])
    for axes, start in zip(row, columns, strict=True):
        for one in drawn:
            if one.of["start"] != start:
                continue
            look: Regime = one.of["regime"]
            if one.y_name == _LARGEST:
                height = 98 - 5 * regimes.index(look)
                axes.plot(one.mean, [height], "v", color=look.color, markersize=4)
                axes.hlines([height], one.low, one.high, look.color, linewidth=0.9)
            else:
                draw_series(axes, one, look.color, marker=look.marker, linestyle=look.linestyle, scale=100)
        log_axis(axes, everywhere.min() / 1.3, everywhere.max() * 1.3, "x", ticks=4)
        axes.set_ylim(0, 102)
        chance_line(axes, 1 / group.num_classes)
        axes.tick_params(labelleft=axes is row[0])
        above(axes, _TITLES[start])
        below(axes, "learning rate")
    beside(row[0], "training accuracy (%)", 24)
    page.legend(*legend_rows([regime_handle(regime) for regime in regimes]))
    return page.figure


FIGURE = Figure(
    name="warmup",
    order=180,
    numbers=_curves,
    caption=_caption,
    draw=_draw,
    applies=lambda group: not group.regression and len(group.lrs) > 1 and any(r.setting(WARMUP) for r in group.runs),
    per_lr=False,
)
