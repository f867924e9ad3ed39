"""The claim on what noise in training costs."""

from collections.abc import Callable
from functools import partial

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.claims.texts import AWAIS, MATCHED_LR, SANTURKAR
from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.protocols import CUSTOMARY, OWN, accuracy_under, final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.record.reader import Run


def _cost(group: Group, accuracy: Callable[[Run], float] = final_accuracy) -> Measured:
    """Accuracy after training with noise of strength 1 minus that with none, in points; noted: of every strength."""
    strengths = sorted({float(run.setting("norm.strength", 1.0)) for run in group.runs if run.regime == "noisy_bn"})
    curve = [runs_of(group, "noisy_bn", **{"norm.strength": strength}).values() for strength in strengths]
    means = [100 * sum(map(accuracy, runs)) / len(runs) for runs in curve]
    parts = {f"noisy_bn x{strength}": runs_of(group, "noisy_bn", **{"norm.strength": strength}) for strength in (1, 0)}
    found = paired(parts, lambda noisy, quiet: 100 * (accuracy(noisy) - accuracy(quiet)))
    shown = ", ".join(f"x{strength:g} {mean:.1f}" for strength, mean in zip(strengths, means, strict=True))
    return found._replace(note=f"mean accuracy (%) by strength: {shown}")


NOISE_COSTS_ACCURACY = Claim(
    id="21",
    statement="Noise of the paper's strength costs accuracy even when it is off.",
    by=AWAIS,
    where="A abstract: without a reduction of distributional shift BN does worse",
    disputed_by=SANTURKAR,
    parts=(
        Part(
            "noise_off_cost",
            _cost,
            "final test accuracy with the noise off and statistics recalibrated, after training with noise of the "
            "paper's strength minus after training with none",
            ("dose",),
            unit="points",
            high=-2,
            above=SANTURKAR,
            variants={
                "running statistics": partial(_cost, accuracy=partial(accuracy_under, protocol=CUSTOMARY)),
                "statistics of the test batch": partial(_cost, accuracy=partial(accuracy_under, protocol=OWN)),
                "training accuracy, noise on": partial(_cost, accuracy=last_tenth),
            },
        ),
    ),
    margin="Two points, as in claim 4.",
    fairness=(
        "With the noise on, it hides the signal by itself; off, only what it did to learning is left.",
        "The curve over all strengths is noted with the value, and drawn.",
        "Beta is not matched.",
        MATCHED_LR,
    ),
    figures=("scan",),
)
