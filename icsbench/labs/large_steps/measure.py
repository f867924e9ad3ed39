"""What the lab measures, on one batch."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.models import Network
from icsbench.probes.gradients import norm
from icsbench.probes.passes import Passes

LossFn = Callable[[Tensor, Tensor], Tensor]


class FirstStep(NamedTuple):
    """What one batch shows; see :mod:`icsbench.labs.large_steps`."""

    relative_losses: list[float]
    """One for each step size; infinite where the loss is not finite."""
    layers: list[dict[str, Any]]
    """``layer`` (its path), ``channel_mean`` and ``channel_std``: averages over channels of |mean| and deviation."""
    classes: list[dict[str, float]]
    """``sign_share`` and ``sign_share_by_size``; the latter is missing where no sample has a gradient for the class."""
    whole: dict[str, float]
    """``loss``, ``gradient_norm``, ``weight_norm``, ``common`` and ``commonest_prediction``."""


def first_step(model: Network, loss_fn: LossFn, inputs: Tensor, targets: Tensor, alphas: Sequence[float]) -> FirstStep:
    """Measure ``model`` on a batch: a pass forward for each of ``alphas``, and two more. The model is left as it is.

    Every pass starts from the same state, so that noise, where there is any, is the same in all.

    :param loss_fn: the mean over the batch of a loss of ``(logits, classes)``.
    :raises IcsbenchError: loss or gradient at the weights of the model are not finite, or the loss is 0.
    """
    with Passes(model, loss_fn, inputs, targets) as passes:
        loss, gradients = passes.here()
        moving = [(parameter, g) for parameter, g in gradients.items() if g is not None]
        length = math.hypot(*(norm(g).item() for _, g in moving))
        if not (math.isfinite(loss) and math.isfinite(length)) or loss == 0:
            raise IcsbenchError(
                f"the untrained network has a loss of {loss.item():g} and a gradient of length {length:g}; "
                "choose a smaller network or smaller initial weights"
            )
        whole = {"loss": loss.item(), "gradient_norm": length}
        whole["weight_norm"] = math.hypot(*(norm(parameter).item() for parameter, _ in moving))
        relative_losses = []
        for alpha in alphas:
            passes.begin()
            with torch.no_grad():
                for parameter, g in moving:
                    parameter.sub_(g, alpha=alpha)
                relative = (loss_fn(passes.forward(inputs), targets).double() / loss.double()).item()
            relative_losses.append(relative if math.isfinite(relative) else math.inf)
        passes.begin()
        layers, logits = _channels(model, passes.forward, inputs)
    classes, of_outputs = _at_the_output(logits, loss_fn, targets)
    return FirstStep(relative_losses, layers, classes, whole | of_outputs)


def _channels(
    model: Network, forward: Callable[[Tensor], Tensor], inputs: Tensor
) -> tuple[list[dict[str, Any]], Tensor]:
    """The channels of every layer but the last, and the outputs, of one pass."""
    found: dict[str, dict[str, Any]] = {}

    def noting(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            values = output.movedim(1, 0).flatten(1).double()
            found[path] = {
                "layer": path,
                "channel_mean": values.mean(1).abs().mean().item(),
                "channel_std": values.std(1, correction=0).mean().item(),
            }

        return note

    hooks = [block.transform.register_forward_hook(noting(path)) for path, block in model.layers()[:-1]]
    try:
        with torch.no_grad():
            outputs = forward(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values()), outputs


def _at_the_output(logits: Tensor, loss_fn: LossFn, targets: Tensor) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Signs of the gradients at each of the c logits, and what the gradients of the n samples have in common."""
    logits = logits.detach().double().requires_grad_()
    (g,) = torch.autograd.grad(loss_fn(logits, targets), logits)
    count = len(g)
    classes = []
    for column in g.unbind(1):
        by_count = max(int((column > 0).sum()), int((column < 0).sum())) / count
        row = {"sign_share": by_count}
        if column.any():
            row["sign_share_by_size"] = ((1 + column.sum().abs() / column.abs().sum()) / 2).item()
        classes.append(row)
    predictions = logits.argmax(1).bincount()
    whole = {
        "common": (g.mean(0).square().sum() / g.square().sum(1).mean()).item(),
        "commonest_prediction": predictions.max().item() / count,
    }
    return classes, whole
