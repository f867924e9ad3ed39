"""Curves of what labs measured: means over random networks or seeds, with what theory says drawn over them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from icsbench.analysis.quantities.lab import LabRows
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Floats, geometric_band, mean_band

COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of curves that are no regimes: those of Okabe & Ito, which the colour-blind can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
THEORY: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 2))}
"""How theory is drawn."""


@dataclass(frozen=True, eq=False)
class Series:
    """A quantity against another one: its mean over ``n`` random networks or seeds, arrays of shape (m,).

    ``of``: what tells it from the other series of a figure. ``theory``: what theory says, where it says something.
    """

    of: dict[str, Any]
    x_name: str
    y_name: str
    x: NDArray[Any]
    mean: Floats
    low: Floats
    high: Floats
    n: int
    theory: Floats | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per point."""
        theory = itertools.repeat(None) if self.theory is None else self.theory.tolist()
        for x, mean, low, high, said in zip(self.x, self.mean, self.low, self.high, theory, strict=False):
            row = {**self.of, self.x_name: x.item(), "quantity": self.y_name, "mean": float(mean)}
            row |= {"low": float(low), "high": float(high), "n": self.n}
            yield row | ({} if self.theory is None else {"theory": said})


def series(
    rows: Sequence[LabRows],
    x: str,
    y: str,
    *,
    by: Sequence[str] = (),
    theory: str | None = None,
    logarithmic: bool = False,
) -> list[Series]:
    """A series of the column ``y`` against ``x`` for each combination of the values of the columns ``by``.

    At each x the mean (``logarithmic``: the geometric mean) is over all rows of all runs with that x, one for each
    network or seed, and so is the mean of ``theory``. ``n`` is the smallest number of rows at an x.

    :raises NotMeasured: a run lacks a column.
    """
    band = geometric_band if logarithmic else mean_band
    names = [x, y, *by] + ([theory] if theory else [])
    columns = {name: np.concatenate([run[name] for run in rows]) for name in names}
    keys = list(zip(*(columns[name].tolist() for name in by), strict=True)) if by else [()] * len(columns[x])
    found = []
    for key in dict.fromkeys(keys):
        kept = np.array([one == key for one in keys])
        places = np.unique(columns[x][kept])
        at = [kept & (columns[x] == place) for place in places]
        bands = [band(columns[y][rows_at][:, None]) for rows_at in at]
        ends = (np.array([getattr(one, end)[0] for one in bands]) for end in ("mean", "low", "high"))
        said = None if theory is None else np.array([columns[theory][rows_at].mean() for rows_at in at])
        of = dict(zip(by, key, strict=True))
        found.append(Series(of, x, y, places, *ends, n=min(one.n for one in bands), theory=said))
    return found


def settings(rows: Sequence[LabRows], names: Sequence[str]) -> list[dict[str, Any]]:
    """The combinations of values of some columns that there are, in the order in which they come.

    :raises NotMeasured: a run lacks a column.
    """
    keys = {key: None for run in rows for key in zip(*(run[name].tolist() for name in names), strict=True)}
    return [dict(zip(names, key, strict=True)) for key in keys]


def series_of_lists(rows: Sequence[LabRows], y: str, of: dict[str, Any], x_name: str, *, first: int = 0) -> Series:
    """The series of a column of lists, one of a network at all places x = 0, 1, ...: from ``first`` on.

    ``of``: the rows that are meant. Their mean is taken place by place.

    :raises NotMeasured: a run lacks a column.
    """
    band = mean_band([values[first:] for run in rows for values in run.where(**of)[y]])
    return Series(of, x_name, y, first + np.arange(len(band.mean)), *band)


def draw_series(
    axes: Axes, one: Series, color: Any, *, marker: str = "", linestyle: Any = "-", scale: float = 1
) -> None:
    """The mean with its interval as a band, and theory over it; ``scale`` times each."""
    axes.plot(one.x, scale * one.mean, color=color, marker=marker, markersize=3, linestyle=linestyle, linewidth=0.9)
    if one.n >= FEWEST_FOR_AN_INTERVAL:
        axes.fill_between(one.x, scale * one.low, scale * one.high, color=color, alpha=0.2, linewidth=0)
    if one.theory is not None:
        axes.plot(one.x, scale * one.theory, **THEORY)


def number_of(drawn: Sequence[Series], what: str = "random networks") -> str:
    """What the means and bands are over, as a sentence for the caption."""
    counts = sorted({one.n for one in drawn})
    n = f"n\N{NO-BREAK SPACE}= {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    interval = " and 95 % t-interval" if counts[-1] >= FEWEST_FOR_AN_INTERVAL else ""
    return f"Mean{interval} over {n} {what}."
