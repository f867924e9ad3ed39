"""What the lab ``exponential_rate`` recorded of one network."""

from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.quantities.lab import rows_of
from icsbench.record.reader import Run

LAB = "exponential_rate"
ROUNDING = 2.0**-26
"""Half of the digits of float64: the square root of its spacing at 1."""


def largest_difference(run: Run, variant: str) -> float:
    """Largest difference between the outputs of the two runs of a variant, over the recorded steps.

    :raises NotMeasured: the run has no such rows.
    """
    differences = rows_of(run).where(variant=variant)["difference"]
    if not len(differences):
        raise NotMeasured(f"{run.path} has no rows of the variant {variant}")
    return float(differences.max())
