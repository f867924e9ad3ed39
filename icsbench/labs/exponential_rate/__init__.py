"""Li & Arora 2020: under BN, weight decay is the same as a learning rate that grows exponentially.

Where the loss does not change with the length of the weights w (so that its gradient at c w is that at w over c), SGD
with the constant rate eta, momentum gamma and weight decay lambda, ::

    v_t+1 = gamma v_t + g(w_t) + lambda w_t,    w_t+1 = w_t - eta v_t+1,    v_0 = 0,

has a twin without weight decay. Let alpha be the larger root of ``x^2 - (1 + gamma - lambda eta) x + gamma = 0``, which
is real for ``lambda eta <= (1 - sqrt(gamma))^2``; without momentum it is ``1 - lambda eta``. Then ``u_t = w_t /
alpha^t`` is the sequence of SGD with the same gamma, no weight decay, and the rate ``eta_t = eta alpha^(-2t-1)``, from
``u_0 = w_0`` and ``v_0 = -(1 - alpha) w_0 / (eta alpha)``.

In one line: ``w_t+1 = (1 + gamma - lambda eta) w_t - gamma w_t-1 - eta g(w_t)`` with ``w_-1 = w_0``; put ``alpha^t
u_t`` for w_t, divide by ``alpha^(t+1)``, and use the equation of alpha. The start v_0 is what ``w_-1 = w_0`` becomes.
It is along w_0 and so changes no function by itself, but it changes the length that later steps are divided by.

The network has no parameter but weights that BN makes scale-invariant: fully connected layers without biases, each with
BN without gamma and beta and a ReLU, and an output layer that is fixed where it was drawn, as in the paper. BN has
eps = 0 and all is in float64, so that the two runs differ by rounding alone. They see the same batches.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from icsbench.labs.contract import Lab, Row
from icsbench.options import Options, in_range


@dataclass
class ExponentialRateOptions(Options):
    """``lr``, ``momentum``, ``weight_decay``: eta, gamma, lambda; ``depth`` hidden layers of ``units`` units.

    There is a row every ``every`` steps; ``eps`` is that of BN in the variant ``bn_eps``.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-3
    depth: int = 3
    units: int = 64
    batch_size: int = 64
    steps: int = 1000
    every: int = 20
    eps: float = 1e-5

    def __post_init__(self) -> None:
        in_range("lab.lr", self.lr, 0, open_low=True)
        in_range("lab.momentum", self.momentum, 0, 0.9999)
        in_range("lab.weight_decay", self.weight_decay, 0, open_low=True)
        in_range("lab.depth", self.depth, 1)
        in_range("lab.units", self.units, 1)
        in_range("lab.batch_size", self.batch_size, 2, 1000)
        in_range("lab.steps", self.steps, 1)
        in_range("lab.every", self.every, 1)
        in_range("lab.eps", self.eps, 0, open_low=True)
        most = (1 - math.sqrt(self.momentum)) ** 2
        if not self.lr * self.weight_decay < most:
            raise ValueError(
                f"lab.lr x lab.weight_decay must be less than (1 - sqrt(momentum))^2 = {most:.4g}, or no rate that "
                f"grows exponentially is the same as the weight decay (got {self.lr * self.weight_decay:.4g})"
            )
        if -2 * self.steps * math.log10(shrinking(self.lr, self.momentum, self.weight_decay)) > _DECADES:
            raise ValueError(
                f"lab.steps {self.steps} with this weight decay make the rate grow beyond 1e{_DECADES}; "
                "choose fewer steps or a smaller lab.weight_decay"
            )


_DECADES = 300


def shrinking(lr: float, momentum: float, weight_decay: float) -> float:
    """alpha, the larger root of ``x^2 - (1 + momentum - weight_decay lr) x + momentum = 0``.

    It is at most 1 and, without momentum, ``1 - weight_decay lr``.
    """
    total = 1 + momentum - weight_decay * lr
    return (total + math.sqrt(max(total**2 - 4 * momentum, 0.0))) / 2  # at the bound, rounding may leave less than 0


def _rows(options: ExponentialRateOptions, seed: int) -> Iterator[Row]:
    from icsbench.labs.exponential_rate.twins import rows

    return rows(options, seed)


LAB = Lab(
    name="exponential_rate",
    label="Weight decay and its twin, an exponentially growing learning rate",
    rows=_rows,
    options=ExponentialRateOptions,
    help="Trains one network on digits twice, in float64: with weight decay at a constant rate, and without it at the "
    "rate that grows exponentially. With BN the two are one function at every step; without BN they are not.",
)
