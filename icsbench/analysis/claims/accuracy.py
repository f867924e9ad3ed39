"""Claims on training and test accuracy: BN against none, noisy BN, noise alone, l_p normalization."""

import math
from collections.abc import Callable

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import at_papers_rate, difference, paired
from icsbench.analysis.claims.texts import AWAIS, IOFFE, MATCHED_LR, SANTURKAR
from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.protocols import CUSTOMARY, OWN, accuracy_under, final_accuracy
from icsbench.analysis.quantities.training import accuracy_to_the_end, chance_of, first_step, last_tenth, trains
from icsbench.record.reader import Run
from icsbench.record.schema import LEFT_CHANCE

_REGIMES = ("three_regimes", "landscape")


def _speed_up(group: Group) -> Measured:
    """Steps without BN / steps with BN to the accuracy at which the slower of the two ends, twice chance at least."""

    def ratio(bn: Run, none: Run) -> float:
        goal = max(min(last_tenth(bn), last_tenth(none)), LEFT_CHANCE * chance_of(none))
        return _steps_to(none, goal) / _steps_to(bn, goal)

    return paired({"bn": at_papers_rate(group, "bn"), "none": at_papers_rate(group, "none")}, ratio)


def _steps_to(run: Run, goal: float) -> float:
    step = first_step(run, goal)
    return step if math.isfinite(step) else float(run.setting("steps"))


def _whole_mean(run: Run) -> float:
    return float(accuracy_to_the_end(run)[1].mean())


def _under(protocol: str) -> Callable[[Run], float]:
    """Final test accuracy under a protocol, or of a norm without statistics, which has no such one, the customary."""
    return lambda run: accuracy_under(run, protocol if protocol in run.test_accuracy else CUSTOMARY)


def _noise_alone(group: Group) -> Measured:
    """Training accuracy of noise without BN in units of chance, of the seeds that train without noise."""
    noise, none = at_papers_rate(group, "noise"), at_papers_rate(group, "none")
    trained = {seed for seed, run in none.items() if trains(run)}
    values = {seed: last_tenth(run) / chance_of(run) for seed, run in noise.items() if seed in trained}
    left_out = {
        seed: "does not train without noise" if seed in none else "no finished run of none"
        for seed in sorted(noise.keys() - trained)
    }
    return Measured(values, left_out, tuple(run for run in group.runs if run.regime in ("noise", "none")))


FASTER_AND_HIGHER = Claim(
    id="1",
    statement="BN trains faster and ends at a higher test accuracy.",
    by=f"{IOFFE}; {SANTURKAR}",
    where="I&S section 4; S section 2, Fig. 1",
    parts=(
        Part(
            "speed_up",
            _speed_up,
            "steps without BN / steps with BN until the training accuracy at which the slower of the two ends "
            "(at least twice chance; a run that never gets there counts with all its steps)",
            _REGIMES,
            kind="ratio",
            low=1.5,
        ),
        Part(
            "test_bn_minus_none",
            difference("bn", "none", final_accuracy),
            "final test accuracy with BN (population statistics recomputed after training, I&S Algorithm 2) minus "
            "without",
            _REGIMES,
            unit="points",
            low=0,
            variants={
                "running statistics": difference("bn", "none", _under(CUSTOMARY)),
                "statistics of the test batch": difference("bn", "none", _under(OWN)),
            },
        ),
    ),
    margin="Half as many steps again is the least that is called faster; any gain in test accuracy counts.",
    fairness=(MATCHED_LR, "The budget of steps is fixed: where training ends early, speed and height are one."),
    figures=("accuracy",),
)

NOISY_BN_TRAINS_AS_WELL = Claim(
    id="4",
    statement="Noisy BN trains as well as BN, and better than the network without.",
    by=SANTURKAR,
    where="S section 2.1, Fig. 2",
    disputed_by=AWAIS,
    parts=(
        Part(
            "train_noisy_minus_bn",
            difference("noisy_bn", "bn", last_tenth),
            "training accuracy of the last tenth of the steps, noisy BN minus BN",
            _REGIMES,
            unit="points",
            low=-2,
            high=2,
            below=AWAIS,
            variants={"mean over all steps": difference("noisy_bn", "bn", _whole_mean)},
        ),
        Part(
            "mean_train_noisy_minus_none",
            difference("noisy_bn", "none", _whole_mean),
            "training accuracy, mean over all steps, noisy BN minus none",
            _REGIMES,
            unit="points",
            low=0,
            below=AWAIS,
            variants={"last tenth of the steps": difference("noisy_bn", "none", last_tenth)},
        ),
    ),
    margin="As well as: within two points, which the paper's curves do not resolve; better: any gain.",
    fairness=(
        MATCHED_LR,
        "Training accuracy, in training mode, as in the paper; the protocols of testing differ.",
    ),
    figures=("accuracy",),
)

NOISE_ALONE_DOES_NOT_TRAIN = Claim(
    id="6",
    statement="The same noise keeps the network without BN from training.",
    by=SANTURKAR,
    where="S section 2.1",
    parts=(
        Part(
            "train_noise",
            _noise_alone,
            "training accuracy of the last tenth of the steps, noise without BN, in units of chance; of "
            "the seeds that train without noise (at least twice chance)",
            ("noise_control",),
            kind="ratio",
            high=1.5,
        ),
    ),
    margin="At chance: below 1.5 times 1 / number of classes (15 % of ten).",
    fairness=("Noise of the same absolute size; the pre-activations of the network without BN are smaller than BN's.",),
    figures=("accuracy",),
)

LP_NORMS_TRAIN_AS_WELL = Claim(
    id="13",
    statement="Normalizing by l_1, l_2 or l_inf norms trains a VGG as well as BN.",
    by=SANTURKAR,
    where="S section 3.3, Fig. 5",
    parts=tuple(
        Part(
            f"train_{norm}_minus_bn",
            difference(norm, "bn", last_tenth),
            f"training accuracy of the last tenth of the steps, {norm} minus BN",
            ("lp",),
            unit="points",
            low=-2,
            high=2,
            variants={"mean over all steps": difference(norm, "bn", _whole_mean)},
        )
        for norm in ("l1", "l2", "linf")
    ),
    margin="As well as: within two points, as in claim 4.",
    fairness=(MATCHED_LR,),
    figures=("accuracy",),
)
