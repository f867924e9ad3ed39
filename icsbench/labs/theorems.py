"""The theorems of Santurkar et al. (2018), section 4 and appendix C, evaluated on a network and a batch in float64.

For one unit j (channel) of a layer, with m values over batch and positions: ``y`` is the input of batch normalization,
``yhat = (y - mu) / sigma``, ``z = gamma yhat + beta`` its output, ``g = dL/dz``, ``dy = dLhat/dy`` (Lhat is the loss
through the normalization, L the loss from z on; gamma and beta are constants), ``H = d2L/dz_j dz_j`` and
``Hhat = d2Lhat/dy_j dy_j`` of the network that is there. ``mu_g = <1, g> / m``; ``<g, yhat>`` is ``dL/dgamma``;
``kappa = <g, yhat> ||dy||^2 / (m gamma)``; ``'`` is the transpose. For eps = 0, and only then, exactly:

=================  ====================================================================================================
Fact C.1           ``dy = gamma / (m sigma) (m g - 1 <1, g> - yhat <g, yhat>)``
Theorem 4.1        ``||dy||^2 = gamma^2 / sigma^2 (||g||^2 - <1, g>^2 / m - <g, yhat>^2 / m)``
Theorem 4.2        ``dy' Hhat dy = gamma^2 / sigma^2 (dy' H dy - kappa)``, its first form
Theorem 4.4        ``max ||X' dy||^2 = gamma^2 / sigma^2 lambda^2 (||g||^2 - m mu_g^2 - <g, yhat>^2 / m)`` over all
                   (m, d) matrices ``||X|| <= lambda``, attained by ``X = lambda dy e_1' / ||dy||``
Theorem C.1        ``(X' dy)' (X' Hhat X) (X' dy) = lambda^4 gamma^2 / sigma^2 (dy' H dy - kappa)`` at the same X
Scale invariance   ``L(a W) = L(W)`` and ``grad L(a W) = grad L(W) / a`` for a > 0
Orthogonality      ``<dLhat/dw_j, w_j> = 0``
Lemma 4.5          ``||W0 - k W*||^2 = ||W0 - W*||^2 - (||W*||^2 - <W*, W0>)^2 / ||W*||^2``, where
                   ``k = <W*, W0> / ||W*||^2 > 0``
=================  ====================================================================================================

Where this differs from the printed text (arXiv:1805.11604v3), which has inequalities throughout:

- Theorem 4.1 is printed with ``<g, yhat>^2 / sqrt(m)``. The projection on yhat, of length sqrt(m), gives 1/m, and
  equality; with 1/sqrt(m) the printed "<=" fails wherever ``<g, yhat>`` is not zero.
- Theorem 4.4 is printed as ``ghat <= gamma^2 / sigma^2 (g^2 - m mu_g^2 - lambda^2 <g, yhat>^2)`` with the maxima
  ``g = lambda^2 ||dL/dz||^2`` and ghat of *squared* norms. Squaring g again, dropping lambda^2 from the second term and
  1/m from the third makes the terms differ in dimension. y, and with it dy, is held while X varies.
- Theorem C.1 is printed as ``max betahat < gamma^2 / sigma^2 (max beta - lambda^4 kappa)`` with ``beta`` formed of the
  gradient g. Its proof takes ``X = lambda v e_1' / ||v||``, so the bracket compares ``dy' Hhat dy`` with ``g' H g``; in
  another unit of y (y -> c y) the left side becomes ``c^-4`` and ``gamma^2 / sigma^2 g' H g`` only ``c^-2`` times what
  it was. Theorem 4.2 gives ``dy' H dy`` in its place, and equality. Nor does that X attain the maximum, which is
  ``lambda^4 max (p' dy)^2 p' Hhat p`` over unit vectors p (where positive): p = dy / ||dy|| is not even stationary, as
  Lhat does not change with the scale of y, so that ``<yhat, Hhat dy> = -||dy||^2 / sigma`` is not zero while yhat is
  orthogonal to dy.

A network of ReLU and max-pooling is piecewise linear: its H is that of the linear region that the batch is in.
"""

import copy
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.norms import noise_modules
from icsbench.probes import undisturbed
from icsbench.probes.gradients import LossFn, forward_loss
from icsbench.streams import stream_seed

FAILURE = 1e-8
"""A residual above this is no rounding error: the statement does not hold."""
_TIE = 1e-12
_DEAD = 1e-6
_LAMBDA = 2.0
_FACTORS = (0.5, 10.0)
_EPS = torch.finfo(torch.float64).tiny  # torch refuses 0; a variance does not feel this
_NAN = math.nan


@dataclass(frozen=True)
class LayerReport:
    """What was found in one batch-normalized layer.

    A residual is the largest, over channels or units, of the difference between the two sides of an equation. It is
    relative to the length of the terms before they cancel: an inner product ``<a, b>`` counts as ``||a|| ||b||``. NaN
    is "not applicable". A printed inequality counts as violated where it fails by more than 1e-12 of the same length;
    closer to equality is a tie, which ``<=`` allows and ``<`` does not.
    """

    layer: str
    """Path of the normalization."""
    fed_by: str
    """Path of the linear or convolutional layer whose output goes there, and nowhere else; empty if there is none."""
    batch: int
    """m: values per channel."""
    channels: int
    dead: int
    """Channels left out as constant: their deviation is at most 1e-6 of their largest magnitude."""
    silent: int
    """Channels left out because nothing flows back: g or gamma is zero."""
    eps_share: float = _NAN
    """Largest ``eps / (sigma^2 + eps)`` of the channels, with the eps of the given network. Here eps is 0."""

    fact_c1: float = _NAN
    theorem_4_1: float = _NAN
    printed_4_1_violated: int = 0
    """Of the tested channels."""
    inner_positive: int = 0
    """Tested channels with ``<g, yhat> > 0``, a premise of the improvement that Theorem 4.2 promises."""
    theorem_4_4: float = _NAN
    """At X = lambda dy e_1' / ||dy||, lambda = 2."""
    printed_4_4_violated: int = 0
    """Of the tested channels, at lambda = 2; it depends on the unit of the loss, since the printed sides do."""

    units: int = 0
    """Channels drawn for what follows, up to ``scale_loss``."""
    theorem_4_2: float = _NAN
    curvature_nonnegative: int = 0
    """Units with ``dy' H dy >= 0``, the other premise."""
    theorem_c1: float = _NAN
    """At the same X."""
    theorem_c1_angle: float = _NAN
    """Smallest angle between the lines along dy and Hhat dy, degrees: 0 if the X of the proof were stationary."""

    scale_loss: float = _NAN
    """``|L(aW) - L(W)| / |L(W)|``, W the weights of the feeding layer, largest over a = 0.5, 10."""
    scale_gradient: float = _NAN
    """``||a grad L(aW) - grad L(W)|| / ||grad L(W)||``, likewise."""
    orthogonality: float = _NAN
    """Largest ``|<dL/dw_j, w_j>| / (||dL/dw_j|| ||w_j||)`` of the tested channels."""
    lemma_4_5: float = _NAN
    lemma_4_5_distance: float = _NAN
    """``||W0 - k W*|| / ||W0 - W*||``: at most 1, says the lemma."""

    reduction: float = _NAN
    """``||dy||^2 / ||g||^2``, all tested channels together, as autograd finds it."""
    reduction_predicted: float = _NAN
    """The same by Theorem 4.1: ``scale_factor (1 - mean_share - yhat_share)``."""
    scale_factor: float = _NAN
    """``S = sum_j gamma_j^2 / sigma_j^2 ||g_j||^2 / sum_j ||g_j||^2``."""
    mean_share: float = _NAN
    """What the mean removes of ``||g||^2``, ``<1, g>^2 / (m ||g||^2)``, each channel weighted as in S."""
    yhat_share: float = _NAN
    """What yhat removes of ``||g||^2``, ``<g, yhat>^2 / (m ||g||^2)``, likewise."""
    reduction_median: float = _NAN
    """Median over the channels, as all that follow, of ``||dy_j||^2 / ||g_j||^2``."""
    scale_factor_median: float = _NAN
    mean_share_median: float = _NAN
    yhat_share_median: float = _NAN

    @property
    def tested(self) -> int:
        """Channels that were neither dead nor silent."""
        return self.channels - self.dead - self.silent


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

    Raises IcsbenchError for a network without batch normalization or with one that is called twice, a batch of one or
    of fewer than 3 values per channel, a loss that is no scalar, a loss, gradient or curvature that is not finite
    (naming the layer), and an ``initial`` that lacks a weight or has it in another shape.
    """
    if units < 1:
        raise IcsbenchError(f"units must be at least 1, not {units}")
    with undisturbed(model):
        return _reports(_Network(model, loss_fn, inputs, targets), initial, units, seed)


def _reports(network: "_Network", initial: Mapping[str, Tensor] | None, units: int, seed: int) -> list[LayerReport]:
    for parameter in network.model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    loss = network.loss()
    feeders = network.feeders(loss)
    weights = {path: network.model.get_parameter(f"{feeder}.weight") for path, feeder in feeders.items()}
    g, dy, weight_gradients = _gradients(network, loss, list(weights.values()))
    first = {path: _channels(network, path, g[path], dy[path]) for path in network.y}
    found: dict[str, dict[str, Any]] = {path: _first_order(channels) for path, channels in first.items()}

    network.model.requires_grad_(False)
    for (path, weight), gradient in zip(weights.items(), weight_gradients, strict=True):
        found[path] |= _scale_invariance(network, weight, loss.detach(), gradient)
        found[path]["orthogonality"] = _orthogonality(weight.flatten(1), gradient.flatten(1), first[path].index)
        if initial is not None:
            found[path] |= _lemma_4_5(_initial(initial, f"{feeders[path]}.weight", weight), weight)

    loss = network.loss()
    g, dy, _ = _gradients(network, loss, [], create_graph=True)
    for path, channels in first.items():
        stream = torch.Generator().manual_seed(stream_seed(seed, "theorems", path))
        found[path] |= _second_order(network, path, channels, g[path], dy[path], units, stream)
    return [
        LayerReport(layer=path, fed_by=feeders.get(path, ""), batch=channels.g.shape[1], **found[path])
        for path, channels in first.items()
    ]


class _Network:
    """The float64 copy. ``loss`` runs it; then y and z of every normalization are known, in forward order."""

    def __init__(self, model: nn.Module, loss_fn: LossFn, inputs: Tensor, targets: Any) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self._loss_fn, self._inputs, self._targets = loss_fn, _double(inputs), _double(targets)
        self.y: dict[str, Tensor] = {}
        self.z: dict[str, Tensor] = {}
        self.dead: dict[str, Tensor] = {}
        self.eps: dict[str, float] = {}
        self._outputs: list[tuple[str, Tensor]] = []
        self._feeders: dict[str, tuple[str, Tensor]] = {}
        for module in noise_modules(self.model):
            module.noise = False
        modules: dict[str, Any] = dict(self.model.named_modules())
        for path, module in modules.items():
            if getattr(module, "inplace", False):
                module.inplace = False
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                module.register_forward_hook(functools.partial(self._record, path))
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                self.eps[path], module.eps = module.eps, _EPS
                module.train()
                module.register_forward_pre_hook(functools.partial(self._enter, path))
                module.register_forward_hook(functools.partial(self._leave, path))
        if not self.eps:
            raise IcsbenchError(f"{type(model).__name__} has no batch normalization, which the theorems are about")
        if len(inputs) < 2:
            raise IcsbenchError(f"batch statistics need a batch of at least 2 samples (got {len(inputs)})")

    def loss(self) -> Tensor:
        """One forward pass. Raises IcsbenchError where the loss is not a finite scalar."""
        for found in (self.y, self.z, self._outputs, self._feeders):
            found.clear()
        loss = forward_loss(self.model, self._loss_fn, self._inputs, self._targets)
        if not self.z:
            raise IcsbenchError(f"{type(self.model).__name__} never calls its batch normalization")
        if not loss.isfinite():
            broken = [path for path, z in self.z.items() if not z.isfinite().all()]
            where = f"from {broken[0]} on" if broken else f"after {[*self.z][-1]}"
            raise IcsbenchError(f"the loss is {loss.item()} (not finite {where}), so no theorem can be evaluated there")
        return loss

    def feeders(self, loss: Tensor) -> dict[str, str]:
        """Path of the normalization -> path of the layer that feeds it, where output and weight go nowhere else."""
        uses: Counter[Any] = Counter()
        nodes, seen = [loss.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is not None and node not in seen:
                seen.add(node)
                after = [edge for edge, _ in node.next_functions]
                uses.update(after)
                nodes += after
        parameters = dict(self.model.named_parameters())
        return {
            path: feeder
            for path, (feeder, output) in self._feeders.items()
            if (weight := parameters.get(f"{feeder}.weight")) is not None
            and uses[output.grad_fn] == 1 == uses[torch.autograd.graph.get_gradient_edge(weight).node]
        }

    def _record(self, path: str, _: nn.Module, __: Any, output: Any) -> None:
        self._outputs.append((path, output))

    def _enter(self, path: str, _: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        (given,) = args
        m = given.numel() // given.shape[1]
        if path in self.y:
            raise IcsbenchError(f"{path} is called more than once in a forward pass; the theorems take one call each")
        if m < 3:
            raise IcsbenchError(f"{path} has {m} values per channel; with fewer than 3 its gradient is always zero")
        for feeder in self._outputs:
            if feeder[1] is given:
                self._feeders[path] = feeder
        y = given.clone()
        if not y.requires_grad:
            y.requires_grad_()
        self.y[path] = y
        if path not in self.dead:
            rows = _rows(given.detach())
            self.dead[path] = rows.std(1, correction=0) <= _DEAD * rows.abs().amax(1)
        ramp = torch.linspace(-1, 1, m, dtype=y.dtype, device=y.device).view(len(y), 1, *y.shape[2:])
        return torch.where(_like(self.dead[path], y), ramp, y)

    def _leave(self, path: str, module: nn.Module, _: Any, z: Tensor) -> Tensor:
        self.z[path] = z
        beta = module.bias if isinstance(module.bias, Tensor) else z.new_zeros(z.shape[1])
        return torch.where(_like(self.dead[path], z), _like(beta, z), z)  # a copy, which may be overwritten


def _double(value: Any) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().to(torch.float64, copy=True) if floats else value


def _rows(values: Tensor) -> Tensor:
    """``(N, C, ...)`` as ``(C, m)``."""
    return values.movedim(1, 0).flatten(1)


def _like(per_channel: Tensor, values: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (values.dim() - 2))


def _gradients(
    network: _Network, loss: Tensor, weights: list[Tensor], *, create_graph: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
    """Gradients by path: g and dy, of the shape of z and y, and the gradients of the weights."""
    at = [*network.z.values(), *network.y.values(), *weights]
    gradients = torch.autograd.grad(loss, at, create_graph=create_graph, materialize_grads=True)
    n = len(network.y)
    g, dy = (dict(zip(network.y, part, strict=True)) for part in (gradients[:n], gradients[n : 2 * n]))
    for path in reversed(network.y):
        if not (g[path].isfinite().all() and dy[path].isfinite().all()):
            raise IcsbenchError(f"the gradient is not finite at {path}, so no theorem can be evaluated there")
    return g, dy, list(gradients[2 * n :])


class _Channels(NamedTuple):
    """The c tested channels of a layer: gamma and sigma are (c,), yhat, g and dy (c, m)."""

    index: Tensor
    gamma: Tensor
    sigma: Tensor
    yhat: Tensor
    g: Tensor
    dy: Tensor
    counts: dict[str, Any]


def _channels(network: _Network, path: str, g: Tensor, dy: Tensor) -> _Channels:
    y, g, dy = _rows(network.y[path].detach()), _rows(g.detach()), _rows(dy.detach())
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
    return _Channels(index, gamma[index], sigma, centred / sigma[:, None], g[index], dy[index], counts)


def _first_order(channels: _Channels) -> dict[str, Any]:
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
    most = _LAMBDA**2 * g2
    x = torch.nan_to_num(_LAMBDA * dy / dy2.sqrt()[:, None])  # the one column of X that is not zero
    corrected_4_4 = scale * (most - _LAMBDA**2 * mean2 - _LAMBDA**2 * yhat2)
    printed_4_4 = scale * (most.square() - mean2 - _LAMBDA**2 * inner.square())
    size_4_4 = scale * (most + most.square() + _LAMBDA**2 * m * g2)
    weight, ratio = scale * g2, dy2 / g2
    return counts | {
        "fact_c1": ((dy - formula).norm(dim=1) / weight.sqrt()).max().item(),
        "theorem_4_1": ((dy2 - predicted).abs() / weight).max().item(),
        "printed_4_1_violated": int((dy2 - printed_4_1 > _TIE * math.sqrt(m) * weight).sum()),
        "inner_positive": int((inner > 0).sum()),
        "theorem_4_4": (((x * dy).sum(1).square() - corrected_4_4).abs() / (scale * most)).max().item(),
        "printed_4_4_violated": int((_LAMBDA**2 * dy2 - printed_4_4 > _TIE * size_4_4).sum()),
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


def _second_order(
    network: _Network, path: str, channels: _Channels, g: Tensor, dy: Tensor, units: int, stream: torch.Generator
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
    return _rows(found)[channel]


def _curvature(channels: _Channels, position: int, hat_dy: Tensor, h_dy: Tensor) -> dict[str, Any]:
    """Theorem 4.2, and Theorem C.1 with X = lambda dy e_1' / ||dy||, from Hhat dy and H dy of one channel."""
    gamma, sigma, yhat, g, dy = (values[position] for values in channels[1:6])
    m, length = len(g), dy.norm()
    scale = (gamma / sigma).square()
    left = dy @ hat_dy
    right = scale * (dy @ h_dy - (g @ yhat) * (dy @ dy) / (m * gamma))
    size = scale * (length * h_dy.norm() + g.norm() * (dy @ dy) / (math.sqrt(m) * gamma.abs()))
    x, hat_x = _LAMBDA * dy / length, _LAMBDA * hat_dy / length  # the one column of X, and of Hhat X
    betahat = (x @ dy) * (x @ hat_x) * (x @ dy)
    across = hat_dy - dy * (left / length.square())
    return {
        "theorem_4_2": ((left - right).abs() / size).item(),
        "curvature_nonnegative": bool(dy @ h_dy >= -_TIE * length * h_dy.norm()),
        "theorem_c1": ((betahat - _LAMBDA**4 * right).abs() / (_LAMBDA**4 * size)).item(),
        "theorem_c1_angle": math.degrees(torch.atan2(across.norm(), left.abs() / length).item()),
    }


def _scale_invariance(network: _Network, weight: Tensor, loss: Tensor, gradient: Tensor) -> dict[str, Any]:
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


def _orthogonality(weight: Tensor, gradient: Tensor, index: Tensor) -> float:
    weight, gradient = weight[index], gradient[index]
    lengths = weight.norm(dim=1) * gradient.norm(dim=1)
    cosines = (weight * gradient).sum(1).abs()[lengths > 0] / lengths[lengths > 0]
    return cosines.max().item() if len(cosines) else _NAN


def _initial(initial: Mapping[str, Tensor], name: str, weight: Tensor) -> Tensor:
    if name not in initial:
        raise IcsbenchError(f"initial has no {name!r}, which Lemma 4.5 compares with the current one")
    if initial[name].shape != weight.shape:
        shapes = f"{tuple(initial[name].shape)}, not {tuple(weight.shape)} as now"
        raise IcsbenchError(f"initial[{name!r}] has the shape {shapes}")
    return initial[name].detach().to(weight)


def _lemma_4_5(start: Tensor, end: Tensor) -> dict[str, Any]:
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


STATEMENTS = {
    "Fact C.1": "fact_c1",
    "Theorem 4.1": "theorem_4_1",
    "Theorem 4.2": "theorem_4_2",
    "Theorem 4.4": "theorem_4_4",
    "Theorem C.1": "theorem_c1",
    "L(aW)": "scale_loss",
    "grad L(aW)": "scale_gradient",
    "orthogonality": "orthogonality",
    "Lemma 4.5": "lemma_4_5",
}
"""Name of a statement -> the attribute of a report that holds its residual."""


def rows(reports: Sequence[LayerReport]) -> list[dict[str, Any]]:
    """One plain row per layer: the attributes of its report, and ``tested``."""
    return [asdict(report) | {"tested": report.tested} for report in reports]


def sentences(reports: Sequence[LayerReport]) -> list[str]:
    """What was found, in words: how well the identities hold, what the printed forms do, what reduces the gradient."""
    return [_identities(reports), _printed_forms(reports), _reduction(reports), _left_out(reports)]


def print_report(console: Console, title: str, reports: Sequence[LayerReport]) -> None:
    """Print the residuals layer by layer, the reduction of the gradient with its parts, and the ``sentences``."""
    console.print(title, markup=False, highlight=False)
    header = ["layer", "m", "tested", *(name.replace(" ", "\n") for name in STATEMENTS)]
    body = [
        [report.layer, str(report.batch), f"{report.tested}/{report.channels}"]
        + [_residual(getattr(report, attribute)) for attribute in STATEMENTS.values()]
        for report in reports
    ]
    _print_table(console, header, body)
    console.print()
    parts = ["|dy|²/|g|²", "predicted", "γ²/σ²", "mean %", "ŷ %"]
    medians = [f"{part}\nmedian" for part in ("|dy|²/|g|²", "γ²/σ²", "mean %", "ŷ %")]
    body = [
        [
            report.layer,
            *map(_number, (report.reduction, report.reduction_predicted, report.scale_factor)),
            *map(_percent, (report.mean_share, report.yhat_share)),
            *map(_number, (report.reduction_median, report.scale_factor_median)),
            *map(_percent, (report.mean_share_median, report.yhat_share_median)),
            *(f"{report.inner_positive}/{report.tested}", f"{report.curvature_nonnegative}/{report.units}"),
        ]
        for report in reports
    ]
    _print_table(console, ["layer", *parts, *medians, "⟨g,ŷ⟩>0", "dy'Hdy≥0"], body)
    console.print()
    for sentence in sentences(reports):
        console.print(sentence, markup=False, highlight=False)


def _identities(reports: Sequence[LayerReport]) -> str:
    worst: dict[str, tuple[float, str]] = {}
    for name, attribute in STATEMENTS.items():
        known = [(value, r.layer) for r in reports if not math.isnan(value := getattr(r, attribute))]
        if known:
            worst[name] = max(known)
    said = "Worst residuals: " + ", ".join(f"{name} {_residual(value)}" for name, (value, _) in worst.items()) + "."
    failed = [f"{name} ({_residual(value)} in {layer})" for name, (value, layer) in worst.items() if value > FAILURE]
    longer = max((r.lemma_4_5_distance for r in reports if not math.isnan(r.lemma_4_5_distance)), default=0.0)
    if longer > 1 + FAILURE:
        failed.append(f"Lemma 4.5 (the distance grows {longer:.3g}-fold)")
    if failed:
        return f"{said} These are NOT identities here: {', '.join(failed)} is more than rounding ({FAILURE:g})."
    return f"{said} All that could be tested hold within rounding ({FAILURE:g})."


def _printed_forms(reports: Sequence[LayerReport]) -> str:
    tested, units = sum(r.tested for r in reports), sum(r.units for r in reports)
    violated = sum(r.printed_4_1_violated for r in reports)
    squared = sum(r.printed_4_4_violated for r in reports)
    said = (
        f"As printed, Theorem 4.1 (1/sqrt(m)) is violated in {_share(violated, tested)} channels "
        f"and Theorem 4.4 (at lambda = {_LAMBDA:g}) in {_share(squared, tested)}"
    )
    if not units:
        return said + "."
    angle = min(r.theorem_c1_angle for r in reports if r.units)
    return said + (
        f"; the X that proves Theorem C.1 is no maximum: dy and Hhat dy are at least {angle:.2g} degrees apart "
        f"in {units} units, and 0 is what it would need."
    )


def _reduction(reports: Sequence[LayerReport]) -> str:
    known = [r for r in reports if r.tested]
    if not known:
        return "No gradient reaches any layer, so there is no reduction to measure."
    removed = {r.layer: r.mean_share + r.yhat_share for r in known}
    most = max(removed, key=lambda layer: removed[layer])
    more = sum(share >= 0.01 for share in removed.values())
    scales = [r.scale_factor for r in known]
    tested, units = sum(r.tested for r in known), sum(r.units for r in known)
    positive = _share(sum(r.inner_positive for r in known), tested)
    return (
        f"Gradient: gamma²/sigma² alone multiplies |g|² by {_number(min(scales))} to {_number(max(scales))} (layers); "
        f"beyond it, at least 1 % is removed in {more} of {len(known)} layers, most in {most} "
        f"({100 * removed[most]:.1f} %), and {100 * min(removed.values()):.1f} % where least. "
        f"The premises of improvement: <g, yhat> > 0 in {positive} channels, "
        f"dy' H dy >= 0 in {_share(sum(r.curvature_nonnegative for r in known), units)} units."
    )


def _left_out(reports: Sequence[LayerReport]) -> str:
    dead, silent = sum(r.dead for r in reports), sum(r.silent for r in reports)
    share = max((r.eps_share for r in reports if r.tested), default=0.0)
    return (
        f"Left out: {dead} dead and {silent} silent of {sum(r.channels for r in reports)} channels. eps = 0 here; "
        f"in the network as given it is up to {100 * share:.2g} % of a channel's variance + eps."
    )


def _share(count: int, total: int) -> str:
    return f"{count} of {total}" + (f" ({100 * count / total:.0f} %)" if total else "")


def _residual(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0e}" if value else "0"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _print_table(console: Console, header: list[str], body: list[list[str]]) -> None:
    """Print a table as wide as it is, also where the console is narrower: folded cells of numbers cannot be read."""
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(Text(name), justify="left" if name == "layer" else "right")
    for cells in body:
        table.add_row(*map(Text, cells))
    table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=False)
