"""The noise of Santurkar et al. 2018, Algorithm 1, on activations without normalization: the control."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn

from icsbench.norms.contract import Look, Norm, Place
from icsbench.norms.recompute import stream_of
from icsbench.options import Options, in_range

_LEVELS = 1 << 16


@functools.cache
def _normal_quantiles(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The standard normal law as 65,536 equally likely values: each quantile bin's mean, scaled to variance 1."""
    edges = torch.special.ndtri(torch.arange(_LEVELS + 1, dtype=torch.float64, device="cpu") / _LEVELS)
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
    means = (density[:-1] - density[1:]) * _LEVELS
    means = (means - means.flip(0)) / 2
    return (means / means.square().mean().sqrt()).to(dtype).to(device)


@functools.cache
def _normal_pairs(device: torch.device) -> Tensor:
    """65,536 equally likely pairs of quantiles; a pair is two float32 numbers in the bits of one int64.

    Pair k is the quantiles k and k', where k' is the 16 bits of k in reverse order, every other one flipped. So each of
    the two takes every quantile once, their first 8 bits are independent of one another, and they are uncorrelated.
    """
    quantiles, k = _normal_quantiles(torch.float32, torch.device("cpu")), torch.arange(_LEVELS, device="cpu")
    mirrored = sum(((k >> bit) & 1) << (15 - bit) for bit in range(16)) ^ 0x5555
    return torch.stack([quantiles, quantiles[mirrored]], dim=1).view(torch.int64).flatten().to(device)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


class _Block:
    """Disturbs a block of float32 or float64 samples, with 16 random bits an activation for s and as many for m.

    Small blocks and work space that they share keep the passes over them inside a processor's cache.
    """

    levels = _LEVELS
    cpu_size = 1 << 15

    def __init__(self, x: Tensor, stream: torch.Generator | None) -> None:
        self._stream = stream
        self._shape_as(x)

    def _shape_as(self, x: Tensor) -> None:
        count = x.numel()
        self._bits = torch.empty((count + 1) // 2, dtype=torch.int64, device=x.device)
        self._unsigned = self._bits.view(torch.uint16)[:count]
        self._signed = self._bits.view(torch.int16)[count : 2 * count].view(x.shape)
        self._ranks = torch.empty(count, dtype=torch.int32, device=x.device)
        self._floats = torch.empty(x.shape, dtype=x.dtype, device=x.device)

    def disturb_(self, x: Tensor, s: Tensor, mu: Tensor, sigma: Tensor, noise: NoiseModule) -> None:
        """Overwrite x with s * x + m and fill s; mu and sigma have the shape of one sample."""
        if x.shape != self._floats.shape:
            self._shape_as(x)
        floats = self._floats
        self._bits.random_(-(2**63), None, generator=self._stream)
        self._ranks.copy_(self._unsigned)
        torch.index_select(_normal_quantiles(x.dtype, x.device), 0, self._ranks, out=floats.view(-1))
        torch.add(sigma, floats, alpha=noise.r_sigma, out=s)
        torch.add(mu, floats.copy_(self._signed), alpha=2 * noise.r_mu / self.levels, out=floats)
        torch.addcmul(floats, x, s, out=x)


class _CoarseBlock:
    """As ``_Block``, for bfloat16, with half the random bits: 16 for the s of two neighbours in memory, 8 for an m.

    Everything is added up in float32 and rounded once. On a CPU the bits come from NumPy's SFC64, which the stream
    seeds and which gives them in half the time.
    """

    levels = 1 << 8
    cpu_size = 1 << 17

    def __init__(self, x: Tensor, stream: torch.Generator | None) -> None:
        self._stream, self._source = stream, None
        if x.device.type == "cpu":
            seed = torch.empty(2, dtype=torch.int64, device="cpu").random_(generator=stream)
            self._source = numpy.random.SFC64(seed.tolist())
        self._shape_as(x)

    def _shape_as(self, x: Tensor) -> None:
        count, pairs = x.numel(), (x.numel() + 1) // 2
        self._ranks = torch.empty(pairs, dtype=torch.int32, device=x.device)
        self._pairs = torch.empty(pairs, dtype=torch.int64, device=x.device)
        self._a = self._pairs.view(torch.float32)[:count].view(x.shape)
        self._b = torch.empty(x.shape, dtype=torch.float32, device=x.device)

    def _bits(self, count: int) -> Tensor:
        if self._source is not None:
            return torch.from_numpy(self._source.random_raw(count).view(numpy.int64))
        bits = torch.empty(count, dtype=torch.int64, device=self._ranks.device)
        return bits.random_(-(2**63), None, generator=self._stream)

    def disturb_(self, x: Tensor, s: Tensor, mu: Tensor, sigma: Tensor, noise: NoiseModule) -> None:
        """Overwrite x with s * x + m and fill s; mu and sigma are float32, of the shape of one sample."""
        if x.shape != self._b.shape:
            self._shape_as(x)
        a, b, count, pairs = self._a, self._b, x.numel(), len(self._pairs)
        bits = self._bits((2 * pairs + count) // 8 + 1)
        self._ranks.copy_(bits.view(torch.uint16)[:pairs])
        torch.index_select(_normal_pairs(x.device), 0, self._ranks, out=self._pairs)
        s.copy_(torch.add(sigma, a, alpha=noise.r_sigma, out=a))
        torch.addcmul(mu, b.copy_(x), a, out=b)
        a.copy_(bits.view(torch.int8)[2 * pairs : 2 * pairs + count].view(x.shape))
        x.copy_(torch.add(b, a, alpha=2 * noise.r_mu / self.levels, out=b))


class _Disturb(torch.autograd.Function):
    """Overwrite x with s * x + m; the gradient with respect to x is s."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: NoiseModule) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(module._disturb_(x))
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (s,) = ctx.saved_tensors
        return gradients[0] * s, None


# The compiler cannot trace a generator: it runs this part as it is.
_disturb = cast("Callable[[Tensor, NoiseModule], Tensor]", torch.compiler.disable(_Disturb.apply))


class NoiseModule(nn.Module):
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
        self.coarse = False
        self.generator = generator

    @property
    def _noise_is_on(self) -> bool:
        return self.training if self.noise is None else self.noise

    def _inject(self, x: Tensor) -> Tensor:
        """Return the disturbed x in x's dtype; x itself may be overwritten."""
        dtype = x.dtype
        if not (x.is_contiguous() or _is_channels_last(x)):
            x = x.contiguous()
        return _disturb(x if dtype in (torch.float64, torch.bfloat16) else x.float(), self).to(dtype)

    def _disturb_(self, x: Tensor) -> Tensor:
        """Overwrite the dense x with s * x + m and return s.

        The stream gives mu, then sigma, then the bits for each block of samples: for all s, then for all m, in memory
        order.
        """
        device, stream = x.device, stream_of(self, self.generator)
        coarse = self.coarse or x.dtype == torch.bfloat16
        kind, dtype = (_CoarseBlock, torch.float32) if coarse else (_Block, x.dtype)
        mu = torch.empty(x.shape[1], dtype=dtype, device=device).uniform_(-self.n_mu, self.n_mu, generator=stream)
        sigma = torch.empty_like(mu).uniform_(1.0, self.n_sigma, generator=stream)
        mu += self.r_mu / kind.levels  # the signed integers of m are on average -1/2

        s, positions = torch.empty_like(x), math.prod(x.shape[2:])
        if _is_channels_last(x):
            x_rows, s_rows = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, s))
            mu_row, sigma_row = (t.repeat(positions) for t in (mu, sigma))
        else:
            x_rows, s_rows = (t.flatten(1) for t in (x, s))
            mu_row, sigma_row = (t.repeat_interleave(positions) for t in (mu, sigma))

        samples = max(1, kind.cpu_size // max(1, len(mu_row)) if device.type == "cpu" else len(x))
        x_blocks, s_blocks = x_rows.split(samples), s_rows.split(samples)
        block = kind(x_blocks[0], stream)
        for x_block, s_block in zip(x_blocks, s_blocks, strict=True):
            block.disturb_(x_block, s_block, mu_row, sigma_row, self)
        return s

    def extra_repr(self) -> str:
        """The arguments of the layer that the noise follows, if there is one, and the four constants."""
        constants = f"n_mu={self.n_mu}, n_sigma={self.n_sigma}, r_mu={self.r_mu}, r_sigma={self.r_sigma}"
        return ", ".join(filter(None, (super().extra_repr(), constants)))


class ActivationNoise(NoiseModule):
    """Non-stationary noise on activations, without any normalization: a'[i, j] = s[i, j] a[i, j] + m[i, j].

    Santurkar et al. (2018), Algorithm 1. Afresh in every forward call and for every unit j (channel, dimension 1),
    mu_j ~ Uniform(-n_mu, n_mu) and sigma_j ~ Uniform(1, n_sigma); then, for every sample and position i,
    m ~ Uniform(mu_j - r_mu, mu_j + r_mu) and s ~ Normal(mean sigma_j, standard deviation r_sigma), all independent.
    The noise is a constant to the gradient: da'/da = s. m and the quantiles of s come in 65,536 equally likely
    values, so |s - sigma_j| stays below 4.5 r_sigma.

    For bfloat16 input, as under autocast, the noise is drawn in less time: mu and sigma are the same float32 numbers
    that float32 input gets from the same state, m and s are others. m comes in 256 equally likely values, s in the same
    65,536 as above, but the s of two neighbours in memory are one of 65,536 equally likely pairs, uncorrelated and
    independent to 8 bits each. a' is computed in float32 and rounded once; in the gradient s is rounded to bfloat16.
    With ``coarse`` true, float32 input gets this same noise, unrounded: so a measurement in float32 sees the draw of a
    training pass in bfloat16.

    ``noise`` is None for noise in training mode only, True or False where an evaluation protocol forces it; without
    noise the input is returned and no random number drawn. ``generator`` is the stream, on the device of the input;
    None means torch's default one. The same state and the same shape, memory format and dtype give the same noise bit
    for bit, whatever the number of threads; mu and sigma do not depend on the batch size either. Under
    ``torch.utils.checkpoint`` the recomputation repeats the noise of the forward pass, and the stream does not move.
    Any other forward call inside a backward pass draws from ``generator=None`` only.

    :raises ValueError: n_mu, r_mu or r_sigma is below 0, n_sigma is below 1, or one of them is not finite.
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

        :raises ValueError: x has no channel dimension.
        """
        if x.dim() < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...) input, got the shape {tuple(x.shape)}")
        return self._inject(x.clone()) if self._noise_is_on else x


@dataclass
class NoiseOptions(Options):
    """The constants of Algorithm 1; ``strength`` scales the noise as a whole: 0 is none, 1 what the constants say."""

    n_mu: float = 0.5
    n_sigma: float = 1.25
    r_mu: float = 0.1
    r_sigma: float = 0.1
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("norm.n_mu", self.n_mu, 0)
        in_range("norm.n_sigma", self.n_sigma, 1)
        in_range("norm.r_mu", self.r_mu, 0)
        in_range("norm.r_sigma", self.r_sigma, 0)
        in_range("norm.strength", self.strength, 0)

    @property
    def constants(self) -> dict[str, Any]:
        """``n_mu``, ``n_sigma``, ``r_mu`` and ``r_sigma`` at this strength, which multiplies ``n_sigma - 1``."""
        return {
            "n_mu": self.strength * self.n_mu,
            "n_sigma": 1 + self.strength * (self.n_sigma - 1),
            "r_mu": self.strength * self.r_mu,
            "r_sigma": self.strength * self.r_sigma,
        }


def _layer(options: NoiseOptions, transform: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    return transform, ActivationNoise(**options.constants)


NOISE = Norm(
    "noise",
    Look("Standard + noise", 3, "#CC79A7", (0, (1.2, 1.2)), "D"),
    _layer,
    NoiseOptions,
    draws_noise=True,
)
