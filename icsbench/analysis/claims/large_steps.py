"""Claims by Bjorck et al. on large steps: what an untrained network without BN does along its gradient, and why.

A residual network is the one of the study whose name begins with ``resnet``; any other is plain. Every seed has one
random network of each, with and without BN, and every number is of such a one, over its first batches.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import Runs, paired, runs_of
from icsbench.analysis.claims.texts import BJORCK, DE_SMITH, YANG
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.large_steps import (
    CHANNEL_MEAN,
    CHANNEL_STD,
    LAB,
    channels,
    divergence_step,
    highest_step,
    of_batches,
    sign_shares,
)
from icsbench.analysis.statistics import geometric_mean, slope
from icsbench.record.reader import Run

_STUDY = ("large_steps",)
_GROWS = 1 / 110
"""Decades a layer: tenfold over the 110 layers of the paper's network, between its two curves of 4.5 decades and 0."""
_ALL = 0.9


def _models(group: Group) -> list[str]:
    return sorted({str(run.setting("model.name")) for run in group.runs})


def _runs(group: Group, norm: str, *, residual: bool) -> Runs:
    """The runs of the residual or of the plain network with a norm, by seed.

    :raises NotMeasured: the study has none, or several such networks.
    """
    models = [name for name in _models(group) if name.startswith("resnet") == residual]
    if len(models) != 1:
        kind = "residual" if residual else "plain"
        raise NotMeasured(f"{group.name} has {len(models)} {kind} networks ({', '.join(_models(group))}); it takes one")
    return runs_of(group, LAB, **{"norm.name": norm, "model.name": models[0]})


def _ratio(bn: Run, none: Run) -> float:
    """Divergence step, BN / none. One beyond the grid counts as its end; NaN where both are."""
    with_bn, without = divergence_step(bn), divergence_step(none)
    if math.isinf(with_bn) and math.isinf(without):
        return math.nan
    return min(with_bn, highest_step(bn)) / min(without, highest_step(none))


def _distance(bn: Run, none: Run) -> float:
    """The same ratio of distances: the step times the length of the gradient, relative to that of the weights."""
    lengths = [geometric_mean(of_batches(run, "gradient_norm") / of_batches(run, "weight_norm")) for run in (bn, none)]
    return _ratio(bn, none) * lengths[0] / lengths[1]


def _steps_borne(group: Group) -> Measured:
    bn, none = (_runs(group, norm, residual=True) for norm in ("bn", "none"))
    found = paired({"bn": bn, "none": none}, _ratio)
    beyond = [f"{name} {_beyond(runs)} of {len(runs)} seeds" for name, runs in (("bn", bn), ("none", none))]
    said = [f"beyond the grid, counted as its end: {', '.join(beyond)}"]
    if found.values:
        said.append(f"in distance relative to the weights x{geometric_mean(_finite(_distance, bn, none)):.3g}")
    said += _plain(group)
    return found._replace(note="; ".join(said))


def _beyond(runs: Runs) -> int:
    return sum(math.isinf(divergence_step(run)) for run in runs.values())


def _finite(value: Callable[[Run, Run], float], bn: Runs, none: Runs) -> list[float]:
    """The finite values of the seeds that both have."""
    return [*paired({"bn": bn, "none": none}, value).values.values()]


def _plain(group: Group) -> list[str]:
    """What the plain network of the study, where it has one, says to the ratio of divergence steps."""
    try:
        bn, none = (_runs(group, norm, residual=False) for norm in ("bn", "none"))
    except NotMeasured:
        return []
    ratios = _finite(_ratio, bn, none)
    beyond = f"beyond the grid: bn {_beyond(bn)} of {len(bn)} seeds, none {_beyond(none)} of {len(none)}"
    return [f"the plain network: {'x' + format(geometric_mean(ratios), '.3g') if ratios else 'no ratio'} ({beyond})"]


def _of_runs(value: Callable[[Run], float], norm: str, residual: bool, group: Group) -> Measured:
    return paired({norm: _runs(group, norm, residual=residual)}, value)


def _growth(key: str, run: Run) -> float:
    """Slope of log10 of a quantity of the channels on the depth of the layer, decades a layer; NaN where one is 0.

    From the second layer on: the first sees standardised inputs, whose mean is 0 in whatever network.
    """
    depths, values = channels(run, key)
    with np.errstate(divide="ignore"):
        return slope([*depths[1:]], [*np.log10(values[1:])])


def _agreement(run: Run) -> float:
    return float(np.nanmean(sign_shares(run)[1]))


def _commonest(run: Run) -> float:
    return float(of_batches(run, "commonest_prediction").mean())


def _growth_parts(
    norm: str, name: str, *, residual: bool = True, low: float = -math.inf, high: float = math.inf
) -> tuple[Part, ...]:
    network = "the residual network" if residual else "the plain network"
    return tuple(
        Part(
            f"{key}_growth_{'' if residual else 'plain_'}{norm}",
            partial(_of_runs, partial(_growth, key), norm, residual),
            f"slope of log10 of the {what} of the channels on the depth of the layer, from the second on, {network} "
            f"{name} BN",
            _STUDY,
            per="layer",
            of="networks",
            low=low,
            high=high,
        )
        for key, what in ((CHANNEL_STD, "standard deviation"), (CHANNEL_MEAN, "absolute mean"))
    )


BEARS_LARGER_FIRST_STEPS = Claim(
    id="31",
    statement="Without BN the loss explodes along the first gradient at steps that BN bears.",
    by=BJORCK,
    where="B section 3",
    disputed_by=YANG,
    parts=(
        Part(
            "divergence_step",
            _steps_borne,
            "smallest step along the first gradient at which the loss is more than 1,000 times what it was, with BN / "
            "without: medians over the first batches, of the residual network",
            _STUDY,
            kind="ratio",
            of="networks",
            low=10,
        ),
    ),
    margin="In the paper's figure the network without BN diverges at about 0.001, and that with BN stays below three "
    "times its loss up to about 0.2, a ratio of 200 at least. What another network, with other first weights, has to "
    "show of it is one order of magnitude: 10.",
    fairness=(
        "Where no step of the grid diverges, the end of the grid counts: with BN the ratio is then a lower bound.",
        "A step is a multiple of the gradient, and where the gradient is larger it goes further: the note has the "
        "ratio of distances too. Without BN the loss, and with it the gradient, is larger at the start.",
        "The control is a plain network with He weights, where without skip connections nothing grows; its ratio, in "
        "the note, says what BN does by itself. Yang et al. remark that the finding is one of residual networks, and "
        "find that BN makes gradients explode in plain ones.",
        "Loss divided by loss: a network that starts at a huge loss has less to grow by.",
        "The first batches of an untrained network; the paper looks at later ones too.",
    ),
    figures=("large-steps",),
)

CHANNELS_GROW_WITH_DEPTH = Claim(
    id="32",
    statement="Without BN means and deviations of channels grow exponentially with depth; with BN they stay constant.",
    by=BJORCK,
    where="B section 3",
    parts=(
        *_growth_parts("none", "without", low=_GROWS),
        *_growth_parts("bn", "with", low=-_GROWS, high=_GROWS),
    ),
    margin="The paper's network of 110 layers grows by 4.5 decades in 96 layers without BN, and does not with it. The "
    "bound between is one decade over 110 layers, 0.0091 a layer.",
    fairness=(
        "Measured ahead of BN, at the output of each convolution: behind it mean 0 and deviation 1 hold by definition.",
        "That is known to follow from the skip connections: without BN a residual block doubles the second moment "
        "(De & Smith; 0.15 decades of the deviation), less where a ReLU stands behind the sum as it does here, and one "
        "with BN adds a constant. See 32b for the control.",
        "A slope of logarithms tells growth from none, not an exponential from a power.",
    ),
    figures=("channels",),
)

NO_GROWTH_WITHOUT_SKIPS = Claim(
    id="32b",
    statement="The growth is that of skip connections, not of absent BN: in a plain network with He weights and no BN "
    "means and deviations of channels do not grow.",
    by=f"{DE_SMITH} (an inference)",
    where="D&S section 3",
    disputed_by=BJORCK,
    parts=_growth_parts("none", "without", residual=False, high=_GROWS),
    margin="The bound of claim 32. He weights keep the second moment of a layer of ReLU; zeros at the borders of small "
    "images lower it, and pooling by maxima raises it.",
    fairness=("The plain network is VGG, with fewer layers: the slope is per layer.",),
    figures=("channels",),
)

GRADIENTS_AGREE_AT_THE_OUTPUT = Claim(
    id="33",
    statement="At initialisation without BN the gradients at the output agree in sign over all samples, one class "
    "being predicted for each of them; with BN they depend on the sample.",
    by=BJORCK,
    where="B section 3",
    parts=(
        *(
            Part(
                f"sign_agreement_{norm}",
                partial(_of_runs, _agreement, norm, True),
                "share of the gradient by a logit, summed over samples in absolute value, that has the commoner sign: "
                f"mean over classes and batches, the residual network {name} BN",
                _STUDY,
                of="networks",
                low=low,
                high=high,
            )
            for norm, name, low, high in (("none", "without", _ALL, math.inf), ("bn", "with", -math.inf, _ALL))
        ),
        Part(
            "one_prediction_none",
            partial(_of_runs, _commonest, "none", True),
            "share of the samples for which the class that is predicted most often is predicted, the residual network "
            "without BN",
            _STUDY,
            of="networks",
            low=_ALL,
        ),
    ),
    margin="All samples: nine of ten. By size a class has half of its gradient in either sign where they cancel.",
    fairness=(
        "Signs are weighed by size: the bare sign of the gradient by a logit, p - y, is that of the label, the same "
        "with BN as without, and agrees for about nine of ten samples where there are ten classes.",
        "A network whose outputs are all small gives each class a probability of a tenth and agrees in sign for none "
        "of the classes, whether it has BN or not: what the claim is about is the size of the outputs.",
    ),
    figures=("large-steps",),
)
