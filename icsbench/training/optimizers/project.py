"""Weights of a fixed length: after every update each weight tensor is scaled back to the norm that it started with.

``w <- w - lr v``, then ``w <- w ||w_0|| / ||w||`` (Frobenius norms of a whole tensor). The second half of "normalize
and project" (Lyle et al. 2024, "Normalization and effective learning rates in reinforcement learning"); weights of
bounded norm are also in Hoffer et al. 2018, "Norm matters". Where a norm such as BN makes the network independent of
the length of a weight, nothing changes but its effective learning rate ``lr / ||w||^2``, which then stays at its first
value.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.optim import Optimizer as TorchOptimizer

from icsbench.errors import IcsbenchError
from icsbench.options import one_of
from icsbench.training.optimizers.contract import Wrapper


@dataclass
class ProjectOptions:
    """``tensors`` says which of the trained weights, the tensors of two or more dimensions, keep their length.

    - ``hidden``: those ahead of a place for a norm, so not that of the output layer, whose length the function depends
      on. It is the same tensors in every regime, also in one without norms.
    - ``all``: every one.
    """

    tensors: str = "hidden"

    def __post_init__(self) -> None:
        one_of("optim.wrap.project.tensors", self.tensors, ("hidden", "all"))


def _weights(optimizer: TorchOptimizer, options: ProjectOptions) -> list[Tensor]:
    found = [p for group in optimizer.param_groups for p in group["params"] if p.dim() > 1]
    return found if options.tensors == "all" else [p for p in found if getattr(p, "ahead_of_norm", False)]


def _before(optimizer: TorchOptimizer, options: ProjectOptions) -> None:
    """Note the lengths, ahead of the first update.

    :raises IcsbenchError: there is no such weight, or one is zero.
    """
    state: dict[str, Any] = optimizer.state["project"]  # pyright: ignore[reportArgumentType]
    if "lengths" in state:
        return
    weights = _weights(optimizer, options)
    if not weights:
        raise IcsbenchError(
            f"optim.wrap.project: no weight of optim.wrap.project.tensors={options.tensors} is trained; leave it out"
        )
    state["lengths"] = [vector_norm(weight.detach(), dtype=torch.float64).item() for weight in weights]
    for weight, length in zip(weights, state["lengths"], strict=True):
        if length == 0:
            raise IcsbenchError(
                f"optim.wrap.project: a weight of shape {tuple(weight.shape)} starts at zero, and so has no length to "
                "keep; choose a norm or an init that does not start there"
            )


@torch.no_grad()
def _after(optimizer: TorchOptimizer, options: ProjectOptions) -> None:
    """Scale back. A weight that became zero is not finite from there on, and the run ends as diverged."""
    state: dict[str, Any] = optimizer.state["project"]  # pyright: ignore[reportArgumentType]
    for weight, length in zip(_weights(optimizer, options), state["lengths"], strict=True):
        weight *= length / vector_norm(weight, dtype=torch.float64)


PROJECT = Wrapper("project", ProjectOptions, _before, _after)
