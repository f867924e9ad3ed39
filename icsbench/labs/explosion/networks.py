"""Signals and gradients of many random networks in many settings at once.

The settings of a network lie side by side along the batch, so that one product with its weights serves all of them.
Gradients go back layer by layer and are scaled to length 1 on the way, as 200 layers would leave the range of float32.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from icsbench import random_networks as rn
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.explosion import ExplosionOptions
from icsbench.theory import mean_field
from icsbench.theory.activations import ACTIVATIONS, Activation, Floats

_WEIGHTS = 2**26  # numbers at once, 256 MiB
_SIGNALS = 2**26


class Setting(NamedTuple):
    """What is done with the weights of a network."""

    activation: str
    norm: str
    batch: int


class Measured(NamedTuple):
    """Of n networks in one setting.

    ``log_gradients``: ``ln ||dL/dh_l||^2`` less that of l = L, (n, L + 1). ``second_moment``, ``cosine``: of the
    features ``h_l``, the mean square and the mean cosine between two samples, (n, L + 1).
    """

    log_gradients: Floats
    second_moment: Floats
    cosine: Floats


def settings_of(options: ExplosionOptions) -> list[Setting]:
    """All combinations; without BN those of the first batch size."""
    return [
        Setting(activation, norm, batch)
        for activation in options.activations
        for norm in options.norms
        for batch in (options.batches if norm == "bn" else options.batches[:1])
    ]


def rows(options: ExplosionOptions, seed: int) -> Iterator[Row]:
    """The rows of a run, see :class:`icsbench.labs.explosion.ExplosionOptions`.

    :raises IcsbenchError: a number is not finite: a signal is 0, or with eps 0 a feature the same for a whole batch.
    """
    settings = settings_of(options)
    said = {setting: theory(options, setting) for setting in settings}
    drawn = rn.stream(seed, "explosion", "weights")
    inputs = {setting: rn.stream(seed, "explosion", "signals", *setting) for setting in settings}
    for numbers in rn.parts(options.networks, options.depth * options.width**2, _WEIGHTS):
        n = len(numbers)
        weights = [rn.square_weights(options.weights, drawn, n, options.width) for _ in range(options.depth)]
        for some in _groups(settings, n * options.width * options.depth):
            for setting, measured in propagate(weights, {one: inputs[one] for one in some}, options).items():
                for row in _rows_of(setting, measured, said[setting], options):
                    yield row | {"network": numbers[row["network"]]}


def _groups(settings: Sequence[Setting], numbers: int) -> Iterator[list[Setting]]:
    """The settings in groups of bounded memory, where a sample takes so many numbers; at least one in each."""
    group: list[Setting] = []
    for setting in settings:
        if group and numbers * sum(one.batch for one in [*group, setting]) > _SIGNALS:
            yield group
            group = []
        group.append(setting)
    yield group


def propagate(
    weights: Sequence[Tensor], inputs: dict[Setting, torch.Generator], options: ExplosionOptions
) -> dict[Setting, Measured]:
    """Signals forth and gradients back through the same n networks in several settings.

    :param weights: of each layer, (n, width, width).
    :param inputs: the settings, each with the random numbers of its input and its last gradient.
    """
    n, width, _ = weights[0].shape
    ends = [0, *accumulate(setting.batch for setting in inputs)]
    spans = dict(zip(inputs, pairwise(ends), strict=True))
    layers = {setting: _transforms(setting, options) for setting in inputs}
    gradient, h = (
        torch.cat([rn.gaussian(drawn, n, one.batch, width, dtype=weights[0].dtype) for one, drawn in inputs.items()], 1)
        for _ in range(2)
    )
    moments, cosines = {one: [] for one in inputs}, {one: [] for one in inputs}
    steps: list[dict[Setting, tuple[Tensor, Tensor]]] = []
    for layer in range(len(weights) + 1):
        for one, (begin, end) in spans.items():
            _note(h[:, begin:end], moments[one], cosines[one])
        if layer < len(weights):
            leaves = {one: h[:, begin:end].detach().requires_grad_() for one, (begin, end) in spans.items()}
            steps.append({one: (leaf, layers[one][layer](leaf)) for one, leaf in leaves.items()})
            h = torch.bmm(torch.cat([after.detach() for _, after in steps[-1].values()], 1), weights[layer].mT)
    logs = {one: [_log_square(gradient[:, begin:end])] for one, (begin, end) in spans.items()}
    for weight in reversed(weights):
        gradient = torch.bmm(gradient, weight)
        for one, (leaf, after) in steps.pop().items():
            span = slice(*spans[one])
            [back] = torch.autograd.grad(after, leaf, gradient[:, span])
            log = _log_square(back)
            gradient[:, span] = back * (-log / 2).exp()[:, None, None]
            logs[one].append(log if len(logs[one]) == 1 else logs[one][-1] + log)
    return {one: _measured(logs[one], moments[one], cosines[one]) for one in inputs}


def _note(h: Tensor, moments: list[Tensor], cosines: list[Tensor]) -> None:
    """Note the mean square of the features and the mean cosine of two samples: of h, (n, batch, width)."""
    batch = h.shape[1]
    squares = h.square().sum(2)
    moments.append(squares.mean(1) / h.shape[2])
    together = (h / squares.sqrt()[:, :, None]).sum(1).square().sum(1)
    cosines.append((together - batch) / (batch * (batch - 1)))


def _log_square(x: Tensor) -> Tensor:
    return x.square().sum((1, 2)).log()


def _measured(logs: list[Tensor], moments: list[Tensor], cosines: list[Tensor]) -> Measured:
    top, *below = (log.double().numpy() for log in logs)
    gradients = np.stack([*reversed(below), top], 1)
    forth = (torch.stack(values, 1).double().numpy() for values in (moments, cosines))
    return Measured(gradients - gradients[:, -1:], *forth)


def _transforms(setting: Setting, options: ExplosionOptions) -> list[Callable[[Tensor], Tensor]]:
    """What every layer does before its weights."""
    phi = rn.ACTIVATIONS[setting.activation]
    if setting.norm == "bn":
        of_bn: dict[str, Any] = {"gamma": options.gamma, "beta": options.beta, "eps": options.eps}
        return [lambda h: phi(rn.batch_norm(h, **of_bn))] * options.depth
    return [lambda h, gain=layer.gain: gain * phi(h) for layer in _plain(setting, options.depth)]


def _plain(setting: Setting, depth: int) -> list[mean_field.PlainLayer]:
    keeps = cast(mean_field.Kept, setting.norm.removeprefix("none-"))
    layers, second_moment = [], 1.0
    for _ in range(depth):
        layers.append(mean_field.plain_layer(setting.activation, keeps, second_moment))
        second_moment = layers[-1].second_moment
    return layers


def theory(options: ExplosionOptions, setting: Setting) -> dict[str, float]:
    """What mean-field theory says of a setting, by the key of a row; nothing where it says nothing.

    ``theory_norms`` is the factor by which differences between the samples' norms shrink per layer. Where it is above
    1, the fixed point that the rest is about is unstable. A gain gamma is that of the activation ``phi(gamma z)``;
    there is no theory here for a beta or an eps other than 0.
    """
    if setting.norm != "bn":
        inner = _plain(setting, options.depth)[options.burn_in : options.depth - options.top]
        return {"theory_rate": float(np.exp(np.mean([np.log(layer.rate) for layer in inner])))}
    if options.eps != 0 or options.beta != 0:
        return {}
    phi, gamma = ACTIVATIONS[setting.activation], options.gamma
    scaled = Activation(lambda x: phi.value(gamma * x), lambda x: gamma * phi.derivative(gamma * x))
    return {
        "theory_rate": mean_field.rate(scaled, setting.batch),
        "theory_cosine": mean_field.forward_correlation(scaled, setting.batch),
        "theory_second_moment": mean_field.forward_second_moment(scaled, setting.batch),
        "theory_norms": mean_field.forward_eigenvalues(scaled, setting.batch).norms,
    }


def _rows_of(setting: Setting, measured: Measured, said: dict[str, float], options: ExplosionOptions) -> Iterator[Row]:
    """A row for each network: the rate and its standard error, the means over the same layers, the profile."""
    if not all(np.isfinite(values).all() for values in measured):
        raise IcsbenchError(
            f"{setting.activation}, {setting.norm}, batch {setting.batch}: a signal or a gradient "
            "vanishes, or a feature is the same for the whole batch and lab.eps=0 divides by zero; choose a larger "
            "lab.eps or lab.width, or another lab.beta"
        )
    layers = np.arange(options.burn_in, options.depth - options.top + 1)
    slopes, errors = slopes_of(layers.astype(float), measured.log_gradients[:, layers])
    for network, (slope, error) in enumerate(zip(slopes, errors, strict=True)):
        rate = float(np.exp(-slope))
        yield {
            "step": options.depth,
            "network": network,
            **setting._asdict(),
            "rate": rate,
            "rate_error": rate * float(error),
            "cosine": float(measured.cosine[network, layers].mean()),
            "second_moment": float(measured.second_moment[network, layers].mean()),
            **said,
            "log_gradients": [round(value, 4) for value in measured.log_gradients[network].tolist()],
        }


def slopes_of(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Least-squares slopes of each row of y, (n, m), on x, (m,), and their standard errors.

    The errors are those of independent residuals. Logarithms of gradients are more like a walk, and differ between
    networks by more.
    """
    across = x - x.mean()
    centred = y - y.mean(1, keepdims=True)
    slopes = centred @ across / (across @ across)
    residuals = centred - slopes[:, None] * across
    return slopes, np.sqrt((residuals**2).sum(1) / (len(x) - 2) / (across @ across))
