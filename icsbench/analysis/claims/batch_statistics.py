"""Claims on the batch behind BN's statistics: shuffled once or in every epoch, sorted by class, or the population.

On shuffling a number is of a random problem, several of which a seed has; on the statistics it is of a trained network,
one of which a seed has in each setting.
"""

import math
from functools import partial

from icsbench.analysis.claims.bn_parts import of_ghosts
from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.claims.texts import A_FIFTH, BY_A_FIFTH
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.lab import LabRows, rows_of
from icsbench.analysis.quantities.protocols import OWN, accuracy_under, final_accuracy
from icsbench.analysis.statistics import positive_ratio
from icsbench.record.reader import Run

WU_YUN_SRA = "Wu et al. 2023"
WU_JOHNSON = "Wu & Johnson 2021"

_SAME = {"kind": "ratio", "low": A_FIFTH, "high": 1 / A_FIFTH}


def _end(rows: LabRows, key: str, norm: str, order: str) -> float:
    """A quantity of one random problem after the last epoch."""
    found = rows.where(norm=norm, order=order)
    return float(found[key][found["step"].argmax()])


def _against_theory(order: str, rows: LabRows) -> float:
    """How far an order ends from reshuffling, with BN, over the distance of the minima."""
    return positive_ratio(*(_end(rows, f"{theory}from_reshuffled", "bn", order) for theory in ("", "theory_")))


def _without_bn(rows: LabRows) -> float:
    return positive_ratio(*(_end(rows, "from_reshuffled", norm, "shuffle_once") for norm in ("none", "bn")))


def _once_over_again(key: str, norm: str, rows: LabRows) -> float:
    return positive_ratio(*(_end(rows, key, norm, order) for order in ("shuffle_once", "reshuffle")))


def _loss_growth(order: str, rows: LabRows) -> float:
    """The loss of the full batch with BN after the last epoch over that after a tenth of the epochs."""
    found = rows.where(norm="bn", order=order)
    steps, loss = found["step"], found["loss"]
    early = steps <= steps.max() / 10
    if not early.any():
        raise NotMeasured(f"{rows.run.path} has no row within the first tenth of its epochs")
    return positive_ratio(float(loss[steps.argmax()]), float(loss[steps == steps[early].max()][0]))


_LINEAR = (
    "A linear model behind BN without eps, in float64, on Gaussian inputs: the setting of the paper's theory, not of "
    "its deep networks.",
    "The step decays, as the paper's theorem asks; at a constant step SGD would go round the minimum.",
)

SHUFFLED_ONCE_ENDS_ELSEWHERE = Claim(
    id="42",
    statement="With BN, batches shuffled once lead SGD to another minimum than batches reshuffled in every epoch; "
    "without BN to the same one.",
    by=WU_YUN_SRA,
    where="WYS, regression",
    parts=(
        *(
            Part(
                f"{order}_apart_over_theory",
                per_network(partial(_against_theory, order)),
                f"regression with BN: distance between where SGD ends with {name} and with reshuffling, over the "
                "distance of the minima in closed form",
                ("shuffling",),
                of="networks",
                **_SAME,
            )
            for order, name in (("shuffle_once", "a single shuffle"), ("fixed_batches", "fixed batches in new order"))
        ),
        Part(
            "apart_none_over_bn",
            per_network(_without_bn),
            "regression: distance between where SGD ends with a single shuffle and with reshuffling, without BN / with",
            ("shuffling",),
            kind="ratio",
            of="networks",
            high=0.2,
        ),
    ),
    margin=f"The distance of theory, within a fifth; without BN less than a fifth of that with BN. {BY_A_FIFTH} That "
    "the minima differ is a matter of algebra, and was known; that SGD gets there in so many epochs was seen on other "
    "seeds.",
    fairness=(
        *_LINEAR,
        "Controls: no BN, on the same problems and permutations; and the same batches in a new order in every epoch, "
        "where it would end like reshuffling if the order of the updates were the cause, and not what is in a batch.",
        "The risk of reshuffling is averaged over all batches there are, not over those that were drawn.",
    ),
    figures=("shuffling",),
)

RESHUFFLING_AVERAGES_OUT = Claim(
    id="42b",
    statement="With BN, reshuffling averages the distortion out: it ends nearer to the minimum of the full batch than "
    "a single shuffle.",
    by=WU_YUN_SRA,
    where="WYS, regression",
    parts=(
        Part(
            "angle_once_over_again",
            per_network(partial(_once_over_again, "angle", "bn")),
            "regression with BN: angle to the minimum of the full batch, single shuffle / reshuffling",
            ("shuffling",),
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
        Part(
            "distance_once_over_again",
            per_network(partial(_once_over_again, "from_full", "bn")),
            "regression with BN: distance to the minimum of the full batch, single shuffle / reshuffling",
            ("shuffling",),
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
    ),
    margin=BY_A_FIFTH,
    fairness=(
        *_LINEAR,
        "Reshuffling has a distortion of its own that no average removes: the deviation of a small batch is on average "
        "below that of the whole, so that its minimum is shorter. The angle does not see that, the distance does.",
    ),
    figures=("shuffling",),
)

SHUFFLED_ONCE_DIVERGES = Claim(
    id="42c",
    statement="With BN, a classifier whose batches are shuffled once diverges in the loss of the full batch, where "
    "reshuffling does not.",
    by=WU_YUN_SRA,
    where="WYS, classification",
    parts=(
        Part(
            "loss_growth_shuffle_once",
            per_network(partial(_loss_growth, "shuffle_once")),
            "classification with BN, single shuffle: loss of the full batch after all epochs / after a tenth of them",
            ("shuffling_classes",),
            kind="ratio",
            of="networks",
            low=1 / A_FIFTH,
        ),
        Part(
            "loss_growth_reshuffle",
            per_network(partial(_loss_growth, "reshuffle")),
            "classification with BN, reshuffling: loss of the full batch after all epochs / after a tenth of them",
            ("shuffling_classes",),
            kind="ratio",
            of="networks",
            high=1 / A_FIFTH,
        ),
        Part(
            "loss_once_over_again_none",
            per_network(partial(_once_over_again, "loss", "none")),
            "classification without BN: loss of the full batch at the end, single shuffle / reshuffling",
            ("shuffling_classes",),
            of="networks",
            **_SAME,
        ),
    ),
    margin="A loss that diverges still grows by a fifth over the last decade of epochs, one that does not diverge does "
    f"not. {BY_A_FIFTH} Size and rate were chosen on other seeds so that a single shuffle can be separated.",
    fairness=(
        *_LINEAR,
        "Classes independent of the inputs, so that the batches are all that can be learnt: random problems, and not "
        "the paper's constructions.",
        "Control: no BN, on the same problems and permutations.",
    ),
    figures=("shuffling",),
)


def _accuracy(run: Run, statistics: str, batches: str = "random", *, last: bool = True) -> float:
    """Test accuracy, a fraction, at the training's batch size: after the last step, or the mean of the first tenth."""
    rows = rows_of(run).where(statistics=statistics, batches=batches, size=run.setting("batch_size"))
    steps, accuracy = rows["step"], rows["accuracy"]
    kept = steps == steps.max() if last else steps <= run.setting("steps") / 10
    if not kept.any():
        raise NotMeasured(f"{run.path} has no accuracy within the first tenth of its steps")
    return float(accuracy[kept].mean())


def _of_order(group: Group, norm: str, order: str) -> dict[int, Run]:
    return runs_of(group, "batch_statistics", **{"norm.name": norm, "data.order": order})


def _within(statistics: str, group: Group) -> Measured:
    """Accuracy in random batches / in batches by class with their own statistics, of BN trained on the latter."""
    return paired(
        {"bn by class": _of_order(group, "bn", "by_class")},
        lambda run: positive_ratio(_accuracy(run, statistics), _accuracy(run, "batch", "by_class")),
    )


def _kept(statistics: str, runs: tuple[Run, ...]) -> float:
    """Accuracy in random batches of training on batches by class / on random batches."""
    return positive_ratio(*(_accuracy(run, statistics) for run in runs))


def _kept_bn(group: Group) -> Measured:
    return paired(_both_orders(group, "bn"), lambda *runs: _kept("precise", runs))


def _kept_bn_over_none(group: Group) -> Measured:
    return paired(
        _both_orders(group, "bn") | _both_orders(group, "none"),
        lambda *runs: positive_ratio(_kept("precise", runs[:2]), _kept("running", runs[2:])),
    )


def _both_orders(group: Group, norm: str) -> dict[str, dict[int, Run]]:
    return {f"{norm} {order}": _of_order(group, norm, order) for order in ("by_class", "reshuffle")}


def _precise_minus_running(last: bool, group: Group) -> Measured:
    return paired(
        {"bn reshuffle": _of_order(group, "bn", "reshuffle")},
        lambda run: 100 * (_accuracy(run, "precise", last=last) - _accuracy(run, "running", last=last)),
    )


def _ratio(name: str, measure: Measure, what: str, *, low: float = -math.inf, high: float = math.inf) -> Part:
    return Part(name, measure, what, ("batch_statistics",), kind="ratio", of="networks", low=low, high=high)


BATCHES_BY_CLASS_LEAK = Claim(
    id="43",
    statement="On batches of few classes BN leaks the classes: the network is right in such batches, and fails with "
    "the statistics of the population.",
    by=WU_JOHNSON,
    where="WJ, leakage of information in a batch",
    parts=(
        _ratio(
            "random_over_by_class",
            partial(_within, "batch"),
            "BN trained on batches by class, statistics of the batch: test accuracy in random batches / by class",
            high=A_FIFTH,
        ),
        _ratio(
            "running_over_by_class",
            partial(_within, "running"),
            "BN trained on batches by class: test accuracy with running statistics / in batches by class with theirs",
            high=A_FIFTH,
        ),
        _ratio(
            "by_class_over_random_bn",
            _kept_bn,
            "BN: test accuracy with precise statistics of random batches, trained on batches by class / random ones",
            high=A_FIFTH,
        ),
        _ratio(
            "kept_bn_over_none",
            _kept_bn_over_none,
            "the same ratio of training on batches by class to training on random ones, with BN / without",
            high=A_FIFTH,
        ),
    ),
    margin=f"{BY_A_FIFTH} Of one other seed the runs at lr 0.1 were seen, and here all but BN on random batches: the "
    "first two parts were 0.6, and without BN 0.63 of the accuracy was kept (0.34 at lr 0.1, with BN 0.22). The last "
    "part took then the place of another, that without BN four fifths are kept.",
    fairness=(
        "Control: the network without BN on the same batches, which SGD goes round in as well. Only what BN loses "
        "beyond that is laid to BN; where it loses as much, the last part speaks against the claim.",
        "Rate and initialization are such that the network without BN learns something from batches of one class.",
        "Both compositions hold the same test images; the precise statistics are those of random training batches.",
        "The same learning rate for all; none is tuned for batches by class.",
    ),
    figures=("batch_statistics",),
)

PRECISE_STATISTICS_HELP_EARLY = Claim(
    id="43b",
    statement="Precise population statistics beat BN's running averages early in training, and no more at its end.",
    by=WU_JOHNSON,
    where="WJ, precise statistics",
    parts=(
        Part(
            "precise_minus_running_early",
            partial(_precise_minus_running, False),
            "test accuracy with precise minus with running statistics, mean over the first tenth of the steps",
            ("batch_statistics",),
            unit="points",
            of="networks",
            low=2,
        ),
        Part(
            "precise_minus_running_end",
            partial(_precise_minus_running, True),
            "test accuracy with precise minus with running statistics, after the last step",
            ("batch_statistics",),
            unit="points",
            of="networks",
            low=-2,
            high=2,
        ),
    ),
    margin="As good as: within two points, as in claim 4; better: by more than these two points. One run of another "
    "seed, at lr 0.1, had 1.2 points early and -0.7 at the end.",
    fairness=(
        "The learning rate decays to 0 along a cosine, as in the paper: at the end the weights hardly move, and the "
        "running averages catch up. At a constant rate they need not.",
        "Early are 1, 2, 5, 10, ... steps, so that the first few count as much as all others; the running averages "
        "start from mean 0 and variance 1.",
        "The paper's curves are of batches of 8,192 images, with larger rates and fewer steps in an epoch.",
    ),
    figures=("batch_statistics",),
)


def _own_minus_population(run: Run) -> float:
    """Final test accuracy with the statistics of the evaluated ghost batches, minus with precise ones."""
    return accuracy_under(run, OWN) - final_accuracy(run)


SMALL_BATCHES_ARE_INCONSISTENT = Claim(
    id="43c",
    statement="The smaller the ghost batches, the more a test loses by population statistics in place of their own.",
    by=WU_JOHNSON,
    where="WJ, inconsistency of training and test",
    parts=(
        Part(
            "ghost_own_minus_precise_slope",
            partial(of_ghosts, _own_minus_population),
            "slope of the test accuracy with statistics of ghost batches minus with precise ones on log2 of their size",
            ("ghost",),
            unit="points",
            per="doubling",
            high=0,
        ),
    ),
    margin="Any fall of the difference with the size counts, as in claim 38e. The claim was added after its study was "
    "laid out, and before its records were made.",
    fairness=(
        "Control: batch, updates, images and learning rate are the same; only the size behind a statistic differs.",
        "The ghost batches of the test are as large as those of the training, and random. Statistics of other test "
        "images are a help that a single image does not have.",
        "The smallest have 16 images; the paper's have 2.",
    ),
    figures=("scan",),
)
