"""The loss landscape along the gradient (Santurkar et al. 2018, section 3.1, Fig. 4)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.probes.gradients import LossFn, NotFinite, as_vector, gradients_of, norm
from icsbench.probes.passes import Passes


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


def loss_landscape(model: nn.Module, loss_fn: LossFn, inputs: Any, targets: Any, alphas: Iterable[float]) -> Landscape:
    """Loss and gradient of ``model`` along the gradient of one batch: K + 1 passes for K distances.

    A network with modules that are not torch's, torchvision's or ours takes one forward pass more, which tells whether
    a pass can be repeated.

    The network is in training mode, with BN by the statistics of the batch at each point. All points see the same batch
    and every pass starts from the same state (see :class:`icsbench.probes.State`) and so with the same draw of every
    random stream (noise, dropout): the one that the next training pass would make. At the end all of it is put back bit
    for bit. Parameters that do not require a gradient stay where they are.

    ::

        model = torchvision.models.vgg11_bn(num_classes=10)
        found = loss_landscape(model, F.cross_entropy, images, labels, alphas=[0.05, 0.1, 0.2, 0.4])
        found.beta, max(found.gradient_differences)

    :param loss_fn: ``(outputs, targets) -> scalar``; what it reads of the model's parameters is moved with them.
    :param inputs: the batch, as the network takes it (see :class:`icsbench.probes.passes.Passes`); ``targets`` as the
        loss takes them.
    :param alphas: distances to move, each greater than 0. The paper takes [1/2, 4] times the learning rate for VGG.
    :raises IcsbenchError: ``alphas`` is empty or not positive. The loss is not scalar. The network cannot be measured
        (docs/probes.md has the list), or has BN while the batch is of one.
    :raises NotFinite: the gradient ``g`` is not finite. It is a kind of IcsbenchError.
    """
    with Passes(model, loss_fn, inputs, targets) as passes:
        return landscape_along_gradient(passes, alphas)


def landscape_along_gradient(passes: Passes, alphas: Iterable[float]) -> Landscape:
    """The work of :func:`loss_landscape`, on ``passes`` that others may share."""
    distances = _checked(alphas)
    parameters = passes.trainable
    if not parameters:
        raise IcsbenchError(f"no parameter of {type(passes.model).__name__} requires a gradient")
    loss, gradients = passes.here()
    loss = loss.double()
    directions = [_or_zero(parameter, gradients[parameter]) for parameter in parameters]
    gradient = _flat(directions)
    gradient_norm = norm(gradient)
    if not gradient_norm.isfinite():
        raise NotFinite(f"the gradient of {type(passes.model).__name__} is not finite (its loss is {loss.item():g})")
    if passes.of_foreign_code:
        passes.refuse_unrepeatable()
    losses, differences = [], []
    for alpha in distances:
        passes.begin()
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=alpha)
        moved_loss = passes.loss()
        moved = gradients_of(moved_loss, parameters)
        losses.append(moved_loss.detach().double())
        differences.append(norm(_flat(map(_or_zero, parameters, moved)).sub_(gradient)))
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


def _or_zero(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    vector = torch.cat([as_vector(tensor) for tensor in tensors])
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


def _checked(alphas: Iterable[float]) -> tuple[float, ...]:
    distances = tuple(float(alpha) for alpha in alphas)
    if not distances:
        raise IcsbenchError("alphas is empty; give the step sizes to look at, such as [0.05, 0.1, 0.2]")
    for alpha in distances:
        if not (math.isfinite(alpha) and alpha > 0):
            raise IcsbenchError(f"alphas must be finite and greater than 0 (got {alpha:g})")
    return distances
