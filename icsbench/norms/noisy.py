"""The noise that brings covariate shift back after batch normalization (Santurkar et al. 2018, Algorithm 1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_LEVELS = 1 << 16
_CPU_BLOCK = 1 << 15


@functools.cache
def _normal_quantiles(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The standard normal law as 65,536 equally likely values: each quantile bin's mean, scaled to variance 1."""
    edges = torch.special.ndtri(torch.arange(_LEVELS + 1, dtype=torch.float64, device="cpu") / _LEVELS)
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
    means = (density[:-1] - density[1:]) * _LEVELS
    means = (means - means.flip(0)) / 2
    return (means / means.square().mean().sqrt()).to(dtype).to(device)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


class _Scratch:
    """Memory for one block of samples: random bits, split into two 16-bit integers an activation, and work space."""

    def __init__(self, like: Tensor) -> None:
        count = like.numel()
        self.bits = torch.empty((count + 1) // 2, dtype=torch.int64, device=like.device)
        self.unsigned = self.bits.view(torch.uint16)[:count]
        self.signed = self.bits.view(torch.int16)[count : 2 * count].view(like.shape)
        self.ranks = torch.empty(count, dtype=torch.int32, device=like.device)
        self.floats = torch.empty(like.shape, dtype=like.dtype, device=like.device)


class _Disturb(torch.autograd.Function):
    """Overwrite x with s * x + m; the gradient with respect to x is s."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: _Noise) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(module._disturb_(x))
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (s,) = ctx.saved_tensors
        return gradients[0] * s, None


# The compiler cannot trace a generator: it runs this part as it is.
_disturb = cast("Callable[[Tensor, _Noise], Tensor]", torch.compiler.disable(_Disturb.apply))


class _Noise(nn.Module):
    """What every module of Algorithm 1 shares: the constants, the stream and the drawing."""

    def _configure(
        self, n_mu: float, n_sigma: float, r_mu: float, r_sigma: float, generator: torch.Generator | None
    ) -> None:
        for constant, value, least in (
            ("n_mu", n_mu, 0),
            ("n_sigma", n_sigma, 1),
            ("r_mu", r_mu, 0),
            ("r_sigma", r_sigma, 0),
        ):
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f"{constant} must be a finite number >= {least}, not {value}")
        self.n_mu, self.n_sigma, self.r_mu, self.r_sigma = n_mu, n_sigma, r_mu, r_sigma
        self.noise: bool | None = None
        self.generator = generator

    @property
    def _noise_is_on(self) -> bool:
        return self.training if self.noise is None else self.noise

    def _inject(self, x: Tensor) -> Tensor:
        """Return the disturbed x in x's dtype; x itself may be overwritten."""
        dtype = x.dtype
        if not (x.is_contiguous() or _is_channels_last(x)):
            x = x.contiguous()
        return _disturb(x if dtype == torch.float64 else x.float(), self).to(dtype)

    def _disturb_(self, x: Tensor) -> Tensor:
        """Overwrite the dense x with s * x + m and return s.

        The stream gives mu, then sigma, then, for each block of samples, 16 bits an activation for s and as many
        for m, in memory order. Small blocks and shared scratch keep the passes over them inside a processor's cache.
        """
        device, generator = x.device, self.generator
        mu = torch.empty(x.shape[1], dtype=x.dtype, device=device).uniform_(-self.n_mu, self.n_mu, generator=generator)
        sigma = torch.empty_like(mu).uniform_(1.0, self.n_sigma, generator=generator)
        mu += self.r_mu / _LEVELS  # u below is on average -1/2

        s = torch.empty_like(x)
        per_sample = [t.view(-1, *[1] * (x.dim() - 2)).expand(x.shape[1:]) for t in (mu, sigma)]
        if _is_channels_last(x):
            x_rows, s_rows = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, s))
            mu_row, sigma_row = (t.permute(1, 2, 0).flatten() for t in per_sample)
        else:
            x_rows, s_rows = (t.flatten(1) for t in (x, s))
            mu_row, sigma_row = (t.flatten() for t in per_sample)

        quantiles = _normal_quantiles(x.dtype, device)
        samples = max(1, _CPU_BLOCK // max(1, len(mu_row)) if device.type == "cpu" else len(x))
        scratch = _Scratch(s_rows[:samples])
        for x_block, s_block in zip(x_rows.split(samples), s_rows.split(samples), strict=True):
            if s_block.shape != scratch.floats.shape:
                scratch = _Scratch(s_block)
            scratch.bits.random_(-(2**63), None, generator=generator)
            scratch.ranks.copy_(scratch.unsigned)
            torch.index_select(quantiles, 0, scratch.ranks, out=scratch.floats.view(-1))
            torch.add(sigma_row, scratch.floats, alpha=self.r_sigma, out=s_block)
            u = scratch.floats.copy_(scratch.signed)
            m = torch.add(mu_row, u, alpha=2 * self.r_mu / _LEVELS, out=scratch.floats)
            torch.addcmul(m, x_block, s_block, out=x_block)
        return s

    def extra_repr(self) -> str:
        """The arguments of the layer that the noise follows, if there is one, and the four constants."""
        constants = f"n_mu={self.n_mu}, n_sigma={self.n_sigma}, r_mu={self.r_mu}, r_sigma={self.r_sigma}"
        return ", ".join(filter(None, (super().extra_repr(), constants)))


class ActivationNoise(_Noise):
    """Non-stationary noise on activations, without any normalization: a'[i, j] = s[i, j] a[i, j] + m[i, j].

    Santurkar et al. (2018), Algorithm 1. Afresh in every forward call and for every unit j (channel, dimension 1),
    mu_j ~ Uniform(-n_mu, n_mu) and sigma_j ~ Uniform(1, n_sigma); then, for every sample and position i,
    m ~ Uniform(mu_j - r_mu, mu_j + r_mu) and s ~ Normal(mean sigma_j, standard deviation r_sigma), all independent.
    The noise is a constant to the gradient: da'/da = s. m and the quantiles of s come in 65,536 equally likely
    values, so |s - sigma_j| stays below 4.5 r_sigma.

    ``noise`` is None for noise in training mode only, True or False where an evaluation protocol forces it; without
    noise the input is returned and no random number drawn. ``generator`` is the stream, on the device of the input;
    None means torch's default one. The same state and the same shape and memory format give the same noise bit for
    bit, whatever the number of threads; mu and sigma do not depend on the batch size either.

    Raises ValueError for n_mu, r_mu or r_sigma below 0, n_sigma below 1 or any of them not finite.
    """

    def __init__(
        self,
        *,
        n_mu: float = 0.5,
        n_sigma: float = 1.25,
        r_mu: float = 0.1,
        r_sigma: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self._configure(n_mu, n_sigma, r_mu, r_sigma, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Disturb activations of shape (N, C) or (N, C, ...); the result has x's shape, dtype and memory format.

        Raises ValueError for an x without a channel dimension.
        """
        if x.dim() < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...) input, got the shape {tuple(x.shape)}")
        return self._inject(x.clone()) if self._noise_is_on else x


class _NoisyBatchNorm(_Noise, _BatchNorm):
    """Batch normalization followed, after the affine map, by the noise of ``ActivationNoise``."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        n_mu: float = 0.5,
        n_sigma: float = 1.25,
        r_mu: float = 0.1,
        r_sigma: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        arguments: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **arguments)
        self._configure(n_mu, n_sigma, r_mu, r_sigma, generator)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize, scale and shift as batch normalization does; then disturb, where the noise is on."""
        normalized = super().forward(input)
        return self._inject(normalized) if self._noise_is_on else normalized


class NoisyBatchNorm1d(_NoisyBatchNorm, nn.BatchNorm1d):
    """Noisy batch normalization of (N, C) or (N, C, L) input: ``torch.nn.BatchNorm1d``, then ``ActivationNoise``.

    The arguments, the state dict and the running statistics (those of the undisturbed input) are ``BatchNorm1d``'s;
    the further arguments, ``noise`` and ``generator`` are ``ActivationNoise``'s. The noise follows the affine map and
    so comes before the nonlinearity (Santurkar et al. 2018, Algorithm 1). Where it is off, the result is
    ``BatchNorm1d``'s, bit for bit.
    """


class NoisyBatchNorm2d(_NoisyBatchNorm, nn.BatchNorm2d):
    """Noisy batch normalization of (N, C, H, W) input: ``torch.nn.BatchNorm2d``, then ``ActivationNoise``.

    As ``NoisyBatchNorm1d``; height and width count as part of the batch, so mu_j and sigma_j are one per channel.
    """
