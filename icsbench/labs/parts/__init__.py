"""BN taken apart at initialisation (Nachum et al. 2024): what recentring and rescaling do to the cosines of a batch.

Random networks ``h_l = relu(N(W_l h_{l-1}))`` with He weights N(0, 2/width) and independent Gaussian inputs, each of
the four N on the same inputs and weights:

============  =========================================================================================================
none          the whole batch is divided by its root mean square, one number, so that it neither grows nor vanishes
recentre      each feature's mean over the batch is subtracted, then the whole batch is divided by its root mean square
rescale       each feature is divided by its root mean square over the batch
both          both, per feature: batch normalization with eps = 0
============  =========================================================================================================

One number for the whole batch changes no cosine, as ReLU is homogeneous. By theory (infinite width) samples have the
cosine ``c* = J(-1 / (B - 1))`` after every layer with both, and without any ``c_l = J(c_{l-1})`` from ``c_0 = 0``; for
rescaling alone see :func:`icsbench.theory.arc_cosine.cosine_rescaled`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range

VARIANTS = ("none", "recentre", "rescale", "both")


@dataclass
class PartsOptions(Options):
    """``widths``: a study of each; ``batch``: samples; ``depth``: layers; ``networks``: random networks per run."""

    widths: list[int] = field(default_factory=lambda: [256, 32])
    batch: int = 32
    depth: int = 1000
    networks: int = 20

    def __post_init__(self) -> None:
        in_range("the number of lab.widths", len(self.widths), 1)
        for width in self.widths:
            in_range("lab.widths", width, 8)
        in_range("lab.batch", self.batch, 4)
        in_range("lab.depth", self.depth, 1)
        in_range("lab.networks", self.networks, 1)


def _rows(options: PartsOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.parts.signals import rows

    return rows(options, seed)


LAB = Lab(
    name="parts",
    label="BN taken apart: recentring, rescaling, both, at initialisation",
    rows=_rows,
    options=PartsOptions,
    help="Cosines between the samples of a batch after each layer of random ReLU networks that recentre only, rescale "
    "only, do both, or neither. The odd point is the sample whose mean cosine with the others is lowest.",
)
