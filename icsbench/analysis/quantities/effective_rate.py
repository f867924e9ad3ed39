"""What the lab ``effective_rate`` recorded of one network."""

import math

from icsbench.analysis.quantities.lab import rows_of
from icsbench.record.reader import Run

LAB = "effective_rate"
_FIRST_OF_LAST = 0.9


def last_accuracy(run: Run, variant: str) -> float:
    """Training accuracy of a variant over the last tenth of the steps; NaN where it has not come that far.

    :raises NotMeasured: the run has no such rows.
    """
    rows = rows_of(run).where(measure="training", variant=variant)
    late = rows["accuracy"][rows["step"] > _FIRST_OF_LAST * int(run.setting("steps"))]
    whole = len(rows["step"]) and rows["step"][-1] == int(run.setting("steps"))
    return float(late.mean()) if whole else math.nan
