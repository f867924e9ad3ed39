"""Margins of a linear classifier under gradient descent, with BN and without (Cao et al. 2023).

n samples x_i with d > n independent Gaussian inputs and classes ``y_i = sign <x_i, v>`` of a random v; full-batch
gradient descent on the mean of ``log(1 + exp(-m_i))`` over the margins ``m_i = y_i f(x_i)``:

============  =========================================================================================================
none          ``f = <w, x>``
weight_norm   ``f = gamma <w, x> / |w|``, the same form without data in the norm
bn            ``f = gamma <w, x> / sqrt(mean over i of <w, x_i>^2)``, BN without centring and with eps = 0
============  =========================================================================================================

All start at the same w, N(0, init^2), and gamma = 1, which is trained. With BN the smallest margin over the largest
goes to 1; the two others go to the direction of the largest smallest margin
(:func:`icsbench.theory.largest_margin.largest_margin`), as slowly as 1 / log t. The length of w does not change f with
a norm, but the shorter it is, the larger is a step. While a margin is negative, the smallest is divided by the largest
absolute value, so that the ratio is from -1 to 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range

VARIANTS = ("none", "weight_norm", "bn")


@dataclass
class MarginOptions(Options):
    """``samples``: n; ``inputs``: d; ``lr``, ``steps``, ``init``: of the descent; ``networks``: problems per run."""

    samples: int = 20
    inputs: int = 50
    lr: float = 0.1
    steps: int = 100_000
    init: float = 0.02
    networks: int = 20

    def __post_init__(self) -> None:
        in_range("lab.samples", self.samples, 4)
        if self.inputs < self.samples:
            raise ValueError(
                f"lab.inputs must be at least lab.samples ({self.samples}), or no weights have equal margins "
                f"(got {self.inputs})"
            )
        in_range("lab.lr", self.lr, 0, open_low=True)
        in_range("lab.steps", self.steps, 1)
        in_range("lab.init", self.init, 0, open_low=True)
        in_range("lab.networks", self.networks, 1)


def _rows(options: MarginOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.margin.descent import rows

    return rows(options, seed)


LAB = Lab(
    name="margin",
    label="Margins of a linear classifier under gradient descent, with BN and without",
    rows=_rows,
    options=MarginOptions,
    help="The smallest margin of a sample over the largest along gradient descent on random separable problems: "
    "without BN, with weight normalization, with BN. With BN all margins become equal.",
)
