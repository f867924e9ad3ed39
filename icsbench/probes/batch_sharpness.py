"""Batch sharpness: how much the loss of a batch curves along the gradient of that same batch.

For one batch B with the gradient g_B and the Hessian H_B of its loss by the parameters, ::

    s_B = g_B' H_B g_B / ||g_B||^2,

and batch sharpness is its mean over batches (Andreyev & Beneventano 2024, Definition 3). A step of SGD changes the
gradient of its own batch by ``-lr H_B g_B`` to first order: at ``s_B = 2 / lr`` the component along g_B turns round and
keeps its length. That is the edge of stability of SGD; of gradient descent on one full batch it is that of the largest
eigenvalue (Cohen et al. 2021).
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.options import in_range
from icsbench.probes.contract import NetworkWatcher, Probe, Reading, Task
from icsbench.probes.gradients import LossFn, NotFinite
from icsbench.probes.passes import Passes
from icsbench.record import schema


@dataclass
class BatchSharpnessOptions:
    """Keys below ``probes``."""

    batch_sharpness: bool = False
    """Whether it is measured, every ``update_every`` updates."""
    sharpness_batches: int = 4
    """Batches of a measurement: those of the next updates."""

    def __post_init__(self) -> None:
        in_range("probes.sharpness_batches", self.sharpness_batches, 1)


class Curvature(NamedTuple):
    """The loss of one batch along its own gradient g."""

    sharpness: float
    """``g' H g / ||g||^2``, in units of one over a learning rate; NaN where g is zero."""
    gradient_norm: float
    """``||g||``."""


def curvature_along_gradient(model: nn.Module, loss_fn: LossFn, inputs: Any, targets: Any) -> Curvature:
    """The curvature of the loss of one batch along its gradient: one Hessian-vector product, by double backward.

    The network is in training mode, with BN by the statistics of the batch, which the Hessian sees. Parameters that do
    not require a gradient count as constants. ``model`` and the random streams are left as they were. Where the loss is
    piecewise linear (ReLU), the Hessian is that within the piece. The backward pass of an autograd function that is
    marked ``once_differentiable`` counts as constant, as torch has it.

    :param inputs: as :class:`icsbench.probes.passes.Passes` takes them.
    :raises IcsbenchError: no parameter requires a gradient, or what ``Passes`` refuses.
    :raises NotFinite: a gradient or the curvature is not finite.
    """
    name = type(model).__name__
    with Passes(model, loss_fn, inputs, targets) as passes:
        if not passes.trainable:
            raise IcsbenchError(f"no parameter of {name} requires a gradient")
        passes.begin()
        loss = passes.loss()
        gradients = _derivatives(loss, passes.trainable, create_graph=True)
        products = _derivatives(_squared(gradients) / 2, passes.trainable)
        squared = _dot(gradients, gradients)
        curvature = _dot(gradients, products)
    if not math.isfinite(squared) or not math.isfinite(curvature):
        raise NotFinite(f"the gradient of {name} or its curvature is not finite (its loss is {loss.item():g})")
    return Curvature(curvature / squared if squared else math.nan, math.sqrt(squared))


def _derivatives(of: Tensor, parameters: list[nn.Parameter], *, create_graph: bool = False) -> list[Tensor | None]:
    """By each parameter; None where ``of`` does not depend on it, as the square of a constant gradient does not."""
    if not of.requires_grad:
        return [None] * len(parameters)
    return [*torch.autograd.grad(of, parameters, create_graph=create_graph, allow_unused=True)]


def _squared(gradients: list[Tensor | None]) -> Tensor:
    """``||g||^2``, whose derivative is ``2 H g``."""
    return torch.stack([g.square().sum() for g in gradients if g is not None]).sum()


def _dot(some: list[Tensor | None], others: list[Tensor | None]) -> float:
    pairs = zip(some, others, strict=True)
    return math.fsum((a.detach().double() * b.double()).sum().item() for a, b in pairs if None not in (a, b))  # pyright: ignore


class BatchSharpnessProbe(NetworkWatcher):
    """Batch sharpness of the network between two updates, over the batches of the next ones.

    :param loss_fn: the loss that is trained on; weight decay is no part of it.
    :param batches: ``step -> (inputs, targets)``, the batch of the update after so many others.
    :param count: over how many batches.
    :param every: updates from one measurement to the next.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        batches: Callable[[int], tuple[Tensor, Tensor]],
        *,
        count: int,
        every: int,
    ) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._batches = batches
        self._count = count
        self._every = every

    def due(self, step: int) -> bool:
        """Every ``every`` updates, before the first one too."""
        return step % self._every == 0

    def measure(self, step: int) -> Reading:
        """The row ``batch_sharpness/mean`` and, a number for each batch, ``batches`` and ``gradient_norms``.

        No row where one of them is not finite.
        """
        found = []
        with contextlib.suppress(NotFinite):
            for number in range(step, step + self._count):
                found.append(curvature_along_gradient(self._model, self._loss_fn, *self._batches(number)))
        values = [of_batch.sharpness for of_batch in found]
        if len(found) < self._count or not all(map(math.isfinite, values)):
            return Reading()
        row = {"mean": math.fsum(values) / self._count, "batches": values}
        row["gradient_norms"] = [of_batch.gradient_norm for of_batch in found]
        return Reading({schema.batch_sharpness(key): value for key, value in row.items()})


def _start(config: Any, model: Any, task: Task) -> BatchSharpnessProbe | None:
    options = config.probes
    if not options.batch_sharpness:
        return None
    count, every = options.sharpness_batches, options.update_every
    return BatchSharpnessProbe(model, task.loss, task.batches, count=count, every=every)


BATCH_SHARPNESS = Probe("batch_sharpness", BatchSharpnessOptions, _start)
