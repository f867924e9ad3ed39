"""l_p normalization against golden numbers, the formula differentiated by autograd, and finite differences."""

import copy
import math

import networks
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.norms import LpNorm1d, LpNorm2d, NoisyBatchNorm1d, batch_norms

ORDERS = [1, 2, math.inf]
SHAPES = [(2, 1), (7, 3), (3, 4, 6), (2, 3, 5, 4), (8, 2, 1, 1)]
EPS = 1e-5


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def axes(a):
    return (0, *range(2, a.dim()))


def per_channel(values, a):
    return values.reshape(1, -1, *[1] * (a.dim() - 2))


def statistics(a, p, eps=EPS):
    """mean(a) and N_p(a), from the definition."""
    if p == 1:
        norm = a.abs().mean(axes(a))
    elif p == 2:
        norm = a.square().mean(axes(a)).sqrt()
    else:
        norm = a.abs().amax(axes(a))
    return a.mean(axes(a)), norm.clamp_min(eps)


def by_definition(a, weight, bias, p, eps=EPS):
    mean, norm = statistics(a, p, eps)
    return per_channel(weight, a) * (a - per_channel(mean, a)) / per_channel(norm, a) + per_channel(bias, a)


def problem(shape, seed=0):
    """Activations whose mean is not 0, a gradient, and an affine map."""
    g = stream(seed)
    a = 3 * torch.randn(shape, generator=g, dtype=torch.float64) + torch.arange(-1.0, shape[1] - 1).reshape(
        1, -1, *[1] * (len(shape) - 2)
    )
    return a, torch.randn(shape, generator=g, dtype=torch.float64), *torch.randn(2, shape[1], generator=g).double()


def layer_of(a, weight, bias, p, **options):
    layer = (LpNorm2d if a.dim() == 4 else LpNorm1d)(a.shape[1], p, **options).to(a.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


@pytest.mark.parametrize(
    ("p", "norm", "expected"),
    [
        (1, 3, [-1 / 3, -4 / 3, 1 / 3, 4 / 3]),
        (2, 3.5355339, [-0.28284271, -1.13137085, 0.28284271, 1.13137085]),
        (math.inf, 6, [-1 / 6, -2 / 3, 1 / 6, 2 / 3]),
    ],
)
def test_golden_numbers(p, norm, expected):
    a = torch.tensor([1.0, -2, 3, 6], dtype=torch.float64)[:, None]
    layer = LpNorm1d(1, p, momentum=None).double()
    torch.testing.assert_close(layer(a).flatten(), torch.tensor(expected).double(), rtol=0, atol=1e-7)
    assert layer.running_mean.item() == 2
    assert layer.running_norm.item() == pytest.approx(norm, abs=1e-7)
    image = LpNorm2d(1, p).double()(a.reshape(2, 1, 2, 1))
    torch.testing.assert_close(image.flatten(), torch.tensor(expected).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", ORDERS)
class TestFormula:
    def test_forward_and_backward(self, p, shape):
        a, dy, weight, bias = problem(shape)
        layer, leaf = layer_of(a, weight, bias, p), a.clone().requires_grad_()
        y = layer(leaf)
        y.backward(dy)
        wanted_at = [t.clone().requires_grad_() for t in (a, weight, bias)]
        wanted = by_definition(*wanted_at, p)
        torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-13)
        found = (leaf.grad, layer.weight.grad, layer.bias.grad)
        for actual, reference in zip(found, torch.autograd.grad(wanted, wanted_at, dy), strict=True):
            torch.testing.assert_close(actual, reference, rtol=1e-10, atol=1e-12)

    def test_finite_differences_once_and_twice(self, p, shape):
        a, dy, weight, bias = problem(shape)
        layer = layer_of(a, weight, bias, p)

        def f(a, weight, bias):
            return functional_call(layer, {"weight": weight, "bias": bias}, (a,))

        inputs = tuple(t.requires_grad_() for t in (a, weight, bias))
        assert torch.autograd.gradcheck(f, inputs)
        assert torch.autograd.gradgradcheck(f, inputs, (dy.requires_grad_(),))

    def test_moments_of_the_result(self, p, shape):
        a, _, weight, bias = problem(shape)
        y = layer_of(a, weight, bias, p)(a).detach()
        torch.testing.assert_close(y.mean(axes(a)), bias)
        variance, (mean, norm) = a.var(axes(a), correction=0), statistics(a, p)
        torch.testing.assert_close(y.var(axes(a), correction=0), weight**2 * variance / norm**2)
        if p == 2:
            torch.testing.assert_close(norm**2, variance + mean**2)

    def test_scale_of_the_input_does_not_matter(self, p, shape):
        a, dy, weight, bias = problem(shape)
        layer = layer_of(a, weight, bias, p)
        torch.testing.assert_close(layer(7 * a), layer(a))
        a.requires_grad_()
        (da,) = torch.autograd.grad(layer(a), a, dy)
        radial = (da * a).sum(axes(a))  # so a gradient has no part along a
        torch.testing.assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", ORDERS)
def test_hessian_is_that_of_the_definition(p):
    a, dy, weight, bias = problem((4, 2, 3))
    layer = layer_of(a, weight, bias, p)

    def hessian(f):
        return torch.autograd.functional.hessian(lambda a: (f(a).pow(3) * dy).sum(), a)

    found, wanted = hessian(layer), hessian(lambda a: by_definition(a, weight, bias, p))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_values_that_tie_for_the_maximum_share_its_gradient():
    a = torch.tensor([[2.0, 1], [-2, 5], [0.5, 5], [1, 5]], dtype=torch.float64)
    dy = torch.randn(4, 2, generator=stream(), dtype=torch.float64)
    ones, zeros = torch.ones(2).double(), torch.zeros(2).double()
    gradients = []
    for f in (LpNorm1d(2, math.inf).double(), lambda a: by_definition(a, ones, zeros, math.inf)):
        leaf = a.clone().requires_grad_()
        gradients += torch.autograd.grad(f(leaf), leaf, dy)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("p", ORDERS)
class TestFloor:
    def test_formula_is_exact_above_it(self, p):
        a = torch.randn(5, 3, generator=stream(), dtype=torch.float64)
        layer = LpNorm1d(3, p, eps=1e-5).double()
        a = a * 1.001e-5 / statistics(a, p)[1]
        torch.testing.assert_close(layer(a), layer(1e5 * a), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_norm_is_a_constant_below_it(self, p, dtype):
        a, dy = (torch.randn(5, 3, generator=stream(seed), dtype=dtype) for seed in (0, 1))
        a = (a * 0.999e-5 / statistics(a, p)[1]).requires_grad_()
        layer = LpNorm1d(3, p, eps=1e-5).to(dtype)
        (da,) = torch.autograd.grad(layer(a), a, dy)
        torch.testing.assert_close(layer(a), (a - a.mean(0)) * 1e5)
        torch.testing.assert_close(da * 1e-5, dy - dy.mean(0))

    def test_constant_channels_give_beta_and_finite_gradients(self, p):
        a = torch.tensor([0.0, 7]).expand(4, 2).double().requires_grad_()
        layer = layer_of(a, torch.tensor([2.0, 3.0]), torch.tensor([0.5, -1.0]), p)
        y = layer(a)
        (da,) = torch.autograd.grad(y, a, torch.randn(4, 2, generator=stream()).double())
        torch.testing.assert_close(y, layer.bias.expand(4, 2), rtol=0, atol=1e-12)
        assert da.isfinite().all()
        torch.testing.assert_close(da.sum(0), torch.zeros(2).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("shape", [(6, 3), (5, 3, 2), (4, 3, 2, 5)])
class TestRunningStatistics:
    def batches(self, shape):
        return [problem(shape, seed)[0] for seed in range(4)]

    def test_momentum(self, p, shape):
        layer = layer_of(*[problem(shape)[i] for i in (0, 2, 3)], p, momentum=0.3)
        mean, norm = torch.zeros(3).double(), torch.ones(3).double()
        for batch in self.batches(shape):
            layer(batch)
            batch_mean, batch_norm = statistics(batch, p)
            mean, norm = 0.7 * mean + 0.3 * batch_mean, 0.7 * norm + 0.3 * batch_norm
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_norm, norm)
        assert layer.num_batches_tracked == 4

    def test_plain_average_after_a_reset(self, p, shape):
        layer = layer_of(*[problem(shape)[i] for i in (0, 2, 3)], p)
        layer(problem(shape, 9)[0])
        layer.reset_running_stats()
        fresh = type(layer)(3, p).double()
        assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), fresh.buffers(), strict=True))
        layer.momentum = None
        for batch in self.batches(shape):
            layer(batch)
        mean, norm = zip(*(statistics(batch, p) for batch in self.batches(shape)), strict=True)
        torch.testing.assert_close(layer.running_mean, torch.stack(mean).mean(0))
        torch.testing.assert_close(layer.running_norm, torch.stack(norm).mean(0))

    def test_eval_mode_uses_them_and_leaves_them(self, p, shape):
        a, _, weight, bias = problem(shape)
        layer = layer_of(a, weight, bias, p)
        for batch in self.batches(shape):
            layer(batch)
        before = copy.deepcopy(layer.state_dict())
        y = layer.eval()(a)
        mean, norm = per_channel(layer.running_mean, a), per_channel(layer.running_norm, a)
        torch.testing.assert_close(y, per_channel(weight, a) * (a - mean) / norm + per_channel(bias, a))
        assert torch.equal(layer(a[:1]), y[:1])
        assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


class Twin(nn.Module):
    """The layer from the definition, in training mode."""

    def __init__(self, layer):
        super().__init__()
        self.weight, self.bias, self.p, self.eps = layer.weight, layer.bias, layer.p, layer.eps

    def forward(self, x):
        return by_definition(x, self.weight, self.bias, self.p, self.eps)


def network(kind, norm):
    if kind == "vgg":
        return networks.network("vgg11", norm, width=1 / 16, head="512-512", head_norm=True, seed=1)
    return networks.network("mlp", norm, depth=3, units=12, init="gaussian", init_std=0.05, seed=1)


@pytest.mark.parametrize("kind", ["vgg", "mlp"])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_networks_have_the_gradients_of_the_definition(kind, norm):
    model = network(kind, norm).double().to(memory_format=torch.channels_last)
    x = torch.randn(9, 3, 32, 32, generator=stream(), dtype=torch.float64).to(memory_format=torch.channels_last)
    labels = torch.arange(9)
    twin = copy.deepcopy(model)
    for _, block in twin.layers():
        block.norm = block.norm if isinstance(block.norm, nn.Identity) else Twin(block.norm)
    losses = [F.cross_entropy(m(x), labels) for m in (model, twin)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, found), (twin_name, wanted) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert name == twin_name
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("p", ORDERS)
def test_functional_call(p):
    layer = LpNorm2d(3, p).double()
    a, dy, weight, bias = problem((4, 3, 2, 5))
    state = {"weight": weight.requires_grad_(), "bias": bias.requires_grad_()}
    state |= {name: value.clone() for name, value in layer.named_buffers()}
    before = copy.deepcopy(layer.state_dict())
    found = torch.autograd.grad(functional_call(layer, state, (a,)), (weight, bias), dy)
    wanted = torch.autograd.grad(by_definition(a, weight, bias, p), (weight, bias), dy)
    for actual, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, reference)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    torch.testing.assert_close(state["running_mean"], 0.1 * statistics(a, p)[0])
    assert state["num_batches_tracked"] == 1


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "sliced", "expanded"])
def test_memory_layouts(p, layout):
    x = torch.randn(4, 6, 8, 10, generator=stream(1), dtype=torch.float64)
    x = {
        "contiguous": lambda: x,
        "channels last": lambda: x.to(memory_format=torch.channels_last),
        "transposed": lambda: x.transpose(2, 3),
        "sliced": lambda: x[:, ::2, 1:],
        "expanded": lambda: x[:1].expand(5, -1, -1, -1),
    }[layout]()
    layer, before = LpNorm2d(x.shape[1], p).double(), x.clone()
    y = layer(x)
    torch.testing.assert_close(y, by_definition(x, layer.weight, layer.bias, p))
    assert torch.equal(x, before)
    if layout in ("contiguous", "channels last"):
        memory_format = torch.channels_last if layout == "channels last" else torch.contiguous_format
        assert y.is_contiguous(memory_format=memory_format)
        assert layer.eval()(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
class TestHalfPrecision:
    def problem(self, dtype):
        """Values whose squares and sums are beyond float16's 65504, a gradient, and an affine map."""
        g = stream(1)
        x = (300 * torch.randn(16, 8, 12, 12, generator=g) + torch.linspace(-900, 900, 8).view(1, 8, 1, 1)).to(dtype)
        dy, weight, bias = torch.randn(x.shape, generator=g), torch.linspace(0.5, 2, 8), torch.linspace(-1, 1, 8)
        return x.requires_grad_(), dy.to(dtype), weight.to(dtype), bias.to(dtype)

    def assert_right(self, layer, x, y, dy, p):
        """y and the gradients are within one rounding of those of the definition in float64."""
        y.backward(dy)
        assert y.dtype == x.grad.dtype == x.dtype
        leaves = [t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias)]
        wanted = by_definition(*leaves, p)
        gradients = torch.autograd.grad(wanted, leaves, dy.double())
        step = torch.finfo(x.dtype).eps
        torch.testing.assert_close(y.double(), wanted, rtol=step, atol=1e-5)
        torch.testing.assert_close(x.grad.double(), gradients[0], rtol=step, atol=1e-6)
        for parameter, gradient in zip((layer.weight, layer.bias), gradients[1:], strict=True):
            torch.testing.assert_close(parameter.grad.double(), gradient, rtol=step, atol=1e-3)

    def test_half_layer(self, p, dtype):
        x, dy, weight, bias = self.problem(dtype)
        layer = LpNorm2d(8, p, momentum=None, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        self.assert_right(layer, x, layer(x), dy, p)
        step = torch.finfo(dtype).eps
        for running, wanted in zip(
            (layer.running_mean, layer.running_norm), statistics(x.detach().double(), p), strict=True
        ):
            assert running.dtype == dtype
            torch.testing.assert_close(running.double(), wanted, rtol=step, atol=0)
        mean, norm = per_channel(layer.running_mean, x).double(), per_channel(layer.running_norm, x).double()
        wanted = per_channel(weight, x) * (x.double() - mean) / norm + per_channel(bias, x)
        torch.testing.assert_close(layer.eval()(x).double(), wanted, rtol=step, atol=1e-4)

    def test_autocast(self, p, dtype):
        x, dy, weight, bias = self.problem(dtype)
        layer = layer_of(torch.empty(x.shape), weight, bias, p)
        with torch.autocast("cpu", dtype):
            y = layer(x)
            evaluated = layer.eval()(x)
        assert evaluated.dtype == dtype
        assert layer.running_norm.dtype == layer.weight.dtype == torch.float32
        self.assert_right(layer, x, y, dy, p)


@pytest.mark.parametrize(("ours", "theirs"), [(LpNorm1d, nn.BatchNorm1d), (LpNorm2d, nn.BatchNorm2d)])
class TestArgumentsOfBatchNorm:
    def test_parameters_and_buffers(self, ours, theirs):
        for affine in (True, False):
            for tracked in (True, False):
                options = (1e-3, None, affine, tracked, "cpu", torch.float64)
                layer, plain = ours(5, 1, *options), theirs(5, *options)
                assert layer.p == 1
                for name in ("weight", "bias", "running_mean", "num_batches_tracked"):
                    found, wanted = getattr(layer, name), getattr(plain, name)
                    assert (found is None) == (wanted is None)
                    assert found is None or (found.dtype == wanted.dtype and torch.equal(found, wanted))
                assert (layer.running_norm is None) == (not tracked)
                assert len(layer.state_dict()) == len(plain.state_dict())
                for argument in ("num_features", "eps", "momentum", "affine", "track_running_stats"):
                    assert getattr(layer, argument) == getattr(plain, argument)
                    assert argument == "num_features" or f"{argument}={getattr(plain, argument)}" in repr(layer)
                layer.reset_running_stats()
                layer.reset_parameters()
        assert ours(5, 2, device="meta").weight.is_meta

    def test_without_affine_map(self, ours, theirs):
        a = problem((6, 5, 4, 3) if ours is LpNorm2d else (6, 5))[0]
        for p in ORDERS:
            layer = ours(5, p, affine=False).double()
            assert torch.equal(layer(a), ours(5, p).double()(a))
            mean, norm = per_channel(layer.running_mean, a), per_channel(layer.running_norm, a)
            torch.testing.assert_close(layer.eval()(a), (a - mean) / norm)

    def test_without_running_statistics(self, ours, theirs):
        a, _, weight, bias = problem((6, 5, 4, 3) if ours is LpNorm2d else (6, 5))
        for p in ORDERS:
            layer = layer_of(a, weight, bias, p, track_running_stats=False).eval()
            torch.testing.assert_close(layer(a), by_definition(a, weight, bias, p))
            with pytest.raises(ValueError, match="more than one value per channel"):
                layer(a[:1, :, :1, :1] if a.dim() == 4 else a[:1])

    def test_statistics_that_are_no_longer_tracked_stay_and_are_used(self, ours, theirs):
        a = problem((6, 5, 4, 3) if ours is LpNorm2d else (6, 5))[0]
        for layer in (ours(5, 1).double(), theirs(5).double()):
            layer.track_running_stats = False
            layer(a)
            assert layer.num_batches_tracked == 0
            torch.testing.assert_close(layer.eval()(a), a, rtol=1e-4, atol=0)  # mean 0, norm or variance 1


class TestWhatPyTorchDoesWithBatchNorm:
    def test_update_bn(self):
        model = nn.Sequential(LpNorm1d(3, 1), nn.Linear(3, 4), nn.ReLU(), LpNorm1d(4, math.inf, momentum=0.3)).double()
        batches = [problem((16, 3), seed)[0] for seed in range(5)]
        model(batches[0])
        torch.optim.swa_utils.update_bn([[batch, None] for batch in batches], model.eval())
        assert not model.training
        assert [model[0].momentum, model[3].momentum] == [0.1, 0.3]
        hidden = [model[2](model[1](by_definition(a, model[0].weight, model[0].bias, 1))) for a in batches]
        for layer, inputs, p in ((model[0], batches, 1), (model[3], hidden, math.inf)):
            mean, norm = zip(*(statistics(a, p) for a in inputs), strict=True)
            torch.testing.assert_close(layer.running_mean, torch.stack(mean).mean(0).detach())
            torch.testing.assert_close(layer.running_norm, torch.stack(norm).mean(0).detach())
            assert layer.num_batches_tracked == 5

    @pytest.mark.parametrize("wrap", [lambda layer: layer, lambda layer: nn.Sequential(nn.ReLU(), layer)])
    def test_conversion_to_synchronized_batch_norm_is_refused(self, wrap):
        line = r"^LpNorm2d cannot become a torch.nn.SyncBatchNorm, which divides by the standard deviation[^\n]*$"
        with pytest.raises(IcsbenchError, match=line):
            nn.SyncBatchNorm.convert_sync_batchnorm(wrap(LpNorm2d(3, 2)))

    def test_it_is_not_fused_as_batch_norm(self):
        with pytest.raises(AttributeError, match="running_var"):
            nn.utils.fuse_conv_bn_eval(nn.Conv2d(2, 3, 1).eval(), LpNorm2d(3, 2).eval())

    def test_replacing_running_statistics_leaves_those_of_the_batch(self):
        a, _, weight, bias = problem((4, 3, 2, 5))
        layer = torch.func.replace_all_batch_norm_modules_(layer_of(a, weight, bias, 2)).eval()
        torch.testing.assert_close(layer(a), by_definition(a, weight, bias, 2))


def test_a_state_dict_of_earlier_versions_is_read():
    old = {
        "weight": torch.tensor([2.0, 3.0]),
        "bias": torch.tensor([0.5, -1.0]),
        "running_mean": torch.tensor([1.0, -2.0]),
        "running_norm": torch.tensor([4.0, 0.5]),
        "num_batches_tracked": torch.tensor(7),
    }
    layer = LpNorm1d(2, 1)
    assert list(layer.state_dict()) == list(old)
    assert layer.state_dict()._metadata[""] == {"version": 1}
    layer.load_state_dict(old)
    wanted = torch.tensor([[2 * (3 - 1) / 4 + 0.5, 3 * (3 + 2) / 0.5 - 1]])
    torch.testing.assert_close(layer.eval()(torch.full((1, 2), 3.0)), wanted)
    assert layer.num_batches_tracked == 7


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("p", ORDERS)
def test_compiled_layer(p):
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(3, 4, 3), LpNorm2d(4, p), nn.ReLU(inplace=True))
    traced = copy.deepcopy(eager)
    compiled = torch.compile(traced, backend="eager", fullgraph=True)
    x = torch.randn(5, 3, 8, 8, generator=stream(1))
    for _ in range(2):
        a, b = eager(x), compiled(x)
        a.square().sum().backward()
        b.square().sum().backward()
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(eager[0].weight.grad, traced[0].weight.grad)
    assert all(torch.equal(a, b) for a, b in zip(eager.buffers(), traced.buffers(), strict=True))


def test_nan_is_not_hidden():
    for p in ORDERS:
        x = torch.randn(4, 2, generator=stream())
        x[1, 0] = math.nan
        y = LpNorm1d(2, p)(x)
        assert y[:, 0].isnan().all()
        assert y[:, 1].isfinite().all()


class TestRefuses:
    @pytest.mark.parametrize("p", [0, 3, -1, math.nan, 0.5])
    def test_order(self, p):
        with pytest.raises(ValueError, match=r"^p must be 1, 2 or inf, not [^\n]*$"):
            LpNorm1d(3, p)

    @pytest.mark.parametrize(
        ("kind", "shape", "message"),
        [
            (LpNorm1d, (4, 2), r"^expected \(N, 3\) or \(N, 3, L\) input, got the shape \(4, 2\)$"),
            (LpNorm1d, (4, 1), "expected"),
            (LpNorm1d, (3,), "expected"),
            (LpNorm1d, (4, 3, 2, 2), "expected"),
            (LpNorm2d, (4, 3, 2), r"^expected \(N, 3, H, W\) input, got the shape \(4, 3, 2\)$"),
            (LpNorm2d, (4, 1, 2, 2), "expected"),
        ],
    )
    def test_shape(self, kind, shape, message):
        for layer in (kind(3, 1), kind(3, 1).eval()):
            with pytest.raises(ValueError, match=message):
                layer(torch.zeros(shape))

    @pytest.mark.parametrize(("kind", "shape"), [(LpNorm1d, (1, 3)), (LpNorm1d, (1, 3, 1)), (LpNorm2d, (1, 3, 1, 1))])
    @pytest.mark.parametrize("p", ORDERS)
    def test_one_value_per_channel_in_training(self, kind, shape, p):
        layer = kind(3, p)
        with pytest.raises(ValueError, match="more than one value per channel"):
            layer(torch.ones(shape))
        assert layer.num_batches_tracked == 0
        assert torch.equal(layer.eval()(torch.ones(shape)), torch.ones(shape))


class TestMember:
    @pytest.mark.parametrize(("name", "p"), [("l1", 1), ("l2", 2), ("linf", math.inf)])
    def test_module(self, name, p):
        for dimensions, kind in ((1, LpNorm1d), (2, LpNorm2d)):
            layer = networks.norm_module(name, 7, dimensions, eps=1e-3, momentum=0.2)
            assert type(layer) is kind
            assert (layer.num_features, layer.p, layer.eps, layer.momentum) == (7, p, 1e-3, 0.2)
            rest = f"p={p}, eps=0.001, momentum=0.2, affine=True, track_running_stats=True"
            assert repr(layer) == f"{kind.__name__}(7, {rest})"

    def test_parameters_pair_with_those_of_batch_normalization(self):
        ours, theirs = (dict(layer.named_parameters()) for layer in (LpNorm2d(3, 1), nn.BatchNorm2d(3)))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())

    def test_batch_norms_are_listed_once_in_order(self):
        norms = [LpNorm2d(3, 1), nn.BatchNorm2d(3), LpNorm1d(3, 2), NoisyBatchNorm1d(3)]
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(norms[0], nn.ReLU()), nn.GroupNorm(1, 3), *norms[1:])
        assert batch_norms(model) == norms
        assert batch_norms(nn.Identity()) == []
