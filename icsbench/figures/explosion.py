"""Exploding gradients of random networks: the rate against the batch, and the gradient against depth."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.figure as mpl
import numpy as np
from matplotlib.lines import Line2D

from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.figures.caption import caption
from icsbench.figures.contract import Figure
from icsbench.figures.panels import guide, log_axis
from icsbench.figures.series import (
    COLORS,
    MARKERS,
    THEORY,
    Series,
    draw_series,
    number_of,
    series,
    series_of_lists,
    settings,
)
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
    where = "; ".join(f"{activation} at batch {', '.join(map(str, sorted(of)))}" for activation, of in found.items())
    return f"Networks leave the fixed point that theory is about where it is unstable: {where}."


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


def _profiles(group: Group) -> list[Series]:
    """``ln ||dL/dh_l||^2`` less that of the last layer, against the layer l, of each setting.

    With BN for the smallest, the middle and the largest batch.
    """
    runs = lab_rows(group)
    batches = sorted({batch for run in runs for batch in run.where(norm="bn")["batch"].tolist()})
    shown = {batches[0], batches[len(batches) // 2], batches[-1]} if batches else set()
    found = settings(runs, ("activation", "norm", "batch"))
    return [_profile(runs, of) for of in found if of["norm"] != "bn" or of["batch"] in shown]


def _profile(runs: Sequence[LabRows], of: dict[str, Any]) -> Series:
    """With theory, where it says something of the setting."""
    one = series_of_lists(runs, "log_gradients", of, "layer")
    rates = runs[0].where(**of).columns.get("theory_rate", np.array([np.nan]))
    if not np.isfinite(rates[0]):
        return one
    return replace(one, theory=np.log(rates[0]) * (one.x[-1] - one.x))


def _label(profile: Series) -> str:
    """What tells a setting from the others of its activation."""
    return _PLAIN.get(profile.of["norm"], f"BN, batch {profile.of['batch']:g}")


def _profiles_caption(group: Group, profiles: Sequence[Series]) -> str:
    what = (
        "Log squared gradient of h_l by layer, 0 at the last; dashed: the factor of mean-field theory for each layer."
    )
    weights = "Without BN the same weights are scaled so that signals, or gradients, keep their size."
    return caption(group, what, number_of(profiles), weights, _unstable(group))


def _draw_profiles(group: Group, profiles: Sequence[Series], text: str) -> mpl.Figure:
    """A panel for each activation, with the settings of networks as lines."""
    activations = list(dict.fromkeys(profile.of["activation"] for profile in profiles))
    labels = {_label(profile): profile.of["norm"] for profile in profiles}
    looks = {
        label: {"color": "0.45" if norm in _PLAIN else COLORS[place], "linestyle": _STYLES.get(norm, "-")}
        for place, (label, norm) in enumerate(labels.items())
    }
    handles = [Line2D([], [], **look, label=label) for label, look in looks.items()]
    legend = legend_rows([*handles, Line2D([], [], **THEORY, label="theory")])
    columns = min(_COLUMNS, len(activations))
    rows = -(-len(activations) // columns)
    top = 0.3 + LEGEND_LINE * len(legend)
    page = Page(top + 0.42 + 1.6 * rows, text, top=top, bottom=0.42, left=0.5, right=0.12)
    grid = page.axes(rows, columns, wspace=0.3, hspace=0.42)
    ends = np.concatenate([curve for one in profiles for curve in (one.mean, one.theory) if curve is not None])
    margin = 0.05 * np.ptp(ends) + 0.1
    panels = [axes for row in grid for axes in row]
    for axes, activation in zip(panels, activations, strict=False):
        for profile in (one for one in profiles if one.of["activation"] == activation):
            draw_series(axes, profile, **looks[_label(profile)])
        axes.set_ylim(ends.min() - margin, ends.max() + margin)
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
