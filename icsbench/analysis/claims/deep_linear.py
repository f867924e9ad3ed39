"""Claims on the deep linear network: how gradients shift in it, and how it trains."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import paired, runs_of, unless_diverged
from icsbench.analysis.claims.texts import A_FIFTH, BY_A_FIFTH, COHEN, EDGE, SANTURKAR
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities import updates
from icsbench.analysis.quantities.training import final_loss
from icsbench.analysis.quantities.updates import window_of
from icsbench.analysis.statistics import Floats, positive_ratio
from icsbench.record.reader import Run

_PAPERS_LR = 1e-7
_SHORT_STEP = 0.5
"""Updates with beta x lr / 2 below this are short: half way to the edge of stability."""


def _cosine(norm: str, group: Group) -> Measured:
    """The median of cos(G, G') over layers and steps, at the paper's learning rate."""
    runs = runs_of(group, norm, lr=_PAPERS_LR)
    return paired({norm: runs}, unless_diverged(lambda run: window_of(run, updates.ICS_COSINE, "whole")))


def _loss_ratio(a: str, b: str, group: Group, **settings: Any) -> Measured:
    """The final training loss of one norm over that of another; ``settings`` as in :func:`runs_of`."""
    parts = {norm: runs_of(group, norm, **settings) for norm in (a, b)}
    return paired(parts, lambda one, other: positive_ratio(final_loss(one), final_loss(other)))


def _of_all_rates(value: Callable[[Floats, Floats], float], group: Group) -> Measured:
    """``value`` of the cosine and of beta x lr / 2 over all measurements of the BN runs of a seed."""
    parts = {f"bn at lr {lr:g}": runs_of(group, "bn", lr=lr) for lr in group.lrs}

    def of_seed(*runs: Run) -> float:
        cosines, betas = [], []
        for run in runs:
            found = updates.measurements(run)
            if updates.ICS_COSINE not in found or updates.BETA_LR not in found:
                raise NotMeasured(f"{run.path} has no ICS and landscape")
            cosine, beta = found[updates.ICS_COSINE], found[updates.BETA_LR]
            _, left, right = np.intersect1d(cosine[0], beta[0], return_indices=True)
            cosines.append(cosine[1][left])
            betas.append(beta[1][right])
        cosine, beta = np.concatenate(cosines), np.concatenate(betas)
        kept = np.isfinite(cosine) & np.isfinite(beta)
        return value(cosine[kept], beta[kept])

    return paired(parts, unless_diverged(of_seed))


def _cosine_of_short_steps(cosine: Floats, beta: Floats) -> float:
    short = beta < _SHORT_STEP
    return float(np.median(cosine[short])) if short.any() else math.nan


def _rank_correlation(a: Floats, b: Floats) -> float:
    from scipy.stats import rankdata

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


BN_SHIFTS_A_DEEP_LINEAR_NETWORK = Claim(
    id="8",
    statement="In a deep linear network gradients hardly shift without BN, much with it, and BN trains faster.",
    by=SANTURKAR,
    where="S section 2.2, Fig. 3 (b)",
    parts=(
        Part(
            "dln_cosine_none",
            partial(_cosine, "none"),
            "cos(G, G') without BN at learning rate 1e-7: median over layers from the second on and over steps",
            ("dln",),
            low=0.99,
        ),
        Part("dln_cosine_bn", partial(_cosine, "bn"), "the same with BN", ("dln",), high=0.9),
        Part(
            "dln_loss",
            partial(_loss_ratio, "bn", "none", lr=_PAPERS_LR),
            "final training loss with BN / without, at 1e-7",
            ("dln",),
            kind="ratio",
            high=A_FIFTH,
        ),
    ),
    margin=f"The cosines as the figure has them (1.0, and visibly less). {BY_A_FIFTH}",
    fairness=(EDGE, "Text and figure of the paper disagree: 'almost uncorrelated' against a cosine near -0.9."),
    figures=("ics",),
)

THAT_SHIFT_IS_THE_EDGE_OF_STABILITY = Claim(
    id="9",
    statement="The shift of a deep linear network is the edge of stability: it goes where updates are short.",
    by=f"{COHEN} (an inference)",
    where="not in a paper; follows from S Fig. 3 (b) and 10",
    disputed_by=SANTURKAR,
    parts=(
        Part(
            "dln_cosine_short",
            partial(_of_all_rates, _cosine_of_short_steps),
            "median cos(G, G') with BN over the measurements with beta x lr / 2 below 0.5, all learning rates",
            ("dln_lr",),
            low=0.9,
            below=SANTURKAR,
        ),
        Part(
            "dln_cosine_beta_correlation",
            partial(_of_all_rates, _rank_correlation),
            "rank correlation of cos(G, G') and beta x lr / 2 with BN over all measurements and learning rates",
            ("dln_lr",),
            high=-0.5,
            above=SANTURKAR,
        ),
    ),
    margin="The bound of claim 8 the other way (0.9), and a rank correlation of half strength.",
    fairness=("Correlation is over steps and rates of a seed, which are not independent; seeds are the sample.",),
    figures=("ics",),
)

L1_TRAINS_A_DEEP_LINEAR_NETWORK_BETTER = Claim(
    id="13b",
    statement="In the deep linear network l_1 normalization trains better than BN.",
    by=SANTURKAR,
    where="S section 3.3, Fig. 5",
    parts=(
        Part(
            "dln_loss_l1",
            partial(_loss_ratio, "l1", "bn"),
            "final training loss, l_1 / BN",
            ("dln_lp",),
            kind="ratio",
            high=A_FIFTH,
        ),
    ),
    margin=BY_A_FIFTH,
    fairness=("At the paper's learning rate for all.",),
    figures=("loss",),
)
