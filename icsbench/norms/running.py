"""What variants of batch normalization share: statistics of the batch, gamma and beta, and running statistics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from icsbench.norms.batch_norm import BatchNormOptions

_L1_FACTOR = math.sqrt(math.pi / 2)
"""The standard deviation of Gaussian values is so many times their mean deviation."""


def batch_axes(x: Tensor) -> tuple[int, ...]:
    """The axes of ``(N, C)`` or ``(N, C, ...)`` that a feature's batch is made of: all but the features'."""
    return (0, *range(2, x.dim()))


def per_feature(values: Tensor, x: Tensor) -> Tensor:
    """``values``, ``(C,)``, in a shape that broadcasts over ``x``."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the biased variance of each feature over the batch, ``(C,)``."""
    mean = x.mean(batch_axes(x))
    return mean, (x - per_feature(mean, x)).square().mean(batch_axes(x))


class _Normalize(torch.autograd.Function):
    """(x, weight, bias, eps, p, centre, batches) -> (out, mean, spread), differentiable any number of times.

    Inside, x is ``(k, n, C, ...)``, k batches; mean and spread are ``(k, 1, C, 1, ...)``. As in ``lp``, every pass over
    the activations counts, and mean and spread are outputs so that, saved, they still depend on x. ``out`` is no view:
    a nonlinearity may be in place.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, eps: float, p: int, centre: bool, batches: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.empty_like(x)
        x = x.unflatten(0, (batches, -1))
        axes = (1, *range(3, x.dim()))
        mean = x.mean(axes, keepdim=True)
        centred = x - mean
        if p == 2:
            spread = centred.square().mean(axes, keepdim=True)
        else:
            spread = centred.abs().mean(axes, keepdim=True) * _L1_FACTOR
        slope = weight.view(mean.shape[2:]) / _divisor(spread, eps, p)
        torch.addcmul(bias.view(mean.shape[2:]), centred if centre else x, slope, out=out.view_as(x))
        return out, mean, spread

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, _, ctx.eps, ctx.p, ctx.centre, _ = inputs
        ctx.save_for_backward(x, weight, *output[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, spread = ctx.saved_tensors
        dout, dmean, dspread = gradients
        x, dout = (of.unflatten(0, (len(mean), -1)) for of in (x, dout))
        axes, m = (1, *range(3, x.dim())), x.numel() // mean.numel()
        centred = x - mean
        divisor = _divisor(spread, ctx.eps, ctx.p)
        slope = weight.view(mean.shape[2:]) / divisor
        dbias = dout.sum(axes, keepdim=True)
        dslope = (dout * (centred if ctx.centre else x)).sum(axes, keepdim=True)
        ddivisor = -dslope * slope / divisor
        if ctx.centre:
            dmean = dmean - dbias * slope
        direction, share = centred, (dspread + ddivisor / (2 * divisor)) * (2 / m)
        if ctx.p == 1:
            direction, share = centred.sign(), (dspread + ddivisor) * (_L1_FACTOR / m)
            dmean = dmean - share * direction.sum(axes, keepdim=True)
        dx = torch.addcmul(dmean / m, direction, share).addcmul_(dout, slope)
        return dx.flatten(0, 1), (dslope / divisor).sum(0).flatten(), dbias.sum(0).flatten(), None, None, None, None


def _divisor(spread: Tensor, eps: float, p: int) -> Tensor:
    return (spread + eps).sqrt() if p == 2 else spread + eps


def normalize(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, p: int = 2, centre: bool = True, batches: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """``weight (x - mean) / divisor + bias`` by each of so many equal batches that x, ``(N, C, ...)``, consists of.

    The spread is the biased variance and the divisor sqrt(spread + eps); for ``p`` = 1 the spread is the mean of
    ``|x - mean|`` times sqrt(pi / 2), and the divisor spread + eps. Without ``centre`` the mean is not subtracted.
    Returns the result, the means and the spreads, ``(batches, C)``.
    """
    out, mean, spread = cast("tuple[Tensor, ...]", _Normalize.apply(x, weight, bias, eps, p, centre, batches))
    return out, mean.view(batches, -1), spread.view(batches, -1)


def unbiased(variance: Tensor, x: Tensor) -> Tensor:
    """The unbiased variance of batches that ``x`` consists of, from the biased one: times m / (m - 1)."""
    m = x.numel() // variance.numel()
    return variance * (m / (m - 1))


class RunningNorm(nn.Module, ABC):
    """A norm over the batch, in training mode by the batch's own statistics, in eval mode by running ones.

    It takes ``(N, C)`` or ``(N, C, ...)``; the batch of a feature are its m values over samples and positions. gamma is
    ``weight``, starts at 1, beta is ``bias``, starts at 0. Running statistics follow those of the batches as in
    ``nn.BatchNorm2d``. A subclass says which there are, and computes.
    """

    keeps: ClassVar[dict[str, float]] = {"running_mean": 0.0, "running_var": 1.0}
    """The running statistics, each with what it starts from."""

    def __init__(self, features: int, options: BatchNormOptions) -> None:
        super().__init__()
        self.eps = options.eps
        self.momentum: float | None = options.momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        for name, start in self.keeps.items():
            self.register_buffer(name, torch.full((features,), start))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def reset_running_stats(self) -> None:
        """Forget the batches seen."""
        for name, start in self.keeps.items():
            self.get_buffer(name).fill_(start)
        self.get_buffer("num_batches_tracked").zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, scale and shift; the result has the shape and dtype of ``x``.

        :raises ValueError: in training mode, a batch of one value a feature.
        """
        if self.training and x.numel() <= x.shape[1]:
            raise ValueError(f"expected more than one value per channel in training, got the shape {tuple(x.shape)}")
        a = x.to(torch.promote_types(x.dtype, torch.float32))
        return (self.by_batch(a) if self.training else self.by_population(a)).to(x.dtype)

    @abstractmethod
    def by_batch(self, x: Tensor) -> Tensor:
        """Normalize by the statistics of ``x``, and let the running ones :meth:`follow`."""

    def by_population(self, x: Tensor) -> Tensor:
        """Normalize by the running statistics: as batch normalization does."""
        mean, var = map(self.get_buffer, ("running_mean", "running_var"))
        return torch.batch_norm(x, self.weight, self.bias, mean, var, False, 0.0, self.eps, False)

    @torch.no_grad()
    def follow(self, *statistics: Tensor) -> None:
        """Update the running statistics, in the order of ``keeps``, by those of a batch, ``(C,)`` each.

        Or by those of k batches, one after the other, ``(k, C)`` each: with momentum p the running value r becomes
        ``(1 - p)^k r + sum_j p (1 - p)^(k - j) s_j``  for j = 1 .. k, without one (None) the plain average of all. With
        p = 0 the batches are not counted either.
        """
        if self.momentum == 0:
            return
        k = len(statistics[0]) if statistics[0].dim() == 2 else 1
        seen = self.get_buffer("num_batches_tracked")
        seen.add_(k)
        if self.momentum is None:
            total = seen.item()
            kept, shares = 1 - k / total, [1 / total] * k
        else:
            kept = (1 - self.momentum) ** k
            shares = [self.momentum * (1 - self.momentum) ** later for later in reversed(range(k))]
        for name, values in zip(self.keeps, statistics, strict=True):
            running = self.get_buffer(name)
            running.mul_(kept).add_(running.new_tensor(shares) @ values.view(k, -1).to(running.dtype))
