"""Claims on depth, at initialisation. None of them has a study yet."""

from icsbench.analysis.claims.contract import Claim
from icsbench.analysis.claims.texts import DE_SMITH, IOFFE, YANG

GRADIENTS_EXPLODE = Claim(
    id="16",
    statement="At initialisation BN makes gradients explode with depth, at the rate that mean-field theory gives.",
    by=YANG,
    where="Y section 4, Table 1",
    disputed_by=IOFFE,
    needs="a study of gradients in random networks over depth and batch size",
)

JACOBIANS_NEAR_ISOMETRY = Claim(
    id="17",
    statement="BN leads layer Jacobians to singular values close to 1.",
    by=f"{IOFFE} (a conjecture)",
    where="I&S section 3.3",
    disputed_by=YANG,
    needs="a study of layer Jacobians over a batch",
)

SKIPS_TAME_THE_GROWTH = Claim(
    id="18",
    statement="Skip connections turn the exponential growth of gradients into a polynomial one.",
    by=f"{YANG}; {DE_SMITH}",
    where="Y abstract; D&S section 3",
    needs="a study of residual networks",
)
