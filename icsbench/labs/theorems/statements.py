"""The statements, each on the values and gradients of one layer."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from icsbench.errors import IcsbenchError
from icsbench.labs.theorems.network import Evaluated, as_rows
from icsbench.labs.theorems.reports import LAMBDA

_TIE = 1e-12
_FACTORS = (0.5, 10.0)
_NAN = math.nan


class Channels(NamedTuple):
    """The c tested channels of a layer: gamma and sigma are (c,), yhat, g and dy (c, m)."""

    index: Tensor
    gamma: Tensor
    sigma: Tensor
    yhat: Tensor
    g: Tensor
    dy: Tensor
    counts: dict[str, Any]


def channels_of(network: Evaluated, path: str, g: Tensor, dy: Tensor) -> Channels:
    """The tested channels of the layer at ``path``, from g and dy of the shape of z and y."""
    y, g, dy = as_rows(network.y[path].detach()), as_rows(g.detach()), as_rows(dy.detach())
    weight = network.model.get_submodule(path).weight
    gamma = weight.detach() if isinstance(weight, Tensor) else y.new_ones(len(y))
    dead = network.dead[path]
    silent = ~dead & ((g == 0).all(1) | (gamma == 0))
    index = (~(dead | silent)).nonzero().flatten()
    counts: dict[str, Any] = {"channels": len(y), "dead": int(dead.sum()), "silent": int(silent.sum())}
    y = y[index]
    centred = y - y.mean(1, keepdim=True)
    variance = centred.square().mean(1)
    if len(index):
        counts["eps_share"] = (network.eps[path] / (variance + network.eps[path])).max().item()
    sigma = variance.sqrt()
    return Channels(index, gamma[index], sigma, centred / sigma[:, None], g[index], dy[index], counts)


def first_order(channels: Channels) -> dict[str, Any]:
    """Fact C.1, Theorem 4.1, the printed forms of Theorems 4.1 and 4.4, and the reduction of the gradient."""
    _, gamma, sigma, yhat, g, dy, counts = channels
    if not len(g):
        return counts
    m = g.shape[1]
    scale = (gamma / sigma).square()
    total, inner = g.sum(1), (g * yhat).sum(1)
    g2, dy2, mean2, yhat2 = g.square().sum(1), dy.square().sum(1), total.square() / m, inner.square() / m
    predicted = scale * (g2 - mean2 - yhat2)
    formula = (gamma / (m * sigma))[:, None] * (m * g - total[:, None] - yhat * inner[:, None])
    printed_4_1 = scale * (g2 - mean2 - math.sqrt(m) * yhat2)
    most = LAMBDA**2 * g2
    x = torch.nan_to_num(LAMBDA * dy / dy2.sqrt()[:, None])  # the one column of X that is not zero
    corrected_4_4 = scale * (most - LAMBDA**2 * mean2 - LAMBDA**2 * yhat2)
    printed_4_4 = scale * (most.square() - mean2 - LAMBDA**2 * inner.square())
    size_4_4 = scale * (most + most.square() + LAMBDA**2 * m * g2)
    weight, ratio = scale * g2, dy2 / g2
    return counts | {
        "fact_c1": ((dy - formula).norm(dim=1) / weight.sqrt()).max().item(),
        "theorem_4_1": ((dy2 - predicted).abs() / weight).max().item(),
        "printed_4_1_violated": int((dy2 - printed_4_1 > _TIE * math.sqrt(m) * weight).sum()),
        "inner_positive": int((inner > 0).sum()),
        "theorem_4_4": (((x * dy).sum(1).square() - corrected_4_4).abs() / (scale * most)).max().item(),
        "printed_4_4_violated": int((LAMBDA**2 * dy2 - printed_4_4 > _TIE * size_4_4).sum()),
        "reduction": (dy2.sum() / g2.sum()).item(),
        "reduction_predicted": (predicted.sum() / g2.sum()).item(),
        "scale_factor": (weight.sum() / g2.sum()).item(),
        "mean_share": ((scale * mean2).sum() / weight.sum()).item(),
        "yhat_share": ((scale * yhat2).sum() / weight.sum()).item(),
        "reduction_median": ratio.median().item(),
        "scale_factor_median": scale.median().item(),
        "mean_share_median": (mean2 / g2).median().item(),
        "yhat_share_median": (yhat2 / g2).median().item(),
    }


def second_order(
    network: Evaluated, path: str, channels: Channels, g: Tensor, dy: Tensor, units: int, stream: torch.Generator
) -> dict[str, Any]:
    """Theorems 4.2 and C.1 on some of the channels whose dy is not zero; g and dy must carry their graph."""
    able = (channels.dy != 0).any(1).nonzero().flatten().tolist()
    drawn = [able[position] for position in torch.randperm(len(able), generator=stream)[:units].tolist()]
    cases = []
    for position in drawn:
        channel, along = int(channels.index[position]), channels.dy[position]
        hat_dy = _product(dy, network.y[path], channel, along)
        h_dy = _product(g, network.z[path], channel, along)
        if not (hat_dy.isfinite().all() and h_dy.isfinite().all()):
            raise IcsbenchError(f"the curvature is not finite at {path}, so no theorem can be evaluated there")
        cases.append(_curvature(channels, position, hat_dy, h_dy))
    if not cases:
        return {}
    return {
        "units": len(cases),
        "theorem_4_2": max(case["theorem_4_2"] for case in cases),
        "curvature_nonnegative": sum(case["curvature_nonnegative"] for case in cases),
        "theorem_c1": max(case["theorem_c1"] for case in cases),
        "theorem_c1_angle": min(case["theorem_c1_angle"] for case in cases),
    }


def _product(gradient: Tensor, at: Tensor, channel: int, vector: Tensor) -> Tensor:
    """The block of one channel of the Hessian, times a vector, by double backward: (m,)."""
    if not gradient.requires_grad:  # a loss linear in z
        return torch.zeros_like(vector)
    direction = torch.zeros_like(at)
    direction.movedim(1, 0)[channel] = vector.view_as(direction.movedim(1, 0)[channel])
    (found,) = torch.autograd.grad(gradient, at, direction, retain_graph=True, materialize_grads=True)
    return as_rows(found)[channel]


def _curvature(channels: Channels, position: int, hat_dy: Tensor, h_dy: Tensor) -> dict[str, Any]:
    """Theorem 4.2, and Theorem C.1 with X = lambda dy e_1' / ||dy||, from Hhat dy and H dy of one channel."""
    gamma, sigma, yhat, g, dy = (values[position] for values in channels[1:6])
    m, length = len(g), dy.norm()
    scale = (gamma / sigma).square()
    left = dy @ hat_dy
    right = scale * (dy @ h_dy - (g @ yhat) * (dy @ dy) / (m * gamma))
    size = scale * (length * h_dy.norm() + g.norm() * (dy @ dy) / (math.sqrt(m) * gamma.abs()))
    x, hat_x = LAMBDA * dy / length, LAMBDA * hat_dy / length  # the one column of X, and of Hhat X
    betahat = (x @ dy) * (x @ hat_x) * (x @ dy)
    across = hat_dy - dy * (left / length.square())
    return {
        "theorem_4_2": ((left - right).abs() / size).item(),
        "curvature_nonnegative": bool(dy @ h_dy >= -_TIE * length * h_dy.norm()),
        "theorem_c1": ((betahat - LAMBDA**4 * right).abs() / (LAMBDA**4 * size)).item(),
        "theorem_c1_angle": math.degrees(torch.atan2(across.norm(), left.abs() / length).item()),
    }


def scale_invariance(network: Evaluated, weight: Tensor, loss: Tensor, gradient: Tensor) -> dict[str, Any]:
    """Scale invariance of loss and gradient in one weight, from their values at a = 1."""
    original = weight.detach().clone()
    weight.requires_grad_(True)
    losses, gradients = [], []
    for a in _FACTORS:
        with torch.no_grad():
            weight.copy_(a * original)
        scaled = network.loss()
        (scaled_gradient,) = torch.autograd.grad(scaled, [weight])
        losses.append(((scaled.detach() - loss).abs() / loss.abs()).item())
        gradients.append(((a * scaled_gradient - gradient).norm() / gradient.norm()).item())
    with torch.no_grad():
        weight.copy_(original)
    weight.requires_grad_(False)
    return {
        "scale_loss": max(losses) if loss else _NAN,
        "scale_gradient": max(gradients) if gradient.any() else _NAN,
    }


def orthogonality(weight: Tensor, gradient: Tensor, index: Tensor) -> float:
    """Largest ``|<dL/dw_j, w_j>| / (||dL/dw_j|| ||w_j||)`` of the channels of an index; weight and gradient (c, d)."""
    weight, gradient = weight[index], gradient[index]
    lengths = weight.norm(dim=1) * gradient.norm(dim=1)
    cosines = (weight * gradient).sum(1).abs()[lengths > 0] / lengths[lengths > 0]
    return cosines.max().item() if len(cosines) else _NAN


def lemma_4_5(start: Tensor, end: Tensor) -> dict[str, Any]:
    """W0 = start and W* = end, each layer as one vector."""
    inner = (start * end).sum()
    if inner <= 0 or torch.equal(start, end):
        return {}
    length = end.square().sum()
    nearest = (start - inner / length * end).square().sum()
    distance = (start - end).square().sum()
    gain = (end * (end - start)).sum().square() / length
    return {
        "lemma_4_5": ((nearest - distance + gain).abs() / (start.square().sum() + length)).item(),
        "lemma_4_5_distance": (nearest / distance).sqrt().item(),
    }
