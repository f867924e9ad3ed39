"""The names in a record: its files and the keys of its rows; and the thresholds that both halves of the package use."""

# --- files of a run folder -------------------------------------------------------------------------------------------

CONFIG = "config.yaml"
"""All settings of the run."""
ENVIRONMENT = "environment.json"
"""Where and with what the run began: versions, device, threads, data."""
METRICS = "metrics.jsonl"
"""One JSON object per line: a row of numbers, with the ``step`` that they belong to."""
PROBES = "probes"
"""The folder of what the probes store, in one folder for each probe."""
CHECKPOINT = "checkpoint.pt"
"""What a stopped run needs to go on."""
TIMING = "timing.json"
"""Wall time so far, ``seconds``, and when the run ``began``: ISO 8601, in UTC; not noted by earlier versions."""
FAILURE = "failure.json"
"""The ``error`` that ended a run early."""
SEAL = "seal.json"
"""Checksums of a finished record."""
SUMMARY = "summary.json"
"""The results. It is written last: where it is, the run is complete."""
LOCK = "run.lock"
"""Held by the process that writes the record."""
SEED_FOLDER = r"seed-\d+"
"""The name of a run folder, as a regular expression."""

_STEP = "step-"


def probe_layers(probe: str) -> str:
    """The file with the layers that a probe measures: a list of objects with ``layer`` and ``depth``."""
    return f"{PROBES}/{probe}/layers.json"


def probe_arrays(probe: str, step: int) -> str:
    """The file with the arrays that a probe stored after ``step`` updates: ``probes/shift/step-00000012.npz``."""
    return f"{PROBES}/{probe}/{_STEP}{step:08d}.npz"


PROBE_ARRAYS = f"{_STEP}*.npz"
"""The files with arrays in the folder of one probe, as a pattern for ``Path.glob``."""


def step_of_arrays(stem: str) -> int:
    """The step that a file of arrays belongs to, by its name without the ending: 12 for ``step-00000012``."""
    return int(stem.removeprefix(_STEP))


# --- keys of the rows in metrics.jsonl, and of the summary -----------------------------------------------------------

STEP = "step"
"""Number of updates behind the row. Of a row about one update: the number of updates before it."""
LR = "lr"
TRAIN_LOSS = "train/loss"
"""Mean loss of the training batches since the row before."""
TRAIN_ACCURACY = "train/accuracy"
"""Mean accuracy (fraction) of the training batches since the row before."""
TEST_ACCURACY = "test/accuracy"
"""Accuracy (fraction) on the test set under the customary protocol; in the summary, by protocol."""
VAL_ACCURACY = "val/accuracy"
SHIFT_INTERVAL = "shift/interval"
"""Number of updates between a measurement of the shift probe and the one before."""
OF_AN_UPDATE = ("ics/", "landscape/", "least_squares/")
"""What the keys of a row about one update begin with."""
CUSTOMARY = "running-off"
"""The protocol of :data:`TEST_ACCURACY`: a norm's own running statistics, noise off."""
KNOWN = "recalibrated-off"
"""The protocol that says what a network knows: recalibrated statistics, noise off."""


def accuracy(split: str, protocol: object = None) -> str:
    """The key of the accuracy on ``train``, ``val`` or ``test``; under a protocol: ``test/accuracy/batch-on``."""
    return f"{split}/accuracy" if protocol is None else f"{split}/accuracy/{protocol}"


def shift(layer: str, quantity: str) -> str:
    """The key of what :func:`icsbench.probes.shift.shift_between` measures at a layer: ``shift/features.conv1/w1``."""
    return f"shift/{layer}/{quantity}"


def ics(layer: str, quantity: str) -> str:
    """The key of a field of :class:`icsbench.probes.ICS` at a layer: ``ics/features.conv1/cosine``."""
    return f"ics/{layer}/{quantity}"


def landscape(quantity: str) -> str:
    """The key of a field of :class:`icsbench.probes.Landscape`: ``landscape/beta``."""
    return f"landscape/{quantity}"


def least_squares(layer: str, quantity: str) -> str:
    """The key of a field of :class:`icsbench.probes.LeastSquares`: ``least_squares/features.conv1/removed``."""
    return f"least_squares/{layer}/{quantity}"


def batch_sharpness(quantity: str) -> str:
    """The key of what :class:`icsbench.probes.BatchSharpnessProbe` measures: ``batch_sharpness/mean``."""
    return f"batch_sharpness/{quantity}"


# --- thresholds ------------------------------------------------------------------------------------------------------

LEFT_CHANCE = 2.0
"""A network is at chance while its training accuracy is below this many times 1 / number of classes."""

STEP_DIVERGES = 1000.0
"""A step along the gradient diverges where the loss behind it is above this many times that ahead (Bjorck et al. 2018),
or not finite."""
