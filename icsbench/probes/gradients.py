"""Loss and gradient of one pass, as numbers that the measurements of an update are made of."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from icsbench.errors import IcsbenchError

LossFn = Callable[[Any, Any], Tensor]
"""``(outputs, targets) -> scalar tensor``."""


class NotFinite(IcsbenchError):
    """A gradient at the current weights is NaN or infinite: nothing can be measured there."""


class Overwritten(IcsbenchError):
    """A pass changed the tensor that it was given."""


def forward_loss(forward: Callable[[Any], Any], loss_fn: LossFn, inputs: Any, targets: Any) -> Tensor:
    """The loss of one pass.

    :raises IcsbenchError: it is no real scalar that can be differentiated.
    :raises Overwritten: the pass changes a tensor of ``inputs`` in place.
    """
    versions = [(tensor, tensor._version) for tensor in tensors_in(inputs)]
    loss = loss_fn(forward(inputs), targets)
    if any(tensor._version != version for tensor, version in versions):
        raise Overwritten(
            "the network overwrites its inputs in place, so a second pass would see other ones; "
            "make its first operation work out of place"
        )
    if not isinstance(loss, Tensor) or loss.dim() > 0 or loss.is_complex():
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        complex_ = " and complex values" if isinstance(loss, Tensor) and loss.is_complex() else ""
        raise IcsbenchError(f"loss_fn must return a scalar tensor, such as a mean or a sum (got {found}{complex_})")
    if not loss.requires_grad:
        raise IcsbenchError("loss_fn returned a loss that does not depend on the network's parameters")
    return loss


def gradients_of(loss: Tensor, parameters: list[Any]) -> list[Tensor | None]:
    """Derivative of ``loss`` by each of the parameters, dense; None where it does not depend on them.

    :raises IcsbenchError: a part of the network cannot be differentiated in this way.
    """
    try:
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    except RuntimeError as error:
        if "checkpoint" not in str(error).lower() or ".grad()" not in str(error):
            raise
        raise IcsbenchError(
            "the network uses reentrant checkpointing, whose backward pass cannot be asked for the gradients of chosen "
            "layers; call torch.utils.checkpoint.checkpoint with use_reentrant=False"
        ) from error
    return [g if g is None or g.layout == torch.strided else g.to_dense() for g in found]


def as_vector(tensor: Tensor) -> Tensor:
    """All entries in one dimension; of complex ones the real and imaginary parts."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).reshape(-1)


def norm(tensor: Tensor) -> Tensor:
    """Euclidean norm of all entries, accumulated in float64."""
    return torch.linalg.vector_norm(as_vector(tensor) if tensor.is_complex() else tensor, dtype=torch.float64)


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in a value and in the lists, tuples and dictionaries that it is made of, in their order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, Mapping):
        values = [*values.values()]
    return [tensor for value in values for tensor in tensors_in(value)] if isinstance(values, (list, tuple)) else []
