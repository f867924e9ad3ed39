"""The claim on the batch: that its noise regularises."""

import math
import statistics
from collections.abc import Iterable

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import LeftOut, paired, runs_of
from icsbench.analysis.claims.texts import IOFFE, LUO
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth, trains
from icsbench.analysis.statistics import slope
from icsbench.record.reader import Run

_NORMS = ("bn", "none")


def _gap_slope(group: Group) -> Measured:
    """The slope of training minus test accuracy, in points, on log2 of the batch size, of BN minus that of none."""
    sizes = sorted({int(run.setting("batch_size")) for run in group.runs if run.regime in _NORMS})
    if len(sizes) < 3:
        raise NotMeasured(f"{group.name} has {len(sizes)} batch sizes; a slope needs three")
    parts = {f"{norm} at batch {size}": runs_of(group, norm, batch_size=size) for norm in _NORMS for size in sizes}

    def of_seed(*runs: Run) -> float:
        for name, run in zip(parts, runs, strict=True):
            if not trains(run):
                raise LeftOut(f"{name} does not train, and has no gap")
        gaps = [100 * (last_tenth(run) - final_accuracy(run)) for run in runs]
        places = [math.log2(size) for size in sizes]
        return slope(places, gaps[: len(sizes)]) - slope(places, gaps[len(sizes) :])

    trained = ", ".join(f"{name} {_mean(map(last_tenth, runs.values())):.1f}" for name, runs in parts.items())
    return paired(parts, of_seed)._replace(note=f"mean training accuracy (%): {trained}")


def _mean(accuracies: Iterable[float]) -> float:
    return 100 * statistics.fmean(accuracies)


SMALL_BATCHES_REGULARISE = Claim(
    id="23",
    statement="BN regularises by the noise of its batch: the smaller the batch, the smaller the gap to the test.",
    by=f"{IOFFE}; {LUO}",
    where="I&S section 3.4; L section 3",
    parts=(
        Part(
            "gap_slope_bn_minus_none",
            _gap_slope,
            "slope of the generalisation gap (training accuracy of the last tenth of the steps minus test "
            "accuracy on recomputed population statistics) on log2 of the batch size, with BN minus without",
            ("batch_size",),
            unit="points",
            per="doubling",
            low=0,
        ),
    ),
    margin="Any growth of the gap with the batch beyond that without BN counts.",
    fairness=(
        "Few images, each seen equally often: training accuracy is meant to be at its ceiling at every batch size; "
        "where it is below, the gap is smaller for that alone.",
        "A smaller batch also makes SGD noisier, and takes more steps: what that does without BN is subtracted.",
        "Control: a network without BN that learns its images less well than BN at a large batch has a smaller gap "
        "there for that alone, which looks like regularisation by BN: see the training accuracies that are noted.",
        "Training accuracy is in training mode, on the statistics of the batch.",
    ),
    figures=("scan",),
)
