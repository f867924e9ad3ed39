"""The loss landscape along the gradient (Santurkar et al. 2018, section 3.1, Fig. 4)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.probes.gradients import LossFn, NotFinite, flat_gradient, forward_loss, norm, refuse_unmeasurable
from icsbench.probes.guard import rewinder, undisturbed


@dataclass(frozen=True)
class Landscape:
    """Loss and gradient at the points ``theta - alpha g``, ``g`` the gradient at the current weights ``theta``.

    A loss or a gradient that is not a number any more counts as infinite.
    """

    alphas: tuple[float, ...]
    """The K distances, in units of the gradient: step sizes."""
    losses: tuple[float, ...]
    """``L(theta - alpha g)``; their range is the *loss variation* (Fig. 4a)."""
    gradient_differences: tuple[float, ...]
    """``||grad L(theta - alpha g) - g||_2``; their range is the *gradient predictiveness* (Fig. 4b)."""
    beta: float
    """*Effective beta-smoothness* (Fig. 4c): ``max_alpha ||grad L(theta - alpha g) - g|| / (alpha ||g||)``; NaN where
    the gradient is zero."""
    loss: float
    """``L(theta)``."""
    gradient_norm: float
    """``||g||_2``."""


def loss_landscape(
    model: nn.Module, loss_fn: LossFn, inputs: Tensor, targets: Any, alphas: Iterable[float]
) -> Landscape:
    """Loss and gradient of ``model`` along the gradient of one batch: K + 1 passes for K distances.

    All points see the same batch and the same draw of every random stream (noise, dropout): the one that the next
    training pass would make. The network is in training mode, with BN by the statistics of the batch at each point;
    :func:`icsbench.probes.undisturbed` surrounds it, and the weights are put back bit for bit. Parameters that do
    not require a gradient stay where they are.

    ::

        model = torchvision.models.vgg11_bn(num_classes=10)
        found = loss_landscape(model, F.cross_entropy, images, labels, alphas=[0.05, 0.1, 0.2, 0.4])
        found.beta, max(found.gradient_differences)

    :param loss_fn: ``(outputs, targets) -> scalar``; what it reads of the model's parameters is moved with them.
    :param inputs: the batch, as the network takes it; ``targets`` as the loss takes them.
    :param alphas: distances to move, each greater than 0. The paper takes [1/2, 4] times the learning rate for VGG.
    :raises IcsbenchError: ``alphas`` empty or not positive, a loss that is not scalar, a network without parameters or
        one with BN and a batch of one; :class:`NotFinite`, a kind of it, for a gradient ``g`` that is not finite.
    """
    distances = _checked(alphas)
    refuse_unmeasurable(model, inputs)
    with undisturbed(model), torch.enable_grad():
        model.train()
        rewind = rewinder(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            raise IcsbenchError(f"no parameter of {type(model).__name__} requires a gradient")

        def measure() -> tuple[Tensor, Tensor]:
            rewind()
            loss = forward_loss(model, loss_fn, inputs, targets)
            return loss.detach().double(), flat_gradient(loss, parameters)

        loss, gradient = measure()
        gradient_norm = norm(gradient)
        if not gradient_norm.isfinite():
            raise NotFinite(f"the gradient of {type(model).__name__} is not finite (its loss is {loss.item():g})")
        directions = [
            part.view_as(parameter)
            for part, parameter in zip(gradient.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        here = [parameter.detach().clone() for parameter in parameters]
        losses, differences = [], []
        try:
            for alpha in distances:
                with torch.no_grad():
                    for parameter, start, direction in zip(parameters, here, directions, strict=True):
                        torch.sub(start, direction, alpha=alpha, out=parameter)
                moved_loss, moved_gradient = measure()
                losses.append(moved_loss)
                differences.append(norm(moved_gradient.sub_(gradient)))
        finally:
            with torch.no_grad():
                for parameter, start in zip(parameters, here, strict=True):
                    parameter.copy_(start)
        values = torch.stack([loss, gradient_norm, *losses, *differences]).nan_to_num(math.inf, math.inf).tolist()
    count = len(distances)
    differences = values[2 + count :]
    return Landscape(
        alphas=distances,
        losses=tuple(values[2 : 2 + count]),
        gradient_differences=tuple(differences),
        beta=max(d / (a * values[1]) for a, d in zip(distances, differences, strict=True)) if values[1] else math.nan,
        loss=values[0],
        gradient_norm=values[1],
    )


def _checked(alphas: Iterable[float]) -> tuple[float, ...]:
    distances = tuple(float(alpha) for alpha in alphas)
    if not distances:
        raise IcsbenchError("alphas is empty; give the step sizes to look at, such as [0.05, 0.1, 0.2]")
    for alpha in distances:
        if not (math.isfinite(alpha) and alpha > 0):
            raise IcsbenchError(f"alphas must be finite and greater than 0 (got {alpha:g})")
    return distances
