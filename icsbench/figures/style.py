"""The house style: sizes of a two-column paper, one colour and line style per regime, captions, files."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from icsbench.analysis.files import csv_bytes, write_file
from icsbench.analysis.statistics import FEWEST_FOR_AN_INTERVAL, Floats
from icsbench.record.regime import Regime

LEGEND_LINE = 0.17  # inches from one line of the legend to the next
FULL_WIDTH = 6.75  # inches: the text of a two-column page
CROSS: dict[str, Any] = {"linewidth": 0.6, "marker": "x", "markersize": 4.5}  # the end of a run that diverged
GUIDE = "0.55"  # the grey of lines that are no measurement
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_RC: dict[str, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}
_TITLES_ON_ONE_LINE = 3
_TITLES_ON_TWO_LINES = 4
_REGIMES_ON_ONE_LINE = 4
_TITLE_HEIGHTS = (0.24, 0.37, 0.5)  # inches, of one, two and three lines
_CAPTION_SIZE = 6.5
_CAPTION_LINE = 0.125  # inches from one line of the caption to the next
_CAPTION_CHARACTERS = 20.0  # per inch of width


class OfRegime(Protocol):
    """Numbers of one regime."""

    @property
    def regime(self) -> Regime:
        """Its name, with its look."""
        ...


class Line(OfRegime, Protocol):
    """A mean over seeds against something: arrays of shape (m,)."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds behind the mean."""
        ...

    @property
    def x(self) -> NDArray[Any]:
        """What the mean is drawn against."""
        ...

    @property
    def mean(self) -> Floats:
        """The mean."""
        ...

    @property
    def low(self) -> Floats:
        """The lower end of its interval."""
        ...

    @property
    def high(self) -> Floats:
        """The upper end of its interval."""
        ...

    @property
    def values(self) -> Floats | None:
        """The single seeds, (n, m)."""
        ...


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save in the house style, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


class Page:
    """A figure with a caption below and room for a legend above, laid out in inches."""

    def __init__(self, height: float, caption: str, *, top: float, bottom: float, left: float, right: float) -> None:
        """``height`` is that of the drawing with its margins ``top`` and ``bottom``; the caption is added below."""
        lines = textwrap.wrap(caption, int(FULL_WIDTH * _CAPTION_CHARACTERS))
        below = _CAPTION_LINE * len(lines) + 0.08
        total = height + below
        self.figure = Figure(figsize=(FULL_WIDTH, total))
        self._margins = {
            "left": left / FULL_WIDTH,
            "right": 1 - right / FULL_WIDTH,
            "top": 1 - top / total,
            "bottom": (bottom + below) / total,
        }
        self._total = total
        self.figure.text(
            0.06 / FULL_WIDTH,
            (below - 0.02) / total,
            "\n".join(lines),
            fontsize=_CAPTION_SIZE,
            color="0.25",
            va="top",
            linespacing=1.3,
        )

    def axes(self, rows: int, columns: int, above: float = 0, below: float = 0, **grid: Any) -> list[list[Axes]]:
        """A grid of axes between the margins, with so many inches free ``above`` and ``below`` it for another."""
        ends = {
            "top": self._margins["top"] - above / self._total,
            "bottom": self._margins["bottom"] + below / self._total,
        }
        spec = self.figure.add_gridspec(rows, columns, **self._margins | ends, **grid)
        return [[self.figure.add_subplot(spec[row, column]) for column in range(columns)] for row in range(rows)]

    def legend(self, *rows: Sequence[Line2D]) -> None:
        """One legend for all axes, centred at the top: a line for each of the rows that has entries."""
        for number, handles in enumerate(filter(None, rows)):
            self.figure.legend(
                handles=handles,
                loc="upper center",
                bbox_to_anchor=(0.5, 1 - (0.02 + LEGEND_LINE * number) / self._total),
                ncols=len(handles),
                borderaxespad=0,
                columnspacing=1.6,
            )


def regime_handle(regime: Regime, **line: Any) -> Line2D:
    """A legend entry in the line style of a regime."""
    return Line2D([], [], **{"color": regime.color, "linestyle": regime.linestyle, "label": regime.label} | line)


def regime_legend(drawn: Iterable[OfRegime]) -> list[Sequence[Line2D]]:
    """The regimes of what is drawn, in its order, as lines of a legend."""
    return legend_rows([regime_handle(regime) for regime in regimes_of(drawn)])


def regimes_of(drawn: Iterable[OfRegime]) -> list[Regime]:
    """The regimes of what is drawn, in its order."""
    return list(dict.fromkeys(part.regime for part in drawn))


def diverged_handle() -> Line2D:
    """The legend entry of runs that diverged."""
    return Line2D([], [], **CROSS, color="0.3", label="one run, diverged at ×")


def legend_rows(handles: Sequence[Line2D]) -> list[Sequence[Line2D]]:
    """The entries of regimes as lines of a legend: one, or two where they are too many for one."""
    half = (len(handles) + 1) // 2
    return [handles] if len(handles) <= _REGIMES_ON_ONE_LINE else [handles[:half], handles[half:]]


def step_axis(axes: Axes, last: int, label: bool, ticks: int = 4) -> None:
    """A linear axis of steps from 0 to ``last`` in at most so many parts; numbers and ``label`` where asked for."""
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if label:
        below(axes, "step")
    else:
        axes.tick_params(labelbottom=False)


# A place fixed in points saves matplotlib the search for a free one, a fifth of the time of a figure.
def above(axes: Axes, text: str, **style: Any) -> None:
    """The title of one axes."""
    axes.annotate(
        text, (0.5, 1), (0, 5), "axes fraction", "offset points", ha="center", size=_RC["axes.titlesize"], **style
    )


def regime_titles(row: Sequence[Axes], regimes: Sequence[Regime]) -> None:
    """The regimes as titles of a row of axes, of several lines where there are too many for one: ``titles_height``."""
    for axes, regime in zip(row, regimes, strict=True):
        above(axes, _title(regime, len(regimes)), color=regime.color)


def titles_height(regimes: Sequence[Regime]) -> float:
    """Inches that ``regime_titles`` takes above the axes."""
    return _TITLE_HEIGHTS[max(_title(regime, len(regimes)).count("\n") for regime in regimes)]


def _title(regime: Regime, columns: int) -> str:
    label = regime.label
    if columns > _TITLES_ON_ONE_LINE:
        label = label.replace(" + ", "\n+ ")
    return label if columns <= _TITLES_ON_TWO_LINES else label.replace("' ", "'\n")


def below(axes: Axes, text: str) -> None:
    """The label of a horizontal axis."""
    axes.annotate(text, (0.5, 0), (0, -15), "axes fraction", "offset points", ha="center", va="top")


def beside(axes: Axes, text: str, points: float) -> None:
    """The label of a vertical axis, ``points`` to its left."""
    axes.annotate(text, (0, 0.5), (-points, 0), "axes fraction", "offset points", ha="right", va="center", rotation=90)


def chance_line(axes: Axes, chance: float) -> None:
    """A thin line at the accuracy of guessing, a fraction, on an axis in per cent."""
    room_below = chance > 0.08
    axes.axhline(100 * chance, color=GUIDE, linewidth=0.6, zorder=0)
    axes.annotate(
        "chance",
        (1, 100 * chance),
        (-2, -2 if room_below else 1.5),
        ("axes fraction", "data"),
        "offset points",
        ha="right",
        va="top" if room_below else "bottom",
        size=6,
        color=GUIDE,
    )


def spread(axes: Axes, curve: Line, color: str, scale: float = 1, floor: float = -np.inf) -> None:
    """How the seeds of a curve differ: a band, the t-interval, or where they are too few for one, each seed."""
    if curve.values is not None and len(curve.values) < FEWEST_FOR_AN_INTERVAL:
        for values in curve.values:
            axes.plot(curve.x, scale * np.maximum(values, floor), color=color, linewidth=0.5, alpha=0.6)
        return
    low, high = scale * np.maximum(curve.low, floor), scale * curve.high
    axes.fill_between(curve.x, low, high, color=color, alpha=0.2, linewidth=0)


def power_of_ten(value: float, _: object = None) -> str:
    """10³ for 1000.0: the tick label of a decade in plain characters."""
    return "10" + str(round(math.log10(value))).translate(_SUPERSCRIPTS)


def save(figure: Figure, rows: Sequence[dict[str, Any]], stem: Path) -> list[Path]:
    """Write ``stem.pdf``, ``stem.png`` (300 dpi) and the plotted numbers, ``stem.csv``; returns the three paths.

    Each is byte for byte the same for the same records and versions.

    :raises IcsbenchError: a file cannot be written.
    """
    numbers = csv_bytes(rows)
    return [
        write_file(
            Path(f"{stem}.pdf"), lambda file: figure.savefig(file, format="pdf", metadata={"CreationDate": None})
        ),
        write_file(Path(f"{stem}.png"), lambda file: figure.savefig(file, format="png")),
        write_file(Path(f"{stem}.csv"), lambda file: file.write(numbers)),
    ]
