"""Claims on residual networks at initialisation: their two variances, and how alike gradients of two inputs stay."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.networks import NETWORK, per_network
from icsbench.analysis.claims.texts import A_FIFTH, BALDUZZI, DE_SMITH
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.growth import Growth, growth
from icsbench.analysis.quantities.lab import LabRows, lab_rows
from icsbench.analysis.statistics import positive_ratio

SETTLED = 10
"""The first block of a fit: before it the variance of the input itself counts."""
CLEAR = 10.0
"""A difference of AIC that decides."""
AIC_CLEAR = "A difference of 10 in AIC leaves the worse of two models essentially no support (Burnham & Anderson 2002)."
WALK = "Residuals of one network are no independent draws, so that AIC is a score, not a likelihood."
EXPONENT = math.pi / (math.pi - 1)
"""Of the squared gradient of a residual network with BN in the depth, by theory."""
LOG_GRADIENT = "log_gradient"
"""The column that is a logarithm itself."""
_SHATTERED = ("shattered",)
_RESIDUAL = ("residual",)


def growth_of(rows: LabRows, kind: str, column: str) -> Growth:
    """Both models of growth with the block, from the tenth on, for a column of a kind of network.

    :raises NotMeasured: the study has fewer than four such blocks of the kind.
    """
    kept = _settled(rows, kind)
    return growth(kept["step"], kept[column] if column == LOG_GRADIENT else np.log(kept[column]))


def _settled(rows: LabRows, kind: str) -> LabRows:
    of_kind = rows.where(kind=kind)
    kept = of_kind["step"] >= SETTLED
    return LabRows(rows.run, {name: column[kept] for name, column in of_kind.columns.items()})


def _grown(rows: LabRows) -> float:
    """How much the second moment of a residual network with BN grows per block."""
    kept = _settled(rows, "residual_bn")
    return float(np.polyfit(kept["step"], kept["second_moment"], 1)[0])


@dataclass(frozen=True, eq=False)
class _Curves:
    """Correlations at m depths, (m,), and by condition those of each of n networks, (n, m)."""

    depths: np.ndarray
    correlations: dict[str, np.ndarray]

    def without(self, network: int) -> "_Curves":
        """All networks but one."""
        return _Curves(self.depths, {one: np.delete(of, network, 0) for one, of in self.correlations.items()})

    def growth(self, condition: str, first: int, last: int) -> Growth:
        """Both models for the mean over networks, from one depth to another."""
        kept = (first <= self.depths) & (self.depths <= last)
        with np.errstate(invalid="ignore", divide="ignore"):
            return growth(self.depths[kept], np.log(self.correlations[condition].mean(0)[kept]))

    def log_ratio(self, one: str, other: str, depth: int) -> float:
        """Of the means over networks at a depth.

        :raises NotMeasured: the study lacks the depth.
        """
        if depth not in self.depths:
            raise NotMeasured(f"no row of depth {depth}")
        means = [float(self.correlations[name].mean(0)[self.depths == depth][0]) for name in (one, other)]
        return math.log(positive_ratio(*means))


def _curves(group: Group) -> _Curves:
    """The curves of the networks of all runs.

    :raises NotMeasured: the study has several settings, or a column is missing.
    """
    if len(group.conditions) > 1:
        raise NotMeasured(f"{group.name} has {len(group.conditions)} settings, which must not be pooled")
    runs = lab_rows(group)
    depths = np.unique(runs[0]["step"])
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        for condition, rows in run.by("condition").items():
            order = np.lexsort((rows["step"], rows[NETWORK]))
            found.setdefault(condition, []).append(rows["correlation"][order].reshape(-1, len(depths)))
    return _Curves(depths, {condition: np.concatenate(parts) for condition, parts in found.items()})


def _jackknife(value: Callable[[_Curves], float], *, ratio: bool = False) -> Measure:
    """A number per network whose mean is ``value`` of all n networks together, for what means over networks give.

    The pseudo-values  ``n value(all) - (n - 1) value(all but this one)``  (Tukey 1958): a t-interval of them is the
    jackknife interval of ``value``. ``ratio``: the value is a logarithm, and the numbers are ratios.
    """

    def measure(group: Group) -> Measured:
        curves = _curves(group)
        n = min(len(of) for of in curves.correlations.values())
        whole = value(curves)
        found = {network: n * whole - (n - 1) * value(curves.without(network)) for network in range(n)}
        return Measured(
            {one: math.exp(number) if ratio else number for one, number in found.items() if math.isfinite(number)},
            {one: "a mean correlation is not positive" for one, number in found.items() if not math.isfinite(number)},
        )

    return measure


BRANCH_SHRINKS = Claim(
    id="18b",
    statement="At initialisation BN scales the residual branch down, relative to the skip, by the square root of the "
    "depth.",
    by=DE_SMITH,
    where="D&S abstract",
    parts=(
        Part(
            "with_bn",
            per_network(lambda rows: growth_of(rows, "residual_bn", "branch_ratio").polynomial.slope),
            "with BN: exponent of variance of branch / variance of skip in the depth",
            _RESIDUAL,
            of="networks",
            low=-1 / A_FIFTH,
            high=-A_FIFTH,
        ),
        Part(
            "without_bn",
            per_network(lambda rows: growth_of(rows, "residual", "branch_ratio").polynomial.slope),
            "without a norm (the control): the same exponent",
            _RESIDUAL,
            of="networks",
            low=A_FIFTH - 1,
            high=1 - A_FIFTH,
        ),
    ),
    margin="The square root of a length is the depth itself of a variance: the exponent is -1, by a fifth; 0 without "
    "BN, by as much. That the product gives -0.97 and 0.07 over these blocks was known when the regions were fixed.",
    fairness=(
        "The variance is that over the batch, by which BN divides; by second moments it is 1 / l for block l.",
        "The control has the same weights and skips, and no BN: its branches keep their share.",
    ),
    figures=("residual_variance",),
)

VARIANCE_DOUBLES = Claim(
    id="18c",
    statement="At initialisation the variance of a residual network doubles in every block without normalization, and "
    "grows by one in every block with BN.",
    by=DE_SMITH,
    where="D&S section 3",
    parts=(
        Part(
            "factor_without",
            per_network(lambda rows: math.exp(growth_of(rows, "residual", "second_moment").exponential.slope)),
            "without a norm: second moment / that of the block before",
            _RESIDUAL,
            kind="ratio",
            of="networks",
            low=2 * A_FIFTH,
            high=2 / A_FIFTH,
        ),
        Part(
            "gradient_factor_without",
            per_network(lambda rows: math.exp(-growth_of(rows, "residual", LOG_GRADIENT).exponential.slope)),
            "without a norm: squared gradient / that of the block after",
            _RESIDUAL,
            kind="ratio",
            of="networks",
            low=2 * A_FIFTH,
            high=2 / A_FIFTH,
        ),
        Part(
            "step_with_bn",
            per_network(_grown),
            "with BN: second moment - that of the block before",
            _RESIDUAL,
            of="networks",
            low=A_FIFTH,
            high=1 / A_FIFTH,
        ),
        Part(
            "linear_with_bn",
            per_network(lambda rows: growth_of(rows, "residual_bn", "second_moment").for_polynomial),
            "with BN: AIC of exponential growth - AIC of polynomial growth of the second moment",
            _RESIDUAL,
            of="networks",
            low=CLEAR,
        ),
    ),
    margin=f"Two and one, by a fifth. {AIC_CLEAR} That a few networks gave 2.02 and 1.003 was known.",
    fairness=(
        "Variance is the second moment over inputs and units, whose mean over weights is 0, as in the paper. The "
        "variance over the batch is another one: with BN it grows by 1 - 1/pi = 0.68 per block.",
        "Without BN, SkipInit, Fixup and a branch scaled by 1 / sqrt(depth) keep the second moment below e at any "
        "depth. Dividing the sum by sqrt(2) keeps it too, but samples become alike.",
        "The gradient's factor is not in the paper; it is the control of claim 18: skips alone do not tame gradients. "
        + WALK,
    ),
    figures=("residual_variance", "residual_gradients"),
)


def _for_exponential(condition: str, last: int) -> Measure:
    return _jackknife(lambda curves: -curves.growth(condition, 1, last).for_polynomial)


GRADIENTS_SHATTER = Claim(
    id="34",
    statement="In plain networks the correlation of gradients between inputs falls exponentially with depth; with skip "
    "connections it falls much more slowly.",
    by=BALDUZZI,
    where="B abstract",
    parts=(
        Part(
            "plain_exponential",
            _for_exponential("plain", 20),
            "plain, no BN, to depth 20: AIC of polynomial decay - AIC of exponential decay",
            _SHATTERED,
            of="networks",
            low=CLEAR,
        ),
        Part(
            "plain_bn_exponential",
            _for_exponential("plain_bn_held", 8),
            "plain, BN, to depth 8: AIC of polynomial decay - AIC of exponential decay",
            _SHATTERED,
            of="networks",
            low=CLEAR,
        ),
        Part(
            "skip_over_plain",
            _jackknife(lambda curves: curves.log_ratio("residual", "plain", 20), ratio=True),
            "no BN, depth 20: correlation with skips / without",
            _SHATTERED,
            of="networks",
            kind="ratio",
            low=1 / A_FIFTH,
        ),
        Part(
            "skip_over_plain_bn",
            _jackknife(lambda curves: curves.log_ratio("residual_bn_held", "plain_bn_held", 8), ratio=True),
            "BN, depth 8: correlation with skips / without",
            _SHATTERED,
            of="networks",
            kind="ratio",
            low=1 / A_FIFTH,
        ),
    ),
    margin=f"{AIC_CLEAR} More slowly: by a fifth. Known when the regions were fixed: theory for infinite width, by "
    "which the plain network without BN tends to L^-3, and neither model is clearly better to depth 20 (-3).",
    fairness=(
        "Independent Gaussian inputs, one common gradient at the output, uncentred correlation, BN's statistics held "
        "constant in the backward pass. Where they are differentiated, the mean correlation is -1 / (B - 1) behind any "
        "BN without skips, at depth 1 as at depth 80: nothing about depth. The curve with skips is in the figure.",
        "Depths end where the correlation is no longer clear of its noise. The curve is the mean over all networks, as "
        "one network's correlation is often not positive; what a network has is its pseudo-value of the jackknife.",
        "Networks of finite width keep more correlation than theory says (at width 256 and depth 20 about twice as "
        "much), which favours the polynomial.",
        "Control: BN without skips shatters faster than no BN; the looks-linear start keeps 1 at any depth, with "
        "neither.",
    ),
    figures=("shattered",),
)

ROOT_OF_THE_DEPTH = Claim(
    id="34b",
    statement="In residual networks with BN the correlation of gradients between inputs falls as one over the square "
    "root of the depth.",
    by=BALDUZZI,
    where="B (the rate as recalled; the abstract says sublinearly)",
    parts=(
        Part(
            "polynomial",
            _jackknife(lambda curves: curves.growth("residual_bn_held", 1, 80).for_polynomial),
            "AIC of exponential decay - AIC of polynomial decay",
            _SHATTERED,
            of="networks",
            low=CLEAR,
        ),
        Part(
            "exponent",
            _jackknife(lambda curves: curves.growth("residual_bn_held", 20, 80).polynomial.slope),
            "exponent of the correlation in the depth, from 20 to 80",
            _SHATTERED,
            of="networks",
            low=-0.5 / A_FIFTH,
            high=-0.5 * A_FIFTH,
        ),
    ),
    margin=f"One half, by a fifth. {AIC_CLEAR} Known when the regions were fixed: the product of theory falls as "
    "L^-0.69 over these depths and as L^-0.73 in the end, because BN divides by the variance over the batch, which "
    "grows by 0.68 per block and not by 1; 1/2 comes of 1.",
    fairness=(
        "As in 34: statistics held constant, one common gradient at the output, uncentred.",
        "The paper's text was not at hand.",
    ),
    figures=("shattered",),
)
