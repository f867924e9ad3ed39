"""Claims on depth, at initialisation and in training."""

from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.claims.residual import AIC_CLEAR, CLEAR, EXPONENT, LOG_GRADIENT, WALK, growth_of
from icsbench.analysis.claims.texts import A_FIFTH, DE_SMITH, IOFFE, YANG

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
    statement="In networks with BN, skip connections turn the exponential growth of gradients into a polynomial one.",
    by=f"{DE_SMITH}; {YANG}",
    where="D&S section 3 (residual networks); Y section 4 (plain networks)",
    parts=(
        Part(
            "residual_polynomial",
            per_network(lambda rows: growth_of(rows, "residual_bn", LOG_GRADIENT).for_polynomial),
            "with skips: AIC of exponential growth - AIC of polynomial growth",
            ("residual",),
            of="networks",
            low=CLEAR,
        ),
        Part(
            "residual_exponent",
            per_network(lambda rows: -growth_of(rows, "residual_bn", LOG_GRADIENT).polynomial.slope),
            "with skips: exponent of the squared gradient in the depth",
            ("residual",),
            of="networks",
            low=A_FIFTH * EXPONENT,
            high=EXPONENT / A_FIFTH,
        ),
        Part(
            "plain_exponential",
            per_network(lambda rows: -growth_of(rows, "plain_bn", LOG_GRADIENT).for_polynomial),
            "without skips: AIC of polynomial growth - AIC of exponential growth",
            ("residual",),
            of="networks",
            low=CLEAR,
        ),
    ),
    margin=f"{AIC_CLEAR} The exponent is that of theory, pi / (pi - 1) = 1.467, by a fifth; that its product gives "
    "1.43 over these blocks was known when the region was fixed.",
    fairness=(
        "Control: a skip alone does not do it. Without BN the squared gradient of a residual network doubles in every "
        "block (18c); it is BN's division by a variance that grows with depth that makes the branches count less.",
        "Yang et al. have neither theory nor experiments on residual networks; De & Smith speak of the variance, and "
        "the exponent of the gradient is derived from it here.",
        "At initialisation, on independent Gaussian inputs. The first nine blocks are left out. " + WALK,
    ),
    figures=("residual_gradients",),
)

UNTRAINABLE_BEYOND_A_DEPTH = Claim(
    id="19",
    statement="Networks with BN and no skip connections are untrainable beyond 16 depth scales (40 to 50 layers).",
    by=YANG,
    where="Y section 5, Fig. 2",
    needs="a sweep over depth and batch size",
)
