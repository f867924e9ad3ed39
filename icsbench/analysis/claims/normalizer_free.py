"""Claims on networks without any normalization (Brock et al.): as good as BN, what clipping adds, what signals do."""

import math
from collections.abc import Callable
from functools import partial

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.paired import Runs, paired, runs_of
from icsbench.analysis.claims.texts import A_FIFTH, BROCK
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities import signal_propagation as signals
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth, trains
from icsbench.record.reader import Run

_CLIPPING = "optim.wrap.agc.clipping"
"""The setting that a run with adaptive gradient clipping has, and one without has not."""
_RESIDUAL = ("normalizer_free",)
_PLAIN = ("normalizer_free_plain",)
_RATES = ("clipping",)
_POINTS = 2.0
_FIRST_BLOCKS = 3


def _clippings(group: Group) -> list[float]:
    """The thresholds of the runs that are clipped, ascending."""
    return sorted({run.settings[_CLIPPING] for run in group.runs if _CLIPPING in run.settings})


def _regime(group: Group, name: str, **settings: float) -> Runs:
    """The runs of a regime: a norm, ``agc`` behind it where gradients are clipped.

    :raises NotMeasured: there is none, there are several configurations, or several thresholds.
    """
    norm, _, clipped = name.partition(" + ")
    thresholds = _clippings(group)
    if len(thresholds) > 1:
        raise NotMeasured(f"{group.name} has {len(thresholds)} thresholds of clipping, which must not be pooled")
    if clipped and not thresholds:
        raise NotMeasured(f"{group.name} has no finished run with adaptive gradient clipping")
    return runs_of(group, norm, **settings, **{_CLIPPING: thresholds[0] if clipped else None})


def _difference(one: str, other: str, of_run: Callable[[Run], float] = last_tenth) -> Measure:
    """Percentage points between two regimes."""
    return lambda group: paired(
        {name: _regime(group, name) for name in (one, other)}, lambda a, b: 100 * (of_run(a) - of_run(b))
    )


def _largest_rate(one: str, other: str, group: Group) -> Measured:
    """The largest learning rate of the grid at which a seed trains, one regime / another; see :func:`trains`.

    :raises NotMeasured: a regime lacks a rate, or the grid has fewer than three.
    """
    if len(group.lrs) < 3:
        raise NotMeasured(f"{group.name} has {len(group.lrs)} learning rates; a grid needs three")
    parts = {f"{name} at {lr:g}": _regime(group, name, lr=lr) for name in (one, other) for lr in group.lrs}

    def ratio(*runs: Run) -> float:
        count = len(group.lrs)
        largest = [max((run.lr for run in of if trains(run)), default=math.nan) for of in (runs[:count], runs[count:])]
        return largest[0] / largest[1]

    return paired(parts, ratio)


def _points(
    name: str, measure: Measure, what: str, studies: tuple[str, ...], low: float, high: float = math.inf
) -> Part:
    what = f"training accuracy of the last tenth of the steps, {what}"
    return Part(name, measure, what, studies, unit="points", low=low, high=high)


_SETTING = (
    "SGD at learning rate 0.1 with momentum 0.9, no weight decay, no augmentation, for every regime: not tuned for "
    "any. The paper's rule, 0.1 for 256 samples, gives 0.025 for the 64 of scale cpu, at which the normalizer-free "
    "network of seed 100 learned less in so few steps, and BN as much.",
    "Clipping at 0.04, in the middle of the paper's thresholds from 0.01 to 0.16, chosen on seeds 100 and 101. Scalars "
    "are exempt: at the authors' default a SkipInit gain needs 860 updates or more to get from 0 to 1, and a run at "
    "scale cpu has at most 150.",
    "The budget of steps is fixed and a small part of the paper's; a regime that is slower at first counts as worse.",
    "Blocks end with a ReLU, and shortcuts at a change of size have no parameters; those of the paper differ in both.",
)
_AS_WELL = (
    "As well as: within two points, as in claim 4; better or worse: by more than these two points. Known from seed 100 "
    "when the regions were fixed, as training accuracy after 150 steps: {}."
)

MATCHES_BN_WITHOUT_IT = Claim(
    id="22",
    statement="Scaled weight standardisation with adaptive gradient clipping matches BN without it.",
    by=BROCK,
    where="Brock et al. 2021b, abstract",
    parts=(
        _points(
            "train_nf_agc_minus_bn",
            _difference("nf + agc", "bn"),
            "of a residual network, normalizer-free with clipping minus BN without",
            _RESIDUAL,
            low=-_POINTS,
            high=_POINTS,
        ),
        Part(
            "test_nf_agc_minus_bn",
            _difference("nf + agc", "bn", final_accuracy),
            "final test accuracy, of a residual network, normalizer-free with clipping minus BN without (population "
            "statistics recomputed after training)",
            _RESIDUAL,
            unit="points",
            low=-_POINTS,
            high=_POINTS,
        ),
        _points(
            "train_nf_agc_minus_none",
            _difference("nf + agc", "none"),
            "of a residual network, normalizer-free with clipping minus neither (the control)",
            _RESIDUAL,
            low=_POINTS,
        ),
    ),
    margin=_AS_WELL.format("BN 34 %, normalizer-free with clipping 24 %, and of 200 steps with neither 11 %"),
    fairness=(
        *_SETTING,
        "Controls: the same network with neither; standardization without clipping and clipping without "
        "standardization (22b).",
    ),
    figures=("clipping",),
)

TAKES_BOTH = Claim(
    id="22b",
    statement="It takes both: standardization without clipping is worse, and clipping without standardization is.",
    by=f"{BROCK} (an inference)",
    where="Brock et al. 2021b, abstract",
    parts=(
        _points(
            "train_nf_agc_minus_nf",
            _difference("nf + agc", "nf"),
            "of a residual network, normalizer-free with clipping minus without",
            _RESIDUAL,
            low=_POINTS,
        ),
        _points(
            "train_nf_agc_minus_none_agc",
            _difference("nf + agc", "none + agc"),
            "of a residual network, clipping with normalizer-free weights and branches minus clipping alone",
            _RESIDUAL,
            low=_POINTS,
        ),
    ),
    margin=_AS_WELL.format("normalizer-free 25 % and with clipping 24 %, clipping alone 13 %"),
    fairness=(
        *_SETTING,
        "The paper sees what clipping adds at large batches and rates; see claim 36. At a small one it says that "
        "clipping is not needed, so the first part may lose without contradicting the paper.",
    ),
    figures=("clipping",),
)

PLAIN_MATCHES_TOO = Claim(
    id="22c",
    statement="In a plain network scaled weight standardisation with clipping matches BN too.",
    by=f"{BROCK} (an inference)",
    where="Brock et al. 2021b, abstract",
    parts=(
        _points(
            "train_ws_agc_minus_bn_plain",
            _difference("ws + agc", "bn"),
            "of a plain network, weight standardization with clipping minus BN without",
            _PLAIN,
            low=-_POINTS,
            high=_POINTS,
        ),
    ),
    margin=_AS_WELL.format("BN 31 %, weight standardization with clipping 38 %"),
    fairness=(
        *_SETTING[:3],
        "The paper is about residual networks. VGG with He weights: without skips normalizer-free is standardization.",
        "Above the region is better than BN: no match either, and nothing against standardization.",
    ),
    figures=("clipping",),
)

CLIPPING_BEARS_LARGER_RATES = Claim(
    id="36",
    statement="Adaptive gradient clipping lets a network without BN train at larger learning rates.",
    by=BROCK,
    where="Brock et al. 2021b, abstract",
    parts=(
        Part(
            "largest_lr_nf_agc",
            partial(_largest_rate, "nf + agc", "nf"),
            "largest learning rate of the grid at which a run ends off chance (training accuracy at least twice it), "
            "of a fully connected residual network, normalizer-free with clipping / without",
            _RATES,
            kind="ratio",
            low=2**0.5,
        ),
    ),
    margin="Between the factors 1 and 2 of the grid: 1.41. Known from seed 101 when the region was fixed: 0.4 and 0.1.",
    fairness=(
        "The paper varies the batch, and the rate in proportion to it; here the rate alone, at a batch of 64.",
        "Controls: the same network with BN, and with neither, clipped and not. What clipping does for them too is no "
        "matter of normalizer-free networks. They are in the figure.",
        "Where a network trains at the largest rate of the grid with clipping, the ratio is a lower bound.",
        "With clipping an update changes a row of a weight by 0.4 lr of its length at most (0.04, times 10 for "
        "momentum 0.9): a rate means less with it.",
        "Clipping at 0.04, chosen on seed 101; with 0.16 that seed trained up to 0.2, with 0.01 up to 0.8. Scalars are "
        "exempt, as in claim 22.",
        "A fully connected network of ten blocks, and not the paper's convolutions: it can be trained at five rates.",
    ),
    figures=("clipping",),
)


def _of_networks(group: Group, norm: str) -> Runs:
    return runs_of(group, signals.LAB, **{"norm.name": norm})


def _share_left(group: Group) -> Measured:
    """The share that squared means have in the second moment, weight standardization / none."""
    found = {norm: _of_networks(group, norm) for norm in ("ws", "none")}
    shares = [", ".join(f"{signals.mean_share(run):.2g}" for run in runs.values()) for runs in found.values()]
    note = f"ws: {shares[0]}; none: {shares[1]}"
    return paired(found, lambda ws, none: signals.mean_share(ws) / signals.mean_share(none))._replace(note=note)


def _share_part(name: str, network: str, studies: tuple[str, ...]) -> Part:
    return Part(
        name,
        _share_left,
        "squared mean / (squared mean + variance) of the pre-activations' channels, averaged over the layers from the "
        f"second on, of a {network} network, weight standardization / none",
        studies,
        kind="ratio",
        of="networks",
        high=1 - A_FIFTH,
    )


def _to_theory(group: Group) -> Measured:
    return paired({"nf": _of_networks(group, "nf")}, signals.variance_to_theory)


SIGNALS_STAY_LEVEL = Claim(
    id="36b",
    statement="At initialisation the variance of a normalizer-free residual network stays level, as theory says.",
    by=BROCK,
    where="Brock et al. 2021a, abstract",
    parts=(
        Part(
            "variance_nf_to_theory",
            _to_theory,
            "variance of the channels behind the last residual block of the first stage / that ahead of the first, in "
            "units of theory's, scalars of the branches at 1",
            ("signal_propagation",),
            kind="ratio",
            of="networks",
            low=A_FIFTH,
            high=1 / A_FIFTH,
        ),
        Part(
            "variance_none_per_block",
            lambda group: paired(
                {"none": _of_networks(group, "none")}, lambda run: signals.variance_per_block(run, _FIRST_BLOCKS)
            ),
            "without a norm (the control): variance behind a residual block / ahead of it, over the first three",
            ("signal_propagation",),
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
    ),
    margin="By a fifth, up or down. Theory is that of blocks that end with a ReLU, of infinite width: level within "
    "6 %, where without the ReLU it is 1 + k alpha^2 behind k blocks. Growth of the control: by a fifth a block. Seed "
    "100 was known when the regions were fixed: 1.10 of theory's, and 1.54 a block without.",
    fairness=(
        "Scalars at the ends of branches are set to 1. At 0, where they start, a block is the identity and the level "
        "holds by definition, whatever alpha and beta are.",
        "Inputs are drawn from N(0, 1): neighbouring pixels of images are alike, and a standardized filter takes off "
        "most of what they have in common.",
        "Zeros at the borders are not in the theory. Later stages are not either: shortcuts pad channels with zeros.",
        "Control: the same network without, with He weights; BN grows by a constant per block (18c).",
    ),
    figures=("signal-propagation",),
)

NO_MEAN_SHIFT = Claim(
    id="36c",
    statement="Scaled weight standardisation removes the mean shift that a network without BN has at initialisation.",
    by=BROCK,
    where="Brock et al. 2021a, abstract",
    parts=(
        _share_part("mean_share_residual", "residual", ("signal_propagation",)),
        _share_part("mean_share_plain", "plain", ("signal_propagation_plain",)),
    ),
    margin="Removed: less than a fifth is left of what there is without. Seed 100 of the residual network was known "
    "when the region was fixed: 0.04.",
    fairness=(
        "Rows of zero sum take off what all channels have in common. Where shortcuts pad with zero channels, as here "
        "at two places, old and new channels have different means, and that difference is handed on.",
        "At borders, where a kernel meets zeros, what is left of a row has no zero sum: on maps of 2 x 2 everywhere.",
        "Control: the same network with He weights, which has no other difference.",
    ),
    figures=("signal-propagation",),
)
