"""Claims on residual networks at initialisation: growth of gradients and variances, and how alike gradients stay."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.networks import networks_of, per_network
from icsbench.analysis.claims.texts import A_FIFTH, BALDUZZI, DE_SMITH, YANG
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.growth import Growth, growth
from icsbench.analysis.quantities.lab import LabRows
from icsbench.analysis.statistics import positive_ratio

SETTLED = 10
"""The first block of a fit: before it the variance of the input itself counts."""
_CLEAR = 10.0
"""A difference of AIC that decides."""
_AIC_CLEAR = (
    "A difference of 10 in AIC leaves the worse of two models essentially no support (Burnham & Anderson 2002)."
)
_WALK = "Residuals of one network are no independent draws, so that AIC is a score, not a likelihood."
EXPONENT = math.pi / (math.pi - 1)
"""Of a residual network with BN: its squared gradient grows as the depth to this power, by theory."""
_LOG_GRADIENT = "log_gradient"
"""The column that is a logarithm itself."""
_of_blocks = partial(Part, studies=("residual",), of="networks")
_of_correlations = partial(Part, studies=("shattered",), of="networks")


def _growth_of(rows: LabRows, kind: str, column: str) -> Growth:
    """Both models of growth with the block, from the tenth on, for a column of a kind of network.

    :raises NotMeasured: the study has fewer than four such blocks of the kind.
    """
    kept = _settled(rows, kind)
    return growth(kept["step"], kept[column] if column == _LOG_GRADIENT else np.log(kept[column]))


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
    networks = networks_of(group)
    depths = np.unique(networks[0]["step"])
    found: dict[str, list[np.ndarray]] = {}
    for network in networks:
        for condition, rows in network.by("condition").items():
            found.setdefault(condition, []).append(rows["correlation"][rows["step"].argsort()])
    return _Curves(depths, {condition: np.stack(curves) for condition, curves in found.items()})


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


SKIPS_TAME_THE_GROWTH = Claim(
    id="18",
    statement="In networks with BN, skip connections turn the exponential growth of gradients into a polynomial one.",
    by=f"{DE_SMITH}; {YANG}",
    where="D&S section 3 (residual networks); Y section 4 (plain networks)",
    parts=(
        _of_blocks(
            "residual_polynomial",
            per_network(lambda rows: _growth_of(rows, "residual_bn", _LOG_GRADIENT).for_polynomial),
            "with skips: AIC of exponential growth - AIC of polynomial growth",
            low=_CLEAR,
        ),
        _of_blocks(
            "residual_exponent",
            per_network(lambda rows: -_growth_of(rows, "residual_bn", _LOG_GRADIENT).polynomial.slope),
            "with skips: exponent of the squared gradient in the depth",
            low=A_FIFTH * EXPONENT,
            high=EXPONENT / A_FIFTH,
        ),
        _of_blocks(
            "plain_exponential",
            per_network(lambda rows: -_growth_of(rows, "plain_bn", _LOG_GRADIENT).for_polynomial),
            "without skips: AIC of polynomial growth - AIC of exponential growth",
            low=_CLEAR,
        ),
    ),
    margin=f"{_AIC_CLEAR} The exponent is that of theory, pi / (pi - 1) = 1.467, by a fifth; that its product gives "
    "1.43 over these blocks was known when the region was fixed.",
    fairness=(
        "Control: a skip alone does not do it. Without BN the squared gradient of a residual network doubles in every "
        "block (18c); it is BN's division by a variance that grows with depth that makes the branches count less.",
        "Yang et al. have neither theory nor experiments on residual networks; De & Smith speak of the variance, and "
        "the exponent of the gradient is derived from it here.",
        "At initialisation, on independent Gaussian inputs. The first nine blocks are left out. " + _WALK,
    ),
    figures=("residual_gradients",),
)

BRANCH_SHRINKS = Claim(
    id="18b",
    statement="At initialisation BN scales the residual branch down, relative to the skip, by the square root of the "
    "depth.",
    by=DE_SMITH,
    where="D&S abstract",
    parts=(
        _of_blocks(
            "with_bn",
            per_network(lambda rows: _growth_of(rows, "residual_bn", "branch_ratio").polynomial.slope),
            "with BN: exponent of variance of branch / variance of skip in the depth",
            low=-1 / A_FIFTH,
            high=-A_FIFTH,
        ),
        _of_blocks(
            "without_bn",
            per_network(lambda rows: _growth_of(rows, "residual", "branch_ratio").polynomial.slope),
            "without a norm (the control): the same exponent",
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
        _of_blocks(
            "factor_without",
            per_network(lambda rows: math.exp(_growth_of(rows, "residual", "second_moment").exponential.slope)),
            "without a norm: second moment / that of the block before",
            kind="ratio",
            low=2 * A_FIFTH,
            high=2 / A_FIFTH,
        ),
        _of_blocks(
            "gradient_factor_without",
            per_network(lambda rows: math.exp(-_growth_of(rows, "residual", _LOG_GRADIENT).exponential.slope)),
            "without a norm: squared gradient / that of the block after",
            kind="ratio",
            low=2 * A_FIFTH,
            high=2 / A_FIFTH,
        ),
        _of_blocks(
            "step_with_bn",
            per_network(_grown),
            "with BN: second moment - that of the block before",
            low=A_FIFTH,
            high=1 / A_FIFTH,
        ),
        _of_blocks(
            "linear_with_bn",
            per_network(lambda rows: _growth_of(rows, "residual_bn", "second_moment").for_polynomial),
            "with BN: AIC of exponential growth - AIC of polynomial growth of the second moment",
            low=_CLEAR,
        ),
    ),
    margin=f"Two and one, by a fifth. {_AIC_CLEAR} That a few networks gave 2.02 and 1.003 was known.",
    fairness=(
        "Variance is the second moment over inputs and units, whose mean over weights is 0, as in the paper. The "
        "variance over the batch is another one: with BN it grows by 1 - 1/pi = 0.68 per block.",
        "Without BN, SkipInit, Fixup and a branch scaled by 1 / sqrt(depth) keep the second moment below e at any "
        "depth. Dividing the sum by sqrt(2) keeps it too, but samples become alike.",
        "The gradient's factor is not in the paper; it is the control of claim 18: skips alone do not tame gradients. "
        + _WALK,
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
        _of_correlations(
            "plain_exponential",
            _for_exponential("plain", 20),
            "plain, no BN, to depth 20: AIC of polynomial decay - AIC of exponential decay",
            low=_CLEAR,
        ),
        _of_correlations(
            "plain_bn_exponential",
            _for_exponential("plain_bn_held", 8),
            "plain, BN, to depth 8: AIC of polynomial decay - AIC of exponential decay",
            low=_CLEAR,
        ),
        _of_correlations(
            "skip_over_plain",
            _jackknife(lambda curves: curves.log_ratio("residual", "plain", 20), ratio=True),
            "no BN, depth 20: correlation with skips / without",
            kind="ratio",
            low=1 / A_FIFTH,
        ),
        _of_correlations(
            "skip_over_plain_bn",
            _jackknife(lambda curves: curves.log_ratio("residual_bn_held", "plain_bn_held", 8), ratio=True),
            "BN, depth 8: correlation with skips / without",
            kind="ratio",
            low=1 / A_FIFTH,
        ),
    ),
    margin=f"{_AIC_CLEAR} More slowly: by a fifth. Known when the regions were fixed: theory for infinite width, by "
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
        _of_correlations(
            "polynomial",
            _jackknife(lambda curves: curves.growth("residual_bn_held", 1, 80).for_polynomial),
            "AIC of exponential decay - AIC of polynomial decay",
            low=_CLEAR,
        ),
        _of_correlations(
            "exponent",
            _jackknife(lambda curves: curves.growth("residual_bn_held", 20, 80).polynomial.slope),
            "exponent of the correlation in the depth, from 20 to 80",
            low=-0.5 / A_FIFTH,
            high=-0.5 * A_FIFTH,
        ),
    ),
    margin=f"One half, by a fifth. {_AIC_CLEAR} Known when the regions were fixed: the product of theory falls as "
    "L^-0.69 over these depths and as L^-0.73 in the end, because BN divides by the variance over the batch, which "
    "grows by 0.68 per block and not by 1; 1/2 comes of 1.",
    fairness=(
        "As in 34: statistics held constant, one common gradient at the output, uncentred.",
        "The paper's text was not at hand.",
    ),
    figures=("shattered",),
)
