"""What a norm is: the contract of its members, and how their modules are found in a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from icsbench.options import Options


class Look(NamedTuple):
    """How a norm shows in tables and figures."""

    label: str
    order: float
    """Where it stands among the others: smaller is earlier."""
    color: str
    """As ``#rrggbb``."""
    linestyle: str | tuple[float, tuple[float, ...]]
    """``-``, or matplotlib's ``(offset, (on, off, ...))`` in points."""
    marker: str
    """A marker of matplotlib."""


class Branch(NamedTuple):
    """Where in the residual branches of a network a layer is."""

    block: int
    """Which of the network's residual blocks it is in, from 0, in forward order."""
    blocks: int
    """How many residual blocks the network has: L."""
    layer: int
    """Which of the branch's layers it is, from 0."""
    layers: int
    """How many layers the branch has: m."""
    stages: tuple[int, ...] = ()
    """How many residual blocks each stage of the network has; a stage begins where the shortcut is not the identity."""

    @property
    def last(self) -> bool:
        """Whether it is the layer at the end of the branch: what is behind it is added to the shortcut."""
        return self.layer == self.layers - 1


class Place(NamedTuple):
    """A place for a norm: behind the transform of a layer and ahead of its nonlinearity."""

    index: int
    """Which of the network's places this is, from 0, in forward order; the output's comes after all others."""
    count: int
    """How many places the network has, that of its output apart."""
    features: int
    """Channels of the transform's output."""
    dimensions: int
    """1 for vectors ``(N, features)``, 2 for feature maps ``(N, features, H, W)``."""
    branch: Branch | None = None
    """Which layer of a residual branch it is in, if it is in one."""
    output: bool = False
    """Whether its layer is the network's output, where only a norm with ``at_output`` stands."""
    path: str = ""
    """The path of the layer in its network, for messages."""
    activation: nn.Module | None = None
    """The nonlinearity behind the norm; None where nobody says."""

    @property
    def first(self) -> bool:
        """Whether it is the first place of the network."""
        return self.index == 0

    @property
    def last(self) -> bool:
        """Whether it is the last place of the network, that of its output apart."""
        return self.index == self.count - 1


NormLayer = Callable[[nn.Module, Place], tuple[nn.Module, nn.Module]]
"""``(transform, place) -> (transform, module behind it)``: what a network applies at each of its places."""


@dataclass(frozen=True)
class Norm:
    """A norm, that is, a regime under which networks are trained.

    ``layer(options, transform, place)`` is called once for each place of a network, in forward order, when the
    transform (``nn.Linear`` or ``nn.Conv2d``) has its initial weights. It returns the transform and the module behind
    it. A norm of activations returns the transform as it is; a norm of weights parametrizes it
    (``torch.nn.utils.parametrize``) or returns a module around it, with ``nn.Identity()`` behind; one may do both.
    Parameters that it adds have the values that it gives them; torch's default random stream is a function of the seed
    while it is called.

    The modules that it makes are found by what they can do:

    - One that keeps running statistics has ``reset_running_stats()``, and ``momentum``, where None stands for the plain
      average over the batches since the reset, and 0 for leaving the statistics as they are. In training mode it
      normalizes by the batch and updates the statistics, in eval mode it normalizes by them.
    - One that draws random numbers has ``generator``, which the trainer sets to a stream of its own, and ``noise``:
      None for noise in training mode only, True or False where an evaluation protocol forces it.
    - One that starts from the data has ``start_from(output)``; see :func:`start_from_data`.
    """

    name: str
    look: Look
    layer: Callable[[Any, nn.Module, Place], tuple[nn.Module, nn.Module]]
    options: type[Options] = Options
    keeps_statistics: bool = False
    """Whether it keeps running statistics, so that the evaluation protocols running, recalibrated and batch differ."""
    draws_noise: bool = False
    """Whether it draws random numbers, so that noise on and off differ."""
    at_output: bool = False
    """Whether it also stands at the network's output layer, ``place.output``; others are not called there."""
    residual: bool = False
    """Whether it is one of residual branches, ``place.branch``; a network without any is refused."""
    maps: bool = False
    """Whether it is one of feature maps, ``place.dimensions == 2``; a network of single units is refused."""
    check: Callable[[Any, int], None] = lambda options, batch_size: None
    """``(options, batch_size)``: refuses, by a ValueError of one line, a batch size of training that does not fit."""

    def bound(self, options: Options) -> NormLayer:
        """The norm with its options, as a network takes it."""

        def layer(transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
            if place.output and not self.at_output:
                return transform, nn.Identity()
            return self.layer(options, transform, place)

        return layer


def batch_norms(model: nn.Module) -> list[Any]:
    """The modules of ``model`` that keep running statistics, in module order; see :class:`Norm`."""
    return [m for m in model.modules() if hasattr(m, "reset_running_stats") and hasattr(m, "momentum")]


def noise_modules(model: nn.Module) -> list[Any]:
    """The modules of ``model`` that draw noise, in module order; see :class:`Norm`."""
    return [m for m in model.modules() if hasattr(m, "noise") and hasattr(m, "generator")]


@torch.no_grad()
def start_from_data(model: nn.Module, first_batch: Callable[[], Tensor]) -> None:
    """Set what starts from the data: modules of norms with ``start_from``, in the order of one forward pass.

    ``start_from(output)`` is given the module's own output on the first training batch. It sets parameters, and returns
    the output that the module has with them, so that the modules behind it start from that. This is done where a run
    begins, before anything is measured. A resumed run does it too, and then loads its checkpoint.

    :param first_batch: gives the inputs of that batch; called where there is such a module.
    """
    starting: list[Any] = [module for module in model.modules() if hasattr(module, "start_from")]
    if not starting:
        return
    hooks = [one.register_forward_hook(lambda module, _, output: module.start_from(output)) for one in starting]
    model(first_batch())
    for hook in hooks:
        hook.remove()
