"""The Jacobians in closed form, in float64, and what is said of their singular values."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.jacobians import JacobiansOptions
from icsbench.random_networks import ACTIVATIONS, batch_norm, gaussian, square_weights, stream
from icsbench.theory import jacobians as theory

Place = Literal["signals", "normalized"]
GAIN = {name: 1 / math.sqrt(active) for name, active in theory.ACTIVE.items()}
"""Standard deviation of the weights, times sqrt(N): such that a layer without BN keeps the mean square of a signal."""
DEAD = 1e-8
"""A direction is dead where its singular value is below this share of the largest."""
NEAR = (0.9, 1.1)
"""What counts as close to 1."""
WITHIN_TWO = (0.5, 2.0)
SHARES = np.linspace(0, 1, 51)
"""Where the quantiles of all singular values are taken."""


def batch_norm_jacobian(x: Tensor, gamma: float = 1, eps: float = 0) -> Tensor:
    """Jacobian of BN for each feature, ``gamma / sigma (I - 11'/m - xhat xhat'/m)``.

    With ``sigma = sqrt(v + eps)`` and ``xhat = (x - mean) / sigma``; v is the biased variance.

    :param x: ``(networks, batch, width)``.
    :returns: ``(networks, width, batch, batch)``, symmetric in the last two.
    :raises IcsbenchError: a feature is the same in all samples, and eps is 0.
    """
    m = x.shape[1]
    centred = (x - x.mean(1, keepdim=True)).transpose(1, 2)
    variance = centred.square().mean(2) + eps
    if not (variance > 0).all():
        raise IcsbenchError("a feature is the same in all samples, and lab.eps is 0: BN would divide by zero")
    xhat = centred / variance.sqrt()[..., None]
    projection = torch.eye(m, dtype=x.dtype) - 1 / m - xhat[..., :, None] * xhat[..., None, :] / m
    return (gamma / variance.sqrt())[..., None, None] * projection


def layer_jacobian(x: Tensor, weight: Tensor, activation: str, place: Place, *, eps: float = 0) -> Tensor:
    """Jacobian of a layer with BN over its batch: ``(networks, B N, B N)``, the features of a sample side by side.

    :param x: input, ``(networks, B, N)``: h of ``h -> W phi(BN(h))`` for ``signals``, x of ``x -> BN(W phi(x))`` for
        ``normalized``.
    :param weight: ``(networks, N, N)``.
    """
    phi = ACTIVATIONS[activation]
    if place == "signals":
        slope = derivative(batch_norm(x, eps=eps), activation)
        blocks = torch.einsum("nij,naj,njab->naibj", weight, slope, batch_norm_jacobian(x, eps=eps))
    else:
        of_norm = batch_norm_jacobian(phi(x) @ weight.mT, eps=eps)
        blocks = torch.einsum("niab,nij,nbj->naibj", of_norm, weight, derivative(x, activation))
    size = x.shape[1] * x.shape[2]
    return blocks.reshape(-1, size, size)


def derivative(x: Tensor, activation: str) -> Tensor:
    """Derivative of the activation, elementwise."""
    return torch.ones_like(x) if activation == "linear" else (x > 0).to(x.dtype)


def rows(options: JacobiansOptions, seed: int) -> Iterator[Row]:
    """A row for each setting and network.

    ``norm`` (bn, none), ``activation``, ``weights``, ``batch``, ``place`` (signals, normalized), ``inputs``: gaussian,
    or fixed_point, behind ``burn_in`` layers of the same network. Without BN the two places are one, called signals;
    ``normalized`` vectors are at the fixed point whatever the inputs. ``step`` counts the layers in front.

    Measured, over all ``B N`` singular values: ``mean_square``, ``dead`` (share), ``near`` and ``within_two`` (shares
    in :data:`NEAR` and :data:`WITHIN_TWO`), ``quantiles`` (a list, at :data:`SHARES`, to 3 decimals). Over those that
    are not dead: ``median``, ``q10``, ``q90``; ``near_median``: share of all that is within a tenth of that median.
    ``theory_mean_square``, ``theory_dead``, and where there is a closed form ``theory_near`` and ``theory_quantiles``.
    Theory is that of N to infinity, but for ``theory_dead``, which counts.

    :raises IcsbenchError: a feature is constant, and eps is 0.
    """
    for batch in options.batches:
        for activation in options.activations:
            for weights in options.weights:
                for norm in ("bn", "none"):
                    yield from _of_setting(options, seed, batch, activation, weights, norm)


def _of_setting(
    options: JacobiansOptions, seed: int, batch: int, activation: str, weights: str, norm: str
) -> Iterator[Row]:
    random = stream(seed, "jacobians", weights, batch)  # the same draws with and without BN, and for each activation
    count, width = options.networks, options.width

    def draw_weight() -> Tensor:
        return square_weights(weights, random, count, width, gain=GAIN[activation], dtype=torch.float64)

    h = gaussian(random, count, batch, width, dtype=torch.float64)
    about: Row = {"norm": norm, "activation": activation, "weights": weights, "batch": batch}
    first = draw_weight()
    yield from _measured(options, about | {"step": 0, "place": "signals", "inputs": "gaussian"}, h, first)
    h = _layer(h, first, activation, norm, options.eps)
    for _ in range(1, options.burn_in):
        h = _layer(h, draw_weight(), activation, norm, options.eps)
    last = draw_weight()
    about |= {"step": options.burn_in, "inputs": "fixed_point"}
    yield from _measured(options, about | {"place": "signals"}, h, last)
    if norm == "bn":
        x = batch_norm(h, eps=options.eps)
        yield from _measured(options, about | {"place": "normalized"}, x, last)


def _layer(h: Tensor, weight: Tensor, activation: str, norm: str, eps: float) -> Tensor:
    normalized = batch_norm(h, eps=eps) if norm == "bn" else h
    return ACTIVATIONS[activation](normalized) @ weight.mT


def _measured(options: JacobiansOptions, about: Row, x: Tensor, weight: Tensor) -> Iterator[Row]:
    norm, activation, place = about["norm"], about["activation"], about["place"]
    seen = batch_norm(x, eps=options.eps) if norm == "bn" and place == "signals" else x
    slope = derivative(seen, activation)
    known = _theory(options, about)
    for network in range(len(x)):
        one = slice(network, network + 1)
        if norm == "bn":
            jacobian = layer_jacobian(x[one], weight[one], activation, place, eps=options.eps)
        else:  # it has a block for each sample
            jacobian = weight[one] * slope[network][:, None, :]
        values = torch.linalg.svdvals(jacobian).flatten().sort().values.numpy()
        dead = theory.dead_share(norm, slope[network].numpy() != 0, options.eps, place)
        yield about | {"network": network} | summary(values) | known | {"theory_dead": dead}


def summary(values: np.ndarray) -> dict[str, Any]:
    """What a row says of all singular values, which are ascending."""
    alive = values[values >= DEAD * values[-1]]
    q10, median, q90 = np.quantile(alive, [0.1, 0.5, 0.9])
    shares = {"near": NEAR, "within_two": WITHIN_TWO, "near_median": (NEAR[0] * median, NEAR[1] * median)}
    found = {"mean_square": np.square(values).mean(), "dead": 1 - len(alive) / len(values), "max": values[-1]}
    found |= {"median": median, "q10": q10, "q90": q90}
    found |= {name: ((values >= low) & (values <= high)).mean() for name, (low, high) in shares.items()}
    numbers = {name: float(value) for name, value in found.items()}
    return numbers | {"quantiles": np.quantile(values, SHARES).round(3).tolist()}


def _theory(options: JacobiansOptions, about: Row) -> dict[str, Any]:
    """What is expected of a wide layer, where eps is 0."""
    if options.eps > 0:
        return {}
    norm, activation, batch = about["norm"], about["activation"], about["batch"]
    variance = theory.signal_variance(activation, batch, about["inputs"] == "fixed_point")
    known: dict[str, Any] = {"theory_mean_square": theory.mean_square(norm, activation, batch, variance)}
    below = theory.distribution(norm, activation, about["weights"], batch, variance)
    if below is not None:
        known["theory_near"] = float(np.diff(below(np.array(NEAR)))[0])
        known["theory_quantiles"] = theory.quantiles(below, SHARES[1:-1]).round(3).tolist()
    return known
