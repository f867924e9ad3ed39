"""A network in float64 on one batch, with what goes in and out of each of its batch normalizations."""

import copy
import functools
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.norms import noise_modules
from icsbench.probes.gradients import LossFn, forward_loss

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""The modules that the theorems are about."""
_DEAD = 1e-6
_EPS = torch.finfo(torch.float64).tiny  # torch refuses 0; a variance does not feel this


class Evaluated:
    """The float64 copy. ``loss`` runs it; then y and z of every normalization are known, in forward order."""

    def __init__(self, model: nn.Module, loss_fn: LossFn, inputs: Tensor, targets: Any) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self._loss_fn, self._inputs, self._targets = loss_fn, _double(inputs), _double(targets)
        self.y: dict[str, Tensor] = {}
        self.z: dict[str, Tensor] = {}
        self.dead: dict[str, Tensor] = {}
        self.eps: dict[str, float] = {}
        self._outputs: list[tuple[str, Tensor]] = []
        self._feeders: dict[str, tuple[str, Tensor]] = {}
        for module in noise_modules(self.model):
            module.noise = False
        modules: dict[str, Any] = dict(self.model.named_modules())
        for path, module in modules.items():
            if getattr(module, "inplace", False):
                module.inplace = False
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                module.register_forward_hook(functools.partial(self._record, path))
            elif isinstance(module, BATCH_NORMS):
                self.eps[path], module.eps = module.eps, _EPS
                module.train()
                module.register_forward_pre_hook(functools.partial(self._enter, path))
                module.register_forward_hook(functools.partial(self._leave, path))
        if not self.eps:
            raise IcsbenchError(f"{type(model).__name__} has no batch normalization, which the theorems are about")
        if len(inputs) < 2:
            raise IcsbenchError(f"batch statistics need a batch of at least 2 samples (got {len(inputs)})")

    def loss(self) -> Tensor:
        """The loss of one forward pass.

        :raises IcsbenchError: the loss is not a finite scalar.
        """
        for found in (self.y, self.z, self._outputs, self._feeders):
            found.clear()
        loss = forward_loss(self.model, self._loss_fn, self._inputs, self._targets)
        if not self.z:
            raise IcsbenchError(f"{type(self.model).__name__} never calls its batch normalization")
        if not loss.isfinite():
            broken = [path for path, z in self.z.items() if not z.isfinite().all()]
            where = f"from {broken[0]} on" if broken else f"after {[*self.z][-1]}"
            raise IcsbenchError(f"the loss is {loss.item()} (not finite {where}), so no theorem can be evaluated there")
        return loss

    def feeders(self, loss: Tensor) -> dict[str, str]:
        """Path of the normalization -> path of the layer that feeds it, where output and weight go nowhere else."""
        uses: Counter[Any] = Counter()
        nodes, seen = [loss.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is not None and node not in seen:
                seen.add(node)
                after = [edge for edge, _ in node.next_functions]
                uses.update(after)
                nodes += after
        parameters = dict(self.model.named_parameters())
        return {
            path: feeder
            for path, (feeder, output) in self._feeders.items()
            if (weight := parameters.get(f"{feeder}.weight")) is not None
            and uses[output.grad_fn] == 1 == uses[torch.autograd.graph.get_gradient_edge(weight).node]
        }

    def _record(self, path: str, _: nn.Module, __: Any, output: Any) -> None:
        self._outputs.append((path, output))

    def _enter(self, path: str, _: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        (given,) = args
        m = given.numel() // given.shape[1]
        if path in self.y:
            raise IcsbenchError(f"{path} is called more than once in a forward pass; the theorems take one call each")
        if m < 3:
            raise IcsbenchError(f"{path} has {m} values per channel; with fewer than 3 its gradient is always zero")
        for feeder in self._outputs:
            if feeder[1] is given:
                self._feeders[path] = feeder
        y = given.clone()
        if not y.requires_grad:
            y.requires_grad_()
        self.y[path] = y
        if path not in self.dead:
            rows = as_rows(given.detach())
            self.dead[path] = rows.std(1, correction=0) <= _DEAD * rows.abs().amax(1)
        ramp = torch.linspace(-1, 1, m, dtype=y.dtype, device=y.device).view(len(y), 1, *y.shape[2:])
        return torch.where(_like(self.dead[path], y), ramp, y)

    def _leave(self, path: str, module: nn.Module, _: Any, z: Tensor) -> Tensor:
        self.z[path] = z
        beta = module.bias if isinstance(module.bias, Tensor) else z.new_zeros(z.shape[1])
        return torch.where(_like(self.dead[path], z), _like(beta, z), z)  # a copy, which may be overwritten


def as_rows(values: Tensor) -> Tensor:
    """``(N, C, ...)`` as ``(C, m)``."""
    return values.movedim(1, 0).flatten(1)


def gradients(
    network: Evaluated, loss: Tensor, weights: list[Tensor], *, create_graph: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
    """Gradients by path: g and dy, of the shape of z and y, and the gradients of the weights."""
    at = [*network.z.values(), *network.y.values(), *weights]
    gradients = torch.autograd.grad(loss, at, create_graph=create_graph, materialize_grads=True)
    n = len(network.y)
    g, dy = (dict(zip(network.y, part, strict=True)) for part in (gradients[:n], gradients[n : 2 * n]))
    for path in reversed(network.y):
        if not (g[path].isfinite().all() and dy[path].isfinite().all()):
            raise IcsbenchError(f"the gradient is not finite at {path}, so no theorem can be evaluated there")
    return g, dy, list(gradients[2 * n :])


def _double(value: Any) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().to(torch.float64, copy=True) if floats else value


def _like(per_channel: Tensor, values: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (values.dim() - 2))
