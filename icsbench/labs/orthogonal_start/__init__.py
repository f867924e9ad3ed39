"""Does a start from orthogonal signals train a deep network without BN? (Daneshmand et al. 2021, section 5)

ReLU MLPs on the digits of scikit-learn, by SGD, from four starts (``start``):

==============  =======================================================================================================
``glorot``      Normal weights of Glorot & Bengio, without BN: the signals shrink by half in each layer
``scaled``      The same, each layer scaled so that its outputs have the mean square 1, without BN: the control, which
                has the scale of the next two and not their orthogonality
``orthogonal``  Weights from the singular vectors of the signals before each layer, scaled alike, without BN
``bn``          The weights of ``glorot``, with BN
==============  =======================================================================================================
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range

STARTS = ("glorot", "scaled", "orthogonal", "bn")


@dataclass
class OrthogonalStartOptions(Options):
    """``networks`` per start, hidden layer sizes ``width``, ``depths``, learning ``rates``, ``steps`` of ``batch``."""

    networks: int = 4
    width: int = 64
    depths: list[int] = field(default_factory=lambda: [15, 30, 45, 60])
    rates: list[float] = field(default_factory=lambda: [0.003, 0.01, 0.03])
    steps: int = 330
    batch: int = 64

    def __post_init__(self) -> None:
        in_range("lab.networks", self.networks, 1)
        in_range("lab.width", self.width, 10)
        in_range("lab.steps", self.steps, 1)
        in_range("lab.batch", self.batch, 4, 1437)
        for key in ("depths", "rates"):
            values = getattr(self, key)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"lab.{key} must be different numbers, at least one (got {values})")
        for depth in self.depths:
            in_range("lab.depths", depth, 1)
        for rate in self.rates:
            in_range("lab.rates", rate, 0, open_low=True)


def _rows(options: OrthogonalStartOptions, seed: int) -> Iterator[Row]:
    """A row for each depth, start, learning rate and network; where it diverged, loss and accuracy are of chance."""
    import torch

    from icsbench.labs.orthogonal_start import training

    task = training.digits()
    repeated = len(options.rates)
    rates = torch.tensor(options.rates).repeat_interleave(options.networks)
    for depth, kind in itertools.product(options.depths, STARTS):
        drawn = training.start(kind, task, seed, options.networks, options.width, depth)
        mlp = training.Mlp([w.repeat(repeated, 1, 1) for w in drawn], bn=kind == "bn")
        found = training.train(mlp, task, seed, steps=options.steps, batch=options.batch, rates=rates)
        for number, (gap, loss, accuracy) in enumerate(zip(*(part.tolist() for part in found), strict=True)):
            which, network = divmod(number, options.networks)
            diverged = not math.isfinite(loss)
            yield {
                "step": depth,
                "network": network,
                "start": kind,
                "rate": options.rates[which],
                "orthogonality_gap": gap,
                "loss": math.log(task.classes) if diverged else loss,
                "accuracy": 1 / task.classes if diverged else accuracy,
                "diverged": diverged,
            }


LAB = Lab(
    name="orthogonal_start",
    label="MLPs on digits (8x8) from orthogonal signals, without BN",
    rows=_rows,
    options=OrthogonalStartOptions,
    help="Deep ReLU networks trained on digits without BN from a usual, a rescaled and an orthogonal start, and with "
    "BN, at several depths and learning rates. Accuracy is that on the training images.",
)
