"""The theorems, evaluated at every batch normalization of a network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.labs.theorems.network import Evaluated, gradients
from icsbench.labs.theorems.reports import LayerReport
from icsbench.labs.theorems.statements import (
    channels_of,
    first_order,
    lemma_4_5,
    orthogonality,
    scale_invariance,
    second_order,
)
from icsbench.probes import undisturbed
from icsbench.probes.gradients import LossFn
from icsbench.streams import stream_seed


def check_theorems(
    model: nn.Module,
    loss_fn: LossFn,
    inputs: Tensor,
    targets: Any,
    *,
    initial: Mapping[str, Tensor] | None = None,
    units: int = 4,
    seed: int = 0,
) -> list[LayerReport]:
    """Evaluate the theorems at every batch normalization of ``model``, in forward order.

    ``model`` is left as it is, and so are the random streams: a float64 copy is used, with batch statistics, eps = 0,
    out-of-place nonlinearities, noise off and everything else (dropout, say) in eval mode. A dead channel passes beta
    on, and no gradient back.

    :param model: any network with ``BatchNorm1d``, ``2d`` or ``3d`` modules, each called once in a forward pass.
    :param loss_fn: ``(outputs, targets) -> scalar``, deterministic and in float64 throughout.
    :param inputs: the batch, as the network takes it; at least 2 samples.
    :param targets: given to ``loss_fn`` (in float64 where it is a tensor of floats).
    :param initial: parameters at initialisation by name, for Lemma 4.5 (W0; W* are the current weights). The lemma is
        for ``<W0, W*> > 0`` and says nothing where W0 equals W*; it does not need W* to be a minimum.
    :param units: channels per layer on which the second-order statements are evaluated, at least 1.
    :param seed: of the stream "theorems" that draws them.
    :raises IcsbenchError: the network has no batch normalization, calls none, or calls one twice. ``units`` is below 1.
        The batch is a single sample, or has fewer than 3 values per channel. The loss is no scalar. A loss, gradient
        or curvature is not finite; the message says where. Or ``initial`` lacks a weight, or has it in another shape.
    """
    if units < 1:
        raise IcsbenchError(f"units must be at least 1, not {units}")
    with undisturbed(model):
        return _reports(Evaluated(model, loss_fn, inputs, targets), initial, units, seed)


def _reports(network: Evaluated, initial: Mapping[str, Tensor] | None, units: int, seed: int) -> list[LayerReport]:
    for parameter in network.model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    loss = network.loss()
    feeders = network.feeders(loss)
    weights = {path: network.model.get_parameter(f"{feeder}.weight") for path, feeder in feeders.items()}
    g, dy, weight_gradients = gradients(network, loss, list(weights.values()))
    first = {path: channels_of(network, path, g[path], dy[path]) for path in network.y}
    found: dict[str, dict[str, Any]] = {path: first_order(channels) for path, channels in first.items()}

    network.model.requires_grad_(False)
    for (path, weight), gradient in zip(weights.items(), weight_gradients, strict=True):
        found[path] |= scale_invariance(network, weight, loss.detach(), gradient)
        found[path]["orthogonality"] = orthogonality(weight.flatten(1), gradient.flatten(1), first[path].index)
        if initial is not None:
            found[path] |= lemma_4_5(_initial(initial, f"{feeders[path]}.weight", weight), weight)

    loss = network.loss()
    g, dy, _ = gradients(network, loss, [], create_graph=True)
    for path, channels in first.items():
        stream = torch.Generator().manual_seed(stream_seed(seed, "theorems", path))
        found[path] |= second_order(network, path, channels, g[path], dy[path], units, stream)
    return [
        LayerReport(layer=path, fed_by=feeders.get(path, ""), batch=channels.g.shape[1], **found[path])
        for path, channels in first.items()
    ]


def _initial(initial: Mapping[str, Tensor], name: str, weight: Tensor) -> Tensor:
    if name not in initial:
        raise IcsbenchError(f"initial has no {name!r}, which Lemma 4.5 compares with the current one")
    if initial[name].shape != weight.shape:
        shapes = f"{tuple(initial[name].shape)}, not {tuple(weight.shape)} as now"
        raise IcsbenchError(f"initial[{name!r}] has the shape {shapes}")
    return initial[name].detach().to(weight)
