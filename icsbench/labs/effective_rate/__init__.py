"""What the growing weights of a network with BN do: the effective learning rate, and training with it on fixed weights.

BN makes a network independent of the length of the weights ahead of it, so its gradient is orthogonal to them and goes
with 1 / length. What an update then does to the direction of a weight tensor w is set by its *effective rate*
``lr / ||w||^2`` (Hoffer et al. 2018, "Norm matters"), and as every update makes w longer, the effective rate
decays: growing weights are a schedule of the learning rate (Lyle et al. 2024, "Normalization and effective learning
rates in reinforcement learning"). The question here is whether they are nothing else.

The network is trained several times, from the same weights on the same batches with the same optimizer:

============  =========================================================================================================
free          as it is. Ahead of every update the *relative rate* ``r = ||w_0||^2 / ||w||^2`` of every weight tensor
              ahead of a place for a norm is recorded: its effective rate, 1 at the start
recorded      those tensors are scaled back to their first length after every update (wrapper ``project``), and the
              learning rate of each is ``lr r``, with its own recorded r of that step
one_for_all   the same, with one rate for all these tensors: ``lr`` times the geometric mean of their r
constant      the same length and ``lr``: the effective rate stays where it started
shuffled      as recorded, with the steps of the record in a random order: the same rates, no decay
============  =========================================================================================================

For gradient descent without momentum, recorded is free exactly, up to BN's eps and rounding: with u = c w / ||w||, a
step of w by lr g(w) is ||w|| / c times a step of u by ``lr c^2 / ||w||^2 g(u)``, and the projection scales the latter.
With momentum it is not: the velocity holds gradients at earlier lengths, and has a part along u. Nor with weight decay,
which changes the rates by a share of about lr wd. Without BN the function depends on the length,
and nothing is equal. Every other parameter (gamma, beta, biases, the output layer) has the learning rate of the run.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab, Row
from icsbench.labs.network import Network
from icsbench.options import Options

VARIANTS = ("free", "recorded", "one_for_all", "constant", "shuffled")


@dataclass
class EffectiveRateOptions(Options):
    """None of its own: the settings are those of the training, among them ``steps`` and ``log_every``."""


def _rows(options: EffectiveRateOptions, seed: int, network: Network) -> Iterator[Row]:
    """Every ``log_every`` updates a row of each variant, and of each layer of the free one.

    ``measure`` says which. ``training``: mean ``loss`` and ``accuracy`` of the updates since the last row; a variant
    ends where its loss is not finite, and where free does, there are no others. ``rate``: ``layer``, ``depth``,
    ``effective_rate`` and ``relative_rate`` of the last update.

    :raises IcsbenchError: the data have no classes, no layer has a weight ahead of a norm, one starts at zero, or the
        config trains otherwise.
    """
    from icsbench.labs.effective_rate.training import rows

    optim = network.config.optim
    if network.task.chance is None:
        raise IcsbenchError(
            f"lab effective_rate is about a classifier, and data {network.dataset.name} have no classes; "
            "choose data=digits or data=cifar10"
        )
    if optim.train != "all" or "project" in (optim.wrap or {}):
        raise IcsbenchError(
            "lab effective_rate trains all parameters and projects by itself; leave out optim.train and "
            "optim.wrap.project"
        )
    if network.config.amp or network.config.compile:
        raise IcsbenchError("lab effective_rate trains in float32 and without a compiler; leave out amp and compile")
    return rows(network, seed)


LAB = Lab(
    name="effective_rate",
    label="Weights of fixed length with the effective rates that BN had",
    rows=_rows,
    options=EffectiveRateOptions,
    network=True,
    help="Lyle et al. 2024; Hoffer et al. 2018: training as it is, with weights of fixed length at the effective rates "
    "that were recorded, at one rate for all layers, at a constant rate, and at the recorded rates in random order.",
)
