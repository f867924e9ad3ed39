"""Every claim about Algorithm 1's noise: its law, its stream, its gradient, and the layers that carry it.

Statistics are held to 5 standard errors, correlations to 5 / sqrt(n) and Kolmogorov-Smirnov tests to p > 0.001,
all with fixed seeds.
"""

import copy
import functools
import gc
import math
import random

import pytest
import torch
from networks import NORMS, norm_module, small_vgg
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from icsbench.errors import IcsbenchError
from icsbench.members import member
from icsbench.norms import (
    ActivationNoise,
    NoisyBatchNorm1d,
    NoisyBatchNorm2d,
    Norm,
    noise_modules,
    recompute,
)
from icsbench.norms.noise import _normal_pairs, _normal_quantiles

CONSTANTS = {"n_mu": 0.5, "n_sigma": 1.25, "r_mu": 0.1, "r_sigma": 0.1}
LAYERS = [
    (NoisyBatchNorm1d, nn.BatchNorm1d, (6, 5)),
    (NoisyBatchNorm1d, nn.BatchNorm1d, (6, 5, 3)),
    (NoisyBatchNorm2d, nn.BatchNorm2d, (6, 5, 4, 3)),
]


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(shape, seed=0, dtype=torch.float64, memory_format=torch.contiguous_format, **constants):
    """The m and s that a stream gives for a shape: m is the disturbed 0 and s the gradient."""
    x = torch.zeros(shape, dtype=dtype).to(memory_format=memory_format).requires_grad_()
    m = ActivationNoise(**constants, generator=stream(seed))(x)
    m.backward(torch.ones_like(m))
    return m.detach(), x.grad


def draw_units(steps, units, seed=0, layers=1):
    """The mu and sigma of every step, layer and unit: without the spread around them m is mu and s is sigma."""
    noise = ActivationNoise(r_mu=0, r_sigma=0, generator=stream(seed))
    x = torch.zeros(1, units, dtype=torch.float64)
    mu = torch.stack([noise(x)[0] for _ in range(steps * layers)])
    noise.generator = stream(seed)
    sigma = torch.stack([noise(x + 1)[0] for _ in range(steps * layers)]) - mu
    return mu.view(steps, layers, units), sigma.view(steps, layers, units)


def standardized(shape, seed=0, **options):
    """m and s about their unit's mu and sigma, in units of r_mu and r_sigma."""
    mu, sigma = draw((1, *shape[1:]), seed, r_mu=0, r_sigma=0, **options)
    m, s = draw(shape, seed, **options)
    return (m - mu) / 0.1, (s - sigma) / 0.1


def assert_mean(values, expected):
    values = values.double().flatten()
    error = values.std().item() / math.sqrt(values.numel())
    assert abs(values.mean().item() - expected) < 5 * error, (values.mean().item(), expected, error)


def assert_law(values, law):
    assert stats.kstest(values.flatten().numpy(), law).pvalue > 1e-3


def assert_uncorrelated(a, b):
    for f in (lambda t: t, torch.square):
        pair = torch.stack([f(a - a.mean()).flatten(), f(b - b.mean()).flatten()])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / math.sqrt(pair.shape[1])


class TestUnitLaw:
    def test_mu_and_sigma_are_uniform(self):
        mu, sigma = draw_units(steps=200, units=1000)
        assert_law(mu, stats.uniform(-0.5, 1).cdf)
        assert_law(sigma, stats.uniform(1, 0.25).cdf)

    def test_moments(self):
        mu, sigma = draw_units(steps=200, units=1000)
        assert_mean(mu, 0)
        assert_mean(mu.square(), 0.288675**2)
        assert_mean(sigma.square(), 1.270833)

    def test_jumps_from_step_to_step(self):
        mu, sigma = draw_units(steps=200, units=1000)
        assert_mean((mu[1::2] - mu[::2]).abs(), 1 / 3)
        # E|U^2 - V^2| of two Uniform(1, 1.25) is 3/16.
        assert_mean((sigma[1::2].square() - sigma[::2].square()).abs(), 3 / 16)

    def test_units_steps_layers_and_both_parameters_are_independent(self):
        mu, sigma = draw_units(steps=200, units=500, layers=2)
        for values in (mu, sigma):
            assert_uncorrelated(values[1:], values[:-1])
            assert_uncorrelated(values[:, 0], values[:, 1])
            assert_uncorrelated(values[..., 1:], values[..., :-1])
        assert_uncorrelated(mu, sigma)
        assert_uncorrelated(mu[1:], sigma[:-1])

    def test_other_constants(self):
        mu, sigma = draw((1, 20_000), n_mu=2, n_sigma=3, r_mu=0, r_sigma=0)
        assert_law(mu, stats.uniform(-2, 4).cdf)
        assert_law(sigma, stats.uniform(1, 2).cdf)
        m, s = draw((3, 4), n_mu=0, n_sigma=1, r_mu=0, r_sigma=0)
        assert torch.equal(m, torch.zeros_like(m))
        assert torch.equal(s, torch.ones_like(s))

    def test_one_pair_a_unit_whatever_the_batch_size(self):
        one = draw((1, 4, 1, 1), r_mu=0, r_sigma=0)
        many = draw((700, 4, 3, 5), r_mu=0, r_sigma=0)
        for a, b in zip(one, many, strict=True):
            assert torch.equal(a.expand_as(b), b)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (1000, 4, 16, 16)},
        {"shape": (1000, 4, 16, 16), "memory_format": torch.channels_last},
        {"shape": (1000, 4, 16, 16), "memory_format": torch.channels_last, "dtype": torch.float32},
        {"shape": (7, 143_000)},
        {"shape": (3001, 9, 37)},
    ],
    ids=["2d", "channels last", "float32", "1d", "1d with positions"],
)
def test_m_is_uniform_and_s_normal_about_their_unit(options):
    m, s = standardized(**options)
    assert_law(m, stats.uniform(-1, 2).cdf)
    assert_law(s, stats.norm.cdf)
    for values, variance in ((m, 1 / 3), (s, 1)):  # r_sigma is a standard deviation
        assert_mean(values, 0)
        assert_mean(values.square(), variance)
    assert_mean(m**4, 1 / 5)
    assert_mean(s**4, 3)
    assert m.abs().max() <= 1 + 1e-5
    assert 4 < s.abs().max() < 4.5


def test_quantile_table_has_mean_0_and_variance_1():
    table = _normal_quantiles(torch.float64, torch.device("cpu"))
    assert table.mean().abs() < 1e-15
    assert abs(table.square().mean() - 1) < 1e-14
    assert (table.diff() > 0).all()


def test_pairs_of_quantiles_have_one_pair_in_each_of_256_x_256_boxes():
    table = _normal_quantiles(torch.float32, torch.device("cpu"))
    pairs = _normal_pairs(torch.device("cpu")).view(torch.float32).view(-1, 2)
    boxes = [torch.bucketize(column.contiguous(), table[::256].contiguous(), right=True) for column in pairs.T]
    assert torch.equal((256 * (boxes[0] - 1) + boxes[1] - 1).sort().values, torch.arange(65_536))
    assert all(torch.equal(column.sort().values, table) for column in pairs.T)
    assert abs(torch.corrcoef(pairs.T.double())[0, 1].item()) < 1e-7


class TestPositionsAreIndependent:
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_across_samples_units_and_positions(self, memory_format):
        m, s = standardized((1000, 4, 16, 16), memory_format=memory_format)
        assert_uncorrelated(m, s)
        for values in (m, s):
            for lag in (1, 8, 32):
                assert_uncorrelated(values[lag:], values[:-lag])
            assert_uncorrelated(values[:, 1:], values[:, :-1])
            assert_uncorrelated(values[..., 1:, :], values[..., :-1, :])
            assert_uncorrelated(values[..., 1:], values[..., :-1])
        assert_uncorrelated(m[1:], s[:-1])
        assert_uncorrelated(m[..., 1:], s[..., :-1])

    def test_across_steps_and_layers_that_share_a_stream(self):
        generator = stream()
        layers = [ActivationNoise(n_mu=0, n_sigma=1, generator=generator) for _ in range(2)]
        x = torch.zeros(500, 8, 12, 12)
        draws = [layer(x) for _ in range(2) for layer in layers]
        for i, a in enumerate(draws):
            for b in draws[:i]:
                assert not torch.equal(a, b)
                assert_uncorrelated(a, b)


class TestDisturbedActivations:
    def test_variance_of_a_disturbed_unit_normal_activation(self):
        generator = stream()
        a = torch.randn(250, 4000, generator=generator, dtype=torch.float64)
        noisy = ActivationNoise(generator=generator)(a)
        assert_mean(noisy.var(0), 1.284167)
        assert_mean(noisy.square().mean(0), 1.3675)

    def test_law_is_that_of_the_algorithm_in_plain_loops(self):
        rng, steps, samples = random.Random(0), 3000, 6
        a = [0.3, -1.0, 2.0, 0.0, 1.2, -0.4]
        plain = []
        for _ in range(steps):
            mu, sigma = rng.uniform(-0.5, 0.5), rng.uniform(1, 1.25)
            row = []
            for i in range(samples):
                m, s = rng.uniform(mu - 0.1, mu + 0.1), rng.gauss(sigma, 0.1)
                row.append(s * a[i] + m)
            plain.append(row)
        plain = torch.tensor(plain, dtype=torch.float64)
        noise = ActivationNoise(generator=stream())
        ours = noise(torch.tensor(a, dtype=torch.float64)[:, None].repeat(1, steps)).T
        for i in range(samples):
            assert stats.ks_2samp(plain[:, i], ours[:, i]).pvalue > 1e-3
        for summary in (lambda t: t.mean(1), lambda t: t.var(1), lambda t: t[:, 0] - t[:, 3]):
            assert stats.ks_2samp(summary(plain), summary(ours)).pvalue > 1e-3


class TestStream:
    def test_every_call_draws_afresh(self):
        noise, x = ActivationNoise(generator=stream()), torch.ones(2, 3)
        assert not torch.equal(noise(x), noise(x))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_same_state_same_noise_whatever_the_threads(self, memory_format, dtype):
        threads = torch.get_num_threads()
        try:
            draws = []
            for count in (1, 2, 4):
                torch.set_num_threads(count)
                draws.append(draw((64, 16, 32, 32), dtype=dtype, memory_format=memory_format))
        finally:
            torch.set_num_threads(threads)
        for other in draws[1:]:
            assert all(torch.equal(a, b) for a, b in zip(draws[0], other, strict=True))

    def test_own_stream_leaves_the_global_ones_alone(self):
        torch.manual_seed(5)
        before, python = torch.get_rng_state(), random.getstate()
        generator = stream()
        own = generator.get_state()
        NoisyBatchNorm2d(3, generator=generator)(torch.ones(4, 3, 2, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert random.getstate() == python
        assert not torch.equal(generator.get_state(), own)

    def test_without_a_generator_torch_s_default_one_is_used(self):
        noise, x = ActivationNoise(), torch.ones(4, 3)
        torch.manual_seed(5)
        first = noise(x)
        torch.manual_seed(5)
        assert torch.equal(noise(x), first)
        assert torch.equal(ActivationNoise(generator=stream(5))(x), first)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_state_resumes_the_stream(self, dtype):
        noise, x = ActivationNoise(generator=stream()), torch.ones(4, 3, dtype=dtype)
        noise(x)
        state = noise.generator.get_state()
        second = noise(x)
        resumed = ActivationNoise(generator=torch.Generator().set_state(state))
        assert torch.equal(resumed(x), second)


@pytest.mark.parametrize(("noisy", "plain", "shape"), LAYERS)
class TestLayers:
    def pair(self, noisy, plain, **options):
        ours, theirs = noisy(5, generator=stream(), **options), plain(5, **options)
        with torch.no_grad():
            for layer in (ours, theirs):
                layer.weight.copy_(torch.linspace(0.5, 2, 5))
                layer.bias.copy_(torch.linspace(-1, 1, 5))
        return ours, theirs

    def test_noise_off_is_batch_norm_bit_for_bit_and_draws_nothing(self, noisy, plain, shape):
        ours, theirs = self.pair(noisy, plain)
        before = ours.generator.get_state()
        x = torch.randn(shape, generator=stream(1))
        ours.noise = False
        assert torch.equal(ours(x), theirs(x))
        ours.noise = None
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
        assert torch.equal(ours.generator.get_state(), before)

    def test_noise_can_be_forced_in_evaluation(self, noisy, plain, shape):
        ours, theirs = self.pair(noisy, plain)
        ours.eval()
        theirs.eval()
        ours.noise = True
        x = torch.randn(shape, generator=stream(1))
        m, s = draw(shape, dtype=torch.float32)
        torch.testing.assert_close(ours(x), s * theirs(x) + m)

    def test_running_statistics_do_not_see_the_noise(self, noisy, plain, shape):
        ours, theirs = self.pair(noisy, plain)
        for seed in range(3):
            x = torch.randn(shape, generator=stream(seed))
            ours(x)
            theirs(x)
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)

    def test_state_dicts_are_interchangeable(self, noisy, plain, shape):
        ours, theirs = self.pair(noisy, plain)
        ours(torch.randn(shape, generator=stream(1)))
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        fresh = noisy(5)
        fresh.load_state_dict(theirs.state_dict())
        for name, value in ours.state_dict().items():
            assert torch.equal(fresh.state_dict()[name], value)

    def test_value_and_gradients_are_those_of_plain_autograd(self, noisy, plain, shape):
        ours, theirs = self.pair(noisy, plain, dtype=torch.float64)
        m, s = draw(shape)
        x = torch.randn(shape, generator=stream(1), dtype=torch.float64, requires_grad=True)
        upstream = torch.randn(shape, generator=stream(2), dtype=torch.float64)
        y, twin = ours(x), s * theirs(x) + m
        torch.testing.assert_close(y, twin, rtol=1e-13, atol=1e-13)
        wanted = torch.autograd.grad(twin, (x, *theirs.parameters()), upstream)
        for actual, reference in zip(torch.autograd.grad(y, (x, *ours.parameters()), upstream), wanted, strict=True):
            torch.testing.assert_close(actual, reference, rtol=1e-12, atol=1e-12)

    def test_gradcheck(self, noisy, plain, shape):
        ours, _ = self.pair(noisy, plain, dtype=torch.float64)

        def disturbed(x, weight, bias):
            ours.generator.manual_seed(0)
            return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (x,))

        x = torch.randn(shape, generator=stream(1), dtype=torch.float64, requires_grad=True)
        weight, bias = (p.detach().clone().requires_grad_() for p in ours.parameters())
        assert torch.autograd.gradcheck(disturbed, (x, weight, bias), fast_mode=True)
        assert torch.autograd.gradgradcheck(disturbed, (x, weight, bias), fast_mode=True)

    def test_options_and_representation_are_batch_norm_s(self, noisy, plain, shape):
        ours = noisy(5, 1e-3, None, False, False, dtype=torch.float64)
        theirs = plain(5, 1e-3, None, False, False, dtype=torch.float64)
        assert isinstance(ours, plain)
        assert ours.extra_repr().startswith(theirs.extra_repr())
        assert "n_mu=0.5, n_sigma=1.25, r_mu=0.1, r_sigma=0.1" in ours.extra_repr()
        ours.noise = False
        x = torch.randn(shape, generator=stream(1), dtype=torch.float64)
        assert torch.equal(ours(x), theirs(x))

    def test_deepcopy_draws_from_the_default_stream_as_the_original_does(self, noisy, plain, shape):
        original, x = noisy(5), torch.randn(shape, generator=stream(1))
        duplicate = copy.deepcopy(original)
        torch.manual_seed(0)
        y = original(x)
        torch.manual_seed(0)
        assert torch.equal(duplicate(x), y)

    def test_an_in_place_nonlinearity_may_follow(self, noisy, plain, shape):
        results = []
        for inplace in (False, True):
            layer = noisy(5, generator=stream())
            x = torch.randn(shape, generator=stream(1), requires_grad=True)
            y = F.relu(layer(x), inplace=inplace)
            y.square().sum().backward()
            results.append((y.detach(), x.grad, layer.weight.grad))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    "shape", [(0, 3), (1, 1), (3, 1), (5, 3, 1, 1), (3, 5, 7, 1), (1, 2, 300, 301), (2, 3, 2, 2, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_activation_noise_keeps_its_input_and_has_gradient_s(shape, dtype):
    x = torch.randn(shape, generator=stream(1)).to(dtype).requires_grad_()
    before = x.detach().clone()
    y = ActivationNoise(generator=stream())(x)
    y.sum().backward()
    m, s = draw(shape, dtype=dtype)
    assert torch.equal(x.detach(), before)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert torch.equal(x.grad, s)
    step = 1e-13 if dtype == torch.float64 else torch.finfo(dtype).eps
    torch.testing.assert_close(y.detach().double(), s.double() * before.double() + m.double(), rtol=0, atol=8 * step)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "sliced", "expanded"])
def test_memory_layouts(layout):
    x = torch.randn(4, 6, 8, 10, generator=stream(1), dtype=torch.float64)
    x = {
        "contiguous": lambda: x,
        "channels last": lambda: x.to(memory_format=torch.channels_last),
        "transposed": lambda: x.transpose(2, 3),
        "sliced": lambda: x[:, ::2, 1:],
        "expanded": lambda: x[:1].expand(5, -1, -1, -1),
    }[layout]()
    before = x.clone()
    y = ActivationNoise(generator=stream())(x)
    memory_format = torch.channels_last if layout == "channels last" else torch.contiguous_format
    m, s = draw(x.shape, memory_format=memory_format)
    torch.testing.assert_close(y, s * before + m)
    assert torch.equal(x, before)
    assert y.is_contiguous(memory_format=memory_format)


def test_noisy_batch_norm_under_autocast_and_channels_last():
    layer = NoisyBatchNorm2d(8, generator=stream())
    x = torch.randn(16, 8, 6, 6, generator=stream(1)).to(torch.bfloat16).to(memory_format=torch.channels_last)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    m, s = draw(x.shape, dtype=torch.bfloat16, memory_format=torch.channels_last)
    plain = nn.BatchNorm2d(8)(x).float()
    torch.testing.assert_close(y.float(), s.float() * plain + m.float(), rtol=2**-7, atol=2**-7)
    layer.eval()
    layer.noise, layer.generator = True, stream()
    plain = nn.BatchNorm2d(8).eval()
    plain.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), s.float() * plain(x).float() + m.float(), rtol=2**-7, atol=2**-7)


class TestBfloat16:
    """Noise for bfloat16 input, against the exact law rounded to bfloat16."""

    SHAPES = (((1000, 4, 16, 16), torch.contiguous_format), ((1001, 6, 13, 13), torch.channels_last))

    def test_mu_and_sigma_are_those_of_float32(self):
        x = torch.randn(9, 500, 2, 2, generator=stream(1)).bfloat16()
        y = ActivationNoise(r_mu=0, r_sigma=0, generator=stream())(x)
        mu, sigma = (t.double() for t in draw((1, 500, 1, 1), dtype=torch.float32, r_mu=0, r_sigma=0))
        exact = sigma * x.double() + mu
        torch.testing.assert_close(y.double(), exact, rtol=2**-8 + 1e-6, atol=1e-7)  # rounded once
        assert_mean((y.double() - exact) / exact.abs(), 0)

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_coarse_noise_in_float32_is_the_same_draw_unrounded(self, memory_format):
        x = torch.randn(9, 5, 3, 3, generator=stream(1)).bfloat16().to(memory_format=memory_format)
        rounded, exact = ActivationNoise(generator=stream()), ActivationNoise(generator=stream())
        exact.coarse = True
        for _ in range(2):
            y, z = rounded(x), exact(x.float())
            assert torch.equal(y, z.bfloat16()) and not torch.equal(y.float(), z)
        assert torch.equal(rounded.generator.get_state(), exact.generator.get_state())

    @pytest.mark.parametrize(("shape", "memory_format"), SHAPES)
    def test_m_takes_256_values_equally_often(self, shape, memory_format):
        m, _ = draw(shape, dtype=torch.bfloat16, memory_format=memory_format, n_mu=0, n_sigma=1)
        values, counts = m.flatten().unique(return_counts=True)
        wanted = 0.1 * (torch.arange(256, dtype=torch.float64) + 0.5) / 128 - 0.1
        torch.testing.assert_close(values.double(), wanted, rtol=2**-8, atol=1e-7)
        assert stats.chisquare(counts).pvalue > 1e-3
        assert_mean(m, 0)
        assert_mean(m.double().square(), 0.1**2 / 3)

    @pytest.mark.parametrize(("shape", "memory_format"), SHAPES)
    def test_s_is_normal(self, shape, memory_format):
        _, s = draw(shape, dtype=torch.bfloat16, memory_format=memory_format, n_mu=0, n_sigma=1)
        values, counts = s.flatten().unique(return_counts=True)
        values = values.double().numpy()
        edges = (values[1:] + values[:-1]) / 2
        wanted = counts.sum().item() * stats.norm(1, 0.1).cdf([*edges, math.inf])
        wanted[1:] -= wanted[:-1].copy()
        often = wanted > 20
        assert often.sum() > 60
        assert (
            stats.chisquare(
                counts.numpy()[often], wanted[often] * counts.numpy()[often].sum() / wanted[often].sum()
            ).pvalue
            > 1e-3
        )
        assert_mean(s, 1)
        assert s.double().std().item() == pytest.approx(0.1, rel=0.005)
        assert 0.4 < (s.double() - 1).abs().max() < 0.45 + 2**-7

    @pytest.mark.parametrize(("shape", "memory_format"), SHAPES)
    def test_positions_are_independent(self, shape, memory_format):
        m, s = draw(shape, dtype=torch.bfloat16, memory_format=memory_format, n_mu=0, n_sigma=1)
        in_memory = [
            t.double().permute(0, 2, 3, 1) if memory_format == torch.channels_last else t.double() for t in (m, s)
        ]
        m, s = (t.flatten() for t in in_memory)
        assert_uncorrelated(m, s)
        for values in (m, s):
            for lag in (1, 2, 3, 4, 13, 256):
                assert_uncorrelated(values[lag:], values[:-lag])
        assert_uncorrelated(m[1:], s[:-1])
        for a, b in ((s[0::2], s[1::2]), (s[:-1], s[1:]), (m[:-1], m[1:]), (m, s)):  # pairs share their bits
            edges = [t.quantile(torch.linspace(0, 1, 9, dtype=t.dtype)[1:-1]) for t in (a[:100_000], b[:100_000])]
            n = min(len(a), len(b))
            cells = [torch.bucketize(t[:n].contiguous(), e) for t, e in zip((a, b), edges, strict=True)]
            table = torch.bincount(8 * cells[0] + cells[1], minlength=64).view(8, 8)
            assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3

    def test_disturbed_value_is_s_a_plus_m(self):
        a = (3 * torch.randn(200, 7, 5, 5, generator=stream(1))).bfloat16().requires_grad_()
        y = ActivationNoise(generator=stream())(a)
        y.backward(torch.full_like(y, 3.0))
        m, s = draw(a.shape, dtype=torch.bfloat16)
        assert torch.equal(a.grad, 3 * s)
        s, m, a = (t.detach().double() for t in (s, m, a))
        error = 2**-8 * ((s * a).abs() + m.abs() + y.double().abs())  # s, m and y are rounded here, once each
        assert ((y.double() - (s * a + m)).abs() <= error + 1e-9).all()

    def test_a_float16_input_gets_the_noise_of_float32(self):
        a = torch.tensor([30_000.0, -30_000, 1, 0]).half().repeat(50, 2)
        y = ActivationNoise(generator=stream())(a)
        m, s = (t.double() for t in draw(a.shape, dtype=torch.float32))
        torch.testing.assert_close(y.double(), s * a.double() + m, rtol=2**-10, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_model_draws_the_same_noise():
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), NoisyBatchNorm2d(4, generator=stream()), nn.ReLU())

    eager, traced = model(), model()
    compiled = torch.compile(traced, backend="eager")
    x = torch.randn(5, 3, 8, 8, generator=stream(1))
    for _ in range(2):
        a, b = eager(x), compiled(x)
        a.square().sum().backward()
        b.square().sum().backward()
        assert torch.equal(a, b)
        assert torch.equal(eager[0].weight.grad, traced[0].weight.grad)


class Checkpointed:
    """Runs functions with or without checkpointing."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, function, x):
        return function(x) if self.kind is None else checkpoint(function, x, use_reentrant=self.kind == "reentrant")


class Pieces(nn.Module):
    """Two pieces with four noises of one stream; dropout draws from the default generator between them."""

    def __init__(self, generator):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(
            nn.Linear(8, 8),
            NoisyBatchNorm1d(8, generator=generator),
            nn.Tanh(),
            nn.Dropout(0.2),
            nn.Linear(8, 8),
            ActivationNoise(generator=generator),
            nn.Sigmoid(),
            nn.Dropout(0.2),
        )
        self.second = nn.Sequential(nn.Linear(8, 8), ActivationNoise(generator=generator), nn.Tanh(), nn.Linear(8, 8))
        self.double()


def chain(run, m, x):
    return run(m.second, run(m.first, x))


def module_twice_in_a_piece(run, m, x):
    return run(lambda x: m.second(m.second(m.first(x))), x)


def module_in_two_pieces(run, m, x):
    return run(m.second, run(m.first, run(m.second, x)))


def nested(run, m, x):
    return run(lambda x: run(m.second, run(m.first, x)).sin(), x)


def nested_deeper_and_called_on(run, m, x):
    return m.first(run(lambda x: m.second(run(lambda x: run(m.first, x).cos() + m.second(x), x)), x))


def same_input_twice(run, m, x):
    return run(m.first, x) + 2 * run(m.first, x)


def some_of_it_without_gradient(run, m, x):
    with torch.no_grad():
        run(m.first, x)
    m.second.eval()
    y = run(m.second, x)
    m.second.train()
    run(m.second, x)  # never differentiated
    return run(m.first, x) * y.detach()


KINDS = ("reentrant", "not reentrant")


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
class TestCheckpointing:
    """The same draws, gradients and streams as without it."""

    @staticmethod
    def outcome(kind, function, generator, passes=1):
        model = Pieces(generator)
        losses = []
        for seed in range(passes):
            x = torch.randn(16, 8, generator=stream(seed), dtype=torch.float64, requires_grad=True)
            losses.append(function(Checkpointed(kind), model, x).square().sum())
        for loss in losses:
            loss.backward()
        gradients = [x.grad, *(p.grad for p in model.parameters())]
        return [loss.detach() for loss in losses], [g for g in gradients if g is not None], torch.rand(3)

    @pytest.mark.parametrize("own", [True, False])
    @pytest.mark.parametrize("passes", [1, 3])
    @pytest.mark.parametrize(
        "function",
        [
            chain,
            module_twice_in_a_piece,
            module_in_two_pieces,
            nested,
            nested_deeper_and_called_on,
            same_input_twice,
            some_of_it_without_gradient,
        ],
    )
    def test_gradients_and_streams(self, kind, function, passes, own):
        found, wanted = (stream() if own else None for _ in range(2))
        results = self.outcome(kind, function, found, passes), self.outcome(None, function, wanted, passes)
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
        assert not own or torch.equal(found.get_state(), wanted.get_state())

    def test_vgg(self, kind):
        def gradients(kind):
            generator = stream()
            model = small_vgg("noisy_bn", name="vgg11", seed=1).double()
            for module in noise_modules(model):
                module.generator = generator
            run = Checkpointed(kind)
            for _, block in model.layers()[1:-1]:
                block.forward = functools.partial(run, block.forward)
            x = torch.randn(7, 3, 32, 32, generator=stream(1), dtype=torch.float64)
            F.cross_entropy(model(x), torch.arange(7)).backward()
            return [p.grad for p in model.parameters()], generator.get_state()

        torch.testing.assert_close(gradients(kind), gradients(None), rtol=1e-10, atol=1e-14)

    def test_bfloat16_under_autocast(self, kind):
        def gradients(kind):
            model, run = Pieces(stream()).float(), Checkpointed(kind)
            x = torch.randn(16, 8, generator=stream(1), requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16):
                y = chain(run, model, x)
            y.float().square().sum().backward()
            return [x.grad, *(p.grad for p in model.parameters())]

        assert all(torch.equal(a, b) for a, b in zip(gradients(kind), gradients(None), strict=True))

    def test_default_generator_passed_by_name(self, kind):
        results = [self.outcome(k, chain, torch.default_generator) for k in (kind, None)]
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)

    def test_whether_or_not_the_default_generators_are_restored(self, kind):
        def gradient(run):
            noise = ActivationNoise(generator=stream())
            x = torch.randn(5, 3, generator=stream(1), dtype=torch.float64, requires_grad=True)
            run(lambda x: noise(x.sin()).square(), x).sum().backward()
            return x.grad

        def run(function, x):
            return checkpoint(function, x, use_reentrant=kind == "reentrant", preserve_rng_state=False)

        torch.testing.assert_close(gradient(run), gradient(Checkpointed(None)))

    def test_nothing_is_kept(self, kind):
        model, x = Pieces(stream()), torch.randn(16, 8, dtype=torch.float64, requires_grad=True)
        kept = len(recompute._draws)
        y = chain(Checkpointed(kind), model, x)
        assert len(recompute._draws) == kept + 2
        y.sum().backward()
        chain(Checkpointed(kind), model, x)  # abandoned

        def fails(x):
            model.first(x)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Checkpointed(kind)(fails, x)
        del y
        gc.collect()
        assert len(recompute._draws) == kept
        gradients = []
        for k in (kind, None):
            model = Pieces(stream())
            with pytest.raises(ZeroDivisionError):
                Checkpointed(k)(fails, x)
            chain(Checkpointed(k), model, x).sum().backward()
            gradients.append(model.first[0].weight.grad)
        torch.testing.assert_close(*gradients)

    def test_noise_switched_between_forward_and_backward_is_refused(self, kind):
        first, second = (ActivationNoise(generator=stream()) for _ in range(2))
        x = torch.randn(5, 3, requires_grad=True)
        y = Checkpointed(kind)(lambda x: second(first(x).sin()).square(), x)
        first.noise = False
        with pytest.raises(IcsbenchError, match=r"^activation checkpointing: [^\n]*$"):
            y.sum().backward()


@pytest.mark.parametrize("function", [chain, module_in_two_pieces, nested, nested_deeper_and_called_on])
def test_checkpointed_segments_are_differentiated_twice_and_repeatedly(function):
    def derivatives(kind):
        model, generator = Pieces(None), stream()
        for module in noise_modules(model):
            module.generator = generator
        x = torch.randn(16, 8, generator=stream(1), dtype=torch.float64, requires_grad=True)
        torch.manual_seed(0)
        loss = function(Checkpointed(kind), model, x).square().sum()
        first = torch.autograd.grad(loss, x, retain_graph=True)[0]
        again = torch.autograd.grad(loss, x, create_graph=True)[0]
        second = torch.autograd.grad(again.square().sum(), [x, *model.parameters()], allow_unused=True)
        return first, again.detach(), [g for g in second if g is not None], generator.get_state()

    torch.testing.assert_close(derivatives("not reentrant"), derivatives(None), rtol=1e-10, atol=1e-12)


def test_a_gradient_taken_inside_a_checkpointed_segment():
    def gradient(kind):
        noise = ActivationNoise(generator=stream())

        def step(x):
            y = noise(x.sin()).square()
            (inner,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            return noise(y * inner)

        x = torch.randn(5, 3, generator=stream(1), dtype=torch.float64, requires_grad=True)
        Checkpointed(kind)(step, x).sum().backward()
        return x.grad

    torch.testing.assert_close(gradient("not reentrant"), gradient(None))


def test_recomputation_by_other_means_is_refused():
    class Recompute(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, module):
            ctx.module = module
            ctx.save_for_backward(x)
            return module(x)

        @staticmethod
        def backward(ctx, gradient):
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                ctx.module(x).backward(gradient)
            return x.grad, None

    x = torch.ones(2, 3, requires_grad=True)
    y = Recompute.apply(x, ActivationNoise(generator=stream()))
    with pytest.raises(IcsbenchError, match=r"^noise with a generator of its own is drawn inside a backward[^\n]*$"):
        y.sum().backward()
    Recompute.apply(x, ActivationNoise()).sum().backward()


class TestSynchronizedBatchNorm:
    @pytest.mark.parametrize("wrap", [lambda layer: layer, lambda layer: nn.Sequential(nn.ReLU(), layer)])
    @pytest.mark.parametrize("layer", [NoisyBatchNorm1d, NoisyBatchNorm2d])
    def test_conversion_is_refused(self, layer, wrap):
        line = f"^{layer.__name__} cannot become a torch.nn.SyncBatchNorm[^\n]*ActivationNoise[^\n]*$"
        with pytest.raises(IcsbenchError, match=line):
            nn.SyncBatchNorm.convert_sync_batchnorm(wrap(layer(3)))

    def test_the_attribute_that_conversion_asks_for_is_otherwise_free(self):
        layer = NoisyBatchNorm2d(3)
        assert not hasattr(layer, "qconfig")
        layer.qconfig = "mine"
        assert layer.qconfig == "mine"

    def test_noise_behind_a_converted_layer_is_noisy_batch_norm(self):
        ours = NoisyBatchNorm2d(5, generator=stream())
        theirs = nn.Sequential(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(5)))
        theirs.append(ActivationNoise(generator=stream()))
        assert isinstance(theirs[0], nn.SyncBatchNorm)
        for seed in range(3):
            x = torch.randn(6, 5, 4, 3, generator=stream(seed))
            results = []
            for layer in (ours, theirs):
                leaf = x.clone().requires_grad_()
                y = layer(leaf)
                y.square().sum().backward()
                results.append((y, leaf.grad, *(p.grad for p in layer.parameters()), *layer.buffers()))
            assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize(
    ("constant", "value"),
    [("n_mu", -0.1), ("n_sigma", 0.99), ("r_mu", -1), ("r_sigma", -1e-9), ("n_mu", math.nan), ("n_sigma", math.inf)],
)
@pytest.mark.parametrize("make", [ActivationNoise, lambda **k: NoisyBatchNorm1d(3, **k)])
def test_constants_out_of_range(make, constant, value):
    with pytest.raises(ValueError, match=f"^{constant} must be a finite number >= [01], not [^\n]*$"):
        make(**{constant: value})


def test_input_without_units_is_refused():
    with pytest.raises(ValueError, match=r"expected \(N, C\)"):
        ActivationNoise()(torch.zeros(3))


class TestMembers:
    @pytest.mark.parametrize(
        ("name", "dimensions", "kind"),
        [
            ("none", 1, nn.Identity),
            ("none", 2, nn.Identity),
            ("bn", 1, nn.BatchNorm1d),
            ("bn", 2, nn.BatchNorm2d),
            ("noisy_bn", 1, NoisyBatchNorm1d),
            ("noisy_bn", 2, NoisyBatchNorm2d),
            ("noise", 1, ActivationNoise),
            ("noise", 2, ActivationNoise),
        ],
    )
    def test_builds(self, name, dimensions, kind):
        constants = {"n_mu": 0.4, "n_sigma": 1.5, "r_mu": 0.2, "r_sigma": 0.3}
        statistics = {"eps": 1e-3, "momentum": 0.2} if "bn" in name else {}
        layer = norm_module(name, 7, dimensions, **statistics, **(constants if "nois" in name else {}))
        assert type(layer) is kind
        if "bn" in name:
            assert (layer.num_features, layer.eps, layer.momentum) == (7, 1e-3, 0.2)
        if "nois" in name:
            assert {constant: getattr(layer, constant) for constant in constants} == constants

    def test_unknown_name(self):
        with pytest.raises(IcsbenchError, match="no norm is called 'batchnorm'; .*" + ", ".join(NORMS)):
            member("norms", Norm, "batchnorm")

    def test_noise_modules_are_listed_once_in_order(self):
        first, second, third = NoisyBatchNorm2d(3), ActivationNoise(), NoisyBatchNorm1d(3)
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(first, nn.ReLU()), second, nn.BatchNorm1d(3), third)
        assert noise_modules(model) == [first, second, third]
        assert noise_modules(nn.BatchNorm1d(3)) == []
