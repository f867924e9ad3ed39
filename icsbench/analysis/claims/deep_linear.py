"""Claims on the deep linear network: how gradients shift in it, and how it trains."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import LeftOut, paired, runs_of, unless_diverged
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
_VARIES = 0.01
"""A cosine that varies less does not: claim 8 calls a gradient unshifted within it."""


def _cosine(norm: str, group: Group) -> Measured:
    """The median of cos(G, G') over layers and steps, at the paper's learning rate."""
    runs = runs_of(group, norm, lr=_PAPERS_LR)
    return paired({norm: runs}, unless_diverged(lambda run: window_of(run, updates.ICS_COSINE, "whole")))


def _loss_ratio(a: str, b: str, group: Group, **settings: Any) -> Measured:
    """The final training loss of one norm over that of another; ``settings`` as in :func:`runs_of`."""
    parts = {norm: runs_of(group, norm, **settings) for norm in (a, b)}
    return paired(parts, lambda one, other: positive_ratio(final_loss(one), final_loss(other)))


def _edge(norm: str, group: Group, window: str = "whole") -> Measured:
    """The median of beta x lr / 2 over a window of the steps, at the paper's learning rate."""
    runs = runs_of(group, norm, lr=_PAPERS_LR)
    return paired({norm: runs}, unless_diverged(lambda run: window_of(run, updates.BETA_LR, window)))


Rates = Sequence[tuple[Floats, Floats]]
"""The cosines and beta x lr / 2 at the steps of a seed where both are finite, of each learning rate."""


def _of_rates(value: Callable[[Rates], float], group: Group) -> Measured:
    """``value`` of what the BN runs of a seed measured; the mean of the same without BN is noted, where it was run."""

    def of_norm(norm: str) -> Measured:
        rates = sorted({run.lr for run in group.runs if run.regime == norm})
        parts = {f"{norm} at lr {lr:g}": runs_of(group, norm, lr=lr) for lr in rates}
        return paired(parts, unless_diverged(lambda *runs: value([_cosine_and_beta(run) for run in runs])))

    found = of_norm("bn")
    if any(run.regime == "none" for run in group.runs):
        beside = of_norm("none").values.values()
        mean = f"{sum(beside) / len(beside):.4f} (mean over {len(beside)} seeds)" if beside else "no value"
        found = found._replace(note=f"without BN: {mean}")
    return found


def _cosine_and_beta(run: Run) -> tuple[Floats, Floats]:
    found = updates.measurements(run)
    if updates.ICS_COSINE not in found or updates.BETA_LR not in found:
        raise NotMeasured(f"{run.path} has no ICS and landscape")
    cosine, beta = found[updates.ICS_COSINE], found[updates.BETA_LR]
    _, left, right = np.intersect1d(cosine[0], beta[0], return_indices=True)
    kept = np.isfinite(cosine[1][left]) & np.isfinite(beta[1][right])
    return cosine[1][left][kept], beta[1][right][kept]


def _pooled(rates: Rates) -> tuple[Floats, Floats]:
    cosine, beta = (np.concatenate(of_rates) for of_rates in zip(*rates, strict=True))
    return cosine, beta


def _cosine_of_short_steps(rates: Rates) -> float:
    cosine, beta = _pooled(rates)
    short = beta < _SHORT_STEP
    if not short.any():
        raise LeftOut(f"no update with beta x lr / 2 below {_SHORT_STEP}")
    return float(np.median(cosine[short]))


def _correlation_within(rates: Rates, least: float = _VARIES) -> float:
    """The rank correlation at each rate at which the cosine varies; the mean over these rates."""
    found = [_rank_correlation(*rate) for rate in rates if len(rate[0]) and _spread(rate[0]) >= least]
    found = [correlation for correlation in found if math.isfinite(correlation)]
    if not found:
        raise LeftOut("the cosine varies at no learning rate")
    return float(np.mean(found))


def _spread(values: Floats) -> float:
    low, high = np.quantile(values, [0.1, 0.9])
    return float(high - low)


def _rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; equal values have the mean of their ranks. NaN of fewer than three, or where one does not vary."""
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
    statement="The ICS of BN in the deep linear network is the edge of stability.",
    by=f"{COHEN} (an inference)",
    where="not in a paper; follows from S Fig. 3 (b) and 10",
    parts=(
        *(
            Part(
                f"dln_edge_{norm}",
                partial(_edge, norm),
                f"beta x lr / 2 {name} at learning rate 1e-7: median over the steps",
                ("dln_lr", "dln"),
                kind="ratio",
                low=low,
                high=high,
                variants={"window: second half": partial(_edge, norm, window="second half")},
            )
            for norm, name, low, high in (
                ("bn", "with BN", A_FIFTH, 1 / A_FIFTH),
                ("none", "without BN", -math.inf, _SHORT_STEP),
            )
        ),
        Part(
            "dln_cosine_short_steps",
            partial(_of_rates, _cosine_of_short_steps),
            "median cos(G, G') with BN over the measurements with beta x lr / 2 below 0.5, all learning rates",
            ("dln_lr",),
            low=0.9,
        ),
        Part(
            "dln_correlation_within_rates",
            partial(_of_rates, _correlation_within),
            "rank correlation of cos(G, G') and beta x lr / 2 with BN over the measurements at a learning rate; mean "
            "over the rates at which the cosine varies (its 10 and 90 % quantiles are 0.01 apart, or more)",
            ("dln_lr",),
            high=-0.5,
            variants={
                "all rates": partial(_of_rates, partial(_correlation_within, least=0.0)),
                "pooled over the rates": partial(_of_rates, lambda rates: _rank_correlation(*_pooled(rates))),
            },
        ),
    ),
    margin="At the edge within a fifth (0.8 to 1.25), and without BN half way to it at most; the bound of claim 8 the "
    "other way (0.9); and a rank correlation of half strength.",
    fairness=(
        "Correlation is over the steps of a seed, which are not independent; seeds are the sample.",
        "Control: the network without BN, whose updates are short at this rate (part 2); its values are noted with "
        "parts 3 and 4. Where they are alike, the parts say nothing of BN.",
        "It speaks for Cohen et al., and against nobody: Santurkar et al. do not say what makes the shift.",
    ),
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
