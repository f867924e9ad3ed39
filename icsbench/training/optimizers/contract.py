"""What an optimizer is, and what wraps one: the contracts of their members."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from icsbench.config import OptimConfig
from icsbench.members import member


@dataclass(frozen=True)
class Optimizer:
    """An optimizer: ``build(parameters, options)`` makes one of torch's interface.

    The learning rate of each of its parameter groups is set before every update: that of the run, times ``lr_scale``
    in a group that has one. A parameter with an attribute ``lr_scale`` gets into such a group by itself. One with an
    attribute ``trained_entries``, a mask of its shape, keeps all other entries as they are, bit for bit.
    """

    name: str
    build: Callable[[Iterable[nn.Parameter], Any], TorchOptimizer]
    options: type[OptimConfig] = OptimConfig


@dataclass(frozen=True)
class Wrapper:
    """What acts around the update of any optimizer, such as clipping (before) and projection (after).

    ``before`` and ``after`` are called as ``before(optimizer, options)``, where ``optimizer.param_groups`` holds
    parameters, their gradients and the learning rate of the update. Parameters of the output layer have an attribute
    ``output``. What a wrapper keeps from one update to the next is in ``optimizer.state[NAME]``, as numbers, tensors,
    and lists and dictionaries of them: it goes into the checkpoint.

    ``options`` is a dataclass, whose fields are the keys below ``optim.wrap.NAME``; it raises ValueError for a value
    out of range.
    """

    name: str
    options: type
    before: Callable[[TorchOptimizer, Any], None] | None = None
    after: Callable[[TorchOptimizer, Any], None] | None = None

    def attach(self, optimizer: TorchOptimizer, options: Any) -> None:
        """Have it act around every update of the optimizer, behind the wrappers that are attached already."""
        before, after = self.before, self.after
        if before is not None:
            optimizer.register_step_pre_hook(lambda *_: before(optimizer, options))
        if after is not None:
            optimizer.register_step_post_hook(lambda *_: after(optimizer, options))


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimConfig) -> TorchOptimizer:
    """The optimizer of a run, with its wrappers: each acts before the update, and after it, in their order."""
    optimizer = member("training.optimizers", Optimizer, options.name).build(parameters, options)
    _give_scales_groups(optimizer)
    held = _held(optimizer)
    if held:
        optimizer.register_step_pre_hook(lambda *_: _drop_gradients(held))
    for name, of in (options.wrap or {}).items():
        member("training.optimizers", Wrapper, name).attach(optimizer, of)
    if held:
        optimizer.register_step_post_hook(lambda *_: _put_back(held))
    return optimizer


class _Held(NamedTuple):
    """A parameter of which some entries are not trained: where they are, and its values."""

    parameter: nn.Parameter
    where: Tensor
    values: Tensor


def _held(optimizer: TorchOptimizer) -> list[_Held]:
    parameters = [p for group in optimizer.param_groups for p in group["params"] if hasattr(p, "trained_entries")]
    return [_Held(p, ~p.trained_entries, p.detach().clone()) for p in parameters]


def _drop_gradients(held: list[_Held]) -> None:
    """Ahead of the wrappers, so that what they measure of gradients is of trained entries alone."""
    for one in held:
        if one.parameter.grad is not None:
            one.parameter.grad.masked_fill_(one.where, 0)


@torch.no_grad()
def _put_back(held: list[_Held]) -> None:
    """Behind the wrappers: weight decay and projection move entries without a gradient too."""
    for one in held:
        one.parameter.copy_(torch.where(one.where, one.values, one.parameter))


def _give_scales_groups(optimizer: TorchOptimizer) -> None:
    """Move parameters with an ``lr_scale`` to groups of their own, behind the others, with the options of theirs."""
    for group in [*optimizer.param_groups]:
        scales = {scale: None for p in group["params"] if (scale := getattr(p, "lr_scale", 1)) != 1}
        for scale in scales:
            scaled = [p for p in group["params"] if getattr(p, "lr_scale", 1) == scale]
            group["params"] = [p for p in group["params"] if getattr(p, "lr_scale", 1) != scale]
            optimizer.add_param_group({**group, "params": scaled, "lr_scale": scale})
