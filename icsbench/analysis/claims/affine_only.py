"""The claim on training nothing but gamma and beta."""

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.claims.texts import A_FIFTH, BY_A_FIFTH, FRANKLE
from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import positive_ratio
from icsbench.record.reader import Run


def _affine_to_random(group: Group) -> Measured:
    """Test accuracy, gamma and beta / random weights, each at the rate at which it trained best."""
    rates = group.lrs
    parts = {
        f"{train} at lr {lr:g}": runs_of(group, "bn", lr=lr, **{"optim.train": train})
        for train in ("affine", "random")
        for lr in rates
    }

    def ratio(*runs: Run) -> float:
        affine, random = (max(some, key=last_tenth) for some in (runs[: len(rates)], runs[len(rates) :]))
        return positive_ratio(final_accuracy(affine), final_accuracy(random))

    return paired(parts, ratio)


AFFINE_ONLY = Claim(
    id="41",
    statement="Training only gamma and beta reaches far more than training as many random weights.",
    by=FRANKLE,
    where="Frankle abstract",
    parts=(
        Part(
            "affine_to_random",
            _affine_to_random,
            "final test accuracy, only gamma and beta trained / as many random weights",
            ("affine_only",),
            kind="ratio",
            low=1 / A_FIFTH,
        ),
    ),
    margin=f"{BY_A_FIFTH} Chance counts in both accuracies, which draws their ratio to 1. Known beforehand: what the "
    "paper found in networks that are wider, deeper and trained for far longer; one "
    "ResNet-20 at width 1/4 with only gamma and beta trained (seed 100, 300 steps, lr 1): 20 % in training; and of the "
    "study's network (seed 100, 500 steps, lr 0.1) 34 % in training, with random weights 30 %, with all 31 %.",
    fairness=(
        "Control: as many random weights in every layer as it has gammas and betas, of the same network with BN (gamma "
        "1, beta 0); it has the normalization too, and lacks only its training.",
        "The output layer is frozen in both, as in the paper.",
        "Each at the better of the study's two learning rates, chosen by the training accuracy of the last tenth of "
        "the steps: a random weight and a gamma need not have the same best rate.",
        "Not told apart: whether scale and shift per channel do it, or whether any parameters that act on whole "
        "channels would.",
        "A plain network, narrow, for less than an epoch; the paper's are residual, and the effect grows with their "
        "depth and width.",
        "gamma starts at 1, beta at 0.",
    ),
    figures=("affine-only",),
)
