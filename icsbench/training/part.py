"""Training only some of the parameters (Frankle, Schwab & Morcos 2020, "Training BatchNorm and Only BatchNorm").

``optim.train`` says which; everything else stays as it was drawn:

==========  ===========================================================================================================
``all``     every parameter
``affine``  those of the modules behind the transforms: gamma and beta of a norm
``random``  as many entries of the weights instead: in every layer with such parameters as many as it has of them, drawn
            from the stream ``trained`` of the seed
==========  ===========================================================================================================

The output layer is not trained either, as in the paper, which freezes all other weights, unless ``optim.train_output``
is true. What is not trained keeps ``requires_grad``: probes measure the gradient of the whole network, and the
landscape along it, in every case.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from icsbench.config import OptimConfig
from icsbench.errors import IcsbenchError
from icsbench.models import Network
from icsbench.streams import stream_seed


def trained_part(model: Network, options: OptimConfig, seed: int) -> list[nn.Parameter]:
    """The parameters that the optimizer is to be given, on their device, for ``build_optimizer``.

    A weight of which only some entries are trained gets the attribute ``trained_entries``, a mask of its shape.

    :raises IcsbenchError: the norm of the network has no parameters, or more in a layer than that has weights.
    """
    if options.train == "all":
        return [*model.parameters()]
    of_norms = {path: [*block.norm.parameters()] for path, block in model.layers()}
    last, output = model.layers()[-1]
    if not any(of_norms.values()):
        raise IcsbenchError(
            f"optim.train={options.train} is about the parameters of norms (gamma and beta of BN), and this network "
            "has none; choose norm=bn, or optim.train=all"
        )
    if options.train == "affine":
        part = [parameter for found in of_norms.values() for parameter in found]
    else:
        counts = {path: sum(p.numel() for p in found) for path, found in of_norms.items()}
        if options.train_output:
            counts[last] = 0  # of that layer everything is trained
        part = [*_random(model, counts, seed)]
    head = [p for p in output.parameters() if p not in {*part}] if options.train_output else []
    return [*part, *head]


def _random(model: Network, counts: dict[str, int], seed: int) -> Iterator[nn.Parameter]:
    """The weight of every layer of which ``counts``, by its path, says that some entries are trained."""
    for path, block in model.layers():
        if not counts[path]:
            continue
        weight = next(parameter for parameter in block.transform.parameters() if parameter.dim() > 1)
        if weight.numel() < counts[path]:
            raise IcsbenchError(
                f"optim.train=random needs {counts[path]} weights in {path}, as many as its norm has parameters, "
                f"and it has {weight.numel()}; choose a wider network"
            )
        mask = _mask(weight.numel(), counts[path], stream_seed(seed, "trained", path))
        setattr(weight, "trained_entries", mask.view(weight.shape).to(weight.device))  # noqa: B010
        yield weight


def _mask(size: int, count: int, seed: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]] = True
    return mask
