"""Plain ReLU networks of one depth, trained together: each with its own weights and its own order of images.

Signals are ``(networks, images, features)``, weights ``(networks, outputs, inputs)``. The backward pass is written out,
and the update of a layer is added to its weights in the product that makes it: no gradient is ever stored. With small
batches, where the weights are far larger than the signals, that takes half the time of torch's own backward pass.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench.data.batches import normalize
from icsbench.data.kinds import Split
from icsbench.data.sources import Dataset
from icsbench.labs.cliff import CliffOptions
from icsbench.random_networks import gaussian, stream

_AT_ONCE = 2048  # images of a forward pass that measures accuracy


class Images(NamedTuple):
    """Training and test images as rows of pixels; each colour has mean 0 and variance 1 over the training images."""

    train: Split
    test: Split
    classes: int


def standardised(dataset: Dataset) -> Images:
    """The images of a data set with classes, for these networks."""
    statistics = dataset.normalization()
    train, test = (
        Split(normalize(split.images, *statistics).flatten(1), split.labels) for split in (dataset.train, dataset.test)
    )
    return Images(train, test, dataset.num_classes or 1)


class Outcome(NamedTuple):
    """What became of one network: fractions, and the mean cross entropy of the training images."""

    accuracy_train: float
    accuracy_test: float
    loss: float
    diverged: bool


class _Layer(NamedTuple):
    """What the backward pass needs of a layer: its input, and of the BN before it what it gave, and 1 / sigma."""

    inputs: Tensor
    normalized: Tensor | None
    scale: Tensor | None


class PlainNetworks:
    """Networks of L + 1 layers of weights, the last of which gives the logits.

    :param weights: from the first layer on, ``(networks, outputs, inputs)`` each; ``step`` changes them in place.
    :param eps: that of BN before each ReLU; None for networks without BN.
    """

    def __init__(self, weights: list[Tensor], eps: float | None) -> None:
        self.weights = weights
        self._eps = eps

    def logits(self, x: Tensor, batch: int) -> Tensor:
        """``(networks, images, classes)`` of images ``(networks, images, features)``.

        The statistics of BN are those of each ``batch`` images in a row.
        """
        return self._forward(x, batch)[0]

    def step(self, x: Tensor, labels: Tensor, lr: float) -> None:
        """An update of plain SGD on the mean cross entropy of one batch of each network: labels ``(networks, batch)``.

        The gradient of logits is ``(softmax - one-hot) / batch``; that of what BN divides by sigma is
        ``(g - mean g - y mean(g y)) / sigma``, where y is what BN gave, g its gradient, and means are over the batch.
        """
        batch = x.shape[1]
        logits, layers = self._forward(x, batch)
        gradient = (logits.softmax(-1) - F.one_hot(labels, logits.shape[-1])) / batch
        for weight, layer in zip(reversed(self.weights), reversed(layers), strict=True):
            below = gradient @ weight
            weight.baddbmm_(gradient.mT, layer.inputs, alpha=-lr)
            below.mul_(layer.inputs > 0)  # of the first layer, whose inputs are images, it is not used
            if layer.normalized is not None and layer.scale is not None:
                along = (below * layer.normalized).mean(1, keepdim=True)
                below.sub_(below.mean(1, keepdim=True)).addcmul_(layer.normalized, along, value=-1).mul_(layer.scale)
            gradient = below

    def _forward(self, x: Tensor, batch: int) -> tuple[Tensor, list[_Layer]]:
        layers = [_Layer(x, None, None)]
        for weight in self.weights[:-1]:
            h, scale = layers[-1].inputs @ weight.mT, None
            if self._eps is not None:
                grouped = h.view(-1, batch, h.shape[-1])
                grouped.sub_(grouped.mean(1, keepdim=True))
                scale = grouped.square().mean(1, keepdim=True).add_(self._eps).rsqrt_()
                grouped.mul_(scale)
            layers.append(_Layer(h.relu(), None if scale is None else h, scale))
        return layers[-1].inputs @ self.weights[-1].mT, layers


def outcomes(options: CliffOptions, seed: int, images: Images, norm: str, batch: int, depth: int) -> Iterator[Outcome]:
    """Train the networks of one setting; what became of each."""
    train, classes = images.train, images.classes
    features = train.images.shape[1]
    weights = initial_weights(seed, options.networks, [features, *[options.width] * depth, classes])
    networks = PlainNetworks(weights, options.eps if norm == "bn" else None)
    orders = [stream(seed, "cliff", "order", network) for network in range(options.networks)]
    for _ in range(options.epochs):
        order = torch.stack([torch.randperm(len(train), generator=generator) for generator in orders])
        for chosen in order[:, : len(train) // batch * batch].split(batch, 1):
            networks.step(train.images[chosen], train.labels[chosen], options.lr_per_sample * batch)
    accuracy_train, loss = accuracy_and_loss(networks, train, batch)
    accuracy_test, _ = accuracy_and_loss(networks, images.test, batch)
    finite = torch.stack([weight.isfinite().flatten(1).all(1) for weight in weights]).all(0)
    for network in range(options.networks):
        if bool(finite[network]) and math.isfinite(loss[network]):
            yield Outcome(float(accuracy_train[network]), float(accuracy_test[network]), float(loss[network]), False)
        else:
            yield Outcome(1 / classes, 1 / classes, math.nan, True)


def initial_weights(seed: int, networks: int, widths: list[int]) -> list[Tensor]:
    """He's weights, N(0, 2 / inputs), from the first layer to the last.

    Each layer of each network has its own random stream, and the last one too: a shallower network has the first
    weights of a deeper one, and both have the same last ones.
    """

    def layer(name: int | str, inputs: int, outputs: int) -> Tensor:
        streams = [stream(seed, "cliff", "weights", network, name) for network in range(networks)]
        return torch.stack([gaussian(one, outputs, inputs, std=math.sqrt(2 / inputs)) for one in streams])

    hidden = [layer(place, *ends) for place, ends in enumerate(pairwise(widths[:-1]))]
    return [*hidden, layer("last", *widths[-2:])]


def accuracy_and_loss(networks: PlainNetworks, images: Split, batch: int) -> tuple[Tensor, Tensor]:
    """The accuracy and the mean cross entropy of each network on all whole batches, in the order of the images."""
    right = loss = torch.zeros(len(networks.weights[0]), dtype=torch.float64)
    used = len(images) // batch * batch
    for start in range(0, used, size := max(1, _AT_ONCE // batch) * batch):
        x, labels = (part[start : min(start + size, used)] for part in (images.images, images.labels))
        logits = networks.logits(x.expand(len(right), *x.shape), batch)
        right = right + (logits.argmax(-1) == labels).sum(1)
        losses = F.cross_entropy(logits.mT, labels.expand(len(right), -1), reduction="none")
        loss = loss + losses.sum(1, dtype=torch.float64)
    return right / used, loss / used
