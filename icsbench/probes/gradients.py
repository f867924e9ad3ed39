"""One pass through a network as it is trained, and its gradient: what the measurements of an update are made of."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.norms import batch_norms

LossFn = Callable[[Any, Any], Tensor]
"""``(outputs, targets) -> scalar tensor``."""


class NotFinite(IcsbenchError):
    """A gradient at the current weights is NaN or infinite: nothing can be measured there."""


class Overwritten(IcsbenchError):
    """A pass changed the tensor that it was given."""


def refuse_unmeasurable(model: nn.Module, inputs: Tensor) -> None:
    """Raise IcsbenchError for a network without parameters, or with BN and given a batch of one sample."""
    if not any(True for _ in model.parameters()):
        raise IcsbenchError(f"{type(model).__name__} has no parameters, so there is no gradient to measure")
    if len(inputs) < 2 and batch_norms(model):
        name = type(model).__name__
        raise IcsbenchError(f"{name} has batch normalization: inputs must hold at least 2 samples (got {len(inputs)})")


def forward_loss(forward: Callable[[Tensor], Any], loss_fn: LossFn, inputs: Tensor, targets: Any) -> Tensor:
    """The loss of one pass. Raises IcsbenchError where it is no scalar that can be differentiated.

    And :class:`Overwritten` where the pass changes ``inputs``.
    """
    version = inputs._version
    loss = loss_fn(forward(inputs), targets)
    if inputs._version != version:
        raise Overwritten(
            "the network overwrites its inputs in place, so a second pass would see other ones; "
            "make its first operation work out of place"
        )
    if not isinstance(loss, Tensor) or loss.dim() > 0:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise IcsbenchError(f"loss_fn must return a scalar tensor, such as a mean or a sum (got {found})")
    if not loss.requires_grad:
        raise IcsbenchError("loss_fn returned a loss that does not depend on the network's parameters")
    return loss


def flat_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Gradient of ``loss`` with respect to the parameters, as one vector; zero where the loss does not depend."""
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def norm(vector: Tensor) -> Tensor:
    """Euclidean norm, accumulated in float64."""
    return torch.linalg.vector_norm(vector, dtype=torch.float64)
