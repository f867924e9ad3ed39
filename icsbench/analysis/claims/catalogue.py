"""The debate's testable claims, as data: who says what, how it is measured, and where the line is drawn beforehand.

A claim is one or more parts. A part is one number per seed (see ``measures``) and a region, which the
claim says the mean over seeds lies in. The region was fixed before the records that it is judged on were made; where a
paper names no size, an effect counts from a fifth on (ratios of 0.8 and 1.25), or from the smallest that the bound
named here lets pass.
"""

import math
from dataclasses import dataclass
from typing import Literal

from icsbench.errors import IcsbenchError

IOFFE = "Ioffe & Szegedy 2015"
SANTURKAR = "Santurkar et al. 2018"
AWAIS = "Awais et al. 2020"
BJORCK = "Bjorck et al. 2018"
YANG = "Yang et al. 2019"
KOHLER = "Kohler et al. 2019"
BROCK = "Brock et al. 2021"
LUO = "Luo et al. 2019"
COHEN = "Cohen et al. 2021"
DE_SMITH = "De & Smith 2020"

A_FIFTH = 0.8
"""The smallest effect that counts, as a ratio, where no paper names one; upwards it is 1 / 0.8 = 1.25."""

_BY_A_FIFTH = "A fifth (0.8, upwards 1.25) is the smallest ratio that would matter to anybody choosing a method."
_MATCHED_LR = (
    "At the same learning rate for both (0.1, where a study has several); at each network's own best one see 1b."
)
_SCALE_INVARIANT = (
    "Networks with BN are scale invariant, so absolute gradients scale as 1/‖W‖: the shift is taken relative to ‖G‖; "
    "absolute values, cosine and ICS x ‖W‖ are in the ICS figure."
)
_EDGE = "Beside beta x lr / 2: at 1 (the edge of stability) an update reverses the gradient by its length, unshifted."
_FLAT = "A network at chance has a flat landscape, which is not a smooth one."
_MATCHED_LOSS = (
    "At matched loss only the steps count after a network has left chance (training accuracy twice it); the figure of "
    "matched loss shows all."
)


@dataclass(frozen=True)
class Part:
    """One measured statement: the mean over seeds of ``measure`` lies in the open region ``low`` to ``high``.

    ``kind``: of a ``ratio`` the logarithm is averaged and the region is one of ratios; a ``value`` (a difference of two
    runs of a seed among them) is averaged as it is, in ``unit``. ``points`` are percentage points of accuracy, of a
    slope ``per`` something.
    ``studies``: the experiments that measure it, the first that has been run. ``below`` and ``above``: for whom a mean
    on that side of the region speaks.
    """

    measure: str
    what: str
    studies: tuple[str, ...]
    kind: Literal["ratio", "value"] = "value"
    unit: Literal["", "points"] = ""
    per: str = ""
    low: float = -math.inf
    high: float = math.inf
    below: str = ""
    above: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the debate. One without parts has no study yet.

    ``by`` and ``where`` say who claims it and where, ``disputed_by`` who does not. ``margin`` is the reason for the
    regions, ``fairness`` what a reader has to know to judge the judgement, ``figures`` where it is drawn.
    """

    id: str
    statement: str
    by: str
    where: str
    disputed_by: str = ""
    parts: tuple[Part, ...] = ()
    margin: str = ""
    fairness: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    needs: str = ""

    @property
    def studies(self) -> tuple[str, ...]:
        """The experiments that measure it."""
        return tuple(dict.fromkeys(study for part in self.parts for study in part.studies))

    @property
    def papers(self) -> tuple[str, ...]:
        """Who takes part in the dispute, each by itself."""
        names = (name.strip() for names in (self.by, self.disputed_by) for name in names.split(";"))
        return tuple(dict.fromkeys(name for name in names if name))


_REGIMES = ("three_regimes", "landscape")

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="1",
        statement="BN trains faster and ends at a higher test accuracy.",
        by=f"{IOFFE}; {SANTURKAR}",
        where="I&S section 4; S section 2, Fig. 1",
        parts=(
            Part(
                "speed_up",
                "steps without BN / steps with BN until the training accuracy at which the slower of the two ends "
                "(at least twice chance; a run that never gets there counts with all its steps)",
                _REGIMES,
                kind="ratio",
                low=1.5,
            ),
            Part(
                "test_bn_minus_none",
                "final test accuracy with BN (population statistics recomputed after training, I&S Algorithm 2) minus "
                "without",
                _REGIMES,
                unit="points",
                low=0,
            ),
        ),
        margin="Half as many steps again is the least that is called faster; any gain in test accuracy counts.",
        fairness=(_MATCHED_LR, "The budget of steps is fixed: where training ends early, speed and height are one."),
        figures=("accuracy",),
    ),
    Claim(
        id="1b",
        statement="BN ends at a higher test accuracy even where each network has its own best learning rate.",
        by=f"{IOFFE}; {SANTURKAR}",
        where="I&S section 4.2; S section 2",
        disputed_by=BROCK,
        parts=(
            Part(
                "test_at_best_lr",
                "final test accuracy with BN minus without, each at that learning rate of the grid whose validation "
                "accuracy is best over the seeds",
                ("lr_grid",),
                unit="points",
                low=0,
            ),
        ),
        margin="Any gain counts.",
        fairness=("The rate is chosen on validation images; the test set only reports.",),
        figures=("scan",),
    ),
    Claim(
        id="2",
        statement="The distributions of the inputs of sigmoid units are much more stable with BN.",
        by=IOFFE,
        where="I&S section 4.1, Fig. 1 (b, c)",
        parts=(
            Part(
                "drift_last_hidden",
                "drift with BN / without: mean over training of |q(t) - q(T)| / (q85(T) - q15(T)) over the 15th, 50th "
                "and 85th percentile of all units of the last hidden layer",
                ("percentiles",),
                kind="ratio",
                high=A_FIFTH,
            ),
        ),
        margin=_BY_A_FIFTH,
        fairness=(
            "All units of the layer, where the paper shows one.",
            "The drift follows the pace of learning.",
            "The paper's data are MNIST.",
        ),
        figures=("percentiles",),
    ),
    Claim(
        id="3",
        statement="In a VGG the difference in stability of the distributions is marginal.",
        by=SANTURKAR,
        where="S section 2, Fig. 1 (c)",
        disputed_by=IOFFE,
        parts=(
            Part(
                "drift_vgg",
                "drift of percentiles with BN / without, as in claim 2, in convolutions 3 and 11",
                _REGIMES,
                kind="ratio",
                low=A_FIFTH,
                high=1 / A_FIFTH,
                below=IOFFE,
            ),
        ),
        margin=f"As good as equal: between 0.8 and 1.25. {_BY_A_FIFTH}",
        fairness=(_MATCHED_LR, "The drift follows the pace of learning."),
        figures=("ridges",),
    ),
    Claim(
        id="4",
        statement="Noisy BN trains as well as BN, and better than the network without.",
        by=SANTURKAR,
        where="S section 2.1, Fig. 2",
        disputed_by=AWAIS,
        parts=(
            Part(
                "train_noisy_minus_bn",
                "training accuracy of the last tenth of the steps, noisy BN minus BN",
                _REGIMES,
                unit="points",
                low=-2,
                high=2,
                below=AWAIS,
            ),
            Part(
                "mean_train_noisy_minus_none",
                "training accuracy, mean over all steps, noisy BN minus none",
                _REGIMES,
                unit="points",
                low=0,
                below=AWAIS,
            ),
        ),
        margin="As well as: within two points, which the paper's curves do not resolve; better: any gain.",
        fairness=(
            _MATCHED_LR,
            "Training accuracy, in training mode, as in the paper; the protocols of testing differ.",
        ),
        figures=("accuracy",),
    ),
    Claim(
        id="5",
        statement="Noisy BN has more distributional shift than the network without BN.",
        by=SANTURKAR,
        where="S section 2.1, Fig. 2 and 8",
        parts=tuple(
            Part(
                f"shift_{moment}_noisy_to_none",
                f"change of the {name} of a pre-activation in one step, noisy BN / none: second half of training, "
                "geometric mean over convolutions 2, 7 and 13",
                _REGIMES,
                kind="ratio",
                low=3,
            )
            for moment, name in (("mean", "mean"), ("variance", "variance"))
        ),
        margin="Factor 3: the figure shows an order of magnitude, and less than 3 could not be seen there.",
        fairness=("Raw moments, as in the paper: without BN their unit is that of an unnormalised network.",),
        figures=("moments",),
    ),
    Claim(
        id="6",
        statement="The same noise keeps the network without BN from training.",
        by=SANTURKAR,
        where="S section 2.1",
        parts=(
            Part(
                "train_noise",
                "training accuracy of the last tenth of the steps, noise without BN, in units of chance; of "
                "the seeds that train without noise (at least twice chance)",
                ("noise_control",),
                kind="ratio",
                high=1.5,
            ),
        ),
        margin="At chance: below 1.5 times 1 / number of classes (15 % of ten).",
        fairness=(
            "Noise of the same absolute size; the pre-activations of the network without BN are smaller than BN's.",
        ),
        figures=("accuracy",),
    ),
    Claim(
        id="7",
        statement="BN does not reduce internal covariate shift as Definition 2.1 has it.",
        by=SANTURKAR,
        where="S section 2.2, Fig. 3",
        disputed_by=f"{IOFFE}; {AWAIS}",
        parts=(
            Part(
                "ics_relative",
                "‖G - G'‖ / ‖G‖ with BN / without: median over layers from the second on, then over the second half "
                "of training",
                ("landscape",),
                kind="ratio",
                low=A_FIFTH,
                below=f"{IOFFE}; {AWAIS}",
            ),
            Part(
                "ics_relative_matched",
                "the same at matched training loss: geometric mean over the bins of loss that both reach",
                ("landscape",),
                kind="ratio",
                low=A_FIFTH,
                below=f"{IOFFE}; {AWAIS}",
            ),
        ),
        margin=f"A reduction is one by a fifth or more. {_BY_A_FIFTH}",
        fairness=(_SCALE_INVARIANT, _EDGE, _MATCHED_LOSS, _MATCHED_LR),
        figures=("ics", "matched"),
    ),
    Claim(
        id="8",
        statement="In a deep linear network gradients hardly shift without BN, much with it, and BN trains faster.",
        by=SANTURKAR,
        where="S section 2.2, Fig. 3 (b)",
        parts=(
            Part(
                "dln_cosine_none",
                "cos(G, G') without BN at learning rate 1e-7: median over layers from the second on and over steps",
                ("dln",),
                low=0.99,
            ),
            Part("dln_cosine_bn", "the same with BN", ("dln",), high=0.9),
            Part("dln_loss", "final training loss with BN / without, at 1e-7", ("dln",), kind="ratio", high=A_FIFTH),
        ),
        margin=f"The cosines as the figure has them (1.0, and visibly less). {_BY_A_FIFTH}",
        fairness=(_EDGE, "Text and figure of the paper disagree: 'almost uncorrelated' against a cosine near -0.9."),
        figures=("ics",),
    ),
    Claim(
        id="9",
        statement="The shift of a deep linear network is the edge of stability: it goes where updates are short.",
        by=f"{COHEN} (an inference)",
        where="not in a paper; follows from S Fig. 3 (b) and 10",
        disputed_by=SANTURKAR,
        parts=(
            Part(
                "dln_cosine_short",
                "median cos(G, G') with BN over the measurements with beta x lr / 2 below 0.5, all learning rates",
                ("dln_lr",),
                low=0.9,
                below=SANTURKAR,
            ),
            Part(
                "dln_cosine_beta_correlation",
                "rank correlation of cos(G, G') and beta x lr / 2 with BN over all measurements and learning rates",
                ("dln_lr",),
                high=-0.5,
                above=SANTURKAR,
            ),
        ),
        margin="The bound of claim 8 the other way (0.9), and a rank correlation of half strength.",
        fairness=("Correlation is over steps and rates of a seed, which are not independent; seeds are the sample.",),
        figures=("ics",),
    ),
    Claim(
        id="10",
        statement="BN makes the loss vary less along the gradient.",
        by=SANTURKAR,
        where="S section 3.1, Fig. 4 (a)",
        parts=(
            Part(
                "loss_width",
                "log10(max L / min L) over the step sizes, with BN / without: median over the steps after both left "
                "chance (training accuracy at least twice it)",
                ("landscape",),
                kind="ratio",
                high=A_FIFTH,
            ),
            Part(
                "loss_width_matched",
                "the same at matched training loss",
                ("landscape",),
                kind="ratio",
                high=A_FIFTH,
            ),
        ),
        margin=_BY_A_FIFTH,
        fairness=(_FLAT, _MATCHED_LOSS, _MATCHED_LR),
        figures=("landscape", "matched"),
    ),
    Claim(
        id="11",
        statement="BN makes gradients more predictive.",
        by=SANTURKAR,
        where="S section 3.1, Fig. 4 (b)",
        parts=(
            Part(
                "predictiveness",
                "max ‖g' - g‖ over the step sizes, with BN / without: median over the second half of training",
                ("landscape",),
                kind="ratio",
                high=A_FIFTH,
            ),
            Part(
                "predictiveness_matched",
                "max ‖g' - g‖ / ‖g‖ at matched training loss, with BN / without",
                ("landscape",),
                kind="ratio",
                high=A_FIFTH,
            ),
        ),
        margin=_BY_A_FIFTH,
        fairness=(
            _FLAT,
            _MATCHED_LOSS,
            "Relative to ‖g‖ at matched loss, as a network with small gradients changes them little.",
        ),
        figures=("landscape", "matched"),
    ),
    Claim(
        id="11b",
        statement="BN makes gradients more predictive by an order of magnitude or more.",
        by=SANTURKAR,
        where="S section 3.1: text 'close to two orders', Fig. 4 (b) one",
        parts=(
            Part(
                "predictiveness",
                "max ‖g' - g‖ over the step sizes, with BN / without: median over the second half of training",
                ("landscape",),
                kind="ratio",
                high=0.1,
            ),
        ),
        margin="The figure's factor of ten; the text says more.",
        fairness=(_FLAT,),
        figures=("landscape",),
    ),
    Claim(
        id="12",
        statement="BN lowers the effective beta-smoothness.",
        by=SANTURKAR,
        where="S section 3.1, Fig. 4 (c)",
        disputed_by=f"{COHEN} (an inference)",
        parts=(
            Part(
                "beta",
                "beta with BN / without: median over the second half of training",
                ("landscape",),
                kind="ratio",
                high=A_FIFTH,
                above=f"{COHEN} (an inference)",
            ),
        ),
        margin=f"At the edge of stability both would sit at 2/lr, with a ratio of 1. {_BY_A_FIFTH}",
        fairness=(_FLAT, "S Fig. 4 (c) itself shows both at 20 = 2/lr for most of training."),
        figures=("landscape",),
    ),
    Claim(
        id="12b",
        statement="Effective beta is set by the learning rate, 2/lr, with BN as without.",
        by=f"{COHEN} (an inference)",
        where="S Fig. 4 (c) and 10; Cohen et al. section 3",
        disputed_by=SANTURKAR,
        parts=tuple(
            part
            for regime, name in (("bn", "with BN"), ("none", "without BN"))
            for part in (
                Part(
                    f"beta_slope_{regime}",
                    f"slope of log beta on log(1/lr), {name}: medians over the second half of training of the learning "
                    "rates at which the seed trained, three at least",
                    ("lr_grid",),
                    low=0.8,
                    high=1.2,
                ),
                Part(
                    f"beta_level_{regime}",
                    f"beta x lr / 2, {name}: geometric mean of the same",
                    ("lr_grid",),
                    kind="ratio",
                    low=A_FIFTH,
                    high=1 / A_FIFTH,
                ),
            )
        ),
        margin=f"Slope 1 within a fifth, and a level of 1. {_BY_A_FIFTH}",
        fairness=(
            "Short runs may not have reached the edge of stability.",
            "The step sizes of beta scale with the rate, which by itself makes for a slope towards 1.",
            "Cohen et al. train on the full batch; along the gradient of a mini-batch it is batch sharpness that "
            "settles at 2/lr (Andreyev & Beneventano 2024).",
        ),
        figures=("scan",),
    ),
    Claim(
        id="13",
        statement="Normalizing by l_1, l_2 or l_inf norms trains a VGG as well as BN.",
        by=SANTURKAR,
        where="S section 3.3, Fig. 5",
        parts=tuple(
            Part(
                f"train_{norm}_minus_bn",
                f"training accuracy of the last tenth of the steps, {norm} minus BN",
                ("lp",),
                unit="points",
                low=-2,
                high=2,
            )
            for norm in ("l1", "l2", "linf")
        ),
        margin="As well as: within two points, as in claim 4.",
        fairness=(_MATCHED_LR,),
        figures=("accuracy",),
    ),
    Claim(
        id="13b",
        statement="In the deep linear network l_1 normalization trains better than BN.",
        by=SANTURKAR,
        where="S section 3.3, Fig. 5",
        parts=(Part("dln_loss_l1", "final training loss, l_1 / BN", ("dln_lp",), kind="ratio", high=A_FIFTH),),
        margin=_BY_A_FIFTH,
        fairness=("At the paper's learning rate for all.",),
        figures=("loss",),
    ),
    Claim(
        id="14",
        statement="BN tolerates learning rates at least four times as large.",
        by=f"{IOFFE}; {SANTURKAR}; {BJORCK}",
        where="I&S section 3.3; S section 2, Fig. 1; B section 3",
        parts=(
            Part(
                "largest_lr",
                "largest learning rate of the grid at which a run ends off chance (training accuracy at least twice "
                "it), with BN / without",
                ("lr_grid",),
                kind="ratio",
                low=2**1.5,
            ),
        ),
        margin="S: 0.5 works with BN and not without, 0.1 with both. Between the factors 2 and 4 of the grid: 2.83.",
        fairness=(
            "At a short budget an accuracy of 50 % (the usual bar) measures speed; being off chance measures training.",
            "Where BN trains at the largest rate of the grid the ratio is a lower bound.",
            "Powers of two are far from a normal distribution.",
        ),
        figures=("scan",),
    ),
    Claim(
        id="15",
        statement="The benefit of BN is the learning rate: at the largest the network without bears it is no better.",
        by=BJORCK,
        where="B section 3, Fig. 1",
        disputed_by=f"{IOFFE}; {SANTURKAR}",
        parts=(
            Part(
                "test_at_small_lr",
                "final test accuracy with BN minus without, at the largest learning rate of the grid at which the "
                "network without BN trains with every seed",
                ("lr_grid",),
                unit="points",
                low=-1,
                high=1,
                above=f"{IOFFE}; {SANTURKAR}",
            ),
        ),
        margin="As good as: within one point; Bjorck's own curves differ by 0.7 (81.3 and 82 %).",
        fairness=(
            "Bjorck et al. train to the end; at a short budget speed counts as well.",
            "That rate may be the best one of BN too: then this is the measurement of 1b.",
        ),
        figures=("scan",),
    ),
    Claim(
        id="16",
        statement="At initialisation BN makes gradients explode with depth, at the rate that mean-field theory gives.",
        by=YANG,
        where="Y section 4, Table 1",
        disputed_by=IOFFE,
        needs="a study of gradients in random networks over depth and batch size",
    ),
    Claim(
        id="17",
        statement="BN leads layer Jacobians to singular values close to 1.",
        by=f"{IOFFE} (a conjecture)",
        where="I&S section 3.3",
        disputed_by=YANG,
        needs="a study of layer Jacobians over a batch",
    ),
    Claim(
        id="18",
        statement="Skip connections turn the exponential growth of gradients into a polynomial one.",
        by=f"{YANG}; {DE_SMITH}",
        where="Y abstract; D&S section 3",
        needs="a study of residual networks",
    ),
    Claim(
        id="19",
        statement="Networks with BN and no skip connections are untrainable beyond 16 depth scales (40 to 50 layers).",
        by=YANG,
        where="Y section 5, Fig. 2",
        needs="a sweep over depth and batch size",
    ),
    Claim(
        id="20",
        statement="Optimising length and direction apart gives linear convergence.",
        by=KOHLER,
        where="K Theorem 1",
        needs="a study of least squares and halfspaces",
    ),
    Claim(
        id="21",
        statement="Without a reduction of distributional shift BN does worse: the more shift, the lower the accuracy.",
        by=AWAIS,
        where="A abstract",
        disputed_by=SANTURKAR,
        parts=(
            Part(
                "dose_slope",
                "slope of the training accuracy of the last tenth of the steps on log10 of the shift of the mean in "
                "one step, over noise of strength 0, 1, 2 and 4",
                ("dose",),
                unit="points",
                per="factor of ten",
                high=-2,
                above=SANTURKAR,
            ),
        ),
        margin="Flat is up to two points per factor of ten, as in claim 4.",
        fairness=(
            "Noise also hides the signal: a loss of accuracy need not come from the shift.",
            "The slope leans on the strengths 2 and 4, and on where on a log axis no noise lies; see the curve.",
            "Beta is not matched.",
            _MATCHED_LR,
        ),
        figures=("scan",),
    ),
    Claim(
        id="22",
        statement="Scaled weight standardisation with adaptive gradient clipping matches BN without it.",
        by=BROCK,
        where="Brock et al. section 4",
        needs="normalizer-free networks",
    ),
    Claim(
        id="23",
        statement="BN regularises by the noise of its batch: the smaller the batch, the smaller the gap to the test.",
        by=f"{IOFFE}; {LUO}",
        where="I&S section 3.4; L section 3",
        parts=(
            Part(
                "gap_slope",
                "slope of the generalisation gap (training accuracy of the last tenth of the steps minus test "
                "accuracy on recomputed population statistics) on log2 of the batch size",
                ("batch_size",),
                unit="points",
                per="doubling",
                low=0,
            ),
        ),
        margin="Any growth of the gap with the batch counts.",
        fairness=(
            "Few images, each seen equally often: training accuracy is meant to be at its ceiling at every batch size; "
            "where it is below, the gap is smaller for that alone.",
            "A smaller batch also makes SGD noisier, and takes more steps, with BN or without: there is no control.",
            "Training accuracy is in training mode, on the statistics of the batch.",
        ),
        figures=("scan",),
    ),
)


def claim_of(id: str) -> Claim:
    """The claim of an id, in capitals or not. Raises IcsbenchError where there is none."""
    for claim in CLAIMS:
        if claim.id == id.strip().lower():
            return claim
    raise IcsbenchError(f"no claim {id!r}; the ids are {', '.join(claim.id for claim in CLAIMS)}")


def serves(study: str) -> list[str]:
    """The ids of the claims that a study has measurements for."""
    return [claim.id for claim in CLAIMS if study in claim.studies]
