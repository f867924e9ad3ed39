"""Final accuracies by evaluation protocol: which statistics a norm uses, and whether noise is on."""

import math
from collections.abc import Iterable

from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.quantities.training import chance_of
from icsbench.record.reader import Run

CUSTOMARY = "running-off"
RECALIBRATED = "recalibrated-off"
OWN = "batch-off"


def final_accuracy(run: Run, split: str = "test") -> float:
    """Final accuracy, a fraction, with the noise off; of a run that diverged it is that of chance.

    A norm normalizes by the statistics of the population, recomputed after training (Ioffe & Szegedy 2015, Algorithm
    2). A norm that keeps no statistics has only the protocols ``running``; then the customary one counts.

    :raises NotMeasured: the run has no such accuracy, or has no classes.
    """
    if run.status == "diverged":
        return chance_of(run)
    found = run.final_accuracy(split)
    keeps_statistics = any(not protocol.startswith("running-") for protocol in found)
    protocol = RECALIBRATED if keeps_statistics else CUSTOMARY
    accuracy = found.get(protocol, math.nan)
    if not math.isfinite(accuracy):
        raise NotMeasured(f"{run.path} has no {split} accuracy under {protocol}")
    return accuracy


def protocols(runs: Iterable[Run]) -> list[str]:
    """The evaluation protocols found among the runs, in ``protocol_order``."""
    return sorted({protocol for run in runs for protocol in run.test_accuracy}, key=protocol_order)


def protocol_order(protocol: str) -> tuple[bool, int, str]:
    """Sort key: noise off first, then running, recalibrated, batch statistics."""
    order = ("running", "recalibrated", "batch")
    statistics, _, noise = protocol.partition("-")
    return noise != "off", order.index(statistics) if statistics in order else len(order), protocol
