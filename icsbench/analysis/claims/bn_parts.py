"""Claims on the parts of batch normalization: one layer, one step, the gradient, the divisor, the size of a batch."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.paired import Runs, paired, runs_of
from icsbench.analysis.claims.texts import (
    BJORCK,
    HOFFER_2017,
    HOFFER_2018,
    IOFFE,
    KARAKIDA,
    LUO,
    NACHUM,
)
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import slope
from icsbench.record.reader import Run

_PARTS = ("bn_parts",)
_GHOST = ("ghost",)
_GAIN = 0.02
"""The smallest gain of BN of which there is a share: two points."""
_HALF = 0.5
_TWO_POINTS = 2.0


def _rate(group: Group, place: int) -> float:
    """The smaller (0) or the larger (-1) of the study's learning rates.

    :raises NotMeasured: there are not two.
    """
    if len(group.lrs) != 2:
        raise NotMeasured(f"{group.name} has {len(group.lrs)} learning rates; the claim is about two")
    return group.lrs[place]


def _at_best_rate(group: Group, norm: str) -> Runs:
    """The runs of a norm at that learning rate of the study whose training accuracy is best over the seeds."""
    by_rate = [runs_of(group, norm, lr=_rate(group, place)) for place in (0, -1)]
    return max(by_rate, key=lambda runs: float(np.mean([last_tenth(run) for run in runs.values()])))


def _share(of: str, runs: Callable[[Group, str], Runs], accuracy: Callable[[Run], float]) -> Measure:
    """The gain of a norm over none in that of BN over none; NaN where BN gains less than two points."""

    def share(one: Run, bn: Run, none: Run) -> float:
        gain = accuracy(bn) - accuracy(none)
        return (accuracy(one) - accuracy(none)) / gain if gain >= _GAIN else math.nan

    def measure(group: Group) -> Measured:
        parts = {norm: runs(group, norm) for norm in (of, "bn", "none")}
        found = paired(parts, share)
        trained = set.intersection(*map(set, parts.values()))
        small = {seed: f"BN gains less than two points; {found.left_out[seed]}" for seed in trained & {*found.left_out}}
        return found._replace(left_out=found.left_out | small)

    return measure


def _points(one: str, other: str, runs: Callable[[Group, str], Runs], accuracy: Callable[[Run], float]) -> Measure:
    """Accuracy of a norm minus that of another, in points."""
    return lambda group: paired(
        {norm: runs(group, norm) for norm in (one, other)}, lambda a, b: 100 * (accuracy(a) - accuracy(b))
    )


def _at(place: int) -> Callable[[Group, str], Runs]:
    """The runs of a norm at the smaller (0) or the larger (-1) learning rate."""
    return lambda group, norm: runs_of(group, norm, lr=_rate(group, place))


def of_ghosts(value: Callable[[Run], float], group: Group) -> Measured:
    """The slope of ``value``, a fraction, in points, on log2 of the size of a ghost batch."""
    sizes = sorted({int(run.setting("norm.ghost_size")) for run in group.runs if run.regime == "ghost"})
    if len(sizes) < 3:
        raise NotMeasured(f"{group.name} has ghost batches of {len(sizes)} sizes; a slope needs three")
    return paired(
        {f"ghost size {size}": runs_of(group, "ghost", **{"norm.ghost_size": size}) for size in sizes},
        lambda *runs: slope([math.log2(size) for size in sizes], [100 * value(run) for run in runs]),
    )


_KNOWN = (
    " Known beforehand: trials of this network with one other seed (200 to 250 steps, training accuracy in %, at rates "
    "0.05 and 0.4): none 29 and 10, BN 40 and 38, mean only 40 and 39, division only 33 and 21, detached 33 and 22, "
    "gamma and beta 31 and 16, BN at the first layer 30 and 13, at the last 36 and 22, L1 BN 41 and 41."
)
_EVERYWHERE = (
    "One network (VGG11, He's initialization), two learning rates, none tuned for a norm; a run that diverges or stays "
    "at chance counts with the accuracy of chance.",
    "The budget of steps is fixed and short; a norm that is slower at first counts as worse.",
)


def _of_a_step(name: str, norm: str, what: str, **region: Any) -> Part:
    """A part of claim 38d: the share that a norm has of BN's gain at the larger learning rate."""
    words = (
        f"gain over none with {what} / gain of BN over none, of the training accuracy of the last tenth of the steps"
    )
    return Part(name, _share(norm, _at(-1), last_tenth), f"{words}, at the larger learning rate", _PARTS, **region)


LAST_LAYER_IS_MOST = Claim(
    id="38",
    statement="BN at the last layer alone recovers most of what BN gains.",
    by=BJORCK,
    where="B, the network with BN at its last layer only",
    parts=(
        Part(
            "last_share",
            _share("bn_last", _at_best_rate, final_accuracy),
            "gain in test accuracy of BN at the last hidden layer only / gain of BN everywhere, over none, each at "
            "that of the two learning rates with its best training accuracy",
            _PARTS,
            low=_HALF,
        ),
        Part(
            "last_minus_first",
            _points("bn_last", "bn_first", _at_best_rate, final_accuracy),
            "test accuracy with BN at the last hidden layer only minus with BN at the first only, likewise",
            _PARTS,
            unit="points",
            low=_TWO_POINTS,
        ),
    ),
    margin="Most is more than half; the paper's own figure is about two thirds. Of the last layer: more than two "
    "points, those of claim 4, above the control." + _KNOWN,
    fairness=(
        "Control: BN at the first layer only. If any one BN would do, it would be as good.",
        "The learning rate is chosen on training accuracy; the test set only reports.",
        "The paper's network is a ResNet-110, trained to the end.",
        *_EVERYWHERE,
    ),
    figures=("bn_parts",),
)

GRADIENT_IS_NEEDED = Claim(
    id="38b",
    statement="The gradient has to go through the statistics: with mean and variance as constants BN trains worse, or "
    "not at all.",
    by=IOFFE,
    where="I&S section 2",
    parts=tuple(
        Part(
            f"detached_minus_bn_{name}",
            _points("bn_detached", "bn", _at(place), last_tenth),
            "training accuracy of the last tenth of the steps, BN with its statistics held constant in the backward "
            f"pass minus BN, at the {name} learning rate",
            _PARTS,
            unit="points",
            high=-_TWO_POINTS,
        )
        for name, place in (("smaller", 0), ("larger", -1))
    ),
    margin="Worse: by more than two points, as in claim 4." + _KNOWN,
    fairness=(
        "The forward pass is BN's, to rounding: the gradient is the only difference.",
        "Control: statistics of the first batch that stay (bn_frozen) are constants in both passes. If they do as well "
        "as BN, it is the mismatch of the two passes that hurts; if as badly, statistics have to follow the weights.",
        "The paper's argument is about steps that grow a bias without any effect on the loss; it names no size.",
        *_EVERYWHERE,
    ),
    figures=("bn_parts",),
)

L1_TRAINS_AS_WELL = Claim(
    id="38c",
    statement="BN by the mean absolute deviation (L1) trains as well as BN by the standard deviation.",
    by=HOFFER_2018,
    where="H abstract (L1 norm)",
    parts=tuple(
        Part(
            f"l1_minus_bn_{name}",
            _points("l1_bn", "bn", _at(place), last_tenth),
            f"training accuracy of the last tenth of the steps, L1 BN minus BN, at the {name} learning rate",
            _PARTS,
            unit="points",
            low=-_TWO_POINTS,
            high=_TWO_POINTS,
        )
        for name, place in (("smaller", 0), ("larger", -1))
    ),
    margin="As well as: within two points, as in claim 4." + _KNOWN,
    fairness=(
        "Control: gamma and beta alone (affine) and no norm at all. Where these are within two points of BN too, the "
        "network needs no norm there, and the claim says nothing.",
        "Centred, and scaled so that Gaussian data get variance 1; the l_1 norm of claim 13 is neither.",
        *_EVERYWHERE,
    ),
    figures=("bn_parts",),
)

RESCALING_IS_WHAT_TRAINS = Claim(
    id="38d",
    statement="Of BN's two steps it is dividing by the standard deviation that trains at a large rate; subtracting the "
    "mean alone does not.",
    by=f"{NACHUM} (an inference)",
    where="N abstract (which is about signals at initialisation)",
    disputed_by=f"{KARAKIDA} (an inference)",
    parts=(
        _of_a_step("variance_share", "bn_var", "the division only", low=_HALF),
        _of_a_step("mean_share", "bn_mean", "the mean only", high=_HALF, above=f"{KARAKIDA} (an inference)"),
        _of_a_step("affine_share", "affine", "gamma and beta only (the control)", high=_HALF),
    ),
    margin="A step that trains has more than half of BN's gain, one that does not has less." + _KNOWN,
    fairness=(
        "Control: gamma and beta without statistics. If they had most of the gain, neither step would be its cause.",
        "Karakida et al. find that the mean subtraction of the last layer removes the largest eigenvalue of the Fisher "
        "information, and with it the bound on the learning rate; that it helps training is an inference.",
        "The variance is about the mean in both cases; without its mean subtracted, a feature keeps its offset.",
        *_EVERYWHERE,
    ),
    figures=("bn_parts",),
)

GHOSTS_REGULARISE = Claim(
    id="38e",
    statement="Statistics of smaller parts of a batch regularise: the gap to the test is smaller, and the test better.",
    by=f"{HOFFER_2017}; {LUO}",
    where="H abstract; L abstract",
    parts=(
        Part(
            "ghost_gap_slope",
            partial(of_ghosts, lambda run: last_tenth(run) - final_accuracy(run)),
            "slope of the generalisation gap (training accuracy of the last tenth of the steps minus test accuracy on "
            "recomputed population statistics) on log2 of the ghost batch size",
            _GHOST,
            unit="points",
            per="doubling",
            low=0,
        ),
        Part(
            "ghost_test_slope",
            partial(of_ghosts, final_accuracy),
            "slope of the test accuracy on recomputed population statistics on log2 of the ghost batch size",
            _GHOST,
            unit="points",
            per="doubling",
            high=0,
        ),
    ),
    margin="Any growth of the gap, and any loss of the test, with the size counts, as in claim 23.",
    fairness=(
        "Control: batch, updates, images and learning rate are the same; only the size behind a statistic differs. "
        "It is the control that claim 23 lacks, where a smaller batch also makes SGD noisier.",
        "Few images, each seen equally often. Training accuracy is in training mode, on the statistics of the ghost "
        "batches.",
        "At one learning rate, without the longer training that the paper puts beside ghost batches.",
    ),
    figures=("scan",),
)
