"""A batch through random networks, four normalizations at once, and the cosines of its samples."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.parts import VARIANTS, PartsOptions
from icsbench.labs.rungs import rungs
from icsbench.theory.arc_cosine import cosines_by_layer, rescaled_by_layer
from icsbench.theory.mean_field import forward_correlation


def rows(options: PartsOptions, seed: int) -> Iterator[Row]:
    """A row for each width, recorded layer, variant and network.

    :raises IcsbenchError: a feature is the same for all samples, or a sample is 0.
    """
    for width in options.widths:
        yield from _of_width(options, width, seed)


def _of_width(options: PartsOptions, width: int, seed: int) -> Iterator[Row]:
    generator = random_networks.stream(seed, "parts", width)
    inputs = random_networks.gaussian(generator, options.networks, options.batch, width)
    signals = inputs.repeat(1, len(VARIANTS), 1)
    plain, rescaled = cosines_by_layer(options.depth), rescaled_by_layer(options.depth, options.batch)
    fixed_point = forward_correlation("relu", options.batch)
    recorded = set(rungs(options.depth))
    for layer in range(1, options.depth + 1):
        weights = random_networks.square_weights("gaussian", generator, options.networks, width, gain=math.sqrt(2))
        signals = through(signals, weights)
        if layer in recorded:
            theory = {"none": plain[layer], "rescale": rescaled[layer], "both": fixed_point}
            for variant, part in zip(VARIANTS, signals.chunk(len(VARIANTS), 1), strict=True):
                about = {"step": layer, "width": width, "variant": variant}
                about |= {"theory_cosine": float(theory[variant])} if variant in theory else {}
                yield from ({**about, "network": i, **found} for i, found in enumerate(_measured(part, about)))


def through(signals: Tensor, weights: Tensor) -> Tensor:
    """One layer: ``(networks, variants x batch, width)``, the variants one after another, through the same weights."""
    images = (signals @ weights.mT).chunk(len(VARIANTS), 1)
    return torch.cat([normalized(image, variant) for variant, image in zip(VARIANTS, images, strict=True)], 1).relu()


def normalized(x: Tensor, variant: str) -> Tensor:
    """The batch of each network, ``(networks, batch, width)``, normalized as the variant says."""
    x = random_networks.batch_norm(x, centre=variant in ("recentre", "both"), rescale=variant in ("rescale", "both"))
    return x if variant in ("rescale", "both") else x / x.square().mean((1, 2), keepdim=True).sqrt()


def cosines(h: Tensor) -> dict[str, Tensor]:
    """What a batch ``(networks, batch, width)`` looks like, a number for each network.

    ``cosine``: mean over all pairs of samples; ``odd_cosine``: mean of the odd point with the others, where the odd
    point is the sample for which that is lowest; ``rest_cosine``: mean over the pairs of the others; ``norm_ratio``:
    the largest norm over the median; ``odd_is_largest``: 1 where the odd point has the largest norm, else 0.
    """
    norms = h.norm(dim=2)
    batch = norms.shape[1]
    directions = F.normalize(h, dim=2, eps=0)
    with_others = (directions @ directions.mT).sum(2) - 1
    pairs = with_others.sum(1) / 2
    of_odd, odd = with_others.min(1)
    return {
        "cosine": pairs / math.comb(batch, 2),
        "rest_cosine": (pairs - of_odd) / math.comb(batch - 1, 2),
        "odd_cosine": of_odd / (batch - 1),
        "norm_ratio": norms.amax(1) / norms.quantile(0.5, dim=1),
        "odd_is_largest": (norms.argmax(1) == odd).double(),
    }


def _measured(h: Tensor, about: Row) -> Iterator[dict[str, float]]:
    found = cosines(h.double())
    if not all(values.isfinite().all() for values in found.values()):
        raise IcsbenchError(
            f"{about['variant']}, width {about['width']}, layer {about['step']}: a feature is the same for all samples "
            "or a sample is 0 in all features, and has no cosine; choose a larger lab.widths"
        )
    return (dict(zip(found, values, strict=True)) for values in torch.stack([*found.values()], 1).tolist())
