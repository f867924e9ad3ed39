"""The claim on networks without any normalization. It has no study yet."""

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.claims.texts import BROCK

MATCHES_BN_WITHOUT_IT = Claim(
    id="22",
    statement="Scaled weight standardisation with adaptive gradient clipping matches BN without it.",
    by=BROCK,
    where="Brock et al. section 4",
    needs="normalizer-free networks",
)
