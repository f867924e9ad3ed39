"""What the lab measures, on one batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from icsbench.models import Network


def gradients(
    model: Network, loss_fn: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> dict[str, float]:
    """``||dL / dy_l||`` by the path of layer l, in forward order; see :mod:`icsbench.labs.start_gradients`.

    Running statistics of the model are moved, and where it draws noise, its stream.
    """
    outputs: dict[str, Tensor] = {}

    def kept(path: str) -> Callable[..., Tensor]:
        def keep(_: object, __: object, output: Tensor) -> Tensor:
            outputs[path] = output
            return output.clone()  # an activation may overwrite it

        return keep

    for path, block in model.layers():
        block.transform.register_forward_hook(kept(path))
    loss = loss_fn(model.train()(inputs), targets)
    found = torch.autograd.grad(loss, [*outputs.values()])
    return {path: gradient.double().norm().item() for path, gradient in zip(outputs, found, strict=True)}
