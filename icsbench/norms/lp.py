"""l_p normalization: batch normalization that divides by another average of magnitudes (Santurkar et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icsbench.norms.batch_norm import BatchNormOptions
from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.conversion import NotForSyncBatchNorm


def _axes(a: Tensor) -> tuple[int, ...]:
    return (0, *range(2, a.dim()))


def _like(per_channel: Tensor, a: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (a.dim() - 2))


def _normalize(
    a: Tensor, mean: Tensor, norm: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None
) -> Tensor:
    """Return weight (a - mean) / norm + bias, in one pass over a."""
    scale = weight / norm
    return torch.addcmul(_like(bias - mean * scale, a), a, _like(scale, a), out=out)


class _Normalize(torch.autograd.Function):
    """(a, weight, bias, p, eps) -> (out, mean, norm), all three differentiable any number of times.

    Every pass over the activations and every buffer of their size counts here: the fused backward pass takes about
    half the time of the one that autograd derives. mean and norm are outputs so that, saved, they still depend on a.
    """

    @staticmethod
    def forward(a: Tensor, weight: Tensor, bias: Tensor, p: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        axes, m = _axes(a), a.numel() // a.shape[1]
        mean = a.sum(axes) / m
        out = a.square() if p == 2 else a.abs()
        if p == 1:
            norm = out.sum(axes) / m
        elif p == 2:
            norm = (out.sum(axes) / m).sqrt()
        else:
            norm = out.amax(axes)
        norm = norm.clamp_min(eps)
        return _normalize(a, mean, norm, weight, bias, out), mean, norm

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        a, weight, _, ctx.p, ctx.eps = inputs
        ctx.save_for_backward(a, weight, *output[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        a, weight, mean, norm = ctx.saved_tensors
        dout, dmean, dnorm = gradients
        axes, m = _axes(a), a.numel() // a.shape[1]
        scale = weight / norm
        dbias = dout.sum(axes)
        dscale = (dout * a).sum(axes) - mean * dbias
        dmean = dmean - dbias * scale
        dnorm = (dnorm - dscale * scale / norm) * (norm > ctx.eps)
        if ctx.p == 1:
            da = a.sign().mul_(_like(dnorm / m, a))
        elif ctx.p == 2:
            da = a * _like(dnorm / (m * norm), a)
        else:  # values that tie for the maximum share its gradient
            largest = a.abs().eq_(_like(norm, a))
            ties = largest.sum(axes).clamp_min(1)
            da = largest.mul_(a).mul_(_like(dnorm / (ties * norm), a))
        da.add_(_like(dmean / m, a)).addcmul_(dout, _like(scale, a))
        return da, dscale / norm, dbias, None, None


class _LpNorm(_BatchNorm):
    """What both classes share; they say which shapes they take.

    A subclass of PyTorch's ``_BatchNorm`` for the sake of what looks for layers with running statistics, such as
    ``torch.optim.swa_utils.update_bn``. It has ``running_norm`` in place of ``running_var``.
    """

    _version = 1  # what it keeps is as it was before it was a _BatchNorm
    _shapes: ClassVar[dict[int, str]]
    running_norm: Tensor | None
    running_var: Any = NotForSyncBatchNorm("divides by the standard deviation instead of N_p")
    qconfig: Any = NotForSyncBatchNorm("divides by the standard deviation instead of N_p")

    def __init__(
        self,
        num_features: int,
        p: float,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)  # _BatchNorm's would make a running_var
        if p not in (1, 2, math.inf):
            raise ValueError(f"p must be 1, 2 or inf, not {p}")
        self.num_features, self.p, self.eps, self.momentum = num_features, p, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats

        def filled(value: float, wanted: bool) -> Tensor | None:
            return torch.full((num_features,), value, device=device, dtype=dtype) if wanted else None

        for name, value in (("weight", 1.0), ("bias", 0.0)):
            start = filled(value, affine)
            self.register_parameter(name, None if start is None else nn.Parameter(start))
        self.register_buffer("running_mean", filled(0.0, track_running_stats))
        self.register_buffer("running_norm", filled(1.0, track_running_stats))
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Forget the batches seen: mean 0, norm 1."""
        for buffer, value in ((self.running_mean, 0), (self.running_norm, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.fill_(value)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize, scale and shift; the result has the input's shape, dtype and memory format.

        :raises ValueError: the input has another shape. Or the batch's own statistics are used, and it has a single
            value per channel.
        """
        if input.dim() not in self._shapes or input.shape[1] != self.num_features:
            shapes = " or ".join(self._shapes.values()).replace("C", str(self.num_features))
            raise ValueError(f"expected {shapes} input, got the shape {tuple(input.shape)}")
        running_mean, running_norm, batches = self.running_mean, self.running_norm, self.num_batches_tracked
        like = next((t for t in (self.weight, running_mean) if t is not None), input)
        a = input.to(torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype)
        weight = a.new_ones(self.num_features) if self.weight is None else self.weight.to(a.dtype)
        bias = a.new_zeros(self.num_features) if self.bias is None else self.bias.to(a.dtype)
        if not self.training and running_mean is not None and running_norm is not None:
            return _normalize(a, running_mean.to(a.dtype), running_norm.to(a.dtype), weight, bias).to(input.dtype)
        if input.numel() <= self.num_features:
            shape = tuple(input.shape)
            raise ValueError(f"expected more than one value per channel in training, got the shape {shape}")
        out, mean, norm = cast("tuple[Tensor, ...]", _Normalize.apply(a, weight, bias, self.p, self.eps))
        if self.training and self.track_running_stats and batches is not None:
            with torch.no_grad():
                batches.add_(1)
                momentum = 1 / batches.item() if self.momentum is None else self.momentum
                for running, value in ((running_mean, mean), (running_norm, norm)):
                    if running is not None:
                        running.copy_(running.to(a.dtype).lerp_(value, momentum))
        return out.to(input.dtype)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return (
            f"{self.num_features}, p={self.p}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class LpNorm1d(_LpNorm):
    """l_p normalization of (N, C) or (N, C, L) input: y = gamma (a - mean(a)) / N_p(a) + beta for every channel.

    N_1 = mean |a|, N_2 = sqrt(mean a^2) and N_inf = max |a|, over batch and positions and of a as it is, its mean not
    yet taken off (Santurkar et al. 2018, section 3.3). So the result has mean beta but not variance gamma^2: for
    p = 2 it is gamma^2 var / (var + mean^2). ``eps`` is a floor under N_p, and the formula is exact above it.

    The paper does not say how to test. Here it is done as in batch normalization: in eval mode mean and N_p are the
    buffers ``running_mean`` and ``running_norm``, which follow those of the batches with ``momentum`` (None: their
    plain average over the ``num_batches_tracked`` batches since ``reset_running_stats``). gamma is ``weight``, starts
    at 1, and beta is ``bias``, starts at 0.

    The arguments are those of ``torch.nn.BatchNorm1d``, with p after the first: without ``affine`` there is no gamma
    and no beta, without ``track_running_stats`` the batch's own mean and N_p are used in eval mode too. Computed in
    the parameters' dtype, and in float32 where that is float16 or bfloat16.

    ``torch.optim.swa_utils.update_bn`` recalibrates it. ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` would make it
    divide by the standard deviation, and so raises IcsbenchError; it cannot be fused into a layer as batch
    normalization can.

    :raises ValueError: p is not 1, 2 or ``math.inf``.
    """

    _shapes: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}


class LpNorm2d(_LpNorm):
    """l_p normalization of (N, C, H, W) input: as ``LpNorm1d``, with mean and N_p over batch, height and width."""

    _shapes: ClassVar = {4: "(N, C, H, W)"}


@dataclass
class LpOptions(BatchNormOptions):
    """Those of batch normalization, but ``eps`` is the floor of the divisor."""


_MODULES = {1: LpNorm1d, 2: LpNorm2d}


def _norm(name: str, p: float, look: Look) -> Norm:
    def layer(options: LpOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
        return transform, _MODULES[place.dimensions](place.features, p, options.eps, options.momentum)

    return Norm(name, look, layer, LpOptions, keeps_statistics=True)


L1 = _norm("l1", 1, Look("Standard + ℓ₁ norm", 4, "#E69F00", (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)), "v"))
L2 = _norm("l2", 2, Look("Standard + ℓ₂ norm", 5, "#56B4E9", (0, (2.5, 1.2)), "<"))
LINF = _norm("linf", math.inf, Look("Standard + ℓ∞ norm", 6, "#000000", (0, (8, 2.5)), ">"))
