"""Claims on training and test accuracy: BN against none, noisy BN, noise alone, l_p normalization, autocast."""

from collections.abc import Callable
from functools import partial

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.paired import LeftOut, at_papers_rate, difference, paired, papers_rate, runs_of
from icsbench.analysis.claims.texts import AWAIS, IOFFE, KALAMKAR, MATCHED_LR, SANTURKAR
from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.protocols import CUSTOMARY, OWN, accuracy_under, final_accuracy
from icsbench.analysis.quantities.training import (
    accuracy_to_the_end,
    chance_of,
    first_mean,
    first_step,
    last_tenth,
    trains,
)
from icsbench.record.reader import Run
from icsbench.record.schema import LEFT_CHANCE

_REGIMES = ("long", "three_regimes", "landscape")
_GOAL = 0.9
_AT_CHANCE = 1.5
"""Training accuracy at chance is below this many times that of guessing."""


def _speed_up(group: Group, most: float = _GOAL, reached: Callable[[Run, float], float] = first_mean) -> Measured:
    """Steps without BN / steps with BN to an accuracy: ``most``, or that at which the slower of the two ends if lower.

    It is twice chance at least.
    """

    def steps_to(run: Run, goal: float) -> float:
        return min(reached(run, goal), float(run.setting("steps")))

    def ratio(bn: Run, none: Run) -> float:
        goal = min(most, max(min(last_tenth(bn), last_tenth(none)), LEFT_CHANCE * chance_of(none)))
        return steps_to(none, goal) / steps_to(bn, goal)

    return paired({"bn": at_papers_rate(group, "bn"), "none": at_papers_rate(group, "none")}, ratio)


def _whole_mean(run: Run) -> float:
    return float(accuracy_to_the_end(run)[1].mean())


def _under(protocol: str) -> Callable[[Run], float]:
    """Final test accuracy under a protocol, or of a norm without statistics, which has no such one, the customary."""
    return lambda run: accuracy_under(run, protocol if protocol in run.test_accuracy else CUSTOMARY)


def _at_chance(group: Group, times: float = _AT_CHANCE) -> Measured:
    """Whether noise without BN ends below so many times chance (1 or 0), of the seeds that train without noise."""

    def of_seed(noise: Run, none: Run) -> float:
        if not trains(none):
            raise LeftOut("does not train without noise")
        return float(last_tenth(noise) < times * chance_of(noise))

    runs = {"noise": at_papers_rate(group, "noise"), "none": at_papers_rate(group, "none")}
    levels = ", ".join(f"{seed}: {last_tenth(run) / chance_of(run):.3g}" for seed, run in sorted(runs["noise"].items()))
    return paired(runs, of_seed)._replace(note=f"training accuracy with the noise in units of chance: {levels}")


def _amp_minus_float32(norm: str) -> Measure:
    """Training accuracy of the last tenth of a norm with autocast minus without, in points."""

    def measure(group: Group) -> Measured:
        lr = papers_rate(group)
        parts = {name: runs_of(group, norm, lr=lr, amp=amp) for name, amp in (("bfloat16", True), ("float32", False))}
        return paired(parts, lambda fast, exact: 100 * (last_tenth(fast) - last_tenth(exact)))

    return measure


FASTER_AND_HIGHER = Claim(
    id="1",
    statement="BN trains faster and ends at a higher test accuracy.",
    by=f"{IOFFE}; {SANTURKAR}",
    where="I&S section 4; S section 2, Fig. 1",
    parts=(
        Part(
            "speed_up_to_90",
            _speed_up,
            "steps without BN / steps with BN until the mean training accuracy of 100 steps is 90 %, or what the "
            "slower of the two ends with if that is lower (its last tenth; at least twice chance; a run that never "
            "gets there counts with all its steps)",
            _REGIMES,
            kind="ratio",
            low=1.5,
            variants={
                "to the end of the slower run, however high": partial(_speed_up, most=1.0),
                "to the end of the slower run, in one row": partial(_speed_up, most=1.0, reached=first_step),
            },
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
    fairness=(MATCHED_LR, "Where training ends before the one without BN has learned, speed and height are one."),
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

SHIFT_COSTS_NOTHING = Claim(
    id="4b",
    statement="The shift costs nothing that counts: with the noise off noisy BN tests at least as well as BN.",
    by=SANTURKAR,
    where="S section 2.1, of which it is the reading for what is learned",
    disputed_by=AWAIS,
    parts=(
        Part(
            "test_noisy_minus_bn",
            difference("noisy_bn", "bn", final_accuracy),
            "final test accuracy with the noise off and statistics recalibrated, noisy BN minus BN",
            _REGIMES,
            unit="points",
            low=-2,
            below=AWAIS,
            variants={
                "running statistics": difference("noisy_bn", "bn", _under(CUSTOMARY)),
                "statistics of the test batch": difference("noisy_bn", "bn", _under(OWN)),
            },
        ),
    ),
    margin="Two points, as in claim 4.",
    fairness=(
        MATCHED_LR,
        "Noise in training may regularise: that noisy BN tests better does not say that shift is good.",
        "The paper shows training accuracy, with the noise on, alone.",
    ),
    figures=("protocols",),
)

NOISE_ALONE_DOES_NOT_TRAIN = Claim(
    id="6",
    statement="The same noise keeps the network without BN from training.",
    by=SANTURKAR,
    where="S section 2.1",
    parts=(
        Part(
            "noise_at_chance",
            _at_chance,
            "share of the seeds at chance with the noise and without BN (training accuracy of the last tenth of the "
            "steps below 1.5 times chance), of those that train without noise (at least twice chance)",
            ("noise_control",),
            kind="count",
            low=0.5,
            variants={"at chance: below twice it": partial(_at_chance, times=LEFT_CHANCE)},
        ),
    ),
    margin="At chance: below 1.5 times 1 / number of classes (15 % of ten). More seeds than not: exact binomial test.",
    fairness=(
        "A seed trains or does not: the mean accuracy of the two kinds is that of neither.",
        "Noise of the same absolute size; the pre-activations of the network without BN are smaller than BN's.",
    ),
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

AUTOCAST_COSTS_NOTHING = Claim(
    id="44",
    statement="Training in bfloat16 (autocast) costs no training accuracy, in any of the three regimes.",
    by=KALAMKAR,
    where="K abstract",
    parts=tuple(
        Part(
            f"train_amp_minus_float32_{norm}",
            _amp_minus_float32(norm),
            f"training accuracy of the last tenth of the steps, {name}, with bfloat16 autocast minus in float32",
            ("amp",),
            unit="points",
            low=-1,
            high=1,
        )
        for norm, name in (("none", "without BN"), ("bn", "BN"), ("noisy_bn", "noisy BN"))
    ),
    margin="Within one point: half of what the other claims call as good (two points).",
    fairness=(
        "A control of this project: other studies train in bfloat16. The paper keeps master weights in float32, too.",
        "Both have the same start, batches and noise; rounding makes their paths part all the same.",
        "At the budget of the study: where a network learns fast, a small lag in time is a large one in accuracy.",
    ),
    figures=("accuracy",),
)
