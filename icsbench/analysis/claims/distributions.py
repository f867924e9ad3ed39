"""Claims on how the distributions of pre-activations move: drift of percentiles, shift of moments."""

import math
from collections.abc import Callable, Iterable
from functools import partial

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import LeftOut, at_papers_rate, paired, papers_rate, unless_diverged
from icsbench.analysis.claims.texts import A_FIFTH, BY_A_FIFTH, IOFFE, MATCHED_LR, SANTURKAR
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.shift import (
    MEAN_IN_UNITS,
    MEAN_PER_STEP,
    SHIFT,
    VARIANCE_IN_UNITS,
    VARIANCE_PER_STEP,
    last_hidden_layer,
    percentile_drift,
    step_shift,
)
from icsbench.analysis.quantities.training import left_chance
from icsbench.analysis.statistics import geometric_mean, positive_ratio
from icsbench.record.reader import Layer, Run

_REGIMES = ("long", "three_regimes", "landscape")
_VGG_LAYERS = (3, 11)


def _drift_ratio(group: Group, layers: Callable[[Group], Iterable[Layer]]) -> Measured:
    """Drift of percentiles with BN / without; the geometric mean over the layers."""
    part = group.at(papers_rate(group))
    by_layer = [{d.curve.regime: d.averages for d in percentile_drift(part, layer)} for layer in layers(part)]
    parts = {"bn": at_papers_rate(group, "bn"), "none": at_papers_rate(group, "none")}

    def ratio(bn: Run, none: Run) -> float:
        pairs = [tuple(of.get(run.regime, {}).get(run.seed, math.nan) for run in (bn, none)) for of in by_layer]
        return geometric_mean(mine / theirs if theirs else math.nan for mine, theirs in pairs)

    return paired(parts, ratio)


def _vgg_layers(group: Group) -> list[Layer]:
    convolutions = [layer for layer in group.runs[0].layers_of(SHIFT) if "conv" in layer.path]
    if len(convolutions) < max(_VGG_LAYERS):
        raise NotMeasured(f"{group.name} has no shift probes of convolutions {_VGG_LAYERS[0]} and {_VGG_LAYERS[1]}")
    return [convolutions[number - 1] for number in _VGG_LAYERS]


def _off_chance(noisy: Run, none: Run) -> float:
    """The first step that counts: from then on both have left chance."""
    return max(map(left_chance, (noisy, none)))


def _second_half(noisy: Run, none: Run) -> None:
    """As `_off_chance`; without it :func:`step_shift` takes the second half."""


def _shift_ratio(moment: str, group: Group, first: Callable[[Run, Run], float | None] = _off_chance) -> Measured:
    """Change of a moment in one step, noisy BN / none."""

    def ratio(noisy: Run, none: Run) -> float:
        begin = first(noisy, none)
        found = [step_shift(run, moment, begin) for run in (noisy, none)]
        if begin is not None and not all(map(math.isfinite, found)):
            raise LeftOut("no finite shift after both have left chance")
        return positive_ratio(*found)

    parts = {"noisy_bn": at_papers_rate(group, "noisy_bn"), "none": at_papers_rate(group, "none")}
    return paired(parts, unless_diverged(ratio))


def _shift_parts(moments: dict[str, str], name: str, unit: str) -> tuple[Part, ...]:
    return tuple(
        Part(
            f"shift_{moment}_noisy_to_none_{name}",
            partial(_shift_ratio, key),
            f"change of the {moment} of a pre-activation in one step{unit}, noisy BN / none: mean over all probes "
            "after both left chance (training accuracy twice it), geometric mean over convolutions 2, 7 and 13",
            _REGIMES,
            kind="ratio",
            low=3,
            variants={"window: second half": partial(_shift_ratio, key, first=_second_half)},
        )
        for moment, key in moments.items()
    )


STABLE_INPUTS_OF_SIGMOID_UNITS = Claim(
    id="2",
    statement="The distributions of the inputs of sigmoid units are much more stable with BN.",
    by=IOFFE,
    where="I&S section 4.1, Fig. 1 (b, c)",
    parts=(
        Part(
            "drift_last_hidden",
            partial(_drift_ratio, layers=lambda group: [last_hidden_layer(group)]),
            "drift with BN / without: mean over training of |q(t) - q(T)| / (q85(T) - q15(T)) over the 15th, 50th "
            "and 85th percentile of all units of the last hidden layer",
            ("percentiles",),
            kind="ratio",
            high=A_FIFTH,
        ),
    ),
    margin=BY_A_FIFTH,
    fairness=(
        "All units of the layer, where the paper shows one.",
        "The drift follows the pace of learning.",
        "The paper's data are MNIST.",
    ),
    figures=("percentiles",),
)

NO_DIFFERENCE_IN_A_VGG = Claim(
    id="3",
    statement="In a VGG the difference in stability of the distributions is marginal.",
    by=SANTURKAR,
    where="S section 2, Fig. 1 (c)",
    disputed_by=IOFFE,
    parts=(
        Part(
            "drift_vgg",
            partial(_drift_ratio, layers=_vgg_layers),
            "drift of percentiles with BN / without, as in claim 2, in convolutions 3 and 11",
            _REGIMES,
            kind="ratio",
            low=A_FIFTH,
            high=1 / A_FIFTH,
            below=IOFFE,
        ),
    ),
    margin=f"As good as equal: between 0.8 and 1.25. {BY_A_FIFTH}",
    fairness=(MATCHED_LR, "The drift follows the pace of learning."),
    figures=("ridges",),
)

NOISY_BN_SHIFTS_MORE = Claim(
    id="5",
    statement="Noisy BN has more distributional shift than the network without BN.",
    by=SANTURKAR,
    where="S section 2.1, Fig. 2 and 8",
    parts=_shift_parts({"mean": MEAN_PER_STEP, "variance": VARIANCE_PER_STEP}, "off_chance", ""),
    margin="Factor 3: the figure shows an order of magnitude, and less than 3 could not be seen there.",
    fairness=("Raw moments, as in the paper: without BN their unit is that of an unnormalised network; see 5b.",),
    figures=("moments",),
)

NOISY_BN_SHIFTS_MORE_IN_UNITS = Claim(
    id="5b",
    statement="Noisy BN has more distributional shift than the network without BN also in units of the layer's "
    "standard deviation.",
    by=SANTURKAR,
    where="S section 2.1, Fig. 2 and 8, whose moments are raw",
    parts=_shift_parts(
        {"mean": MEAN_IN_UNITS, "variance": VARIANCE_IN_UNITS},
        "in_units",
        " in units of the standard deviation of its layer before the step (of the variance: its square)",
    ),
    margin="Factor 3, as in claim 5.",
    fairness=("The scale is that of all channels of a layer: the root of their mean variance.",),
    figures=("moments",),
)
