"""The claim on the batch: that its noise regularises."""

import math

from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.claims.texts import IOFFE, LUO
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.statistics import slope
from icsbench.record.reader import Run


def _gap_slope(group: Group) -> Measured:
    """The slope of training minus test accuracy, in points, on log2 of the batch size."""
    sizes = sorted({int(run.setting("batch_size")) for run in group.runs if run.regime == "bn"})
    if len(sizes) < 3:
        raise NotMeasured(f"{group.name} has BN at {len(sizes)} batch sizes; a slope needs three")

    def of_seed(*runs: Run) -> float:
        gaps = [100 * (last_tenth(run) - final_accuracy(run)) for run in runs]
        return slope([math.log2(size) for size in sizes], gaps)

    return paired({f"batch {size}": runs_of(group, "bn", batch_size=size) for size in sizes}, of_seed)


SMALL_BATCHES_REGULARISE = Claim(
    id="23",
    statement="BN regularises by the noise of its batch: the smaller the batch, the smaller the gap to the test.",
    by=f"{IOFFE}; {LUO}",
    where="I&S section 3.4; L section 3",
    parts=(
        Part(
            "gap_slope",
            _gap_slope,
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
)
