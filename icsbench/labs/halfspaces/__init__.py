"""Length and direction of the weights of a linear unit, optimised apart and together (Kohler et al. 2019).

The methods minimise the same loss from the same weights, until its gradient is shorter than a tolerance:

=================  ====================================================================================================
gd                 gradient descent, with the step 1 / (zeta L) that is safe by theory
gd_best            the same, for each problem with the best of that step times 1, 2, 4, ..., 256
agd                Nesterov's accelerated gradient descent
gdnp               a step on the direction, then bisection of the length, in the norm of the covariance, that of BN
gdnp_printed       the same with the step as the algorithm is quoted, on the softplus loss only
weight_norm        as gdnp, but in the Euclidean norm, that of weight normalization
bn                 gradient descent on direction and length at once, in BN's norm
=================  ====================================================================================================

Objectives: the losses ``square`` (least squares), ``softplus`` and ``sigmoid`` of a linear unit on Gaussian data; the
softplus loss of the ``first`` of two tanh units, with the other at its start, and then of the ``second``, with the
first where gdnp left it; ``breast_cancer``, the softplus loss of random shares of real data.

A row is a problem under a method. ``step``: gradients until the tolerance (those taken, where ``reached`` is false).
``gradient``: the norm of the gradient number 1, ... of the list ``at``. ``rate``: the factor per gradient, fitted to
the second half, in logarithms, of the way from the first gradient to the tolerance; ``steadiness``: the exponent of its
later half over that of its earlier half. ``theory_rate``: 1 - mu / L of the problem. ``worst_over_bound``, of gdnp on
Gaussian data: the largest gap of the Rayleigh quotient over the bound of Theorem 1, until that is 1e-9 of the first
gap and rounding decides. ``factor``, of gd_best: the step, times the safe one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range


@dataclass
class HalfspacesOptions(Options):
    """Sizes of the problems, and when a method stops.

    ``inputs``: d; ``conditions``: of the covariance of Gaussian data; ``problems``: random ones of each kind per run.
    ``ridge``: of the sigmoid loss. ``unit_condition``: of the data of the two tanh units. ``components``, ``share``: of
    the real data, principal components and the share of samples of a problem. ``tolerance``: of the norm of the
    gradient; ``evaluations``: gradients at most; ``halvings``: of a bisection.
    """

    inputs: int = 15
    conditions: list[float] = field(default_factory=lambda: [5.0, 50.0, 500.0])
    problems: int = 6
    ridge: float = 0.01
    unit_condition: float = 5.0
    components: int = 8
    share: float = 0.75
    tolerance: float = 1e-6
    evaluations: int = 20_000
    halvings: int = 40

    def __post_init__(self) -> None:
        in_range("lab.inputs", self.inputs, 2)
        in_range("the number of lab.conditions", len(self.conditions), 1)
        for condition in self.conditions:
            in_range("lab.conditions", condition, 1)
        in_range("lab.problems", self.problems, 1)
        in_range("lab.ridge", self.ridge, 0)
        if self.ridge == 0:
            raise ValueError("lab.ridge must be greater than 0, or the sigmoid loss has no minimum: it falls for ever")
        in_range("lab.unit_condition", self.unit_condition, 1)
        in_range("lab.components", self.components, 2, 30)
        in_range("lab.share", self.share, 0.1, 1)
        in_range("lab.tolerance", self.tolerance, 1e-9, 0.01)
        in_range("lab.evaluations", self.evaluations, 10)
        in_range("lab.halvings", self.halvings, 10, 60)


def _rows(options: HalfspacesOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.halfspaces.measure import rows

    return rows(options, seed)


LAB = Lab(
    name="halfspaces",
    label="Length and direction of weights, optimised apart and together",
    rows=_rows,
    options=HalfspacesOptions,
    help="How many gradients it takes on length and direction apart, and by gradient descent, plain and accelerated: "
    "on least squares, halfspaces of Gaussian data, units of a small network and real data, by condition number.",
)
