"""Claims on how many directions the signals of a batch take at initialisation, and on training from there."""

from typing import Any

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measure, Part
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.claims.texts import A_FIFTH, DANESHMAND_2020, DANESHMAND_2021, METEREZ, YANG
from icsbench.analysis.quantities.lab import LabRows
from icsbench.analysis.statistics import positive_ratio, slope
from icsbench.record.schema import STEP

_LINEAR = {"layers": "plain", "activation": "linear", "weights": "gaussian"}
_RANDOM = ("rank",)
_TRAINED = ("orthogonal_start",)
_KNOWN = "The reference values of this project's sheets, of other random networks, were known beforehand."


def _at(rows: LabRows, key: str, *, last: bool = True) -> float:
    """The value at the last depth, or at the first."""
    depth = rows[STEP]
    return float(rows[key][depth.argmax() if last else depth.argmin()]) if len(depth) else np.nan


def _late_mean(rows: LabRows, key: str) -> float:
    """The mean over the depths measured in the second half of the layers."""
    return float(rows[key][rows[STEP] >= rows[STEP].max() / 2].mean())


def _widest(rows: LabRows) -> LabRows:
    return rows.where(width=rows["width"].max()) if len(rows["width"]) else rows


def _slope_on_width(part: str, key: str, **system: Any) -> Measure:
    """The slope of the logarithm of the late mean of ``key`` on that of the width."""

    def of_network(rows: LabRows) -> float:
        by_width = rows.where(part=part, **system).by("width")
        return slope(np.log([*by_width]).tolist(), [float(np.log(_late_mean(one, key))) for one in by_width.values()])

    return per_network(of_network)


def _rank_without_bn(rows: LabRows) -> float:
    return _at(_widest(rows.where(part="rank", norm="none", **_LINEAR)), "soft_rank")


def _relu_rank_ratio(rows: LabRows) -> float:
    relu = _widest(rows.where(part="rank", activation="relu"))
    return positive_ratio(_at(relu.where(norm="bn"), "soft_rank"), _at(relu.where(norm="none"), "soft_rank"))


def _gap_over_start(norm: str) -> Measure:
    def of_network(rows: LabRows) -> float:
        widest = _widest(rows.where(part="orthogonality", norm=norm, **_LINEAR))
        return positive_ratio(_at(widest, "orthogonality_gap"), _at(widest, "orthogonality_gap", last=False))

    return per_network(of_network)


def _isometry_ratio(rows: LabRows) -> float:
    square = rows.where(part="isometry", weights="orthogonal", start="gaussian")
    return positive_ratio(*(_at(square.where(norm=norm), "isometry_gap") for norm in ("rescale", "none")))


def _gradient_ratio(rows: LabRows) -> float:
    found = rows.where(part="gradient", weights="orthogonal", norm="rescale")
    return float(np.exp(_at(found, "log_gradient") - _at(found, "log_gradient", last=False)))


def _best(rows: LabRows, start: str, key: str) -> float:
    """Of the deepest network of a start, the value at the learning rate with the smallest loss."""
    deepest = rows.where(step=rows[STEP].max(), start=start)
    return float(deepest[key][deepest["loss"].argmin()])


def _points_over(other: str) -> Measure:
    return per_network(lambda rows: 100 * (_best(rows, "orthogonal", "accuracy") - _best(rows, other, "accuracy")))


def _loss_over_glorot(rows: LabRows) -> float:
    return positive_ratio(_best(rows, "orthogonal", "loss"), _best(rows, "glorot", "loss"))


RANK_GROWS_AS_ROOT = Claim(
    id="24",
    statement="Without BN the rank of representations collapses with depth; with BN it grows as the square root of the "
    "width.",
    by=DANESHMAND_2020,
    where="D20 Theorem 2",
    parts=(
        Part(
            "rank_on_width",
            _slope_on_width("rank", "soft_rank", norm="rescale", **_LINEAR),
            "slope of the logarithm of the soft rank on that of the width, in linear networks with BN: mean over the "
            "second half of the layers, batch = width",
            _RANDOM,
            of="networks",
            low=0.4,
            high=0.6,
        ),
        Part(
            "rank_without_bn",
            per_network(_rank_without_bn),
            "soft rank in the last layer of the widest linear network without BN (1 is the least)",
            _RANDOM,
            kind="ratio",
            of="networks",
            high=1 / A_FIFTH,
        ),
        Part(
            "relu_rank_ratio",
            per_network(_relu_rank_ratio),
            "soft rank in the last layer of the widest ReLU network, with BN / without",
            _RANDOM,
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
    ),
    margin=f"The exponent 1/2 and the rank 1, give or take a fifth; the level, which the theorem bounds only up to a "
    f"constant, is not judged. {_KNOWN}",
    fairness=(
        "The theorem is on linear skip layers, on the mean over depth, and on BN without centring; ReLU is the paper's "
        "experiment, and no exponent is claimed of it.",
        "Control: with weights that are all positive the rank collapses with BN too, centred or not (rank, in the "
        "figure): it takes BN and weights of mean 0.",
    ),
    figures=("rank",),
)

BN_ORTHOGONALIZES = Claim(
    id="25",
    statement="BN makes representations orthogonal with depth, up to a term inverse to the square root of the width.",
    by=DANESHMAND_2021,
    where="D21 Theorem 1, Fig. 2",
    parts=(
        Part(
            "gap_on_width",
            _slope_on_width("orthogonality", "orthogonality_gap", norm="rescale", **_LINEAR),
            "slope of the logarithm of the orthogonality gap on that of the width, in linear networks with BN: mean "
            "over the second half of the layers, a batch much smaller than the width",
            _RANDOM,
            of="networks",
            low=-0.6,
            high=-0.4,
        ),
        Part(
            "gap_over_start",
            _gap_over_start("rescale"),
            "orthogonality gap of the last layer / that of nearly equal inputs, in the widest linear network with BN",
            _RANDOM,
            kind="ratio",
            of="networks",
            high=A_FIFTH,
        ),
        Part(
            "gap_over_start_without_bn",
            _gap_over_start("none"),
            "the same without BN",
            _RANDOM,
            kind="ratio",
            of="networks",
            low=A_FIFTH,
        ),
    ),
    margin=f"The exponent -1/2 give or take a fifth; a fall by a fifth counts. {_KNOWN}",
    fairness=(
        "Linear networks, Gaussian weights, BN without centring, batch well below the width, as in the theorem. With "
        "batch = width the smallest directions are lost all the same: see 26.",
        "A centred batch of n cannot have a gap below sqrt(1/(n - 1) - 1/n); with ReLU the gap settles at a level that "
        "the width does not lower (figure).",
    ),
    figures=("rank",),
)

ORTHOGONAL_START_SUFFICES = Claim(
    id="25b",
    statement="A start from orthogonal representations trains deep networks without BN as well as BN does.",
    by=DANESHMAND_2021,
    where="D21 section 5, Fig. 4",
    parts=(
        Part(
            "loss_over_glorot",
            per_network(_loss_over_glorot),
            "training loss at the end in the deepest network without BN, orthogonal start / Glorot's",
            _TRAINED,
            kind="ratio",
            of="networks",
            high=A_FIFTH,
        ),
        Part(
            "accuracy_minus_bn",
            _points_over("bn"),
            "training accuracy at the end in the deepest network, orthogonal start without BN minus BN",
            _TRAINED,
            unit="points",
            of="networks",
            low=-2,
        ),
        Part(
            "accuracy_minus_scaled",
            _points_over("scaled"),
            "training accuracy at the end in the deepest network without BN, orthogonal start minus a start that is "
            "scaled like it and not orthogonal",
            _TRAINED,
            unit="points",
            of="networks",
            low=2,
        ),
    ),
    margin="A fifth of the loss; as well as: at most two points less; orthogonality counts beyond scale where it is "
    "worth two points. Beforehand, two networks of another seed had been trained at depths 15, 45 and 75.",
    fairness=(
        "The paper compares with Glorot's start only, whose signals halve in each layer: the scaled start is the "
        "control for that. It names BN as what is not needed, and trains no network with it.",
        "Each network counts at the learning rate with its smallest loss, of those of the study. Training accuracy is "
        "over all training images, with BN's statistics of these.",
        "The networks are far narrower for their depth than the paper's (800 units), and learn digits, not CIFAR-10.",
    ),
    figures=("orthogonal_start",),
)

ISOMETRY_WITH_ORTHOGONAL_WEIGHTS = Claim(
    id="26",
    statement="With orthogonal weights BN brings the isometry gap to zero with depth and keeps gradients bounded.",
    by=METEREZ,
    where="M Theorems 1 and 5",
    disputed_by=YANG,
    parts=(
        Part(
            "gap_over_without_bn",
            per_network(_isometry_ratio),
            "isometry gap of the last layer of linear networks with orthogonal weights, batch = width: with BN / "
            "without",
            _RANDOM,
            kind="ratio",
            of="networks",
            high=0.05,
        ),
        Part(
            "gradient_over_depth",
            per_network(_gradient_ratio),
            "gradient norm of the first layer's weights with BN and orthogonal weights, deepest network / shallowest",
            _RANDOM,
            kind="ratio",
            of="networks",
            low=A_FIFTH,
            high=1 / A_FIFTH,
            above=YANG,
        ),
    ),
    margin=f"A gap of a twentieth is called zero; a gradient within a fifth is called bounded. {_KNOWN}",
    fairness=(
        "Linear networks, BN without centring, batch = width. Without BN orthogonal weights keep the gap where it is, "
        "and the gradient as bounded: the gap is BN's doing, the gradient that of the weights.",
        "Control: with Gaussian weights BN does not lower the gap, which grows by about 1 per layer until directions "
        "are lost to rounding. So 'BN orthogonalizes' does not hold whatever the weights.",
    ),
    figures=("rank",),
)
