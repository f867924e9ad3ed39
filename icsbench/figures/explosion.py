"""Exploding gradients of random networks: the rate against the batch, and the gradient against depth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.analysis.statistics import Floats, mean_band
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import guide, log_axis
from icsbench.figures.series import COLORS, MARKERS, THEORY, Series, draw_series, number_of, series
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, legend_rows

_PLAIN = {"none-signals": "without BN, signals kept", "none-gradients": "without BN, gradients kept"}
_STYLES = {"none-signals": (0, (1, 1)), "none-gradients": "-"}
_COLUMNS = 4


def _is_explosion(group: Group) -> bool:
    return group.runs[0].regime == "explosion"


def _with_bn(group: Group) -> list[LabRows]:
    runs = [run.where(norm="bn") for run in lab_rows(group)]
    if not all(len(run["step"]) for run in runs):
        raise NotMeasured(f"{group.name}: no network with BN")
    return runs


def _rates(group: Group) -> list[Series]:
    """The factor per layer against the batch, with BN, of each activation."""
    runs = _with_bn(group)
    theory = "theory_rate" if "theory_rate" in runs[0].columns and np.isfinite(runs[0]["theory_rate"]).all() else None
    return series(runs, "batch", "rate", by=("activation",), theory=theory, logarithmic=True)


def _rates_caption(group: Group, rates: Sequence[Series]) -> str:
    what = (
        "Factor per layer, towards the input, of the squared gradient of random networks with BN; dashed: λ of "
        "mean-field theory, for infinite width."
    )
    return caption(group, what, number_of(rates), "The mean is geometric.", _unstable(group))


def _unstable(group: Group) -> str:
    """Where the fixed point of theory is unstable, as a sentence; nothing where it is stable throughout."""
    found: dict[str, set[int]] = {}
    for run in _with_bn(group):
        if "theory_norms" in run.columns:
            above = run["theory_norms"] > 1 + 1e-9
            for activation, batch in zip(run["activation"][above], run["batch"][above], strict=True):
                found.setdefault(activation, set()).add(int(batch))
    if not found:
        return ""
    where = ", ".join(f"{activation} at {' and '.join(map(str, sorted(of)))}" for activation, of in found.items())
    return f"Networks leave the fixed point that λ is about, as it is unstable: {where}."


def _draw_rates(group: Group, rates: Sequence[Series], text: str) -> mpl.Figure:
    """All activations against the batch."""
    handles = [
        Line2D(
            [], [], color=COLORS[place], marker=MARKERS[place], markersize=3, linestyle="", label=one.of["activation"]
        )
        for place, one in enumerate(rates)
    ]
    legend = legend_rows([*handles, Line2D([], [], **THEORY, label="theory")])
    page = Page(
        2.9 + LEGEND_LINE * len(legend), text, top=0.15 + LEGEND_LINE * len(legend), bottom=0.42, left=0.6, right=0.15
    )
    [[axes]] = page.axes(1, 1)
    for place, one in enumerate(rates):
        draw_series(axes, one, COLORS[place], marker=MARKERS[place], linestyle="")
    batches = np.unique(np.concatenate([one.x for one in rates]))
    log_axis(axes, batches[0] / 1.15, batches[-1] * 1.15, "x")
    axes.set_xticks(batches, [f"{batch:g}" for batch in batches])
    guide(axes, 1)
    below(axes, "batch size")
    beside(axes, "growth of the squared gradient per layer", 30)
    page.legend(*legend)
    return page.figure


RATES = Figure(
    name="explosion",
    order=200,
    numbers=_rates,
    caption=_rates_caption,
    draw=_draw_rates,
    applies=_is_explosion,
    kind="lab",
)


@dataclass(frozen=True, eq=False)
class Profile:
    """``ln ||dL/dh_l||^2`` less that of the last layer, against the layer: the mean over n networks, (L + 1,)."""

    activation: str
    norm: str
    batch: int
    n: int
    mean: Floats
    low: Floats
    high: Floats
    theory_rate: float
    """By the layer; NaN where there is none."""

    @property
    def label(self) -> str:
        """What tells it from the others of its activation."""
        return _PLAIN.get(self.norm, f"BN, batch {self.batch}")

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per layer."""
        of = {"activation": self.activation, "norm": self.norm, "batch": self.batch, "n": self.n}
        for layer, (mean, low, high) in enumerate(zip(self.mean, self.low, self.high, strict=True)):
            yield {**of, "layer": layer, "mean": float(mean), "low": float(low), "high": float(high)} | {
                "theory_rate": self.theory_rate
            }


def _profiles(group: Group) -> list[Profile]:
    """A profile for each setting, with BN for the smallest, the middle and the largest batch."""
    runs = lab_rows(group)
    batches = sorted({int(batch) for run in runs for batch in run.where(norm="bn")["batch"]})
    shown = {batches[0], batches[len(batches) // 2], batches[-1]} if batches else set()
    found = []
    settings = {
        setting: None for run in runs for setting in zip(run["activation"], run["norm"], run["batch"], strict=True)
    }
    for activation, norm, batch in settings:
        if norm == "bn" and batch not in shown:
            continue
        of = [run.where(activation=activation, norm=norm, batch=batch) for run in runs]
        band = mean_band([values for run in of for values in run["log_gradients"]])
        theory = of[0].columns.get("theory_rate", np.array([np.nan]))[0]
        found.append(Profile(activation, norm, int(batch), band.n, band.mean, band.low, band.high, float(theory)))
    return found


def _profiles_caption(group: Group, profiles: Sequence[Profile]) -> str:
    counts = sorted({profile.n for profile in profiles})
    what = (
        "Log squared gradient of h_l by layer, 0 at the last; dashed: the factor of mean-field theory for each layer."
    )
    n = f"Mean and 95 % t-interval over n\N{NO-BREAK SPACE}= {counts[0]} random networks" if counts[0] > 2 else "Mean"
    weights = "Without BN the same weights are scaled so that signals, or gradients, keep their size."
    return caption(group, what, f"{n}.", weights)


def _draw_profiles(group: Group, profiles: Sequence[Profile], text: str) -> mpl.Figure:
    """A panel for each activation, with the settings of networks as lines."""
    activations = list(dict.fromkeys(profile.activation for profile in profiles))
    labels = list(dict.fromkeys(profile.label for profile in profiles))
    looks = {}
    for profile in profiles:
        plain = profile.norm in _PLAIN
        color = "0.45" if plain else COLORS[labels.index(profile.label)]
        looks[profile.label] = {"color": color, "linestyle": _STYLES.get(profile.norm, "-")}
    handles = [Line2D([], [], **looks[label], label=label) for label in labels]
    legend = legend_rows([*handles, Line2D([], [], **THEORY, label="theory")])
    columns = min(_COLUMNS, len(activations))
    rows = -(-len(activations) // columns)
    top = 0.3 + LEGEND_LINE * len(legend)
    page = Page(top + 0.42 + 1.6 * rows, text, top=top, bottom=0.42, left=0.5, right=0.12)
    grid = page.axes(rows, columns, wspace=0.3, hspace=0.42)
    low, high = min(profile.mean.min() for profile in profiles), max(profile.mean.max() for profile in profiles)
    margin = 0.05 * (high - low) + 0.1
    panels = [axes for row in grid for axes in row]
    for axes, activation in zip(panels, activations, strict=False):
        for profile in (one for one in profiles if one.activation == activation):
            layers = np.arange(len(profile.mean))
            axes.plot(layers, profile.mean, linewidth=0.9, **looks[profile.label])
            axes.fill_between(
                layers, profile.low, profile.high, color=looks[profile.label]["color"], alpha=0.2, linewidth=0
            )
            axes.plot(layers, np.log(profile.theory_rate) * (layers[-1] - layers), **THEORY)
        axes.set_ylim(low - margin, high + margin)
        above(axes, activation)
        below(axes, "layer")
    for row in grid:
        beside(row[0], "ln ‖∂L/∂h‖²", 22)
    for axes in panels[len(activations) :]:
        axes.set_axis_off()
    page.legend(*legend)
    return page.figure


PROFILES = Figure(
    name="gradient-profile",
    order=201,
    numbers=_profiles,
    caption=_profiles_caption,
    draw=_draw_profiles,
    applies=_is_explosion,
    kind="lab",
)
