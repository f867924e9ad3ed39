"""The outlier eigenvalue of the Fisher information, and which layer's BN removes it (Karakida et al. 2019).

A random ReLU network with He weights, M inputs, ``hidden`` layers of M units and one output maps n samples to
``f = (f_1, ..., f_n)``. The Fisher information of a regression with unit variance is ``F = J' J / n``, where
``J = df / dtheta`` (n x P) is over all P weights; ``K = J J' / n`` (n x n) has the same eigenvalues but for zeros. With
BN, f_i depends on all samples, and J is the derivative through the statistics of the batch. BN has eps = 0 and no
factors of its own.

=============  =======================================================================================================
none           no normalization
middle         BN before each ReLU
last           BN of the output, over the n samples
last_mean      only the mean of the output subtracted
last_scale     the output only divided by its root mean square
all            BN before each ReLU and of the output
=============  =======================================================================================================

The trace grows as M. An outlier grows as M too, so that its share of the trace does not change with the width; without
one the largest eigenvalue grows as sqrt(M) at most. Without normalization the share is that of the kernel of an
infinitely wide network: :func:`icsbench.theory.arc_cosine.outlier_share`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range

PLACES = ("none", "middle", "last", "last_mean", "last_scale", "all")


@dataclass
class FisherOptions(Options):
    """``widths``: inputs and units M; ``hidden``: layers of units; ``samples``: n; ``networks``: of each width."""

    widths: list[int] = field(default_factory=lambda: [64, 128, 256])
    hidden: int = 3
    samples: int = 64
    networks: int = 20

    def __post_init__(self) -> None:
        in_range("the number of different lab.widths", len(set(self.widths)), 2)
        for width in self.widths:
            in_range("lab.widths", width, 8)
        in_range("lab.hidden", self.hidden, 1)
        in_range("lab.samples", self.samples, 4)
        in_range("lab.networks", self.networks, 1)


def _rows(options: FisherOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.fisher.kernel import rows

    return rows(options, seed)


LAB = Lab(
    name="fisher",
    label="Fisher information at initialisation, BN in the middle and in the last layer",
    rows=_rows,
    options=FisherOptions,
    help="The largest eigenvalue of the Fisher information of random ReLU networks with one output, and its share of "
    "the trace, by width: without BN, with BN in the middle layers, in the last one (or a part of it), and in all.",
)
