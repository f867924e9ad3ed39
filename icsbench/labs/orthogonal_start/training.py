"""Batched MLPs (networks in front of every tensor), their starts, and SGD."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench import random_networks as rn
from icsbench.data.sources import load_dataset
from icsbench.labs.cliff.training import standardised
from icsbench.labs.rank.measures import orthogonality_gap

_ENOUGH = 8  # samples per unit behind a start that looks at data


class Task(NamedTuple):
    """Inputs ``(features, samples)``, standardized, and classes ``(samples,)``."""

    inputs: Tensor
    targets: Tensor
    classes: int


def digits() -> Task:
    """The 1,437 training images of scikit-learn's digits, 8x8."""
    images = standardised(load_dataset("digits8", None, val_size=0))
    return Task(images.train.images.T.contiguous(), images.train.labels, images.classes)


class Trained(NamedTuple):
    """Of each network, ``(networks,)``: the gap of the last hidden layer before, loss and accuracy after training."""

    orthogonality_gap: Tensor
    loss: Tensor
    accuracy: Tensor


class Mlp:
    """``networks`` ReLU MLPs with biases; with BN behind the weights of each hidden layer, or without.

    ``weights`` are ``(networks, outputs, inputs)``, those of the output layer last. Signals have the samples last,
    ``(networks, width, samples)``, so that the features of all networks are the channels of one batch normalization.
    """

    def __init__(self, weights: list[Tensor], bn: bool) -> None:
        self.weights = weights
        self.biases = [w.new_zeros(*w.shape[:2], 1) for w in weights]
        self.gammas = [torch.ones_like(b) for b in self.biases[:-1]] if bn else []
        for parameter in self.parameters:
            parameter.requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        return [*self.weights, *self.biases, *self.gammas]

    def hidden(self, x: Tensor) -> Tensor:
        """What the last hidden layer makes of the inputs ``(features, samples)``: ``(networks, width, samples)``."""
        x = x.expand(len(self.weights[0]), *x.shape)
        for layer, (w, b) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            x = F.relu(_batch_norm(w @ x, self.gammas[layer], b) if self.gammas else torch.baddbmm(b, w, x))
        return x

    def logits(self, x: Tensor) -> Tensor:
        """``(networks, classes, samples)``; BN uses the statistics of these samples."""
        return torch.baddbmm(self.biases[-1], self.weights[-1], self.hidden(x))


def _batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """BN of each network's features over its samples: all networks' features are the channels of one call."""
    channels = x.reshape(1, -1, x.shape[2])
    return F.batch_norm(channels, None, None, gamma.flatten(), beta.flatten(), training=True).view_as(x)


def glorot(generator: torch.Generator, networks: int, sizes: list[int]) -> list[Tensor]:
    """Normal weights of variance ``2 / (inputs + outputs)`` for layers of these sizes."""
    return [
        rn.gaussian(generator, networks, outputs, inputs, std=math.sqrt(2 / (inputs + outputs)))
        for inputs, outputs in itertools.pairwise(sizes)
    ]


def of_unit_scale(weights: list[Tensor], x: Tensor) -> list[Tensor]:
    """The weights, each hidden layer times the number that makes the mean square of its outputs on ``x`` 1."""
    return list(_layer_by_layer(weights, x, lambda w, signals: w))


def orthogonalizing(weights: list[Tensor], x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Weights of hidden layers that draw the samples ``x`` apart (Daneshmand et al. 2021, section 5.2, equation 6).

    With ``H = U S V'`` the signals of the samples before a layer, its weights are ``V_1 S^(-1/2) U'``, where V_1 is the
    orthogonal matrix next to as many rows of V, drawn, as the layer has units. Then all is scaled as in
    :func:`of_unit_scale`, which is where this differs from the paper: its ``1 / ||S^(1/2)||_F`` makes signals of
    Frobenius norm 1 over the whole batch, hundreds of times smaller than those of the other starts.
    ``weights`` give the shapes, and the output layer.
    """

    def drawn_apart(w: Tensor, signals: Tensor) -> Tensor:
        units, scales, samples = torch.linalg.svd(signals.double(), full_matrices=False)
        known = scales > signals.shape[2] * torch.finfo(torch.float32).eps * scales[:, :1]
        inverse = torch.where(known, scales, 1).rsqrt() * known
        drawn = torch.stack([torch.randperm(samples.shape[2], generator=generator)[: w.shape[1]] for _ in w])
        rows = samples.mT.gather(1, drawn[..., None].expand(-1, -1, samples.shape[1]))
        left, _, right = torch.linalg.svd(rows, full_matrices=False)
        return (left @ right * inverse[:, None] @ units.mT).float()

    return list(_layer_by_layer(weights, x, drawn_apart))


def _layer_by_layer(weights: list[Tensor], x: Tensor, chosen: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
    """``chosen(weights, signals before them)`` for each hidden layer, scaled to outputs of mean square 1."""
    x = x.expand(len(weights[0]), *x.shape)
    for given in weights[:-1]:
        w = chosen(given, x)
        size = (w @ x).square().mean((1, 2), keepdim=True).sqrt()
        w = w / size
        x = F.relu(w @ x)
        yield w
    yield weights[-1]


def start(kind: str, task: Task, seed: int, networks: int, width: int, depth: int) -> list[Tensor]:
    """The weights of one start; all but ``orthogonal`` draw the same, and only ``scaled`` changes their size."""
    sizes = [len(task.inputs), *[width] * depth, task.classes]
    weights = glorot(rn.stream(seed, "orthogonal_start", "weights", depth), networks, sizes)
    seen = task.inputs[:, : _ENOUGH * width]
    if kind == "scaled":
        return of_unit_scale(weights, seen)
    if kind == "orthogonal":
        return orthogonalizing(weights, seen, rn.stream(seed, "orthogonal_start", "rows", depth))
    return weights


def train(mlp: Mlp, task: Task, seed: int, *, steps: int, batch: int, rates: Tensor) -> Trained:
    """SGD on the mean cross-entropy of batches, which are the same for all networks and starts.

    The gap is that of a batch no larger than the width. Loss and accuracy are over all samples in one batch, whose
    statistics BN uses.

    :param rates: the learning rate of each network, ``(networks,)``.
    """
    with torch.no_grad():
        signals = mlp.hidden(task.inputs[:, : min(batch, mlp.weights[-1].shape[2])])
        gap = orthogonality_gap(signals.mT.double())
    for index in _batches(len(task.targets), batch, steps, rn.stream(seed, "orthogonal_start", "batches")):
        loss = losses(mlp.logits(task.inputs[:, index]), task.targets[index]).sum()
        for parameter, gradient in zip(mlp.parameters, torch.autograd.grad(loss, mlp.parameters), strict=True):
            parameter.data.addcmul_(rates[:, None, None], gradient, value=-1)
    with torch.no_grad():
        logits = mlp.logits(task.inputs)
        right = logits.argmax(1) == task.targets
        return Trained(gap, losses(logits, task.targets), right.double().mean(1))


def _batches(samples: int, batch: int, steps: int, order: torch.Generator) -> Iterator[Tensor]:
    """So many full batches of epochs in random order."""
    epochs = (torch.randperm(samples, generator=order).split(batch) for _ in itertools.count())
    full = (index for epoch in epochs for index in epoch if len(index) == batch)
    return itertools.islice(full, steps)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of each network."""
    return F.cross_entropy(logits, targets.expand(len(logits), -1), reduction="none").mean(1)
