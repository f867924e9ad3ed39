"""What the lab measures, on one batch, and what theory says of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from icsbench.models import Network, Residual
from icsbench.norms.normalizer_free import NormalizerFreeOptions, activation_gain, expected_stds
from icsbench.norms.skipinit import ScalarGain
from icsbench.options import Options
from icsbench.streams import stream_seed
from icsbench.theory.rectified_walk import channel_moments

Row = dict[str, Any]


def noise(samples: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Inputs whose entries are independent N(0, 1): (samples, *shape), in float32."""
    stream = torch.Generator().manual_seed(stream_seed(seed, "signal_propagation"))
    return torch.randn(samples, *shape, generator=stream)


def scalars_of(model: Network) -> list[nn.Parameter]:
    """The scalars at the ends of residual branches."""
    return [module.gain for module in model.modules() if isinstance(module, ScalarGain)]


def blocks_of(model: Network) -> list[Residual]:
    """The residual blocks, in forward order."""
    return [module for module in model.modules() if isinstance(module, Residual)]


def moments(x: Tensor) -> Row:
    """Means over channels of a channel's squared mean and biased variance; x is ``(N, C)`` or ``(N, C, H, W)``."""
    channels = x.movedim(1, 0).flatten(1).double()
    variance, mean = torch.var_mean(channels, 1, correction=0)
    return {"squared_mean": mean.square().mean().item(), "variance": variance.mean().item()}


def signals(model: Network, x: Tensor) -> list[Row]:
    """A row for each layer but the last, numbered from 1, and each residual block, from 0 for what goes into it."""
    found: list[Row] = []

    def noting(measure: str, step: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found.append({"step": step, "measure": measure, **moments(output if step else inputs[0])})

        return note

    layers = [block.norm for _, block in model.layers()[:-1]]
    blocks = blocks_of(model)
    hooks = [layer.register_forward_hook(noting("layer", step)) for step, layer in enumerate(layers, start=1)]
    hooks += [block.register_forward_hook(noting("block", step)) for step, block in enumerate(blocks, start=1)]
    hooks += [block.register_forward_hook(noting("block", 0)) for block in blocks[:1]]
    model.train()
    try:
        with torch.no_grad():
            model(x.to(next(model.parameters()).dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(found, key=lambda row: (row["measure"], row["step"]))


def theory(model: Network, norm: Options) -> dict[int, Row]:
    """What theory says of the blocks of the first stage, by number; nothing of another norm, or without blocks.

    With ``bn`` every branch has variance 1. With ``nf`` it has ``(alpha std / beta)^2``, for scalars of 1.
    """
    kinds = [isinstance(block.shortcut, nn.Identity) for block in blocks_of(model)]
    first = kinds.index(False) if False in kinds else len(kinds)
    if not first:
        return {}
    if isinstance(norm, NormalizerFreeOptions):
        stds = expected_stds([first], norm.alpha)
        start, alpha = activation_gain(nn.ReLU()), norm.alpha
        found = channel_moments(start, first, lambda block, std: alpha * std / stds[block])
    elif norm.name == "bn":
        found = channel_moments(1.0, first, lambda block, std: 1.0)
    else:
        return {}
    return {
        step: {"theory_squared_mean": float(mean), "theory_variance": float(variance)}
        for step, (mean, variance) in enumerate(found)
    }
