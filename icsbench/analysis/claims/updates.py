"""Claims on what an update does: internal covariate shift by Definition 2.1, and the loss landscape."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.paired import at_papers_rate, paired, unless_diverged
from icsbench.analysis.claims.texts import (
    A_FIFTH,
    AWAIS,
    BY_A_FIFTH,
    COHEN,
    EDGE,
    IOFFE,
    MATCHED_LR,
    SANTURKAR,
)
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities import updates
from icsbench.analysis.quantities.training import left_chance
from icsbench.analysis.quantities.updates import window_of
from icsbench.analysis.statistics import positive_ratio
from icsbench.record.reader import Run

_SCALE_INVARIANT = (
    "Networks with BN are scale invariant, so absolute gradients scale as 1/‖W‖: the shift is taken relative to ‖G‖; "
    "absolute values, cosine and ICS x ‖W‖ are in the ICS figure."
)
_FLAT = "A network at chance has a flat landscape, which is not a smooth one."
_MATCHED_LOSS = (
    "At matched loss only the steps count after a network has left chance (training accuracy twice it); the figure of "
    "matched loss shows all."
)


Ratio = Callable[[str, Run, Run], float]
"""Of a quantity, with BN over without."""


def _bn_to_none(ratio: Ratio, quantity: str, group: Group) -> Measured:
    """``ratio(quantity, bn, none)`` of every seed of which neither run diverged."""
    parts = {"bn": at_papers_rate(group, "bn"), "none": at_papers_rate(group, "none")}
    return paired(parts, unless_diverged(partial(ratio, quantity)))


def _second_half(quantity: str, bn: Run, none: Run) -> float:
    """Of the medians over the second half of training."""
    return positive_ratio(window_of(bn, quantity), window_of(none, quantity))


def _over(window: str) -> Ratio:
    """Of the medians over a window of training."""
    return lambda quantity, bn, none: positive_ratio(window_of(bn, quantity, window), window_of(none, quantity, window))


def _off_chance(quantity: str, bn: Run, none: Run) -> float:
    """Of the medians over the steps after both runs left chance."""
    left = max(map(left_chance, (bn, none)))
    return positive_ratio(*(_median(_measured_from(run, left), quantity) for run in (bn, none)))


def _variants(registered: Ratio, quantity: str, **others: str) -> dict[str, Measure]:
    """The same ratio over every other window, at matched loss, and of other quantities in the place of this one."""
    ratios: dict[str, Ratio] = {f"window: {name}": _over(name) for name in ("first quarter", "whole")}
    ratios |= {"window: second half": _second_half, "window: after both left chance": _off_chance}
    ratios |= {"at matched loss": _matched}
    of_others = {name: partial(_bn_to_none, registered, other) for name, other in others.items()}
    return {
        name: partial(_bn_to_none, ratio, quantity) for name, ratio in ratios.items() if ratio is not registered
    } | of_others


def _matched(quantity: str, bn: Run, none: Run) -> float:
    """At matched training loss, of each run the steps after it left chance."""
    mine, theirs = (_measured_from(run, left_chance(run)) for run in (bn, none))
    return updates.matched_ratio(mine, theirs, quantity)


def _measured_from(run: Run, first: float) -> updates.Measurements:
    found = updates.measurements(run).items()
    return {name: (steps[steps >= first], values[steps >= first]) for name, (steps, values) in found}


def _median(found: updates.Measurements, quantity: str) -> float:
    if quantity not in found:
        raise NotMeasured(f"there is no {quantity}")
    values = found[quantity][1]
    return float(np.median(values)) if len(values) else math.nan


SHIFT_IS_NOT_REDUCED = Claim(
    id="7",
    statement="BN does not reduce internal covariate shift as Definition 2.1 has it.",
    by=SANTURKAR,
    where="S section 2.2, Fig. 3",
    disputed_by=f"{IOFFE}; {AWAIS}",
    parts=(
        Part(
            "ics_relative",
            partial(_bn_to_none, _second_half, updates.ICS_RELATIVE),
            "‖G - G'‖ / ‖G‖ with BN / without: median over layers from the second on, then over the second half "
            "of training",
            ("landscape",),
            kind="ratio",
            low=A_FIFTH,
            below=f"{IOFFE}; {AWAIS}",
            variants=_variants(_second_half, updates.ICS_RELATIVE, scaled=updates.ICS_SCALED),
        ),
        Part(
            "ics_relative_matched",
            partial(_bn_to_none, _matched, updates.ICS_RELATIVE),
            "the same at matched training loss: geometric mean over the bins of loss that both reach",
            ("landscape",),
            kind="ratio",
            low=A_FIFTH,
            below=f"{IOFFE}; {AWAIS}",
        ),
    ),
    margin=f"A reduction is one by a fifth or more. {BY_A_FIFTH}",
    fairness=(_SCALE_INVARIANT, EDGE, _MATCHED_LOSS, MATCHED_LR),
    figures=("ics", "matched"),
)

LOSS_VARIES_LESS = Claim(
    id="10",
    statement="BN makes the loss vary less along the gradient.",
    by=SANTURKAR,
    where="S section 3.1, Fig. 4 (a)",
    parts=(
        Part(
            "loss_width",
            partial(_bn_to_none, _off_chance, updates.LOSS_WIDTH),
            "log10(max L / min L) over the step sizes, with BN / without: median over the steps after both left "
            "chance (training accuracy at least twice it)",
            ("landscape",),
            kind="ratio",
            high=A_FIFTH,
            variants=_variants(_off_chance, updates.LOSS_WIDTH),
        ),
        Part(
            "loss_width_matched",
            partial(_bn_to_none, _matched, updates.LOSS_WIDTH),
            "the same at matched training loss",
            ("landscape",),
            kind="ratio",
            high=A_FIFTH,
        ),
    ),
    margin=BY_A_FIFTH,
    fairness=(_FLAT, _MATCHED_LOSS, MATCHED_LR),
    figures=("landscape", "matched"),
)

GRADIENTS_PREDICT_MORE = Claim(
    id="11",
    statement="BN makes gradients more predictive.",
    by=SANTURKAR,
    where="S section 3.1, Fig. 4 (b)",
    parts=(
        Part(
            "predictiveness",
            partial(_bn_to_none, _second_half, updates.DIFFERENCE_HIGH),
            "max ‖g' - g‖ over the step sizes, with BN / without: median over the second half of training",
            ("landscape",),
            kind="ratio",
            high=A_FIFTH,
            variants=_variants(_second_half, updates.DIFFERENCE_HIGH, relative=updates.DIFFERENCE_RELATIVE),
        ),
        Part(
            "predictiveness_matched",
            partial(_bn_to_none, _matched, updates.DIFFERENCE_RELATIVE),
            "max ‖g' - g‖ / ‖g‖ at matched training loss, with BN / without",
            ("landscape",),
            kind="ratio",
            high=A_FIFTH,
        ),
    ),
    margin=BY_A_FIFTH,
    fairness=(
        _FLAT,
        _MATCHED_LOSS,
        "Relative to ‖g‖ at matched loss, as a network with small gradients changes them little.",
    ),
    figures=("landscape", "matched"),
)

GRADIENTS_PREDICT_TEN_TIMES_MORE = Claim(
    id="11b",
    statement="BN makes gradients more predictive by an order of magnitude or more.",
    by=SANTURKAR,
    where="S section 3.1: text 'close to two orders', Fig. 4 (b) one",
    parts=(
        Part(
            "predictiveness",
            partial(_bn_to_none, _second_half, updates.DIFFERENCE_HIGH),
            "max ‖g' - g‖ over the step sizes, with BN / without: median over the second half of training",
            ("landscape",),
            kind="ratio",
            high=0.1,
            variants=_variants(_second_half, updates.DIFFERENCE_HIGH, relative=updates.DIFFERENCE_RELATIVE),
        ),
    ),
    margin="The figure's factor of ten; the text says more.",
    fairness=(_FLAT,),
    figures=("landscape",),
)

SMOOTHER = Claim(
    id="12",
    statement="BN lowers the effective beta-smoothness.",
    by=SANTURKAR,
    where="S section 3.1, Fig. 4 (c)",
    disputed_by=f"{COHEN} (an inference)",
    parts=(
        Part(
            "beta",
            partial(_bn_to_none, _second_half, updates.BETA),
            "beta with BN / without: median over the second half of training",
            ("landscape",),
            kind="ratio",
            high=A_FIFTH,
            above=f"{COHEN} (an inference)",
            variants=_variants(_second_half, updates.BETA),
        ),
    ),
    margin=f"At the edge of stability both would sit at 2/lr, with a ratio of 1. {BY_A_FIFTH}",
    fairness=(_FLAT, "S Fig. 4 (c) itself shows both at 20 = 2/lr for most of training."),
    figures=("landscape",),
)
