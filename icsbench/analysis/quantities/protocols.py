"""Final accuracies by evaluation protocol: which statistics a norm uses, and whether noise is on."""

import math
from collections.abc import Iterable

from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.quantities.training import chance_of
from icsbench.record import schema
from icsbench.record.reader import Run

CUSTOMARY = schema.CUSTOMARY
RECALIBRATED = schema.KNOWN
OWN = "batch-off"


def final_accuracy(run: Run, split: str = "test") -> float:
    """Final accuracy, a fraction, with the noise off; of a run that diverged it is that of chance.

    A norm normalizes by the statistics of the population, recomputed after training (Ioffe & Szegedy 2015, Algorithm
    2). A norm that keeps no statistics has only the protocols ``running``; then the customary one counts.

    :raises NotMeasured: the run has no such accuracy, or has no classes.
    """
    keeps_statistics = any(not protocol.startswith("running-") for protocol in run.final_accuracy(split))
    return accuracy_under(run, RECALIBRATED if keeps_statistics else CUSTOMARY, split)


def accuracy_under(run: Run, protocol: str, split: str = "test") -> float:
    """Final accuracy under a protocol, a fraction; of a run that diverged it is that of chance.

    :raises NotMeasured: the run has no such accuracy, or has no classes.
    """
    if run.status == "diverged":
        return chance_of(run)
    accuracy = run.final_accuracy(split).get(protocol, math.nan)
    if not math.isfinite(accuracy):
        when = "" if run.at_step is None else f" at step {run.at_step:,}, where it was not evaluated so"
        raise NotMeasured(f"{run.path} has no {split} accuracy under {protocol}{when}")
    return accuracy


def protocols(runs: Iterable[Run]) -> list[str]:
    """The evaluation protocols found among the runs, in ``protocol_order``; of cut ones, those evaluated at the cut."""
    found = {
        name for run in runs for name, value in run.test_accuracy.items() if run.at_step is None or math.isfinite(value)
    }
    return sorted(found, key=protocol_order)


def protocol_order(protocol: str) -> tuple[bool, int, str]:
    """Sort key: noise off first, then running, recalibrated, batch statistics."""
    order = ("running", "recalibrated", "batch")
    statistics, _, noise = protocol.partition("-")
    return noise != "off", order.index(statistics) if statistics in order else len(order), protocol
