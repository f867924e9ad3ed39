"""What is found in one layer, as numbers: the columns of the lab's rows. No torch is needed."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

FAILURE = 1e-8
"""A residual above this is no rounding error: the statement does not hold."""
LAMBDA = 2.0
"""The bound on X in Theorems 4.4 and C.1 at which they are evaluated."""
_NAN = math.nan


@dataclass(frozen=True)
class LayerReport:
    """What was found in one batch-normalized layer.

    A residual is the largest, over channels or units, of the difference between the two sides of an equation. It is
    relative to the length of the terms before they cancel: an inner product ``<a, b>`` counts as ``||a|| ||b||``. NaN
    is "not applicable". A printed inequality counts as violated where it fails by more than 1e-12 of the same length;
    closer to equality is a tie, which ``<=`` allows and ``<`` does not.
    """

    layer: str
    """Path of the normalization."""
    fed_by: str
    """Path of the linear or convolutional layer whose output goes there, and nowhere else; empty if there is none."""
    batch: int
    """m: values per channel."""
    channels: int
    dead: int
    """Channels left out as constant: their deviation is at most 1e-6 of their largest magnitude."""
    silent: int
    """Channels left out because nothing flows back: g or gamma is zero."""
    eps_share: float = _NAN
    """Largest ``eps / (sigma^2 + eps)`` of the channels, with the eps of the given network. Here eps is 0."""

    fact_c1: float = _NAN
    theorem_4_1: float = _NAN
    printed_4_1_violated: int = 0
    """Of the tested channels."""
    inner_positive: int = 0
    """Tested channels with ``<g, yhat> > 0``, a premise of the improvement that Theorem 4.2 promises."""
    theorem_4_4: float = _NAN
    """At X = lambda dy e_1' / ||dy||, lambda = 2."""
    printed_4_4_violated: int = 0
    """Of the tested channels, at lambda = 2; it depends on the unit of the loss, since the printed sides do."""

    units: int = 0
    """Channels drawn for what follows, up to ``scale_loss``."""
    theorem_4_2: float = _NAN
    curvature_nonnegative: int = 0
    """Units with ``dy' H dy >= 0``, the other premise."""
    theorem_c1: float = _NAN
    """At the same X."""
    theorem_c1_angle: float = _NAN
    """Smallest angle between the lines along dy and Hhat dy, degrees: 0 if the X of the proof were stationary."""

    scale_loss: float = _NAN
    """``|L(aW) - L(W)| / |L(W)|``, W the weights of the feeding layer, largest over a = 0.5, 10."""
    scale_gradient: float = _NAN
    """``||a grad L(aW) - grad L(W)|| / ||grad L(W)||``, likewise."""
    orthogonality: float = _NAN
    """Largest ``|<dL/dw_j, w_j>| / (||dL/dw_j|| ||w_j||)`` of the tested channels."""
    lemma_4_5: float = _NAN
    lemma_4_5_distance: float = _NAN
    """``||W0 - k W*|| / ||W0 - W*||``: at most 1, says the lemma."""

    reduction: float = _NAN
    """``||dy||^2 / ||g||^2``, all tested channels together, as autograd finds it."""
    reduction_predicted: float = _NAN
    """The same by Theorem 4.1: ``scale_factor (1 - mean_share - yhat_share)``."""
    scale_factor: float = _NAN
    """``S = sum_j gamma_j^2 / sigma_j^2 ||g_j||^2 / sum_j ||g_j||^2``."""
    mean_share: float = _NAN
    """What the mean removes of ``||g||^2``, ``<1, g>^2 / (m ||g||^2)``, each channel weighted as in S."""
    yhat_share: float = _NAN
    """What yhat removes of ``||g||^2``, ``<g, yhat>^2 / (m ||g||^2)``, likewise."""
    reduction_median: float = _NAN
    """Median over the channels, as all that follow, of ``||dy_j||^2 / ||g_j||^2``."""
    scale_factor_median: float = _NAN
    mean_share_median: float = _NAN
    yhat_share_median: float = _NAN

    @property
    def tested(self) -> int:
        """Channels that were neither dead nor silent."""
        return self.channels - self.dead - self.silent


STATEMENTS = {
    "Fact C.1": "fact_c1",
    "Theorem 4.1": "theorem_4_1",
    "Theorem 4.2": "theorem_4_2",
    "Theorem 4.4": "theorem_4_4",
    "Theorem C.1": "theorem_c1",
    "L(aW)": "scale_loss",
    "grad L(aW)": "scale_gradient",
    "orthogonality": "orthogonality",
    "Lemma 4.5": "lemma_4_5",
}
"""Name of a statement -> the attribute of a report that holds its residual."""


def rows(reports: Sequence[LayerReport]) -> list[dict[str, Any]]:
    """One plain row per layer: the attributes of its report, and ``tested``."""
    return [asdict(report) | {"tested": report.tested} for report in reports]


def report_of(row: dict[str, Any]) -> LayerReport:
    """The report that a row was made of."""
    return LayerReport(**{field.name: row[field.name] for field in fields(LayerReport)})
