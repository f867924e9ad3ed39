"""Claims on what an update does: internal covariate shift by Definition 2.1, and the loss landscape."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.paired import LeftOut, at_papers_rate, paired, unless_diverged
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
from icsbench.analysis.quantities.training import learning_window, left_chance
from icsbench.analysis.statistics import Floats, positive_ratio
from icsbench.record.reader import Run

_SCALE_INVARIANT = (
    "Networks with BN are scale invariant, so absolute gradients scale as 1/‖W‖: the shift is taken relative to ‖G‖; "
    "absolute values, cosine and ICS x ‖W‖ are in the ICS figure."
)
_FLAT = "A network at chance has a flat landscape, which is not a smooth one."
_MATCHED_LOSS = (
    "Matched loss is that of the steps which count at matched step, too; the figure of matched loss shows all."
)
_IN_WINDOW = (
    "the measured steps after both left chance (training accuracy twice it) and before either reached 95 % (mean of "
    "100 steps)"
)
_ONE_WINDOW = (
    "One window for claims 7, 10, 11, 11b and 12, fixed before its records were made: while both learn. Without BN a "
    "network lags, so that at matched step the one with BN is further on; at matched loss it is not."
)
_STUDIES = ("long", "landscape")


Ratio = Callable[[str, Run, Run], float]
"""Of a quantity, with BN over without."""
Windows = Callable[[Run, Run], tuple[tuple[float, float], tuple[float, float]]]
"""The steps of a pair of runs that count, of each the first and the end, which is not among them."""


def _bn_to_none(ratio: Ratio, quantity: str, group: Group) -> Measured:
    """``ratio(quantity, bn, none)`` of every seed of which neither run diverged."""
    parts = {"bn": at_papers_rate(group, "bn"), "none": at_papers_rate(group, "none")}
    return paired(parts, unless_diverged(partial(ratio, quantity)))


def _while_both_learn(bn: Run, none: Run) -> tuple[tuple[float, float], tuple[float, float]]:
    window = learning_window(bn, none)
    return window, window


def _off_chance(bn: Run, none: Run) -> tuple[tuple[float, float], tuple[float, float]]:
    first = max(map(left_chance, (bn, none)))
    return (first, math.inf), (first, math.inf)


def _each_off_chance(bn: Run, none: Run) -> tuple[tuple[float, float], tuple[float, float]]:
    return (left_chance(bn), math.inf), (left_chance(none), math.inf)


def _share(window: str) -> Windows:
    """A window of all updates, of each run its own."""

    def windows(*runs: Run) -> tuple[tuple[float, float], tuple[float, float]]:
        first, end = updates.WINDOWS[window]
        mine, theirs = ((first * steps, end * steps) for steps in (int(run.setting("steps")) for run in runs))
        return mine, theirs

    return windows


def _at_step(windows: Windows) -> Ratio:
    """The median with BN over that without, over the steps of the window at which both were measured."""

    def ratio(quantity: str, bn: Run, none: Run) -> float:
        return positive_ratio(*(float(np.median(values)) for values in _at_same_steps(windows, quantity, bn, none)))

    return ratio


def _step_by_step(windows: Windows) -> Ratio:
    """The median of the ratios at those steps."""

    def ratio(quantity: str, bn: Run, none: Run) -> float:
        mine, theirs = _at_same_steps(windows, quantity, bn, none)
        return float(np.median([positive_ratio(*pair) for pair in zip(mine, theirs, strict=True)]))

    return ratio


def _at_same_steps(windows: Windows, quantity: str, bn: Run, none: Run) -> tuple[Floats, Floats]:
    """The values of both where both are finite; there is one at least."""
    (steps, mine), (others, theirs) = (found[quantity] for found in _measured_in(windows, quantity, bn, none))
    _, left, right = np.intersect1d(steps, others, return_indices=True)
    kept = np.isfinite(mine[left]) & np.isfinite(theirs[right])
    if not kept.any():
        raise _empty(bn, none)
    return mine[left][kept], theirs[right][kept]


def _at_loss(windows: Windows) -> Ratio:
    """At matched training loss, of the measurements in the window."""

    def ratio(quantity: str, bn: Run, none: Run) -> float:
        found = _measured_in(windows, quantity, bn, none)
        if not all(len(of_run[quantity][0]) for of_run in found):
            raise _empty(bn, none)
        matched = updates.matched_ratio(*found, quantity)
        if math.isnan(matched):
            raise LeftOut("in the window the two runs share no training loss")
        return matched

    return ratio


def _measured_in(
    windows: Windows, quantity: str, bn: Run, none: Run
) -> tuple[updates.Measurements, updates.Measurements]:
    mine, theirs = (
        {
            name: (steps[(steps >= first) & (steps < end)], values[(steps >= first) & (steps < end)])
            for name, (steps, values) in _measurements_with(quantity, run).items()
        }
        for run, (first, end) in zip((bn, none), windows(bn, none), strict=True)
    )
    return mine, theirs


def _measurements_with(quantity: str, run: Run) -> updates.Measurements:
    found = updates.measurements(run)
    if quantity not in found:
        raise NotMeasured(f"{run.path} has no {quantity}")
    return found


def _empty(bn: Run, none: Run) -> LeftOut:
    never = [name for name, run in (("bn", bn), ("none", none)) if math.isinf(left_chance(run))]
    return LeftOut(f"{' and '.join(never)} never left chance" if never else "no measurement in the window")


_REGISTERED_AT_STEP = _at_step(_while_both_learn)
_REGISTERED_AT_LOSS = _at_loss(_while_both_learn)


def _two_parts(
    name: str,
    what: str,
    at_step: str,
    at_loss: str,
    at_loss_is: str = "the same",
    others: Mapping[str, str] = MappingProxyType({}),
    **region: Any,
) -> tuple[Part, Part]:
    """A ratio, BN over none, at matched step and at matched loss in the one window; ``others``: for the first part."""
    windows: dict[str, Windows] = {
        f"window: {share}": _share(share) for share in ("first quarter", "second half", "whole")
    }
    windows["window: after both left chance"] = _off_chance
    by_step: dict[str, Measure] = {key: partial(_bn_to_none, _at_step(of), at_step) for key, of in windows.items()}
    by_step["median of the ratios step by step"] = partial(_bn_to_none, _step_by_step(_while_both_learn), at_step)
    by_step |= {key: partial(_bn_to_none, _REGISTERED_AT_STEP, other) for key, other in others.items()}
    by_loss: dict[str, Measure] = {
        "window: of each after it left chance": partial(_bn_to_none, _at_loss(_each_off_chance), at_loss),
        "window: whole": partial(_bn_to_none, _at_loss(_share("whole")), at_loss),
    }
    if at_loss != at_step:
        by_loss["not relative"] = partial(_bn_to_none, _REGISTERED_AT_LOSS, at_step)
    return (
        Part(
            f"{name}_in_window",
            partial(_bn_to_none, _REGISTERED_AT_STEP, at_step),
            f"{what}, with BN / without: median over {_IN_WINDOW}",
            _STUDIES,
            kind="ratio",
            variants=by_step,
            **region,
        ),
        Part(
            f"{name}_matched_in_window",
            partial(_bn_to_none, _REGISTERED_AT_LOSS, at_loss),
            f"{at_loss_is} at matched training loss there: geometric mean over the bins of loss that both have",
            _STUDIES,
            kind="ratio",
            variants=by_loss,
            **region,
        ),
    )


SHIFT_IS_NOT_REDUCED = Claim(
    id="7",
    statement="BN does not reduce internal covariate shift as Definition 2.1 has it.",
    by=SANTURKAR,
    where="S section 2.2, Fig. 3",
    disputed_by=f"{IOFFE}; {AWAIS}",
    parts=_two_parts(
        "ics_relative",
        "‖G - G'‖ / ‖G‖ as the median over layers from the second on",
        updates.ICS_RELATIVE,
        updates.ICS_RELATIVE,
        others={"scaled": updates.ICS_SCALED},
        low=A_FIFTH,
        below=f"{IOFFE}; {AWAIS}",
    ),
    margin=f"A reduction is one by a fifth or more. {BY_A_FIFTH}",
    fairness=(_SCALE_INVARIANT, EDGE, _ONE_WINDOW, _MATCHED_LOSS, MATCHED_LR),
    figures=("ics", "matched"),
)

LOSS_VARIES_LESS = Claim(
    id="10",
    statement="BN makes the loss vary less along the gradient.",
    by=SANTURKAR,
    where="S section 3.1, Fig. 4 (a)",
    parts=_two_parts(
        "loss_width",
        "log10(max L / min L) over the step sizes",
        updates.LOSS_WIDTH,
        updates.LOSS_WIDTH,
        high=A_FIFTH,
    ),
    margin=BY_A_FIFTH,
    fairness=(_FLAT, _ONE_WINDOW, _MATCHED_LOSS, MATCHED_LR),
    figures=("landscape", "matched"),
)

_PREDICTIVENESS = partial(
    _two_parts,
    "predictiveness",
    "max ‖g' - g‖ over the step sizes",
    updates.DIFFERENCE_HIGH,
    updates.DIFFERENCE_RELATIVE,
    "max ‖g' - g‖ / ‖g‖",
    {"relative": updates.DIFFERENCE_RELATIVE},
)
_RELATIVE = "Relative to ‖g‖ at matched loss, as a network with small gradients changes them little."

GRADIENTS_PREDICT_MORE = Claim(
    id="11",
    statement="BN makes gradients more predictive.",
    by=SANTURKAR,
    where="S section 3.1, Fig. 4 (b)",
    parts=_PREDICTIVENESS(high=A_FIFTH),
    margin=BY_A_FIFTH,
    fairness=(_FLAT, _ONE_WINDOW, _MATCHED_LOSS, _RELATIVE),
    figures=("landscape", "matched"),
)

GRADIENTS_PREDICT_TEN_TIMES_MORE = Claim(
    id="11b",
    statement="BN makes gradients more predictive by an order of magnitude or more.",
    by=SANTURKAR,
    where="S section 3.1: text 'close to two orders', Fig. 4 (b) one",
    parts=_PREDICTIVENESS(high=0.1),
    margin="The figure's factor of ten; the text says more.",
    fairness=(_FLAT, _ONE_WINDOW, _MATCHED_LOSS, f"{_RELATIVE} These are the measurements of claim 11."),
    figures=("landscape", "matched"),
)

SMOOTHER = Claim(
    id="12",
    statement="BN lowers the effective beta-smoothness.",
    by=SANTURKAR,
    where="S section 3.1, Fig. 4 (c)",
    disputed_by=f"{COHEN} (an inference)",
    parts=_two_parts("beta", "beta", updates.BETA, updates.BETA, high=A_FIFTH, above=f"{COHEN} (an inference)"),
    margin=f"At the edge of stability both would sit at 2/lr, with a ratio of 1. {BY_A_FIFTH}",
    fairness=(
        _FLAT,
        _ONE_WINDOW,
        _MATCHED_LOSS,
        "S Fig. 4 (c) itself shows both at 20 = 2/lr for most of training.",
    ),
    figures=("landscape", "matched"),
)
