"""Figures for a paper, drawn from run records. Never imports torch."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.quantities import curves, optimisation, scans
from icsbench.errors import IcsbenchError
from icsbench.figures import (
    accuracy,
    heatmap,
    ics,
    landscape,
    loss,
    matched,
    moments,
    panels,
    percentiles,
    protocols,
    ridges,
    scan,
    step_size,
)
from icsbench.figures.caption import caption, seeds
from icsbench.figures.style import FEWEST_FOR_AN_INTERVAL, house_style, regime_style, save
from icsbench.record.reader import Run

Drawing = tuple[Figure, list[dict[str, Any]]]

_CUT_OFF = "Intervals that leave a panel are cut off."


def draw_all(runs: Sequence[Run], out: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Draw every figure that the finished runs allow; returns the files, a PDF, PNG and CSV for each figure.

    The files lie in ``out``, or, where the runs fall into several groups that must not share a figure, in a sub-folder
    of ``out`` per group. All but accuracy and loss are drawn per learning rate, with its value in the file's name where
    there are several. A regression has a loss and no accuracy, a sigmoid MLP the percentiles of its last hidden layer
    besides. ``say`` gets a line for each figure that is left out, with the reason, and one for runs that are not
    finished. Raises IcsbenchError where no run is finished, a record is damaged, or ``out`` cannot be written.
    """
    unfinished = [run for run in runs if not run.finished]
    if len(unfinished) == len(runs):
        raise IcsbenchError(f"none of {len(runs)} runs is finished; figures are drawn from finished runs")
    if unfinished:
        say(f"not drawn: {len(unfinished)} of {len(runs)} runs, which are not finished (icsbench runs lists them)")
    groups = group_runs(runs)
    files: list[Path] = []
    with house_style():
        for group in groups:
            folder = out / group.name if len(groups) > 1 else out
            for name, part, draw in plan(group):
                try:
                    figure, rows = draw(part)
                except NotMeasured as reason:
                    say(f"not drawn: {folder / name}: {reason}")
                    continue
                files += save(figure, rows, folder / name)
    return files


def plan(group: Group) -> Iterable[tuple[str, Group, Callable[[Group], Drawing]]]:
    """The figures of a group: a name, the runs (all, or those of one learning rate), and the function to draw them.

    To be drawn within ``house_style``; drawing raises NotMeasured where the records do not hold what the figure shows.
    """
    yield ("loss", group, draw_loss) if group.regression else ("accuracy", group, draw_accuracy)
    if scans.sweeps(group):
        yield "scan", group, draw_scan
    for lr in group.lrs:
        suffix = f"-lr{lr:g}" if len(group.lrs) > 1 else ""
        yield "ridges" + suffix, group.at(lr), draw_ridges
        yield "moments" + suffix, group.at(lr), draw_moments
        yield "heatmap" + suffix, group.at(lr), draw_heatmap
        if not group.regression:
            yield "protocols" + suffix, group.at(lr), draw_protocols
        if group.network == "mlp":
            yield "percentiles" + suffix, group.at(lr), draw_percentiles
        if optimisation.has_ics(group.at(lr).runs):
            yield "ics" + suffix, group.at(lr), draw_ics
        if optimisation.has_landscape(group.at(lr).runs):
            yield "landscape" + suffix, group.at(lr), draw_landscape
            yield "step-size" + suffix, group.at(lr), draw_step_size
            yield "matched" + suffix, group.at(lr), draw_matched


def draw_accuracy(group: Group) -> Drawing:
    """Training and test accuracy of each regime over the steps, and the numbers drawn."""
    drawn = curves.accuracy_curves(group)
    text = caption(group, _seeds_of([curve for curve in drawn if curve.diverged_at is None]))
    return accuracy.draw(drawn, 1 / group.num_classes, text), _rows(drawn)


def draw_scan(group: Group) -> Drawing:
    """What the networks end with, over the setting that is swept, and the numbers drawn."""
    drawn = scans.scans(group)
    what = "Training: the last tenth of the steps; test: statistics of the population, recomputed where there are any."
    details = []
    if any(curve.quantity == scans.BETA for curve in drawn):
        details.append("β: median over the second half of training, geometric mean of what did not diverge.")
    if drawn[0].setting == scans.SHIFT:
        depths = [str(layer.depth) for layer in curves.chosen_layers(group.runs[0].layers)]
        details.append(
            f"Noise is placed by the shift in its second half, geometric mean over layers {', '.join(depths)}."
        )
    counts = [(curve.regime, x, of.n) for curve in drawn for x, of in zip(curve.x, curve.intervals, strict=True)]
    same = len({n for *_, n in counts}) == 1
    number = seeds(counts) if same else "Mean and 95 % t-interval over the seeds, whose numbers are in the CSV file."
    text = caption(group, what, *details, number, "A run that diverged has the accuracy of chance.")
    return scan.draw(drawn, 1 / group.num_classes, text), _rows(drawn)


def draw_loss(group: Group) -> Drawing:
    """Training loss of each regime over the steps, and the numbers drawn."""
    drawn = curves.loss_curves(group)
    averages = "Half the sum of squares; means are geometric."
    crossed = any(curve.diverged_at is not None for curve in drawn)
    crosses = "A cross ends a run that diverged, there or where it leaves the axis." if crossed else ""
    number = _seeds_of([curve for curve in drawn if curve.diverged_at is None])
    return loss.draw(drawn, caption(group, averages, number, crosses)), _rows(drawn)


def draw_ridges(group: Group) -> Drawing:
    """Distributions of pre-activations of three layers over training, and the numbers drawn."""
    drawn = curves.ridges(group)
    chosen = sorted({ridge.seed for ridge in drawn})
    text = caption(
        group,
        "Pre-activations pooled over channels, each distribution scaled to its own maximum,",
        f"tails beyond the range of a row cut off; seed {' and '.join(map(str, chosen))}.",
    )
    return ridges.draw(drawn, text), _rows(drawn)


def draw_moments(group: Group) -> Drawing:
    """Raw shift of the mean and variance of pre-activations, per step and from step 0, and the numbers drawn."""
    drawn = curves.moment_curves(group)
    cut = any((curve.low <= 0).any() for curve in drawn if len(curve.seeds) >= FEWEST_FOR_AN_INTERVAL)
    below = "Intervals that reach below zero go on to the axis." if cut else ""
    text = caption(group, "Pre-activations, mean over channels.", _seeds_of(drawn), below, _left_out(group))
    return moments.draw(drawn, text), _rows(drawn)


def draw_heatmap(group: Group) -> Drawing:
    """Normalised Wasserstein-1 shift of pre-activations by layer and step, and the numbers drawn."""
    drawn = curves.w1_curves(group)
    what = (
        "Pre-activations, mean over channels, a column per probe; the scale is the standard deviation of the layer at "
        f"the reference, step 0 above, the step before below. From {group.runs[0].setting('probes.samples', 1024):,} "
        "positions a channel, which makes W₁ too large: 1,024 by 5\N{NO-BREAK SPACE}% on average, by "
        "42\N{NO-BREAK SPACE}% at most."
    )
    blank = any(not (curve.mean > 0).all() or np.isinf(curve.mean).any() for curve in drawn)
    grey = "Grey: no shift at all, or none that is finite." if blank else ""
    text = caption(group, what, grey, _seeds_of(drawn, interval=False), _left_out(group))
    return heatmap.draw(drawn, text), _rows(drawn)


def draw_protocols(group: Group) -> Drawing:
    """Final test accuracy by evaluation protocol, and the numbers drawn."""
    drawn = curves.protocol_accuracies(group)
    number = seeds((point.regime, point.lr, point.interval.n) for point in drawn)
    crosses = ", crosses those that diverged" if any(point.diverged for point in drawn) else ""
    text = caption(group, number, f"Small dots are single seeds{crosses}.")
    return protocols.draw(drawn, curves.protocols(group.runs), 1 / group.num_classes, text), _rows(drawn)


def draw_percentiles(group: Group) -> Drawing:
    """Test accuracy, the percentiles of all units of the last hidden layer, their drift, and the numbers drawn.

    Ioffe & Szegedy (2015), Fig. 1, with all units for one; the drift is that of ``percentile_drift``.
    """
    layer = curves.last_hidden_layer(group)
    tracks, drifts = curves.percentile_tracks(group, layer), curves.percentile_drift(group, layer)
    accuracies = [curve for curve in curves.accuracy_curves(group) if curve.quantity == curves.TEST_ACCURACY]
    of = ", ".join(map(str, curves.PERCENTILES))
    chosen = " and ".join(map(str, sorted({track.seed for track in tracks})))
    units = drifts[0].units
    what = (
        f"Below: percentiles {of} over the probe batch of the pre-activation of each of the {units} units of layer "
        f"{layer.depth}, median (line), middle 50\N{NO-BREAK SPACE}% and 90\N{NO-BREAK SPACE}% (bands) of the units, "
        f"seed {chosen}. Drift: mean over "
        f"units and percentiles of |q(t) − q(T)| / (q₈₅(T) − q₁₅(T)), T the last probe, where it is 0."
    )
    number = _seeds_of([*(curve for curve in accuracies if curve.diverged_at is None), *(d.curve for d in drifts)])
    text = caption(group, what, number, _units_left_out(drifts), _left_out(group))
    return percentiles.draw(accuracies, tracks, drifts, 1 / group.num_classes, text), _rows(
        [*accuracies, *tracks, *drifts]
    )


def _units_left_out(drifts: Sequence[curves.Drift]) -> str:
    counts = [
        f"{regime_style(drift.curve.regime).label} {number:,} of {drift.units * len(drift.left_out):,}"
        for drift in drifts
        if (number := sum(drift.left_out.values()))
    ]
    return f"Left out of the drift, as their range at T is zero: units of {', '.join(counts)}." if counts else ""


def draw_ics(group: Group) -> Drawing:
    """Internal covariate shift of two layers over the steps, and the numbers drawn.

    Santurkar et al. (2018), Definition 2.1 and Fig. 3, with the relative ICS, that times the norm of the weights (which
    no rescaling of weights before BN changes), and how near the edge of stability the update was.
    """
    drawn = optimisation.ics_curves(group)
    layers = [str(depth) for depth in sorted({curve.layer.depth for curve in drawn if curve.layer})]
    total = max(len(run.ics_layers) for run in group.runs)
    what = (
        f"G: gradient of the loss in the weights W of layer {' and '.join(layers)} of {total}; G′: the same once all "
        "layers before it are updated, on the same batch (Definition 2.1). As measured, no smoothing."
    )
    beta = any(curve.quantity == optimisation.BETA_LR for curve in drawn)
    edge = "Line at β = 2/lr: there an update can reverse the gradient by its length alone." if beta else ""
    text = caption(group, what, edge, _seeds_of(drawn), *_averages(drawn), _left_out(group))
    return ics.draw(drawn, None if group.regression else 1 / group.num_classes, text), _rows_with_average(drawn)


def draw_landscape(group: Group) -> Drawing:
    """Loss, gradient difference and effective beta along the gradient over the steps, and the numbers drawn.

    Santurkar et al. (2018), Fig. 4, 10, 12 and 13; below, versions that are fair to a network with a small gradient.
    """
    drawn = optimisation.landscape_curves(group)
    what = (
        f"Loss and gradient g′ at θ − αg, g the gradient at θ, on the batch of the update, for {_along(group)}. "
        "Shaded: from the smallest over α to the largest, each the geometric mean. β: max over α of ‖g′ − g‖ / (α‖g‖)."
    )
    lines = [curve for curve in drawn if curve.quantity not in landscape.ENDS]
    text = caption(group, what, _seeds_of(lines), *_averages(lines)[:2], _missing(drawn), _left_out(group))
    return landscape.draw(drawn, optimisation.edge_of_stability(group), text), _rows_with_average(drawn)


def draw_step_size(group: Group) -> Drawing:
    """Change of the gradient with the length of the step along it, at up to six steps of training, and the numbers.

    Santurkar et al. (2018), Fig. 11.
    """
    drawn = optimisation.profiles(group)
    what = (
        "g: gradient after so many steps, on the batch of the next update; g′: the same at θ − αg, for "
        f"{_along(group)}."
    )
    number = seeds((profile.regime, profile.lr, len(profile.seeds)) for profile in drawn)
    text = caption(group, what, number, *_averages(drawn), _left_out(group))
    return step_size.draw(drawn, text), _rows(drawn)


def draw_matched(group: Group) -> Drawing:
    """Landscape and internal covariate shift at matched training loss, and the numbers drawn."""
    drawn = optimisation.matched_curves(group)
    ics_too = any(curve.quantity == optimisation.ICS_COSINE for curve in drawn)
    most = max(int(curve.n.max()) for curve in drawn)
    what = (
        f"Of each run the median over its measurements in a bin of training loss ({len(drawn[0].n)} bins equal in log "
        "loss, from the 1 % to the 99 % quantile of all)"
        + (", ICS and cosine as the median over layers but the first" if ics_too else "")
        + f"; mean over the seeds that have one, {most} at most"
        + (", geometric but for the cosine." if ics_too else ", geometric.")
    )
    bars = "Bars: 95 % t-intervals, from 3 seeds on." if most >= FEWEST_FOR_AN_INTERVAL else ""
    cut = _CUT_OFF if matched.cut_off(drawn) else ""
    pairs = "Dots: the seeds, where there are two." if any((curve.n == 2).any() for curve in drawn) else ""
    lacking = "Bins that less than half of the seeds of a regime have reached are left out for it."
    text = caption(group, what, bars, cut, pairs, lacking, _left_out(group))
    return matched.draw(drawn, text), _rows_with_average(drawn)


def _along(group: Group) -> str:
    alphas = optimisation.step_sizes(group)
    return f"{len(alphas)} step sizes α from {alphas[0]:.4g} to {alphas[-1]:.4g} lr"


def _averages(drawn: Sequence[curves.Curve | optimisation.Profile]) -> list[str]:
    """What means and intervals are on logarithmic axes, and what is not seen of them; curves of a quantity together."""
    by_panel: dict[str, list[curves.Curve | optimisation.Profile]] = {}
    for curve in drawn:
        quantity = curve.quantity if isinstance(curve, curves.Curve) else ""
        if quantity != curves.TRAIN_ACCURACY:
            by_panel.setdefault(quantity, []).append(curve)
    most = max(len(curve.seeds) for curve in drawn)
    cut = any(
        panels.cut_off(shown, panels.COSINE if quantity == optimisation.ICS_COSINE else None)
        for quantity, shown in by_panel.items()
    )
    interval = ", the interval that of the mean logarithm" if most >= FEWEST_FOR_AN_INTERVAL else ""
    return [
        f"On logarithmic axes the mean is geometric{interval}." if most > 1 else "",
        _CUT_OFF if cut else "",
        _missing(drawn),
    ]


def _missing(drawn: Sequence[curves.Curve | optimisation.Profile]) -> str:
    missing = any(np.isnan(curve.mean).any() for curve in drawn)
    return "A mean is missing where a seed has no value, or none that a logarithmic axis could show." if missing else ""


def _rows_with_average(drawn: Sequence[curves.Curve | optimisation.MatchedCurve]) -> list[dict[str, Any]]:
    return [row | {"average": optimisation.average_of(curve.quantity)} for curve in drawn for row in curve.rows()]


def _seeds_of(drawn: Sequence[curves.Curve], interval: bool = True) -> str:
    return seeds(((curve.regime, curve.lr, len(curve.seeds)) for curve in drawn), interval) if drawn else ""


def _left_out(group: Group) -> str:
    return "Diverged runs are left out." if any(condition.diverged for condition in group.conditions) else ""


def _rows(drawn: Sequence[Any]) -> list[dict[str, Any]]:
    return [row for item in drawn for row in item.rows()]
