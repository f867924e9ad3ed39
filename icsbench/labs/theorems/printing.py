"""What is found in words and tables."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from icsbench.labs.theorems.reports import FAILURE, LAMBDA, STATEMENTS, LayerReport


def sentences(reports: Sequence[LayerReport]) -> list[str]:
    """What was found, in words: how well the identities hold, what the printed forms do, what reduces the gradient."""
    return [_identities(reports), _printed_forms(reports), _reduction(reports), _left_out(reports)]


def print_report(console: Console, title: str, reports: Sequence[LayerReport]) -> None:
    """Print the residuals layer by layer, the reduction of the gradient with its parts, and the ``sentences``."""
    console.print(title, markup=False, highlight=False)
    header = ["layer", "m", "tested", *(name.replace(" ", "\n") for name in STATEMENTS)]
    body = [
        [report.layer, str(report.batch), f"{report.tested}/{report.channels}"]
        + [_residual(getattr(report, attribute)) for attribute in STATEMENTS.values()]
        for report in reports
    ]
    _print_table(console, header, body)
    console.print()
    parts = ["|dy|²/|g|²", "predicted", "γ²/σ²", "mean %", "ŷ %"]
    medians = [f"{part}\nmedian" for part in ("|dy|²/|g|²", "γ²/σ²", "mean %", "ŷ %")]
    body = [
        [
            report.layer,
            *map(_number, (report.reduction, report.reduction_predicted, report.scale_factor)),
            *map(_percent, (report.mean_share, report.yhat_share)),
            *map(_number, (report.reduction_median, report.scale_factor_median)),
            *map(_percent, (report.mean_share_median, report.yhat_share_median)),
            *(f"{report.inner_positive}/{report.tested}", f"{report.curvature_nonnegative}/{report.units}"),
        ]
        for report in reports
    ]
    _print_table(console, ["layer", *parts, *medians, "⟨g,ŷ⟩>0", "dy'Hdy≥0"], body)
    console.print()
    for sentence in sentences(reports):
        console.print(sentence, markup=False, highlight=False)


def _identities(reports: Sequence[LayerReport]) -> str:
    worst: dict[str, tuple[float, str]] = {}
    for name, attribute in STATEMENTS.items():
        known = [(value, r.layer) for r in reports if not math.isnan(value := getattr(r, attribute))]
        if known:
            worst[name] = max(known)
    said = "Worst residuals: " + ", ".join(f"{name} {_residual(value)}" for name, (value, _) in worst.items()) + "."
    failed = [f"{name} ({_residual(value)} in {layer})" for name, (value, layer) in worst.items() if value > FAILURE]
    longer = max((r.lemma_4_5_distance for r in reports if not math.isnan(r.lemma_4_5_distance)), default=0.0)
    if longer > 1 + FAILURE:
        failed.append(f"Lemma 4.5 (the distance grows {longer:.3g}-fold)")
    if failed:
        return f"{said} These are NOT identities here: {', '.join(failed)} is more than rounding ({FAILURE:g})."
    return f"{said} All that could be tested hold within rounding ({FAILURE:g})."


def _printed_forms(reports: Sequence[LayerReport]) -> str:
    tested, units = sum(r.tested for r in reports), sum(r.units for r in reports)
    violated = sum(r.printed_4_1_violated for r in reports)
    squared = sum(r.printed_4_4_violated for r in reports)
    said = (
        f"As printed, Theorem 4.1 (1/sqrt(m)) is violated in {_share(violated, tested)} channels "
        f"and Theorem 4.4 (at lambda = {LAMBDA:g}) in {_share(squared, tested)}"
    )
    if not units:
        return said + "."
    angle = min(r.theorem_c1_angle for r in reports if r.units)
    return said + (
        f"; the X that proves Theorem C.1 is no maximum: dy and Hhat dy are at least {angle:.2g} degrees apart "
        f"in {units} units, and 0 is what it would need."
    )


def _reduction(reports: Sequence[LayerReport]) -> str:
    known = [r for r in reports if r.tested]
    if not known:
        return "No gradient reaches any layer, so there is no reduction to measure."
    removed = {r.layer: r.mean_share + r.yhat_share for r in known}
    most = max(removed, key=lambda layer: removed[layer])
    more = sum(share >= 0.01 for share in removed.values())
    scales = [r.scale_factor for r in known]
    tested, units = sum(r.tested for r in known), sum(r.units for r in known)
    positive = _share(sum(r.inner_positive for r in known), tested)
    return (
        f"Gradient: gamma²/sigma² alone multiplies |g|² by {_number(min(scales))} to {_number(max(scales))} (layers); "
        f"beyond it, at least 1 % is removed in {more} of {len(known)} layers, most in {most} "
        f"({100 * removed[most]:.1f} %), and {100 * min(removed.values()):.1f} % where least. "
        f"The premises of improvement: <g, yhat> > 0 in {positive} channels, "
        f"dy' H dy >= 0 in {_share(sum(r.curvature_nonnegative for r in known), units)} units."
    )


def _left_out(reports: Sequence[LayerReport]) -> str:
    dead, silent = sum(r.dead for r in reports), sum(r.silent for r in reports)
    share = max((r.eps_share for r in reports if r.tested), default=0.0)
    return (
        f"Left out: {dead} dead and {silent} silent of {sum(r.channels for r in reports)} channels. eps = 0 here; "
        f"in the network as given it is up to {100 * share:.2g} % of a channel's variance + eps."
    )


def _share(count: int, total: int) -> str:
    return f"{count} of {total}" + (f" ({100 * count / total:.0f} %)" if total else "")


def _residual(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0e}" if value else "0"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _print_table(console: Console, header: list[str], body: list[list[str]]) -> None:
    """Print a table as wide as it is, also where the console is narrower: folded cells of numbers cannot be read."""
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name), justify="left" if name == "layer" else "right")
    for cells in body:
        table.add_row(*map(Text, cells))
    table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=False)
