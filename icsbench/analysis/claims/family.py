"""Claims on the wider family of norms: group, instance and layer norm, DyT, weight normalization, against BN."""

from collections.abc import Callable

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.paired import at_papers_rate, difference, paired, runs_of
from icsbench.analysis.claims.texts import A_FIFTH, HOFFER_2018, MATCHED_LR
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.protocols import CUSTOMARY, final_accuracy
from icsbench.analysis.quantities.start_gradients import LAB, gradients
from icsbench.analysis.quantities.training import last_tenth
from icsbench.record.reader import Run

WU_HE = "Wu & He 2018"
LUBANA = "Lubana et al. 2021"
ZHU = "Zhu et al. 2025"
ZHU_CONVOLUTIONS = "Zhu et al. 2025 (networks with BN)"
SALIMANS = "Salimans & Kingma 2016"
ZHANG_SENNRICH = "Zhang & Sennrich 2019"
IOFFE_2017 = "Ioffe 2017"

_FAMILY, _BATCH, _START, _VARIANTS = ("family",), ("family_batch",), ("family_start",), ("bn_variants",)
_TRAIN = "training accuracy of the last tenth of the steps,"
_KNOWN = (
    " One trial of each of five norms, with another seed, was known (training accuracy: BN 47 %, none 40 %, group norm "
    "26 %, DyT and weight normalization at chance); the regions were written before it."
)
_ONE_NETWORK = "One network, one optimizer, few steps: a norm that is slower at first counts as worse."


def _sizes(group: Group) -> tuple[int, int]:
    """The smallest and the largest batch of the study.

    :raises NotMeasured: there is one size only.
    """
    sizes = sorted({int(run.setting("batch_size")) for run in group.runs})
    if len(sizes) < 2:
        raise NotMeasured(f"{group.name} has one batch size")
    return sizes[0], sizes[-1]


def _at_size(place: int, norm: str, other: str, accuracy: Callable[[Run], float]) -> Measure:
    """Accuracy, norm minus other, at the smallest (0) or the largest (-1) batch of the study, in points."""

    def measure(group: Group) -> Measured:
        size = _sizes(group)[place]
        parts = {name: runs_of(group, name, batch_size=size) for name in (norm, other)}
        return paired(parts, lambda a, b: 100 * (accuracy(a) - accuracy(b)))

    return measure


def _by_running_statistics(run: Run) -> float:
    return run.test_accuracy[CUSTOMARY]


def _bn_loses_more(group: Group) -> Measured:
    """How much more test accuracy BN loses than group norm from the largest batch to the smallest, in points."""
    parts = {
        f"{norm} at batch {size}": runs_of(group, norm, batch_size=size)
        for norm in ("bn", "group")
        for size in _sizes(group)
    }

    def of_seed(*runs: Run) -> float:
        bn_small, bn_large, group_small, group_large = map(final_accuracy, runs)
        return 100 * ((bn_large - bn_small) - (group_large - group_small))

    return paired(parts, of_seed)


def _over_halfway(group: Group) -> Measured:
    """Training accuracy of weight normalization minus the middle between none and BN, in points."""
    parts = {norm: at_papers_rate(group, norm) for norm in ("weight_norm", "none", "bn")}
    return paired(parts, lambda *runs: 100 * (last_tenth(runs[0]) - (last_tenth(runs[1]) + last_tenth(runs[2])) / 2))


def _first_gradient(run: Run) -> float:
    return float(gradients(run)[0])


def _growth_of_gradient(run: Run) -> float:
    """The gradient at the first layer over that at the last hidden one."""
    found = gradients(run)
    return float(found[0] / found[-2])


def _start_ratio(norm: str, other: str, of_run: Callable[[Run], float]) -> Measure:
    """The ratio of a number of the untrained networks of two norms."""

    def measure(group: Group) -> Measured:
        parts = {name: runs_of(group, LAB, **{"norm.name": name}) for name in (norm, other)}
        return paired(parts, lambda a, b: of_run(a) / of_run(b))

    return measure


GROUP_NORM_AT_SMALL_BATCHES = Claim(
    id="37",
    statement="Group normalization trains as well as BN at a usual batch, and better at a small one.",
    by=WU_HE,
    where="W&H abstract",
    parts=(
        Part(
            "train_group_minus_bn",
            difference("group", "bn", last_tenth),
            f"{_TRAIN} at the usual batch, group norm minus BN",
            _FAMILY,
            unit="points",
            low=-2,
            high=2,
        ),
        Part(
            "test_group_minus_bn_smallest_batch",
            _at_size(0, "group", "bn", final_accuracy),
            "final test accuracy at the smallest batch, group norm minus BN (statistics recomputed after training)",
            _BATCH,
            unit="points",
            low=2,
        ),
        Part(
            "test_lost_bn_minus_group",
            _bn_loses_more,
            "test accuracy lost from the largest to the smallest batch, BN minus group norm",
            _BATCH,
            unit="points",
            low=2,
        ),
    ),
    margin="As well as: within two points, as in claim 4; better: by more than these two points. The paper has 0.5 "
    "points less than BN at 32 images and 3.1 points more at 4 (ImageNet, ResNet-50)." + _KNOWN,
    fairness=(
        "Learning rates are in proportion to the batch, as in the paper, and all batches see equally many images.",
        "Control: what group norm itself loses from the large batch to the small one, in the third part: a small batch "
        "that is hard for any network would look the same in the second. Layer norm, a single group, is in the figure.",
        "BN is tested with statistics that are recomputed after training, which helps it; the paper has running ones.",
        _ONE_NETWORK,
    ),
    figures=("accuracy", "scan"),
)

INSTANCE_NORM_HAS_LARGE_GRADIENTS = Claim(
    id="37b",
    statement="The smaller the groups of a norm, the larger the gradients in early layers: instance norm has the "
    "largest.",
    by=LUBANA,
    where="L abstract",
    parts=(
        Part(
            "first_gradient_instance_to_group",
            _start_ratio("instance", "group", _first_gradient),
            "gradient of the loss in the output of the first layer's transform at the start, instance norm / group "
            "norm",
            _START,
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
        Part(
            "first_gradient_group_to_layer",
            _start_ratio("group", "layer", _first_gradient),
            "the same, group norm / layer norm (one group)",
            _START,
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
        Part(
            "gradient_growth_instance_to_layer",
            _start_ratio("instance", "layer", _growth_of_gradient),
            "the gradient at the first layer over that at the last hidden one, instance norm / layer norm",
            _START,
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
    ),
    margin="An effect counts from a fifth on (1.25). A trial with another seed was known: 0.08 with layer norm, 0.14 "
    "with group norm, 8.3 with instance norm (2.0 with BN) at the first layer; the region is not from it.",
    fairness=(
        "Untrained networks with the same weights and batches, plain VGG19; each seed has one network.",
        "Control: layer norm, the same statistics over one group; and the third part, as a norm that makes gradients "
        "larger in all layers alike is no matter of early layers.",
        "Large gradients at the start need not harm: with norms behind them, weights outgrow them (claim 31).",
    ),
    figures=("start-gradients",),
)

DYT_MATCHES_NORMALIZATION = Claim(
    id="37c",
    statement="Dynamic Tanh, without any statistics, trains as well as normalization.",
    by=ZHU,
    where="Zhu abstract",
    disputed_by=ZHU_CONVOLUTIONS,
    parts=(
        Part(
            "train_dyt_minus_layer",
            difference("dyt", "layer", last_tenth),
            f"{_TRAIN} DyT minus layer norm",
            _FAMILY,
            unit="points",
            low=-2,
            high=2,
            below=ZHU_CONVOLUTIONS,
        ),
        Part(
            "train_dyt_minus_bn",
            difference("dyt", "bn", last_tenth),
            f"{_TRAIN} DyT minus BN",
            _FAMILY,
            unit="points",
            low=-2,
            high=2,
            below=ZHU_CONVOLUTIONS,
        ),
        Part(
            "train_dyt_minus_none",
            difference("dyt", "none", last_tenth),
            f"{_TRAIN} DyT minus none",
            _FAMILY,
            unit="points",
            low=2,
        ),
    ),
    margin="As well as: within two points, as in claim 4; better than the control: by more than these two points. The "
    "paper's own table of networks with BN, where DyT in its place loses 7.3 points (ResNet-50) and 1.7 points (VGG19) "
    "on ImageNet, was known." + _KNOWN,
    fairness=(
        MATCHED_LR,
        "The abstract speaks of Transformers with layer or RMS norm; the convolutional networks are in its appendix.",
        "Control: the network without; that it needs no norm at this depth would look the same.",
        _ONE_NETWORK,
    ),
    figures=("accuracy", "protocols"),
)

WEIGHT_NORM_HAS_MUCH_OF_THE_SPEED = Claim(
    id="37d",
    statement="Weight normalization has most of what BN gains in training, without statistics of the batch.",
    by=SALIMANS,
    where="S&K abstract",
    parts=(
        Part(
            "train_weight_norm_over_halfway",
            _over_halfway,
            f"{_TRAIN} weight normalization minus the middle between none and BN",
            _FAMILY,
            unit="points",
            low=0,
        ),
        Part(
            "train_bn_minus_none_family",
            difference("bn", "none", last_tenth),
            f"{_TRAIN} BN minus none",
            _FAMILY,
            unit="points",
            low=2,
        ),
    ),
    margin="Most of the gain: more than half of it; and there must be one, of more than two points." + _KNOWN,
    fairness=(
        MATCHED_LR,
        "Control: the network without, whose weights have the same directions at the start.",
        "Weight normalization comes with its data-dependent start, which by itself may be what helps; "
        "norm.from_data=false is without.",
        _ONE_NETWORK,
    ),
    figures=("accuracy", "protocols"),
)

RMS_NORM_IS_ENOUGH = Claim(
    id="37e",
    statement="RMS norm, layer norm without subtracting the mean, trains as well as layer norm.",
    by=ZHANG_SENNRICH,
    where="Z&S abstract",
    parts=(
        Part(
            "train_rms_minus_layer",
            difference("rms", "layer", last_tenth),
            f"{_TRAIN} RMS norm minus layer norm",
            _FAMILY,
            unit="points",
            low=-2,
            high=2,
        ),
        Part(
            "train_rms_minus_none",
            difference("rms", "none", last_tenth),
            f"{_TRAIN} RMS norm minus none",
            _FAMILY,
            unit="points",
            low=2,
        ),
    ),
    margin="As well as: within two points, as in claim 4; better than the control: by more than these two points. No "
    "run of RMS norm was known.",
    fairness=(
        MATCHED_LR,
        "The paper is about recurrent networks and Transformers, and about time, which is not compared here.",
        "Control: the network without; where no norm trains as well, the two are alike for another reason.",
        _ONE_NETWORK,
    ),
    figures=("accuracy", "protocols"),
)

OTHER_DEVIATIONS_TRAIN_AS_WELL = Claim(
    id="38f",
    statement="BN by the largest deviation, or the mean of the ten largest, trains as well as by the standard one.",
    by=HOFFER_2018,
    where="H abstract (L-infinity norm)",
    parts=(
        *(
            Part(
                f"train_{norm}_minus_bn_usual_batch",
                _at_size(-1, norm, "bn", last_tenth),
                f"{_TRAIN} {name} minus BN, at the larger batch of the study",
                _VARIANTS,
                unit="points",
                low=-2,
                high=2,
            )
            for norm, name in (("linf_bn", "L-infinity BN"), ("topk_bn", "BN by the ten largest deviations"))
        ),
        Part(
            "train_bn_minus_none_usual_batch",
            _at_size(-1, "bn", "none", last_tenth),
            f"{_TRAIN} BN minus none, at the larger batch of the study",
            _VARIANTS,
            unit="points",
            low=2,
        ),
    ),
    margin="As well as: within two points, as in claim 4; BN has to gain more than these. No run was known.",
    fairness=(
        "Scaled so that Gaussian data get about variance 1; how nearly depends on how many values a channel has.",
        "Control: the network without a norm, in the last part: where it trains as well, the claim says nothing.",
        _ONE_NETWORK,
    ),
    figures=("accuracy", "protocols"),
)

RENORMALIZATION_AT_SMALL_BATCHES = Claim(
    id="38g",
    statement="Batch renormalization tests better than BN at a small batch, and trains as well at a usual one.",
    by=IOFFE_2017,
    where="I abstract",
    parts=(
        Part(
            "test_renorm_minus_bn_smallest_batch",
            _at_size(0, "batch_renorm", "bn", _by_running_statistics),
            "final test accuracy with running statistics at the smallest batch, batch renormalization minus BN",
            _VARIANTS,
            unit="points",
            low=2,
        ),
        Part(
            "train_renorm_minus_bn_usual_batch",
            _at_size(-1, "batch_renorm", "bn", last_tenth),
            f"{_TRAIN} batch renormalization minus BN, at the larger batch of the study",
            _VARIANTS,
            unit="points",
            low=-2,
            high=2,
        ),
    ),
    margin="As well as: within two points, as in claim 4; better: by more than these two points. No run was known.",
    fairness=(
        "Tested with running statistics, as in the paper; what BN loses by them alone is in the figure of protocols.",
        "Bounds of the correction as in the paper (3 and 5), reached after 500 batches of 2,400; at the larger batch "
        "150 are all, and most of them train as BN.",
        "Control: the network without a norm at the same batch (figure).",
        _ONE_NETWORK,
    ),
    figures=("accuracy", "protocols"),
)
