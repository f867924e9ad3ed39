"""The parts of a study's claims against the budget: the same measures on records cut at earlier steps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.statistics import Floats
from icsbench.record import schema
from icsbench.record.cut import SCHEDULES, cut
from icsbench.record.reader import Run

MOST_BUDGETS = 8
_FEWEST_ROUND = 3


@dataclass(frozen=True, eq=False)
class OverBudget:
    """The effect of one part against the budget, as displayed (a ratio as a ratio): arrays of shape (m,).

    ``low`` and ``high`` are the ends of the 95 % t-interval over ``n`` seeds, NaN for one seed.
    """

    claim: Claim
    part: Part
    steps: NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain row per budget."""
        for place, step in enumerate(self.steps):
            yield {
                "claim": self.claim.id,
                "measure": self.part.name,
                "steps": int(step),
                **{name: float(getattr(self, name)[place]) for name in ("mean", "low", "high")},
                "n": int(self.n[place]),
                "region_low": self.part.low,
                "region_high": self.part.high,
            }


def parts_of(group: Group) -> list[tuple[Claim, Part]]:
    """The parts that a study is to measure, with their claims."""
    study = group.runs[0].setting("experiment")
    return [(claim, part) for claim in all_claims() for part in claim.parts if study in part.studies]


def can_be_cut(group: Group) -> bool:
    """Whether the runs contain shorter ones: whole trainings of one length, at rates that do not depend on it."""
    if group.kind == "lab" or len({run.setting("steps") for run in group.runs}) > 1:
        return False
    if any(run.at_step is not None for run in group.runs):
        return False
    return all(run.settings.get("optim.schedule") in SCHEDULES for run in group.runs)


def over_budget(group: Group) -> list[OverBudget]:
    """Each part of each claim of a study that can be measured at two of its :func:`budgets` or more.

    :raises NotMeasured: there is none.
    :raises IcsbenchError: a record is damaged.
    """
    steps = budgets(group)
    cuts = {step: replace(group, runs=tuple(cut(run, step) for run in group.runs)) for step in steps}
    found = [one for claim, part in parts_of(group) if (one := _part_over_budget(claim, part, cuts)) is not None]
    if not found:
        raise NotMeasured(f"{group.name} has no claim that can be measured at two budgets")
    return found


def budgets(group: Group) -> list[int]:
    """At most :data:`MOST_BUDGETS` steps, ascending, the last of the runs among them.

    They are evaluations that all runs made that did not diverge, or where there is no such one but the last (it is
    switched off, or there is no accuracy) rows of training: those at 1, 2 or 5 times a power of ten, the largest of
    them, and where they are too few, any, evenly spread on a logarithmic axis.
    """
    end = int(group.runs[0].setting("steps"))
    first = max(int(run.settings.get("optim.warmup", 0)) for run in group.runs)
    runs = [run for run in group.runs if run.status != "diverged"] or group.runs
    for key in (schema.TEST_ACCURACY, schema.TRAIN_LOSS):
        common = reduce(np.intersect1d, [_steps_of(run, key) for run in runs])
        earlier = [int(step) for step in common if first < step < end]
        if earlier:
            break
    round_ones = [step for step in earlier if str(step).rstrip("0") in ("1", "2", "5")]
    if len(round_ones) >= _FEWEST_ROUND or len(earlier) < MOST_BUDGETS:
        chosen = round_ones if len(round_ones) >= _FEWEST_ROUND else earlier
        return [*chosen[1 - MOST_BUDGETS :], end]
    wanted = np.geomspace(earlier[0], end, MOST_BUDGETS)[:-1]
    return [*sorted({min(earlier, key=lambda step: abs(math.log(step / one))) for one in wanted}), end]


def _steps_of(run: Run, key: str) -> NDArray[np.int64]:
    return np.array([row[schema.STEP] for row in run.metrics.rows if key in row], np.int64)


def _part_over_budget(claim: Claim, part: Part, cuts: dict[int, Group]) -> OverBudget | None:
    points = []
    for step, group in cuts.items():
        try:
            found = part.measure(group)
        except NotMeasured:
            continue
        if found.values:
            points.append((step, Finding(part, group, found.values, found.left_out).interval))
    if len(points) < 2:
        return None
    mean, low, high = np.array([interval[:3] for _, interval in points]).T
    steps, n = (np.array(column, np.int64) for column in zip(*((step, found.n) for step, found in points), strict=True))
    return OverBudget(claim, part, steps, mean, low, high, n)
