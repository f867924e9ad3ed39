"""The two runs side by side."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench import random_networks
from icsbench.data import Batches, load_dataset
from icsbench.labs.contract import Row
from icsbench.labs.exponential_rate import ExponentialRateOptions, shrinking

_HELD_OUT = 157
_COMPARED = 256
_ZERO = torch.finfo(torch.float64).tiny
"""As eps it changes no variance that is not 0; torch takes no 0."""


class Variant(NamedTuple):
    """What normalizes (None: nothing; else BN with this eps), and whether the twin has the start that it needs."""

    eps: float | None
    corrected: bool = True


class Twins:
    """SGD with weight decay on weights ``w``, and without it at the growing rate on weights ``u``, in float64.

    :param weights: of the hidden layers, each (units, inputs); ``output``: (classes, units), which is not trained.
    """

    def __init__(
        self, options: ExponentialRateOptions, variant: Variant, weights: list[Tensor], output: Tensor
    ) -> None:
        self.alpha = shrinking(options.lr, options.momentum, options.weight_decay)
        self._options, self._eps, self._output = options, variant.eps, output
        self.w = [weight.clone().requires_grad_() for weight in weights]
        self.u = [weight.clone().requires_grad_() for weight in weights]
        self._decayed = torch.optim.SGD(self.w, options.lr, options.momentum, weight_decay=options.weight_decay)
        self._growing = torch.optim.SGD(self.u, options.lr, options.momentum)
        if options.momentum and variant.corrected:
            for weight in self.u:
                start = -(1 - self.alpha) / (options.lr * self.alpha) * weight.detach()
                self._growing.state[weight]["momentum_buffer"] = start

    def rate(self, step: int) -> float:
        """The learning rate of the twin in the update after ``step`` others: ``eta alpha^(-2 step - 1)``."""
        return self._options.lr * self.alpha ** (-2 * step - 1)

    def outputs(self, weights: list[Tensor], x: Tensor) -> Tensor:
        """The logits of x, (n, inputs), with BN by the statistics of x."""
        for weight in weights:
            x = x @ weight.T
            if self._eps is not None:
                x = F.batch_norm(x, None, None, training=True, eps=self._eps)
            x = x.relu()
        return x @ self._output.T

    def step(self, number: int, x: Tensor, y: Tensor) -> None:
        """One update of both on the batch x of classes y."""
        self._growing.param_groups[0]["lr"] = self.rate(number)
        for optimizer, weights in ((self._decayed, self.w), (self._growing, self.u)):
            optimizer.zero_grad()
            F.cross_entropy(self.outputs(weights, x), y).backward()
            optimizer.step()


def rows(options: ExponentialRateOptions, seed: int) -> Iterator[Row]:
    """A row for each recorded step and variant.

    ``difference`` is ``|f - f'| / (|f| + |f'|)`` over the logits f and f' of both runs on fixed images: 0 where both
    are 0, 1 where one is not finite. ``loss_decay`` and ``loss_growth`` are the losses there, missing where not
    finite. ``length_ratio`` is ``|u| / |w|`` of all weights, by theory ``alpha^-step``; ``rate`` that of the twin's
    next update.
    """
    data = load_dataset("digits8", None, _HELD_OUT)
    mean, std = data.normalization()
    batches = Batches(data.train, options.batch_size, seed, mean=mean, std=std, device="cpu")
    fixed = Batches(data.train, _COMPARED, 0, mean=mean, std=std, device="cpu")(0)
    x, y = _flat(*fixed)
    weights, output = _drawn(options, seed, x.shape[1], data.num_classes or 0)
    variants = {"bn": Variant(_ZERO), "bn_eps": Variant(options.eps), "none": Variant(None)}
    if options.momentum:
        variants["bn_uncorrected"] = Variant(_ZERO, corrected=False)
    for name, variant in variants.items():
        twins = Twins(options, variant, weights, output)
        for number in range(options.steps + 1):
            if number % options.every == 0 or number == options.steps:
                yield {"step": number, "variant": name, **_compared(twins, x, y, number)}
            if number < options.steps:
                twins.step(number, *_flat(*batches(number)))


def _compared(twins: Twins, x: Tensor, y: Tensor, number: int) -> Row:
    with torch.no_grad():
        f, g = twins.outputs(twins.w, x), twins.outputs(twins.u, x)
        losses = {"loss_decay": F.cross_entropy(f, y).item(), "loss_growth": F.cross_entropy(g, y).item()}
        size = (f.norm() + g.norm()).item()
        difference = (f - g).norm().item() / size if size else 0.0
        lengths = [math.hypot(*(weight.norm().item() for weight in of)) for of in (twins.w, twins.u)]
    row: Row = {"difference": difference if math.isfinite(difference) else 1.0, "rate": twins.rate(number)}
    row |= {key: loss for key, loss in losses.items() if math.isfinite(loss)}
    ratio = lengths[1] / lengths[0] if lengths[0] else math.inf
    row |= {"length_ratio": ratio} if math.isfinite(ratio) else {}
    return row | {"theory_length_ratio": twins.alpha**-number}


def _drawn(options: ExponentialRateOptions, seed: int, inputs: int, classes: int) -> tuple[list[Tensor], Tensor]:
    """Weights by He's initialization; those of the output with variance 1 / units."""
    generator = random_networks.stream(seed, "exponential_rate")
    sizes = [inputs, *[options.units] * options.depth]
    weights = [
        random_networks.gaussian(generator, out, size, std=math.sqrt(2 / size), dtype=torch.float64)
        for size, out in pairwise(sizes)
    ]
    std = 1 / math.sqrt(options.units)
    return weights, random_networks.gaussian(generator, classes, options.units, std=std, dtype=torch.float64)


def _flat(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images.flatten(1).double(), labels
