"""The claim on dose and response: what more distributional shift costs."""

import math

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.claims.texts import AWAIS, MATCHED_LR, SANTURKAR
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.shift import MEAN_PER_STEP, step_shift
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import slope
from icsbench.record.reader import Run


def _dose_slope(group: Group) -> Measured:
    """The slope of training accuracy, in points, on log10 of the shift of the mean in one step."""
    strengths = sorted({float(run.setting("norm.strength", 1.0)) for run in group.runs if run.regime == "noisy_bn"})
    if len(strengths) < 3:
        raise NotMeasured(f"{group.name} has noise of {len(strengths)} strengths; a slope needs three")
    parts = {
        f"noisy_bn x{strength:g}": runs_of(group, "noisy_bn", **{"norm.strength": strength}) for strength in strengths
    }

    def of_seed(*runs: Run) -> float:
        return slope([math.log10(step_shift(run, MEAN_PER_STEP)) for run in runs], [100 * last_tenth(r) for r in runs])

    return paired(parts, of_seed)


MORE_SHIFT_LOWER_ACCURACY = Claim(
    id="21",
    statement="Without a reduction of distributional shift BN does worse: the more shift, the lower the accuracy.",
    by=AWAIS,
    where="A abstract",
    disputed_by=SANTURKAR,
    parts=(
        Part(
            "dose_slope",
            _dose_slope,
            "slope of the training accuracy of the last tenth of the steps on log10 of the shift of the mean in "
            "one step, over noise of strength 0, 1, 2 and 4",
            ("dose",),
            unit="points",
            per="factor of ten",
            high=-2,
            above=SANTURKAR,
        ),
    ),
    margin="Flat is up to two points per factor of ten, as in claim 4.",
    fairness=(
        "Noise also hides the signal: a loss of accuracy need not come from the shift.",
        "The slope leans on the strengths 2 and 4, and on where on a log axis no noise lies; see the curve.",
        "Beta is not matched.",
        MATCHED_LR,
    ),
    figures=("scan",),
)
