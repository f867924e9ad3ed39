"""Every claim about Algorithm 1's noise: its law, its stream, its gradient, and the layers that carry it.

Statistics are held to 5 standard errors, correlations to 5 / sqrt(n) and Kolmogorov-Smirnov tests to p > 0.001,
all with fixed seeds.
"""

import copy
import math
import random

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.norms import NORMS, ActivationNoise, NoisyBatchNorm1d, NoisyBatchNorm2d, build_norm, noise_modules
from icsbench.norms.noisy import _normal_quantiles

CONSTANTS = {"n_mu": 0.5, "n_sigma": 1.25, "r_mu": 0.1, "r_sigma": 0.1}
LAYERS = [
    (NoisyBatchNorm1d, nn.BatchNorm1d, (6, 5)),
    (NoisyBatchNorm1d, nn.BatchNorm1d, (6, 5, 3)),
    (NoisyBatchNorm2d, nn.BatchNorm2d, (6, 5, 4, 3)),
]


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(shape, seed=0, dtype=torch.float64, memory_format=torch.contiguous_format, **constants):
    """The m and s that a stream gives for a shape: m is the disturbed 0 and s + m the disturbed 1."""
    x = torch.zeros(shape, dtype=dtype).to(memory_format=memory_format)
    m = ActivationNoise(**constants, generator=stream(seed))(x)
    return m, ActivationNoise(**constants, generator=stream(seed))(x + 1) - m


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

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_same_state_same_noise_whatever_the_threads(self, memory_format):
        threads = torch.get_num_threads()
        try:
            draws = []
            for count in (1, 2, 4):
                torch.set_num_threads(count)
                draws.append(draw((64, 16, 32, 32), dtype=torch.float32, memory_format=memory_format))
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

    def test_state_resumes_the_stream(self):
        noise, x = ActivationNoise(generator=stream()), torch.ones(4, 3)
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
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_activation_noise_keeps_its_input_and_has_gradient_s(shape, dtype):
    x = torch.randn(shape, generator=stream(1)).to(dtype).requires_grad_()
    before = x.detach().clone()
    y = ActivationNoise(generator=stream())(x)
    y.sum().backward()
    m, s = draw(shape, dtype=dtype if dtype != torch.bfloat16 else torch.float32)
    assert torch.equal(x.detach(), before)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    torch.testing.assert_close(x.grad, s.to(dtype))
    torch.testing.assert_close(y.detach(), (s * before + m).to(dtype))


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
    m, s = draw(x.shape, dtype=torch.float32, memory_format=torch.channels_last)
    plain = nn.BatchNorm2d(8)(x).float()
    torch.testing.assert_close(y.float(), s * plain + m, rtol=2**-7, atol=2**-7)


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


class TestBuildNorm:
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
        layer = build_norm(name, 7, dimensions, eps=1e-3, momentum=0.2, **constants)
        assert type(layer) is kind
        if "bn" in name:
            assert (layer.num_features, layer.eps, layer.momentum) == (7, 1e-3, 0.2)
        if "nois" in name:
            assert {constant: getattr(layer, constant) for constant in constants} == constants

    def test_unknown_name(self):
        with pytest.raises(IcsbenchError, match="'batchnorm'.*" + ", ".join(NORMS)):
            build_norm("batchnorm", 3, 2, eps=1e-5, momentum=0.1, **CONSTANTS)

    def test_noise_modules_are_listed_once_in_order(self):
        first, second, third = NoisyBatchNorm2d(3), ActivationNoise(), NoisyBatchNorm1d(3)
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(first, nn.ReLU()), second, nn.BatchNorm1d(3), third)
        assert noise_modules(model) == [first, second, third]
        assert noise_modules(nn.BatchNorm1d(3)) == []
