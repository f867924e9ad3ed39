"""Gradient descent on many random linear problems at once, in float64."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.margin import VARIANTS, MarginOptions
from icsbench.labs.rungs import rungs
from icsbench.theory.largest_margin import largest_margin


def rows(options: MarginOptions, seed: int) -> Iterator[Row]:
    """A row for each recorded step, variant and problem.

    :raises IcsbenchError: gradient descent diverged.
    """
    generator = random_networks.stream(seed, "margin")
    sizes = (options.networks, options.samples, options.inputs)
    x = random_networks.gaussian(generator, *sizes, dtype=torch.float64)
    rule = random_networks.gaussian(generator, options.networks, options.inputs, 1, dtype=torch.float64)
    y = (x @ rule)[..., 0].sign()
    start = random_networks.gaussian(generator, options.networks, options.inputs, std=options.init, dtype=torch.float64)
    widest = [_ratio_of_widest(*problem) for problem in zip(x, y, strict=True)]
    theory = {"none": widest, "weight_norm": widest, "bn": [1.0] * options.networks}
    for variant in VARIANTS:
        for step, margins in margins_along(variant, x * y[..., None], start, options.lr, rungs(options.steps)):
            loss = F.softplus(-margins).mean(1)
            if not margins.isfinite().all():
                raise IcsbenchError(f"{variant}, step {step}: margins are no longer finite; choose a smaller lab.lr")
            about: Row = {"step": step, "variant": variant}
            ratio = margins.amin(1) / margins.abs().amax(1)
            for i, (one, height, limit) in enumerate(zip(ratio.tolist(), loss.tolist(), theory[variant], strict=True)):
                found = {"min_over_max": one, "theory_min_over_max": limit, "spread": 1 - one, "loss": height}
                yield {**about, "network": i, **found}


def _ratio_of_widest(x: Tensor, y: Tensor) -> float:
    margins = y.numpy() * (x.numpy() @ largest_margin(x.numpy(), y.numpy()))
    return float(margins.min() / margins.max())


def margins_along(
    variant: str, signed: Tensor, start: Tensor, lr: float, recorded: list[int]
) -> Iterator[tuple[int, Tensor]]:
    """The margins ``(problems, n)`` after each of the ``recorded`` numbers of steps.

    With ``u_i = y_i <w, x_i>``, a norm N(w) and ``m = gamma u / N``, the loss has the gradients ``<g, u> / N`` for
    gamma and ``(gamma / N) (sum_i g_i y_i x_i - (<g, u> / N) dN/dw)`` for w, where ``g_i = -1 / (n (1 + exp(m_i)))``;
    ``dN/dw`` is ``w / |w|`` or ``sum_i u_i y_i x_i / (n N)``. Without a norm gamma and N are 1, and stay it.

    :param signed: ``y_i x_i``, (problems, n, d); ``start``: w, (problems, d).
    """
    n = signed.shape[1]
    w, gamma = start[..., None].clone(), torch.ones(len(signed), 1, 1, dtype=signed.dtype)
    for step in range(recorded[-1] + 1):
        u = signed @ w
        norm = {
            "none": torch.ones_like(gamma),
            "weight_norm": w.norm(dim=1, keepdim=True),
            "bn": u.square().mean(1, keepdim=True).sqrt(),
        }[variant]
        margins = gamma * u / norm
        if step in recorded:
            yield step, margins[..., 0]
        g = -torch.sigmoid(-margins) / n
        if variant == "none":
            w = w - lr * (signed.mT @ g)
            continue
        along = (g * u).sum(1, keepdim=True) / norm
        if variant == "bn":
            change = signed.mT @ (g - along * u / (n * norm))
        else:
            change = signed.mT @ g - along * w / norm
        w, gamma = w - lr * gamma / norm * change, gamma - lr * along
