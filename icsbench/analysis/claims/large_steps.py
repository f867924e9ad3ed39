"""Claims by Bjorck et al. on large steps: what an untrained network without BN does along its gradient, and why.

Every seed has one random network, with each norm, and every number is of such a one, over its first batches.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import Runs, paired, runs_of
from icsbench.analysis.claims.texts import BJORCK, DE_SMITH, YANG, ZHANG
from icsbench.analysis.groups import Group
from icsbench.analysis.quantities.large_steps import (
    CHANNEL_MEAN,
    CHANNEL_STD,
    LAB,
    channels,
    divergence_step,
    of_batches,
    sign_shares,
    step_sizes,
)
from icsbench.analysis.statistics import geometric_mean, slope
from icsbench.record.reader import Run
from icsbench.record.schema import STEP_DIVERGES

_RESIDUAL = ("large_steps",)
_PLAIN = ("large_steps_plain",)
_GROWS = 1 / 110
"""Decades a layer: tenfold over the 110 layers of the paper's network, between its two curves of 4.5 decades and 0."""
_ORDER = 10.0
_ALL = 0.9


def _runs(group: Group, norm: str) -> Runs:
    """The runs with a norm, by seed.

    :raises NotMeasured: the study has none, or several networks.
    """
    return runs_of(group, LAB, **{"norm.name": norm})


def _ratio(one: Run, other: Run) -> float:
    """Divergence step, one / other. One beyond the grid counts as its end; NaN where both are."""
    steps = [divergence_step(run) for run in (one, other)]
    if all(map(math.isinf, steps)):
        return math.nan
    first, second = (min(step, step_sizes(run)[-1]) for step, run in zip(steps, (one, other), strict=True))
    return float(first / second)


def _distance(one: Run, other: Run) -> float:
    """The same ratio of distances: the step times the length of the gradient, relative to that of the weights."""
    lengths = [
        geometric_mean(of_batches(run, "gradient_norm") / of_batches(run, "weight_norm")) for run in (one, other)
    ]
    return _ratio(one, other) * lengths[0] / lengths[1]


def _steps_borne(norm: str, group: Group) -> Measured:
    """Divergence step with a norm / without; the note says what lies outside the grid, and the ratio of distances."""
    parts = {norm: _runs(group, norm), "none": _runs(group, "none")}
    said = []
    for name, runs in parts.items():
        steps = {seed: divergence_step(run) for seed, run in runs.items()}
        beyond = sum(map(math.isinf, steps.values()))
        at_once = sum(step <= step_sizes(runs[seed])[0] for seed, step in steps.items())
        said += [f"{name}: {beyond} of {len(runs)} beyond the grid, counted as its end"] if beyond else []
        said += [f"{name}: {at_once} of {len(runs)} at its first step or below"] if at_once else []
    distances = [*paired(parts, _distance).values.values()]
    if distances:
        said.append(f"in distance relative to the weights x{geometric_mean(distances):.3g}")
    return paired(parts, _ratio)._replace(note="; ".join(said))


def _of_runs(value: Callable[[Run], float], norm: str, group: Group) -> Measured:
    return paired({norm: _runs(group, norm)}, value)


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
    norm: str, name: str, study: tuple[str, ...] = _RESIDUAL, low: float = -math.inf, high: float = math.inf
) -> tuple[Part, ...]:
    plain = study == _PLAIN
    return tuple(
        Part(
            f"{key}_growth_{'plain_' if plain else ''}{norm}",
            partial(_of_runs, partial(_growth, key), norm),
            f"slope of log10 of the {what} of the channels on the depth of the layer, from the second on, the "
            f"{'plain' if plain else 'residual'} network {name} BN",
            study,
            per="layer",
            of="networks",
            low=low,
            high=high,
        )
        for key, what in ((CHANNEL_STD, "standard deviation"), (CHANNEL_MEAN, "absolute mean"))
    )


def _step_part(
    name: str, norm: str, label: str, study: tuple[str, ...], low: float = -math.inf, high: float = math.inf
) -> Part:
    network = "plain" if study == _PLAIN else "residual"
    return Part(
        name,
        partial(_steps_borne, norm),
        f"smallest step along the first gradient at which the loss is more than {STEP_DIVERGES:,.0f} times what it "
        f"was, with {label} / without: medians over the first batches, of the {network} network",
        study,
        kind="ratio",
        of="networks",
        low=low,
        high=high,
    )


BEARS_LARGER_FIRST_STEPS = Claim(
    id="31",
    statement="Without BN the loss explodes along the first gradient at steps that BN bears.",
    by=BJORCK,
    where="B section 3",
    disputed_by=YANG,
    parts=(_step_part("divergence_step", "bn", "BN", _RESIDUAL, low=_ORDER),),
    margin="In the paper's figure the network without BN diverges at about 0.001, and that with BN stays below three "
    "times its loss up to about 0.2, a ratio of 200 at least. What another network, with other first weights, has to "
    "show of it is one order of magnitude: 10.",
    fairness=(
        "Where no step of the grid diverges, the end of the grid counts: with BN the ratio is then a lower bound.",
        "A step is a multiple of the gradient, and where the gradient is larger it goes further: the note has the "
        "ratio of distances too. Without BN the loss, and with it the gradient, is larger at the start.",
        "Controls: SkipInit and Fixup in the place of BN (31b), and a plain network, in which nothing grows without BN "
        "(31c). Yang et al. remark that the finding is one of residual networks.",
        "Loss divided by loss: a network that starts at a huge loss has less to grow by.",
        "The first batches of an untrained network; the paper looks at later ones too.",
    ),
    figures=("large-steps",),
)

NO_BN_NEEDED = Claim(
    id="31b",
    statement="It takes no BN to bear large first steps: with SkipInit or Fixup the network does so too.",
    by=f"{DE_SMITH}; {ZHANG} (an inference)",
    where="D&S section 3; Z abstract",
    parts=(
        _step_part("divergence_step_skipinit", "skipinit", "SkipInit", _RESIDUAL, low=_ORDER),
        _step_part("divergence_step_fixup", "fixup", "Fixup", _RESIDUAL, low=_ORDER),
    ),
    margin="That of claim 31.",
    fairness=(
        "Both start with branches that add nothing (or, Fixup, with an output of 0): a step along the gradient changes "
        "little but the last layer, and what they bear later is not seen.",
        "Where no step of the grid diverges, the end of the grid counts: the ratio is then a lower bound.",
    ),
    figures=("large-steps",),
)

NO_DIFFERENCE_WITHOUT_SKIPS = Claim(
    id="31c",
    statement="In a plain network that keeps its size without BN the steps that BN bears are not larger by an order.",
    by=f"{YANG} (an inference)",
    where="Y section 2",
    disputed_by=BJORCK,
    parts=(_step_part("divergence_step_plain", "bn", "BN", _PLAIN, high=_ORDER),),
    margin="That of claim 31, from the other side.",
    fairness=(
        "Where no step of the grid diverges with BN, the end of the grid counts, and the ratio is a lower bound: a "
        "verdict for the claim then only says that the grid ends too soon. The note says how many do.",
        "VGG with He weights, 14 layers; the residual network has 110.",
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
    parts=_growth_parts("none", "without", _PLAIN, high=_GROWS),
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
                partial(_of_runs, _agreement, norm),
                "share of the gradient by a logit, summed over samples in absolute value, that has the commoner sign: "
                f"mean over classes and batches, the residual network {name} BN",
                _RESIDUAL,
                of="networks",
                low=low,
                high=high,
            )
            for norm, name, low, high in (("none", "without", _ALL, math.inf), ("bn", "with", -math.inf, _ALL))
        ),
        Part(
            "one_prediction_none",
            partial(_of_runs, _commonest, "none"),
            "share of the samples for which the class that is predicted most often is predicted, the residual network "
            "without BN",
            _RESIDUAL,
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
