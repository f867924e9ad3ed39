"""What batch normalization removes of the gradient on its way back: the residual of a least-squares fit.

For one feature with m values x over batch and positions, ``xhat = (x - mean) / sigma`` and ``sigma = sqrt(v + eps)``,
let g be the gradient of the loss in xhat (gamma times that in BN's output). With eps = 0 that in x is exactly ::

    sigma dL/dx = g - a - b xhat,    a = <1, g> / m,    b = <xhat, g> / m,

the residual of the ordinary least-squares fit of g by a constant and xhat ("Normalization gradients are least-squares
residuals", 2018). With it ``||dL/dx||^2 = ||g||^2 (1 - R^2) / sigma^2``, where R^2 is the uncentred share of
``||g||^2`` that the fit explains: the sum of the share of the mean and that of xhat (Santurkar et al. 2018, Thm 4.1).
With eps > 0 BN takes ``v / (v + eps)`` of the fit along xhat. The shares here are those that BN does remove, so that
the equation for the length holds for every eps.
"""

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from icsbench.errors import IcsbenchError
from icsbench.norms import LpNorm1d, LpNorm2d
from icsbench.probes.contract import Probe, Reading, Task, Update, UpdateWatcher
from icsbench.probes.gradients import LossFn, NotFinite, gradients_of
from icsbench.probes.passes import Passes
from icsbench.record import schema


@dataclass
class LeastSquaresOptions:
    """Keys below ``probes``."""

    least_squares: bool = False
    """Whether it is measured what BN removes of the gradient, every ``update_every`` updates."""


class LeastSquaresFit(NamedTuple):
    """The fit of the gradient g of each of C features by a constant and xhat, m values each."""

    intercept: Tensor
    """a, ``(C,)``."""
    slope: Tensor
    """b, ``(C,)``."""
    residual: Tensor
    """``g - a - b xhat``, which is ``sigma dL/dx``: ``(C, m)``."""
    squared: Tensor
    """``||g||^2``, ``(C,)``."""
    mean: Tensor
    """What the constant removes of it, ``(C,)``."""
    xhat: Tensor
    """What xhat removes of it, ``(C,)``: with eps = 0 ``<xhat, g>^2 / m``."""


def least_squares_fit(g: Tensor, x: Tensor, eps: float = 0) -> LeastSquaresFit:
    """The fit that BN's backward pass makes; ``squared = ||residual||^2 + mean + xhat``.

    :param g: gradient of the loss in xhat, ``(C, m)``. A factor of a feature changes no share.
    :param x: what is normalized, ``(C, m)``. A feature that is the same everywhere has xhat = 0.
    :param eps: of the normalization.
    """
    m = x.shape[1]
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    xhat = torch.where(variance > 0, (x - mean) * (variance + eps).rsqrt(), 0)
    intercept, slope = g.mean(1), (g * xhat).mean(1)
    residual = g - intercept[:, None] - slope[:, None] * xhat
    kept = m - xhat.square().sum(1)  # m eps / (v + eps)
    return LeastSquaresFit(
        intercept, slope, residual, g.square().sum(1), m * intercept.square(), slope.square() * (m + kept)
    )


class LeastSquares(NamedTuple):
    """What one batch normalization removes of the gradient, as shares of ``||g||^2`` summed over its features.

    g is the gradient in xhat. The first three are NaN where no gradient arrives.
    """

    removed: float
    """R^2, the sum of the two."""
    mean_share: float
    """Of the mean of the gradient over the batch."""
    xhat_share: float
    """Of its part along the normalized values."""
    random: float
    """``2 / m``: the R^2 of a gradient in a random direction, on average. Each of the two parts has half of it."""


def least_squares_shares(model: nn.Module, loss_fn: LossFn, inputs: Any, targets: Any) -> dict[str, LeastSquares]:
    """What each batch normalization removes of the gradient of a training pass, in the order of the pass.

    A batch normalization is a call of ``torch.nn.functional.batch_norm`` with the statistics of the batch, which is how
    torch's modules and those of this package make it; it has the path of the module that makes the call. Noise behind
    it is in the gradient that arrives. ``model`` is left as it was, and so are the random streams.

    :param inputs: as :class:`icsbench.probes.passes.Passes` takes them.
    :raises IcsbenchError: there is no batch normalization; one is called twice in a pass, or runs without gradients; or
        what ``Passes`` refuses.
    :raises NotFinite: a gradient is not finite.
    """
    with Passes(model, loss_fn, inputs, targets) as passes:
        passes.begin()
        with _calls(model) as calls:
            loss = passes.loss()
        if not calls:
            raise IcsbenchError(f"{type(model).__name__} makes no batch normalization with the statistics of the batch")
        gradients = gradients_of(loss, [call.output for call in calls.values()])
        found = zip(calls.items(), gradients, strict=True)
        return {path: _shares(path, call, gradient) for (path, call), gradient in found}


class _Call(NamedTuple):
    """One batch normalization: what goes in, and comes out before anybody overwrites it."""

    input: Tensor
    weight: Tensor | None
    eps: float
    output: Tensor


def _shares(path: str, call: _Call, gradient: Tensor | None) -> LeastSquares:
    x = _as_rows(call.input)
    nothing = LeastSquares(math.nan, math.nan, math.nan, 2 / x.shape[1])
    if gradient is None:
        return nothing
    g = _as_rows(gradient)
    if call.weight is not None:
        g = g * call.weight.detach().double()[:, None]
    fit = least_squares_fit(g, x, call.eps)
    whole, mean, xhat = torch.stack([fit.squared, fit.mean, fit.xhat]).sum(1).tolist()
    if not math.isfinite(whole + mean + xhat):
        raise NotFinite(f"the gradient at {path} is not finite")
    if whole == 0:
        return nothing
    return LeastSquares((mean + xhat) / whole, mean / whole, xhat / whole, nothing.random)


def _as_rows(values: Tensor) -> Tensor:
    """``(N, C, ...)`` as ``(C, m)``, in float64."""
    return values.detach().movedim(1, 0).flatten(1).double()


_ARGUMENTS = inspect.signature(F.batch_norm)


class _Watch(TorchFunctionMode):
    """Notes every batch normalization of a pass; ``within``: the paths of the modules that are running."""

    def __init__(self, within: list[str]) -> None:
        super().__init__()
        self.calls: dict[str, _Call] = {}
        self._within = within

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        given = _ARGUMENTS.bind(*args, **(kwargs or {}))
        given.apply_defaults()
        if not given.arguments["training"]:
            return func(*args, **(kwargs or {}))
        path = self._within[-1] if self._within else ""
        if path in self.calls:
            raise IcsbenchError(f"{path or 'the network'} makes a batch normalization more than once in a pass")
        if not torch.is_grad_enabled():
            raise IcsbenchError(
                f"the batch normalization {path} runs without gradients (torch.no_grad, or a checkpoint with "
                "use_reentrant=True), so it cannot be measured what it removes of them"
            )
        output = func(*args, **(kwargs or {}))
        if not output.requires_grad:
            output.requires_grad_()
        self.calls[path] = _Call(given.arguments["input"], given.arguments["weight"], given.arguments["eps"], output)
        return output.clone()  # which may be overwritten: by the noise, or by a nonlinearity that works in place


@contextmanager
def _calls(model: nn.Module) -> Iterator[dict[str, _Call]]:
    within: list[str] = []
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(_enter, within, path)))
        handles.append(module.register_forward_hook(partial(_leave, within)))
    try:
        with _Watch(within) as watch:
            yield watch.calls
    finally:
        for handle in handles:
            handle.remove()


def _enter(within: list[str], path: str, *_: Any) -> None:
    within.append(path)


def _leave(within: list[str], *_: Any) -> None:
    within.pop()


class LeastSquaresProbe(UpdateWatcher):
    """What BN removes of the gradient of single updates, on the batch and with the noise draw of the update itself.

    :param loss_fn: the loss that is trained on.
    :param names: the names of the layers by the paths of their batch normalizations, in forward order.
    :param every: updates from one measured update to the next.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn, *, names: Mapping[str, str], every: int) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._names = names
        self._every = every
        self._row: dict[str, float] | None = None

    def due(self, step: int) -> bool:
        """Every ``every`` updates, the first one among them."""
        return step % self._every == 0

    def layers(self) -> list[dict[str, Any]]:
        """Name of the layers, and their place among those with batch normalization."""
        return [{"layer": name, "depth": depth} for depth, name in enumerate(self._names.values(), start=1)]

    def before(self, update: Update) -> None:
        """Measure the update that is to be made."""
        self._row = None
        with contextlib.suppress(NotFinite):
            found = least_squares_shares(self._model, self._loss_fn, update.inputs, update.targets)
            self._row = {
                schema.least_squares(self._names.get(path, path), key): value
                for path, shares in found.items()
                for key, value in shares._asdict().items()
                if not math.isnan(value)
            }

    def after(self, update: Update) -> Reading:
        """The row ``least_squares/<layer>/removed`` and the other fields of :class:`LeastSquares`.

        No row where a gradient is not finite; no shares of a layer that no gradient reaches.
        """
        return Reading(self._row, layers=self.layers() if update.number == 0 else None)


def _start(config: Any, model: Any, task: Task) -> LeastSquaresProbe | None:
    """None for a network without batch normalization, which has no rows then."""
    modules = model.named_modules()
    norms = [path for path, m in modules if isinstance(m, _BatchNorm) and not isinstance(m, (LpNorm1d, LpNorm2d))]
    if not config.probes.least_squares or not norms:
        return None
    blocks = {f"{path}.norm": path for path, _ in model.layers()}
    names = {path: blocks.get(path, path) for path in norms}
    return LeastSquaresProbe(model, task.loss, names=names, every=config.probes.update_every)


LEAST_SQUARES = Probe("least_squares", LeastSquaresOptions, _start)
