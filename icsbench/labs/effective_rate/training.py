"""The trainings of the lab."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.effective_rate import VARIANTS
from icsbench.labs.network import Network
from icsbench.models import Network as Net
from icsbench.streams import stream_seed
from icsbench.training.evaluation import hits
from icsbench.training.optimizers import build_optimizer
from icsbench.training.optimizers.project import PROJECT, ProjectOptions
from icsbench.training.trainer import learning_rate


class Course(NamedTuple):
    """A training: ``losses`` and ``accuracies`` of its updates, ``(steps,)``, fewer where a loss was not finite.

    ``rates``: ``||w_0||^2 / ||w||^2`` ahead of each update, ``(steps, tensors)``; ``lengths``: ``||w_0||``.
    """

    losses: list[float]
    accuracies: list[float]
    rates: Tensor
    lengths: Tensor


def rows(network: Network, seed: int) -> Iterator[Row]:
    """The rows of all variants.

    :raises IcsbenchError: no layer has a weight ahead of a norm, or one starts at zero.
    """
    model = network.untrained()
    weights, of = _ahead_of_norm(model.parameters()), f"norm={network.config.norm.name}"
    if not weights:
        raise IcsbenchError(f"lab effective_rate: with {of} no weight is ahead of a place for a norm; choose norm=bn")
    if not _lengths(weights).all():
        raise IcsbenchError(f"lab effective_rate: {of} starts a weight at zero, of no length to keep; choose norm=bn")
    return _of_variants(network, model, seed)


def _of_variants(network: Network, model: Net, seed: int) -> Iterator[Row]:
    layers = [path for path, block in model.layers() if _ahead_of_norm(block.transform.parameters())]
    free = course(network, model)
    yield from _of_training("free", free, network.config.log_every)
    if len(free.losses) < network.config.steps or not math.isfinite(free.losses[-1]):
        return
    yield from _of_rates(free, layers, network)
    for variant in VARIANTS[1:]:
        found = course(network, network.untrained(), scheduled(variant, free.rates, seed))
        yield from _of_training(variant, found, network.config.log_every)


def scheduled(variant: str, rates: Tensor, seed: int) -> Tensor:
    """The relative rates of a variant, from those that free had; both are ``(steps, tensors)``."""
    if variant == "constant":
        return torch.ones_like(rates)
    if variant == "one_for_all":
        return rates.log().mean(1, keepdim=True).exp().expand_as(rates)
    if variant == "shuffled":
        generator = torch.Generator().manual_seed(stream_seed(seed, "effective_rate"))
        return rates[torch.randperm(len(rates), generator=generator)]
    return rates


def course(network: Network, model: Net, rates: Tensor | None = None) -> Course:
    """Train ``model``, which is untrained, as it is; with ``rates``, on weights of fixed length at these rates."""
    config, task = network.config, network.task
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    weights = _ahead_of_norm(model.parameters())
    apart = set(weights)
    optimizer = build_optimizer([p for p in model.parameters() if p not in apart], config.optim)
    first = len(optimizer.param_groups)
    for weight in weights:
        optimizer.add_param_group({"params": [weight]})
    if rates is not None:
        PROJECT.attach(optimizer, ProjectOptions())
    lengths = _lengths(weights)
    losses, accuracies, found = [], [], []
    model.train()
    for step in range(config.steps):
        _set_rates(optimizer, learning_rate(config, step), None if rates is None else rates[step].tolist(), first)
        found.append(lengths.square() / _lengths(weights).square())
        inputs, targets = task.batches(step)
        outputs = model(inputs)
        loss = task.loss(outputs, targets)
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        right, guessed = hits(outputs.detach(), targets)
        losses.append(loss.item())
        accuracies.append((right + guessed * (task.chance or 0)).item() / len(targets))
        if not math.isfinite(losses[-1]):
            break
    return Course(losses, accuracies, torch.stack(found), lengths)


def _ahead_of_norm(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [p for p in parameters if p.dim() > 1 and getattr(p, "ahead_of_norm", False)]


def _lengths(weights: list[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) for weight in weights]
    return torch.stack(norms)


def _set_rates(optimizer: Optimizer, lr: float, relative: list[float] | None, first: int) -> None:
    """The learning rates of one update: ``lr``, and from the group ``first`` on ``relative`` times that."""
    for number, group in enumerate(optimizer.param_groups):
        scale = 1.0 if relative is None or number < first else relative[number - first]
        group["lr"] = lr * scale * group.get("lr_scale", 1)


def _of_training(variant: str, found: Course, every: int) -> Iterator[Row]:
    for start in range(0, len(found.losses), every):
        losses, accuracies = (values[start : start + every] for values in (found.losses, found.accuracies))
        means = {"loss": sum(losses) / len(losses), "accuracy": sum(accuracies) / len(accuracies)}
        yield {"step": start + len(losses), "measure": "training", "variant": variant, **means}


def _of_rates(found: Course, layers: list[str], network: Network) -> Iterator[Row]:
    every = network.config.log_every
    for step in range(every, len(found.losses) + 1, every):
        lr = learning_rate(network.config, step - 1)
        of_layers = zip(layers, found.rates[step - 1].tolist(), found.lengths.tolist(), strict=True)
        for depth, (layer, relative, length) in enumerate(of_layers, start=1):
            rate = {"relative_rate": relative, "effective_rate": lr * relative / length**2}
            yield {"step": step, "measure": "rate", "layer": layer, "depth": depth, **rate}
