"""The claims on training residual networks without normalization: SkipInit and Fixup against BN."""

from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.paired import difference
from icsbench.analysis.claims.texts import DE_SMITH, MATCHED_LR, ZHANG
from icsbench.analysis.quantities.training import last_tenth

_MARGIN = (
    "As well as: within two points, as in claim 4; worse, of the control: by more than these two points. Nothing was "
    "known beforehand of these networks at this length."
)
_FAIRNESS = (
    MATCHED_LR,
    "Optimizer of the papers: SGD with momentum 0.9 and weight decay 1e-4 at rate 0.1; not tuned for any regime.",
    "Control: the same network with neither norm nor scalars, from He's initialization; without it, that the depth at "
    "hand needs no help would look the same.",
    "Convolutions have biases in every regime: SkipInit's do, BN cancels them, and for Fixup they come on top of its "
    "scalar biases.",
    "The budget of steps is fixed and short beside the papers'; a regime that is slower at first counts as worse.",
)


def _parts(norm: str, name: str) -> tuple[Part, Part]:
    of = "training accuracy of the last tenth of the steps, of a residual network,"
    studies = ("resnet",)
    as_bn, better = difference(norm, "bn", last_tenth), difference(norm, "none", last_tenth)
    return (
        Part(f"train_{norm}_minus_bn", as_bn, f"{of} {name} minus BN", studies, unit="points", low=-2, high=2),
        Part(f"train_{norm}_minus_none", better, f"{of} {name} minus none", studies, unit="points", low=2),
    )


SKIPINIT_TRAINS_AS_WELL = Claim(
    id="18d",
    statement="SkipInit trains a residual network without normalization as well as BN does.",
    by=DE_SMITH,
    where="D&S abstract",
    parts=_parts("skipinit", "SkipInit"),
    margin=_MARGIN,
    fairness=_FAIRNESS,
    figures=("accuracy",),
)

FIXUP_TRAINS_AS_WELL = Claim(
    id="18e",
    statement="Fixup trains a residual network without normalization as well as BN does.",
    by=ZHANG,
    where="Z abstract",
    parts=_parts("fixup", "Fixup"),
    margin=_MARGIN,
    fairness=(
        *_FAIRNESS,
        "Scalars learn at a tenth of the rate, as in the authors' code; its mixup, against overfitting, is left out "
        "for all.",
    ),
    figures=("accuracy",),
)
