"""Claims on what each part of BN does: recentring and rescaling, the last layer, the norm of a linear classifier."""

import math

import numpy as np

from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.claims.texts import BY_A_FIFTH, CAO, DANESHMAND_2021, KARAKIDA, NACHUM
from icsbench.analysis.quantities.lab import LabRows
from icsbench.analysis.statistics import slope


def _deepest(rows: LabRows, variant: str) -> LabRows:
    """The row of a variant at the deepest layer of the widest network."""
    rows = rows.where(variant=variant, width=rows["width"].max())
    return rows.where(step=rows["step"].max())


def _nearness(value: float, fixed_point: float) -> float:
    """Where a cosine lies between what full BN keeps (0) and that of a single direction (1)."""
    return (value - fixed_point) / (1 - fixed_point)


def _gathering(variant: str, quantity: str) -> Part:
    """The part that a cosine of a variant lies nearer to 1 than to the fixed point of full BN."""

    def of_network(rows: LabRows) -> float:
        fixed_point = _deepest(rows, "both")["theory_cosine"].item()
        return _nearness(_deepest(rows, variant)[quantity].item(), fixed_point)

    words = {
        "rest_cosine": "mean cosine among the samples but the odd one",
        "cosine": "mean cosine of all pairs of samples",
    }
    low, high = (0.5, math.inf) if variant == "recentre" else (-math.inf, 0.5)
    name = {"recentre": "cluster", "rescale": "apart_by_rescaling"}[variant]
    what = f"{words[quantity]}, {variant} only, in the deepest layer: 0 where full BN keeps it by theory, 1 in a point"
    return Part(name, per_network(of_network), what, ("parts",), of="networks", low=low, high=high)


def _odd(rows: LabRows) -> float:
    return _deepest(rows, "recentre")["odd_cosine"].item()


def _kept(rows: LabRows) -> float:
    row = _deepest(rows, "both")
    return row["cosine"].item() / row["theory_cosine"].item()


RECENTRING_GATHERS = Claim(
    id="27",
    statement="Recentring alone gathers a batch in one cluster with one odd point; it is the rescaling per feature, "
    "added to it, that keeps samples apart.",
    by=NACHUM,
    where="N abstract (recentring and ReLU); the part on rescaling is what it implies for full BN",
    parts=(
        _gathering("recentre", "rest_cosine"),
        Part(
            "odd_point",
            per_network(_odd),
            "mean cosine of the odd point with the others, recentre only, in the deepest layer",
            ("parts",),
            of="networks",
            low=-0.2,
            high=0.2,
        ),
        Part(
            "kept_apart",
            per_network(_kept),
            "mean cosine of all pairs under full BN in the deepest layer / its fixed point by mean-field theory",
            ("parts",),
            "ratio",
            of="networks",
            low=0.8,
            high=1.25,
        ),
    ),
    margin="A cluster: nearer to a single direction (1) than to the fixed point that full BN keeps, .302 at batch 32. "
    "The paper says orthogonal: within a fifth of 0. Full BN: within a fifth of the fixed point. For batch 32 at width "
    "256 these cosines were known from a few networks (.929, .003 and .302 in layer 1,000).",
    fairness=(
        "At initialisation, with He weights and ReLU; nothing is trained.",
        "The odd point is the sample whose mean cosine with the others is lowest, in each layer anew: under full BN "
        "too some sample is the lowest (.27 against .31).",
        "Control: all variants have the same inputs and weights. Without any normalisation everything gathers in one "
        "direction, with no odd point: see the figure. That rescaling alone would do is claim 27b.",
        "Recentre only divides the whole batch by one number, which changes no cosine in a ReLU network.",
    ),
    figures=("parts",),
)

RESCALING_ALONE = Claim(
    id="27b",
    statement="Rescaling per feature alone keeps the samples of a ReLU network apart.",
    by=f"{DANESHMAND_2021} (for linear networks)",
    where="D21 Theorem 1",
    parts=(_gathering("rescale", "cosine"),),
    margin="Apart: nearer to the fixed point of full BN than to a single direction. Nothing was known "
    "when the region was set; theory, worked out since, has the cosine .514 at batch 32, which is nearness .30.",
    fairness=(
        "The paper's networks are linear, and its theorem is on orthogonality; here a bound half-way is enough.",
        "It is the control of claim 27: were it supported, rescaling would need no recentring.",
    ),
    figures=("parts",),
)


def _share_exponent(where: str) -> Part:
    """The exponent of the outlier's share with the width; theory has 0 with an outlier, -1/2 or less without."""

    def of_network(rows: LabRows) -> float:
        rows = rows.where(where=where)
        return slope(np.log(rows["width"]).tolist(), np.log(rows["share"]).tolist())

    gone = where in ("last", "last_mean")
    words = {
        "last": "BN in the last layer",
        "middle": "BN in the middle layers",
        "last_mean": "only the mean subtracted in the last layer",
        "last_scale": "only the division by the root mean square in the last layer",
    }
    what = f"exponent with which the largest eigenvalue's share of the trace changes with the width, {words[where]}"
    low, high = (-math.inf, -0.25) if gone else (-0.25, math.inf)
    return Part(f"exponent_{where}", per_network(of_network), what, ("fisher",), of="networks", low=low, high=high)


def _smaller(rows: LabRows) -> float:
    rows = rows.where(width=rows["width"].max())
    return rows.where(where="last")["largest"].item() / rows.where(where="none")["largest"].item()


_EXPONENTS = (
    "By theory the trace grows as the width M; an outlier grows as M too (share constant, exponent 0), without one the "
    "largest eigenvalue grows as sqrt(M) at most (exponent -1/2 or less): the bound lies half-way. "
)
_INPUTS = (
    "The inputs are independent Gaussian and as many as the width, as in the theory. With few of them (10 to 30 at any "
    "width) the share without BN is larger, .36, and with BN in the last layer it falls more slowly; nor can "
    "it ever fall below 1/64, that of 64 equal eigenvalues."
)

LAST_LAYER_REMOVES_THE_OUTLIER = Claim(
    id="28",
    statement="BN in the last layer removes the outlier eigenvalue of the Fisher information; in the middle layers it "
    "does not.",
    by=KARAKIDA,
    where="K abstract",
    parts=(
        _share_exponent("last"),
        _share_exponent("middle"),
        Part(
            "smaller",
            per_network(_smaller),
            "largest eigenvalue with BN in the last layer / without BN, at the largest width",
            ("fisher",),
            "ratio",
            of="networks",
            high=0.8,
        ),
    ),
    margin=f"{_EXPONENTS}For the ratio: {BY_A_FIFTH} From one network of each width it was known that the share falls "
    "from .07 to .036 with BN in the last layer and stays at .10 with BN in the middle ones (width 64 to 256).",
    fairness=(
        "At initialisation; the Fisher information of a regression with one output, on 64 samples.",
        _INPUTS,
        "BN in the middle layers does make the outlier smaller at every width; it does not make its share fall.",
        "Control: only the mean subtracted in the last layer. It is claim 28b.",
    ),
    figures=("fisher",),
)

THE_MEAN_REMOVES_THE_OUTLIER = Claim(
    id="28b",
    statement="In the last layer it is the subtraction of the mean that removes the outlier, not the rescaling.",
    by=KARAKIDA,
    where="K, mean subtraction in the last layer",
    parts=(_share_exponent("last_mean"), _share_exponent("last_scale")),
    margin=f"{_EXPONENTS}From one network of each width it was known that the share falls from .07 to .035 where only "
    "the mean is subtracted. Nothing was known of rescaling alone.",
    fairness=("It is the control of claim 28: what BN does there needs no division.", _INPUTS),
    figures=("fisher",),
)

_AT = 1000  # the step by which margins are to be equal


def _min_over_max(variant: str, at: int | None = None) -> Part:
    """The part on the smallest margin over the largest, at a step or at the end."""

    def of_problem(rows: LabRows) -> float:
        rows = rows.where(variant=variant)
        step = rows["step"].max() if at is None else at
        return rows.where(step=step)["min_over_max"].item()

    words = {"bn": "with BN", "none": "without BN", "weight_norm": "with the weights' own norm in place of BN"}
    when = "at the last step" if at is None else f"after {at:,} steps"
    low, high = (0.99, math.inf) if variant == "bn" else (-math.inf, 0.8)
    what = f"smallest margin of a sample / largest, {words[variant]}, {when}"
    return Part(f"margins_{variant}", per_network(of_problem), what, ("margin",), of="networks", low=low, high=high)


EQUAL_MARGINS = Claim(
    id="29",
    statement="Gradient descent on a linear classifier with BN ends with equal margins for all samples, without BN it "
    "does not.",
    by=CAO,
    where="C abstract",
    parts=(_min_over_max("bn", _AT), _min_over_max("none"), _min_over_max("weight_norm")),
    margin="Equal: to a hundredth. Unequal: by a fifth. For one problem 1.000000 was known with BN after 1,000 steps, "
    "and .546 without BN after 100,000.",
    fairness=(
        "n counts random classification problems. BN is without centring, as in the paper, and its factor is trained.",
        "More inputs than samples: a vector of weights with equal margins exists. So does the one of largest margin, "
        "to which gradient descent without BN comes near as slowly as 1 / log t.",
        "Control: weight normalization, which has the same factor and the same freedom of length but no data in its "
        "norm.",
    ),
    figures=("margin",),
)
