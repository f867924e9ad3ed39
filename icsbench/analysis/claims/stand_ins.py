"""Claims on what could stand in for BN, or is the same under it: warm-up, a growing rate, the edge of stability."""

import math
from functools import partial

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.claims.rates import grid_of, largest_rates, level_at_edge, over_rates, slope_on_rates
from icsbench.analysis.claims.texts import (
    A_FIFTH,
    ANDREYEV,
    BY_A_FIFTH,
    COHEN,
    GILMER,
    IOFFE,
    LI_ARORA,
    SANTURKAR,
)
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.exponential_rate import LAB, ROUNDING, largest_difference
from icsbench.analysis.quantities.sharpness import settled_sharpness
from icsbench.analysis.quantities.warmup import AT_ONCE, LINEAR, starts
from icsbench.record.reader import Run

_HALF_A_STEP = math.sqrt(2)
"""Half a step of a grid of factors of two."""
_STUDIES = {"residual": "warmup", "plain": "warmup_plain"}
_NAMES = {"residual": "a residual MLP", "plain": "VGG11"}


def _warmed(over: str, start: str, group: Group) -> Measured:
    """Largest learning rate at which a seed trains: without a norm and with a warm-up / that of another setting."""
    found = starts(group)
    if not {LINEAR, start} <= found.keys():
        raise NotMeasured(f"{group.name} has no runs with and without a linear warm-up")
    grids = (grid_of(group, "none", **found[LINEAR]), grid_of(group, over, **found[start]))
    return largest_rates(*grids, ("none with a warm-up", over))


def _warmup_parts(over: str, name: str, low: float) -> tuple[Part, ...]:
    return tuple(
        Part(
            f"largest_lr_warmed_{network}_over_{over}",
            partial(_warmed, over, AT_ONCE),
            f"{_NAMES[network]}: largest learning rate of the grid at which a run ends off chance, without BN and with "
            f"a warm-up / {name}",
            (study,),
            kind="ratio",
            low=low,
        )
        for network, study in _STUDIES.items()
    )


_WARMUP_FAIRNESS = (
    "Control: the first rate of the warm-up, held for as many steps, then the whole rate at once. If that does as "
    "well, it is a later start that helps and not the rise; the figure of the residual network has it beside these.",
    "The warm-up is linear, from lr / N in the first of its N steps (at scale cpu N = 60, of 240 and 200 steps). Its "
    "length is not tuned.",
    "Off chance is training accuracy of at least twice that of guessing in the last tenth of the steps: whether it "
    "trains, not how well. Runs are short; a rate may still fail later.",
    "Where a network trains at the largest rate of the grid its largest rate is a lower bound.",
    "Powers of two are far from a normal distribution.",
)

AS_LARGE_AS_WITH_BN = Claim(
    id="39",
    statement="Warm-up alone lets networks without BN train at BN's learning rates.",
    by=GILMER,
    where="Gilmer abstract: warm-up can improve the stability of training just as much as BN and Fixup",
    disputed_by=f"{IOFFE}; {SANTURKAR}",
    parts=_warmup_parts("bn", "with BN and no warm-up", 1 / _HALF_A_STEP),
    margin="As large: less than half a step of the grid below, 0.71. Known when the region was fixed, of one seed "
    "(100) and some rates: without BN a warm-up took the residual MLP from 0.004 to 0.064 on digits and to 0.128 on "
    "CIFAR-10, and VGG11 no further than 0.1, where BN still trains at 1 and 1.6.",
    fairness=(
        *_WARMUP_FAIRNESS,
        "Gilmer et al. say that warm-up and BN make training as stable; that this means equal rates is our reading.",
        "Fixup, in the residual network, is the other stand-in: it needs neither. Its largest rates are in the figure.",
    ),
    figures=("warmup",),
)

LARGER_THAN_WITHOUT = Claim(
    id="39d",
    statement="Warm-up lets networks without BN train at larger learning rates than they do without it.",
    by=GILMER,
    where="Gilmer abstract",
    parts=_warmup_parts("none", "without both", _HALF_A_STEP),
    margin="Larger: by more than half a step of the grid, 1.41. Known when the region was fixed, of one seed (100) "
    "and some rates: at least 0.064 against 0.004 for the residual MLP, equal for VGG11.",
    fairness=_WARMUP_FAIRNESS,
    figures=("warmup",),
)


def _sharpness(run: Run) -> float:
    """The mean of batch sharpness over the second half."""
    return settled_sharpness(run) * 2 / run.lr


def _sharpness_parts() -> tuple[Part, ...]:
    of = "batch sharpness, mean over the second half of training,"
    return tuple(
        part
        for regime, name in (("bn", "with BN"), ("none", "without BN"))
        for part in (
            Part(
                f"sharpness_level_{regime}",
                partial(over_rates, level_at_edge, _sharpness, regime),
                f"{of} x lr / 2, {name}: geometric mean over the learning rates",
                ("batch_sharpness",),
                kind="ratio",
                low=A_FIFTH,
                high=1 / A_FIFTH,
            ),
            Part(
                f"sharpness_slope_{regime}",
                partial(over_rates, slope_on_rates, _sharpness, regime),
                f"slope of log {of} on log(1 / lr), {name}",
                ("batch_sharpness",),
                low=A_FIFTH,
                high=1 / A_FIFTH,
            ),
        )
    )


SETTLES_AT_THE_EDGE = Claim(
    id="39b",
    statement="Batch sharpness settles at 2/lr, with BN as without.",
    by=ANDREYEV,
    where="A&B abstract; Definition 3",
    disputed_by=SANTURKAR,
    parts=_sharpness_parts(),
    margin=f"A level of 1 and a slope of 1. {BY_A_FIFTH} Known when the regions were fixed, of one seed (100) at rates "
    "0.8 and 3.2: levels of about 0.6 with BN and 0.2 without, falling as the data are fitted.",
    fairness=(
        "Control: several learning rates. A sharpness that the network or BN sets by itself has slope 0; one that the "
        "rate sets has slope 1.",
        f"SGD without momentum, on the cross-entropy; {COHEN} and A&B also take the squared error, under which "
        "sharpness does not fall when all is fitted. Runs that stop far from the edge count against the claim.",
        "The Hessian is that of the batch with BN by the statistics of that batch; ReLU has no curvature of its own.",
    ),
    figures=("batch-sharpness",),
)


def _largest_difference(variant: str, group: Group) -> Measured:
    """Largest difference between the outputs of the two runs at a recorded step, of the network of each seed."""
    return paired({variant: runs_of(group, LAB)}, partial(largest_difference, variant=variant))


DECAY_IS_A_GROWING_RATE = Claim(
    id="39c",
    statement="Under BN, weight decay is the same as a learning rate that grows exponentially: the two runs are one.",
    by=LI_ARORA,
    where="Li & Arora abstract: equal to BN with weight decay and momentum",
    parts=(
        Part(
            "difference_bn",
            partial(_largest_difference, "bn"),
            "with BN: largest difference |f - f'| / (|f| + |f'|) of the outputs along the run",
            ("exponential_rate",),
            kind="bound",
            of="networks",
            high=ROUNDING,
        ),
        Part(
            "difference_none",
            partial(_largest_difference, "none"),
            "without BN (the control): the same",
            ("exponential_rate",),
            kind="ratio",
            of="networks",
            low=1 - A_FIFTH,
        ),
    ),
    margin="The same to rounding: half of the digits of float64, 2^-26 = 1.5e-8, as rounding grows along a run. "
    "With BN it is an identity, which one network can refute; without BN no theory says so much, and the mean "
    "is tested. Another function, of the control: by a fifth. Known when the regions were fixed, of one seed (100): "
    "1e-13 and 1.",
    fairness=(
        "Control: the same two runs of the network without BN, whose loss depends on the length of its weights.",
        "Exact only where every trained weight is scale-invariant: BN has no gamma and beta and eps = 0, the output "
        "layer is fixed, and all is in float64. With eps = 1e-5, or with momentum that starts at 0 in both runs, the "
        "two go apart by some per cent (in the figure), as neighbouring runs of SGD do.",
        "It says that weight decay does nothing else under BN; not that such a rate is a good idea without BN.",
    ),
    figures=("exponential-rate",),
)
