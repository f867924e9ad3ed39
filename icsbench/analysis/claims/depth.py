"""Claims on gradients in plain networks with BN: at initialisation, and after the first step."""

import math
from functools import partial
from typing import Any

from icsbench.analysis.claims.contract import Claim, Measure, Part
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.claims.texts import A_FIFTH, IOFFE, YANG
from icsbench.analysis.quantities.lab import LabRows

_DEPTH, _LR = 50, 0.1
"""Of the networks whose first step is judged."""


def _value(rows: LabRows, key: str, **equal: Any) -> float:
    """What a network has at a key in its one row with these values; NaN where it has none, as it diverged."""
    values = rows.where(**equal)[key]
    return float(values[0]) if len(values) else math.nan


def _over_theory(activation: str, batch: int) -> Part:
    """The measured factor per layer of the squared gradient over lambda of theory, for each network with BN."""
    return _rate_part(
        f"{activation}_bn_{batch}",
        f"growth of the squared gradient per layer over lambda({batch}), {activation}",
        below=IOFFE,
        **{"activation": activation, "norm": "bn", "batch": batch},
    )


def _without_bn(activation: str, kept: str) -> Part:
    """The same without BN, over the 1 of theory; a network has one row, as the batch plays no part."""
    return _rate_part(
        f"{activation}_none_{kept}",
        f"growth of the squared gradient per layer without BN, {activation}, {kept} kept",
        **{"activation": activation, "norm": f"none-{kept}"},
    )


def _rate_part(name: str, what: str, below: str = "", **setting: Any) -> Part:
    return Part(
        name=name,
        measure=per_network(lambda rows: _value(rows, "rate", **setting) / _value(rows, "theory_rate", **setting)),
        what=what,
        studies=("explosion",),
        kind="ratio",
        of="networks",
        low=0.97,
        high=1.03,
        below=below,
    )


def _after_over_before(key: str, norm: str) -> Measure:
    """A key of a network's rows, after one step over before."""
    setting = {"depth": _DEPTH, "lr": _LR, "norm": norm}
    return per_network(lambda rows: _value(rows, key, step=1, **setting) / _value(rows, key, step=0, **setting))


_step_part = partial(Part, studies=("first_steps",), kind="ratio", of="networks")
_GROWTH_OF_WEIGHTS = "second layer over last: squared norm of the weights, after one step over before"

GRADIENTS_EXPLODE = Claim(
    id="16",
    statement="At initialisation BN makes gradients explode with depth, at the rate that mean-field theory gives.",
    by=YANG,
    where="Y section 4, Table 1",
    disputed_by=IOFFE,
    parts=(
        *(_over_theory("relu", batch) for batch in (8, 32, 128)),
        *(_over_theory(activation, batch) for activation in ("tanh", "gelu") for batch in (8, 128)),
        _without_bn("relu", "signals"),
        _without_bn("tanh", "gradients"),
    ),
    margin="3 %: networks of width 1,000 were within 0.5 % of lambda before (relu and linear, 4 networks), and the "
    "error of a finite width grows with the batch over the width. The factor without BN, which theory has at 1, is "
    "held to the same.",
    fairness=(
        "Control: the same weights without BN, scaled so that gradients keep their size, do not explode (the last two "
        "parts). BN leaves no such scale to choose: its rate is that of unit variance before every activation.",
        "Without BN, tanh, erf, gelu and silu explode as well where weights keep the size of the signals: by E phi'^2 "
        "/ E phi^2, 1.178 for tanh, which is its lambda for large batches. What BN adds to that is the part of small "
        "batches, and for relu the removal of the mean.",
        "lambda is the rate at the fixed point where all samples are alike. For gelu that is unstable from a batch of "
        "64 on (lambda_L is 1.04 at 128), for silu from 32 on: networks leave it layer by layer, and the rate goes "
        "above lambda. A development run at another seed showed it after the region was set: by 8 % for silu at 128.",
        "Mean-field theory is of infinite width and the mean squared gradient; measured is the mean of its logarithm.",
        "At the start of training only: 16b is about what comes of it.",
    ),
    figures=("explosion", "gradient-profile"),
)

EXPLOSION_IS_OVER_AFTER_A_STEP = Claim(
    id="16b",
    statement="After a single step of training the gradients of a deep BN network have a dramatically smaller dynamic "
    "range, because weights have grown exponentially with depth.",
    by=YANG,
    where="Y abstract and section 5, Fig. 3",
    parts=(
        _step_part(
            "range_after_over_before",
            _after_over_before("gradient_range", "bn"),
            "range of the log squared gradient over layers, after one step over before",
            high=0.5,
        ),
        _step_part("growth_of_weights", _after_over_before("weight_growth", "bn"), _GROWTH_OF_WEIGHTS, low=1 / A_FIFTH),
        _step_part(
            "growth_of_weights_without_bn",
            _after_over_before("weight_growth", "none"),
            f"{_GROWTH_OF_WEIGHTS}, without BN",
            low=A_FIFTH,
            high=1 / A_FIFTH,
        ),
    ),
    margin="Half of the range in logarithms is the least that could be called dramatic: 50 layers of relu span about "
    "e^19 before. A fifth counts as growth of weights, and less than that as none. Known before: at the learning rate "
    "of the paper's Fig. 2 (0.00128 here) one network of depth 50 kept 90 % of its range after a step.",
    fairness=(
        "The paper does not tell the learning rate of its Fig. 3, and the step is proportional to it. The verdict is "
        "at 0.1, the one that the studies with BN share, and at depth 50, the deepest that the paper could train; the "
        "figure has other rates and depths.",
        "Control: without BN, where gradients do not explode, the same step leaves the weights as they were.",
        "BN has no parameters here; the digits are those of scikit-learn, where the paper has MNIST.",
    ),
    figures=("first-steps",),
)


def _near_one(rows: LabRows, norm: str, weights: str, place: str) -> float:
    """Of a ReLU layer at the fixed point, over a batch of 16: the share in [0.9, 1.1] of what is not dead."""
    found = rows.where(norm=norm, activation="relu", weights=weights, batch=16, place=place, inputs="fixed_point")
    return float((found["near"] / (1 - found["dead"])).mean())


def _against_none(rows: LabRows) -> float:
    return _near_one(rows, "bn", "gaussian", "signals") / _near_one(rows, "none", "gaussian", "signals")


_NEAR = "share between 0.9 and 1.1 of the singular values that are not 0"


def _most(name: str, weights: str, place: str, what: str) -> Part:
    measure = per_network(lambda rows: _near_one(rows, "bn", weights, place))
    return Part(name, measure, f"{_NEAR}, {what}", ("jacobians",), of="networks", low=0.5, below=YANG)


JACOBIANS_NEAR_ISOMETRY = Claim(
    id="17",
    statement="BN leads layer Jacobians to singular values close to 1.",
    by=f"{IOFFE} (a conjecture)",
    where="I&S section 3.3",
    disputed_by=YANG,
    parts=(
        _most("jacobian_near_one", "gaussian", "signals", "h -> W relu(BN(h)), Gaussian W"),
        _most("jacobian_near_one_normalized", "gaussian", "normalized", "x -> BN(W relu(x)) as in I&S, Gaussian W"),
        _most("jacobian_near_one_orthogonal", "orthogonal", "signals", "h -> W relu(BN(h)), orthogonal W"),
        Part(
            "jacobian_near_one_bn_over_none",
            per_network(_against_none),
            f"{_NEAR}, with BN over without, Gaussian W",
            ("jacobians",),
            "ratio",
            of="networks",
            low=1 / A_FIFTH,
            below=YANG,
        ),
    ),
    margin="The paper names no number. More than half of the singular values within a tenth of 1 is the least that "
    "'close to 1' can mean, and that BN leads there, a quarter more of them than without BN. Those that are 0 do "
    "not count, since ReLU alone makes half of them 0. Known before the region was fixed: the share with BN is "
    "about a tenth or less in a few networks of width 64 (of other seeds).",
    fairness=(
        "At initialisation, of fully connected layers with ReLU at a batch of 16: of trained networks it says nothing. "
        "The statistics of BN are differentiated, as in training, so 2 of 16 directions are exactly dead.",
        "Gaussian weights spread the singular values with and without BN. Orthogonal ones do not, and what spread is "
        "left is that of BN and ReLU. Without BN they leave a linear layer at exactly 1, and BN can only spread it, "
        "the less the larger the batch: with 16 samples 41 % of what is not dead stays within a tenth, by theory.",
        "The conjecture assumes a linear layer and Gaussian vectors that are uncorrelated. Linear layers, other "
        "inputs, a window from 0.5 to 2, and one around the median in the place of 1 are in the records.",
        "Without BN what is close to 1 depends on the scale of the weights, which keep the length of a signal here.",
    ),
    figures=("jacobians",),
)
