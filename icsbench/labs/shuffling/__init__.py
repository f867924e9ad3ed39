"""Single shuffle against reshuffling, with BN and without (Wu, Yun & Sra 2023): where a linear model ends.

n samples x of d independent Gaussian inputs are cut into batches of B. The model is one linear layer behind BN without
eps, ``f(x) = w Gamma n(x)`` with a diagonal Gamma that starts as 1 (as in Wu et al.), where n subtracts the mean
of the batch from each input and divides by its standard deviation, or does nothing (``none``). It is trained with SGD
on the mean over the batch of ``(f - y)^2 / 2``, or for two classes y = -1, 1 of ``log(1 + exp(-y f))``, in one of three
orders:

=============  =====================================================================
shuffle_once   one random permutation, again in every epoch (single shuffle)
fixed_batches  the batches of that permutation, in a new random order in every epoch
reshuffle      a new random permutation in every epoch (random reshuffling)
=============  =====================================================================

With BN the features of a sample depend on its batch, so each order has a risk of its own, and with a decaying step SGD
goes to the minimum of that: of the batches at hand for the first two orders, of all batches of B samples for the third
(:mod:`icsbench.labs.shuffling.optima` has the minima for the square). The minimum of the risk of the full batch is
another one still. Without BN all of these are the same. ``fixed_batches`` tells whether it is the order of the updates
or the composition of the batches that matters.

The targets of the regression are ``<v, x>`` with v uniform on the sphere plus noise; the classes are equally many and
independent of x, so that there is nothing to learn but the batches. The step in epoch k is ``lr / (1 + k / decay)``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range, one_of

NORMS = ("bn", "none")
ORDERS = ("reshuffle", "shuffle_once", "fixed_batches")
MOST_BATCHES = 100_000
"""The most batches of B out of n samples over which the risk of reshuffling is averaged."""


@dataclass
class ShufflingOptions(Options):
    """``samples``: n; ``inputs``: d; ``batch``: B; ``noise``: standard deviation of that of the targets, of a
    regression; ``epochs``, ``lr``, ``decay`` (epochs until the step has halved): of SGD; ``networks``: random problems
    per run.
    """

    task: str = "regression"
    samples: int = 24
    inputs: int = 6
    batch: int = 4
    noise: float = 0.5
    epochs: int = 2000
    lr: float = 0.1
    decay: float = 100.0
    networks: int = 10

    def __post_init__(self) -> None:
        one_of("lab.task", self.task, ("regression", "classification"))
        in_range("lab.batch", self.batch, 2)
        in_range("lab.samples", self.samples, 2 * self.batch)
        if self.samples % self.batch:
            raise ValueError(f"lab.batch must divide lab.samples={self.samples} (got {self.batch})")
        in_range("lab.inputs", self.inputs, 1)
        if self.task == "regression":
            rank = self.samples - self.samples // self.batch
            if self.inputs > rank:
                raise ValueError(
                    f"lab.inputs must be at most lab.samples less one for each batch ({rank}), or the optimum of a "
                    f"single shuffle is not unique (got {self.inputs})"
                )
            if math.comb(self.samples, self.batch) > MOST_BATCHES:
                raise ValueError(
                    f"lab.batch={self.batch} of lab.samples={self.samples} makes more than {MOST_BATCHES:,} batches to "
                    "average over: choose fewer samples"
                )
        elif self.samples % 2:
            raise ValueError(f"lab.samples must be even, for two classes of one size (got {self.samples})")
        in_range("lab.noise", self.noise, 0)
        in_range("lab.epochs", self.epochs, 1)
        in_range("lab.lr", self.lr, 0, open_low=True)
        in_range("lab.decay", self.decay, 0, open_low=True)
        in_range("lab.networks", self.networks, 1)


def _rows(options: ShufflingOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.shuffling.descent import rows

    return rows(options, seed)


LAB = Lab(
    name="shuffling",
    label="A linear model with BN and without, its batches shuffled once or in every epoch",
    rows=_rows,
    options=ShufflingOptions,
    help="Where SGD on random linear problems ends, with BN in front and without, when the samples are shuffled once, "
    "when only the order of those batches is, and when they are reshuffled in every epoch; for regression beside the "
    "minimum that theory gives for each.",
)
