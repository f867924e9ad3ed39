"""The claim on length and direction of weights. It has no study yet."""

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.claims.texts import KOHLER

LINEAR_CONVERGENCE = Claim(
    id="20",
    statement="Optimising length and direction apart gives linear convergence.",
    by=KOHLER,
    where="K Theorem 1",
    needs="a study of least squares and halfspaces",
)
