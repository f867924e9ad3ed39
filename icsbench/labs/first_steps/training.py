"""Many deep networks trained side by side for a few steps, with the size of gradients and weights by layer."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench import random_networks as rn
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.first_steps import FirstStepsOptions
from icsbench.theory.activations import Floats

_CLASSES = 10


class Sizes(NamedTuple):
    """Before an update, of n networks: log squared norms by layer, each (n, depth).

    ``gradients``: ``ln ||dL/dh_l||^2``; ``weight_gradients``: ``ln ||dL/dW_l||^2``; ``weights``: ``ln ||W_l||^2``.
    """

    gradients: Tensor
    weight_gradients: Tensor
    weights: Tensor


def digits() -> tuple[Tensor, Tensor]:
    """The scikit-learn digits: inputs (1797, 64) of mean 0 and variance 1 over all of them together, and labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels, dtype=torch.float32)
    return (inputs - inputs.mean()) / inputs.std(), torch.tensor(labels)


def rows(options: FirstStepsOptions, seed: int) -> Iterator[Row]:
    """The rows of a run, see :class:`icsbench.labs.first_steps.FirstStepsOptions`; of a diverged network none.

    :raises IcsbenchError: the gradients of an untrained network are not positive and finite.
    """
    inputs, labels = digits()
    for depth, norm, lr in product(options.depths, options.norms, options.lrs):
        parameters = initial(rn.stream(seed, "first_steps", "weights", depth), options, depth, inputs.shape[1])
        batches = rn.stream(seed, "first_steps", "batches", depth)
        for step in range(options.steps + 1):
            chosen = torch.stack(
                [torch.randperm(len(labels), generator=batches)[: options.batch] for _ in range(options.networks)]
            )
            sizes = update(parameters, inputs[chosen], labels[chosen], norm, lr, options.eps)
            finite = torch.stack([part.isfinite().all(1) for part in sizes]).all(0)
            if step == 0 and not finite.all():
                raise IcsbenchError(
                    f"depth {depth}, {norm}: the gradient of an untrained network vanishes or is not finite; "
                    "choose a smaller depth, or lab.eps above 0"
                )
            for network in finite.nonzero().flatten().tolist():
                setting = {"step": step, "network": network, "depth": depth, "norm": norm, "lr": lr}
                yield setting | _summary(*(part[network].numpy() for part in sizes))


def initial(drawn: torch.Generator, options: FirstStepsOptions, depth: int, features: int) -> list[Tensor]:
    """``W_1, ..., W_depth`` and ``V`` of all networks, (n, rows, columns)."""
    n, width = options.networks, options.width
    first = rn.gaussian(drawn, n, width, features, std=1 / math.sqrt(features))
    inner = [rn.square_weights("gaussian", drawn, n, width, gain=math.sqrt(2)) for _ in range(depth - 1)]
    last = rn.gaussian(drawn, n, _CLASSES, width, std=1 / math.sqrt(width))
    return [weight.requires_grad_() for weight in (first, *inner, last)]


def update(parameters: list[Tensor], inputs: Tensor, labels: Tensor, norm: str, lr: float, eps: float) -> Sizes:
    """One step of gradient descent of all networks, each on its own batch; the sizes before it.

    :param inputs: (n, batch, features); ``labels``: (n, batch).
    """
    *weights, last = parameters
    layers = []
    signal = inputs
    for weight in weights:
        layers.append(torch.bmm(signal, weight.mT))
        signal = F.relu(rn.batch_norm(layers[-1], eps=eps) if norm == "bn" else layers[-1])
    outputs = torch.bmm(signal, last.mT)
    loss = F.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]
    gradients = torch.autograd.grad(loss, [*layers, *parameters])
    of_layers, of_weights = gradients[: len(layers)], gradients[len(layers) : -1]
    sizes = Sizes(*(_log_squares(parts) for parts in (of_layers, of_weights, weights)))
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients[len(layers) :], strict=True):
            parameter -= lr * gradient
    return sizes


def _log_squares(parts: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    return torch.stack([part.detach().square().sum((1, 2)).log() for part in parts], 1).double()


def _summary(gradients: Floats, weight_gradients: Floats, weights: Floats) -> dict[str, Any]:
    """What a row says of one network; slope, range and growth are of the second layer and those above, all square."""
    towards_input = -np.arange(1, len(weights))
    growth = float(np.polyfit(towards_input, weights[1:], 1)[0]) * (len(weights) - 2)
    return {
        "gradient_slope": float(np.polyfit(towards_input, gradients[1:], 1)[0]),
        "gradient_range": float(np.ptp(gradients[1:])),
        "weight_growth": math.exp(growth),
        "log_gradients": np.round(gradients, 4).tolist(),
        "log_weight_gradients": np.round(weight_gradients, 4).tolist(),
        "log_weights": np.round(weights, 4).tolist(),
    }
