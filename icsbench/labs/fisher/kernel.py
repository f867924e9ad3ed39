"""Gradients of every output of random networks with respect to all weights, and the eigenvalues of their products."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.fisher import PLACES, FisherOptions
from icsbench.theory.arc_cosine import outlier_share

_NUMBERS = 2**24  # of gradients that are held at once


def rows(options: FisherOptions, seed: int) -> Iterator[Row]:
    """A row for each width, place of BN and network.

    :raises IcsbenchError: the outputs of a network, or a feature in it, are the same for all samples.
    """
    for width in options.widths:
        weights, inputs = _networks(options, width, random_networks.stream(seed, "fisher", width))
        for where in PLACES:
            about: Row = {"step": width, "width": width, "where": where}
            about |= {"theory_share": outlier_share(options.hidden, options.samples)} if where == "none" else {}
            for i, (largest, trace) in enumerate(_spectra(weights, inputs, where)):
                if not (math.isfinite(trace) and trace > 0):
                    raise IcsbenchError(
                        f"{where}, width {width}, network {i}: the Fisher information is 0 or not finite, as the "
                        "output or a feature is the same for all samples and eps is 0; choose larger lab.widths"
                    )
                yield {**about, "network": i, "largest": largest, "trace": trace, "share": largest / trace}


def _spectra(weights: Sequence[Tensor], inputs: Tensor, where: str) -> list[list[float]]:
    """The largest eigenvalue and the trace of each network, of a few networks at once; NaN where K is not finite."""
    held = inputs.shape[1] * sum(matrix[0].numel() for matrix in weights)
    at_once = max(1, _NUMBERS // held)
    few = zip(inputs.split(at_once), *(matrix.split(at_once) for matrix in weights), strict=True)
    kernels = torch.cat([kernel(matrices, x, where) for x, *matrices in few]).double()
    finite = kernels.isfinite().all(2).all(1)
    largest = torch.linalg.eigvalsh(kernels.nan_to_num(0, 0, 0))[:, -1]
    found = torch.stack([largest, kernels.diagonal(dim1=1, dim2=2).sum(1)], 1)
    return torch.where(finite[:, None], found, math.nan).tolist()


def _networks(options: FisherOptions, width: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    gain = math.sqrt(2)
    weights = [
        random_networks.square_weights("gaussian", generator, options.networks, width, gain=gain)
        for _ in range(options.hidden)
    ]
    weights.append(random_networks.gaussian(generator, options.networks, 1, width, std=gain / math.sqrt(width)))
    return weights, random_networks.gaussian(generator, options.networks, options.samples, width)


def outputs(weights: Sequence[Tensor], inputs: Tensor, where: str) -> Tensor:
    """``f``, (networks, n), of networks with weights ``(networks, units, units before)`` on (networks, n, inputs)."""
    h = inputs
    for matrix in weights[:-1]:
        h = h @ matrix.mT
        h = (random_networks.batch_norm(h) if where in ("middle", "all") else h).relu()
    centre, rescale = where in ("last", "last_mean", "all"), where in ("last", "last_scale", "all")
    return random_networks.batch_norm(h @ weights[-1].mT, centre=centre, rescale=rescale)[..., 0]


def kernel(weights: Sequence[Tensor], inputs: Tensor, where: str) -> Tensor:
    """``K = J J' / n``, (networks, n, n), by one backward pass for each of the n outputs, all of them at once."""
    matrices = [matrix.detach().requires_grad_() for matrix in weights]
    f = outputs(matrices, inputs, where)
    networks, n = f.shape
    # Networks share nothing: the gradient of the sum of their outputs i holds that of each.
    each = torch.eye(n, dtype=f.dtype)[:, None, :].expand(n, networks, n)
    total = torch.zeros(networks, n, n, dtype=f.dtype)
    for gradient in torch.autograd.grad(f, matrices, each, is_grads_batched=True):
        flat = gradient.flatten(2).transpose(0, 1)
        total += flat @ flat.mT
    return total / n
