"""Captions, computed from the records: what is drawn, of what, over how many seeds."""

from collections.abc import Iterable, Sequence

import numpy as np

from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.curves import Curve
from icsbench.analysis.tables import setting_of
from icsbench.figures.style import FEWEST_FOR_AN_INTERVAL, Line
from icsbench.record.regime import Regime

_MOST_OUTCOMES = 8
"""More sentences on single conditions than these nobody reads."""
CUT_OFF = "Intervals that leave a panel are cut off."


def caption(group: Group, *sentences: str) -> str:
    """The sentences, the facts that the runs share, and the outcomes that are not ``trained``."""
    facts = ", ".join(fact.replace(" ", "\N{NO-BREAK SPACE}") for fact in group.facts.split(", "))
    return " ".join([*filter(None, sentences), f"{facts}.", *outcomes(group)])


def seeds(counts: Iterable[tuple[Regime, float, int]], interval: bool = True) -> str:
    """What is drawn over how many seeds, from regime, learning rate and number: the commonest, then the exceptions."""
    numbers = {(regime, lr): n for regime, lr, n in counts}
    values = list(numbers.values())
    common = max(values, key=values.count)
    if set(values) == {1}:
        return "One seed."
    several = len({lr for _, lr in numbers}) > 1
    drawn = "Mean and 95 % t-interval" if interval and max(values) >= FEWEST_FOR_AN_INTERVAL else "Mean"
    others = [f"{_label(regime, lr, several)}: {n}" for (regime, lr), n in numbers.items() if n != common]
    text = f"{drawn} over n\N{NO-BREAK SPACE}= {common} seeds" + (f" ({', '.join(others)})." if others else ".")
    return text + (" Of two seeds each is drawn, and no interval." if interval and 2 in values else "")


def seeds_of(drawn: Sequence[Curve], interval: bool = True) -> str:
    """What :func:`seeds` says of curves; nothing of none."""
    return seeds(((curve.regime, curve.lr, len(curve.seeds)) for curve in drawn), interval) if drawn else ""


def left_out(group: Group) -> str:
    """That diverged runs are in no curve, where there are any."""
    return "Diverged runs are left out." if any(condition.diverged for condition in group.conditions) else ""


def geometric(drawn: Sequence[Line]) -> str:
    """What the means of curves on logarithmic axes are."""
    most = max(len(curve.seeds) for curve in drawn)
    interval = ", the interval that of the mean logarithm" if most >= FEWEST_FOR_AN_INTERVAL else ""
    return f"On logarithmic axes the mean is geometric{interval}." if most > 1 else ""


def missing(drawn: Sequence[Line]) -> str:
    """That means are missing, where some are."""
    lacking = any(np.isnan(curve.mean).any() for curve in drawn)
    return "A mean is missing where a seed has no value, or none that a logarithmic axis could show." if lacking else ""


def outcomes(group: Group) -> list[str]:
    """A sentence for each condition of how many runs diverged or ended at chance; one for all where these are many."""
    sentences = []
    for condition in group.conditions:
        label = _label(condition.regime, condition.lr, len(group.lrs) > 1)
        label += f" ({setting})" if (setting := setting_of(condition, group.conditions)) else ""
        n = len(condition.runs)
        if condition.diverged:
            sentences.append(f"{label}: {len(condition.diverged)} of {n} runs diverged.")
        chance = sum(run.status == "chance" for run in condition.runs)
        if chance:
            sentences.append(f"{label}: {chance} of {n} runs were at chance at the end.")
    if len(sentences) <= _MOST_OUTCOMES:
        return sentences
    diverged, chance = (sum(run.status == status for run in group.runs) for status in ("diverged", "chance"))
    return [f"Of {len(group.runs)} runs {diverged} diverged and {chance} were at chance at the end; runs.csv has each."]


def _label(regime: Regime, lr: float, several_lrs: bool) -> str:
    return regime.label + (f" at lr\N{NO-BREAK SPACE}{lr:g}" if several_lrs else "")
