"""Relatives of batch normalization against golden numbers, twins in float64, and the reference batch normalization."""

import copy
import math
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from scipy import stats
from test_any_norm import EVERYTHING, config
from torch import nn
from torch.nn import functional as F

from icsbench.config import Config, options_of, probes_options
from icsbench.data import Split
from icsbench.data import normalize as normalize_images
from icsbench.errors import IcsbenchError
from icsbench.norms import batch_norms
from icsbench.norms.batch_norm import batch_norm_backward, batch_norm_forward
from icsbench.norms.batch_renorm import BatchRenorm
from icsbench.norms.ghost import GhostBatchNorm
from icsbench.norms.running import normalize
from icsbench.training import Protocol, accuracies, protocols_of, run

SHAPES = [(6, 3), (8, 3, 5), (12, 3, 4, 2)]
EPS = 1e-5
KEEP = ("ghost", "bn_mean", "bn_var", "bn_detached", "l1_bn", "linf_bn", "topk_bn", "batch_renorm")
OPTIONS = {"ghost": {"ghost_size": 2}, "topk_bn": {"k": 3}, "batch_renorm": {"hold": 0, "ramp": 0, "r_max": 1.2}}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def axes(x):
    return (0, *range(2, x.dim()))


def like(values, x):
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def problem(shape, seed=0):
    x = 2 * torch.randn(shape, generator=stream(seed), dtype=torch.float64) + like(
        torch.arange(-1.0, 2), torch.ones(shape)
    )
    return (
        x,
        torch.randn(shape, generator=stream(seed + 1), dtype=torch.float64),
        *torch.randn(2, 3, generator=stream(7)).double(),
    )


def layer_of(name, shape, weight=None, bias=None, **options):
    layer = networks.norm_module(
        name, shape[1], 2 if len(shape) == 4 else 1, **OPTIONS.get(name, {}) | options
    ).double()
    with torch.no_grad():
        if weight is not None:
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return layer


def by_definition(name, x, weight, bias):
    """The norm word for word, with its statistics, differentiable; of ``batch_renorm``, after running 0 and 1."""
    if name == "ghost":
        return torch.cat([batch_norm_forward(part, weight, bias, EPS)[0] for part in x.split(2)])
    mean = x.mean(axes(x))
    centred = x - like(mean, x)
    std = (centred.square().mean(axes(x)) + EPS).sqrt()
    if name == "bn_mean":
        return like(weight, x) * centred + like(bias, x)
    if name == "bn_var":
        return like(weight, x) * x / like(std, x) + like(bias, x)
    if name == "bn_detached":
        return like(weight, x) * (x - like(mean.detach(), x)) / like(std.detach(), x) + like(bias, x)
    if name == "batch_renorm":
        r, d = std.detach().clamp(1 / 1.2, 1.2), mean.detach().clamp(-5, 5)
        return like(weight, x) * (centred / like(std, x) * like(r, x) + like(d, x)) + like(bias, x)
    deviations = centred.abs().transpose(0, 1).flatten(1)
    if name == "l1_bn":
        scale = deviations.mean(1) * math.sqrt(math.pi / 2)
    else:
        k, m = {"linf_bn": 1, "topk_bn": 3}[name], deviations.shape[1]
        factor = (1 + math.sqrt(math.pi * math.log(4))) / 2 / math.sqrt(2 * math.log(m))
        scale = deviations.sort(1).values[:, -k:].mean(1) * factor
    return like(weight, x) * centred / like(scale + EPS, x) + like(bias, x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", KEEP)
def test_forward_and_backward_are_those_of_the_definition(name, shape):
    x, dy, weight, bias = problem(shape)
    layer, leaf = layer_of(name, shape, weight, bias), x.clone().requires_grad_()
    y = layer(leaf)
    y.backward(dy)
    twins = [value.clone().requires_grad_() for value in (x, weight, bias)]
    expected = by_definition(name, *twins)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    for found, twin in zip((leaf.grad, layer.weight.grad, layer.bias.grad),
                           torch.autograd.grad(expected, twins, dy), strict=True):  # fmt: skip
        torch.testing.assert_close(found, twin, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_ghost_batch_is_batch_normalization_with_its_six_equations(shape):
    x, dy, weight, bias = problem(shape)
    layer, leaf = layer_of("ghost", shape, weight, bias, ghost_size=shape[0]), x.clone().requires_grad_()
    y, cache = batch_norm_forward(x, weight, bias, EPS)
    found = layer(leaf)
    found.backward(dy)
    torch.testing.assert_close(found, y, rtol=1e-12, atol=1e-12)
    gradients = batch_norm_backward(dy, cache)
    for grad, golden in (
        (leaf.grad, gradients.dx), (layer.weight.grad, gradients.dgamma), (layer.bias.grad, gradients.dbeta)
    ):  # fmt: skip
        torch.testing.assert_close(grad, golden, rtol=1e-11, atol=1e-12)
    torchs = layer_of("bn", shape, weight, bias)
    torchs(x)
    assert len(batch_norms(torchs)) == len(batch_norms(layer)) == 1
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(layer, buffer), getattr(torchs, buffer), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("size", [2, 4])
def test_every_ghost_batch_updates_the_running_statistics_in_its_turn(momentum, size):
    layer, twin = layer_of("ghost", (12, 3, 4, 2), ghost_size=size), nn.BatchNorm2d(3, dtype=torch.float64)
    layer.momentum = twin.momentum = momentum
    for seed in range(3):
        x = problem((12, 3, 4, 2), seed)[0]
        torch.testing.assert_close(layer(x), torch.cat([twin(part) for part in x.split(size)]))
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(layer, buffer), getattr(twin, buffer))
    x = problem((5, 3, 4, 2), 9)[0]
    torch.testing.assert_close(layer.eval()(x), twin.eval()(x))


@pytest.mark.parametrize(("samples", "sizes"), [(11, (4, 4, 3)), (3, (3,)), (5, (3, 2)), (13, (4, 3, 3, 3)), (1, (1,))])
def test_an_uneven_batch_is_cut_as_evaluation_cuts_a_split(samples, sizes):
    x = problem((samples, 3, 4, 2))[0]
    layer, twin = layer_of("ghost", x.shape, ghost_size=4), nn.BatchNorm2d(3, dtype=torch.float64)
    assert tuple(len(part) for part in x.tensor_split(len(sizes))) == sizes
    torch.testing.assert_close(layer(x), torch.cat([twin(part) for part in x.split(sizes)]))
    torch.testing.assert_close(layer.running_var, twin.running_var)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", KEEP)
def test_layout_and_dtype_are_kept_and_a_nonlinearity_in_place_is_allowed(name, layout):
    x = torch.randn(8, 3, 4, 4, generator=stream()).contiguous(memory_format=layout).requires_grad_()
    layer = layer_of(name, x.shape).float()
    F.relu(layer(x), inplace=True).sum().backward()
    assert layer(x).is_contiguous(memory_format=layout) and layer.eval()(x).is_contiguous(memory_format=layout)
    expected = by_definition(name, x.double(), torch.ones(3).double(), torch.zeros(3).double())
    fresh = layer_of(name, x.shape).float()
    torch.testing.assert_close(fresh(x).double(), expected, rtol=1e-4, atol=1e-4)
    half = layer_of(name, x.shape).float()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=0.03, atol=0.06)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("centre", [True, False])
def test_finite_differences_once_and_twice(p, centre):
    x, _, weight, bias = (value.requires_grad_() for value in problem((6, 3, 2)))

    def f(x, weight, bias):
        return normalize(x, weight, bias, EPS, p=p, centre=centre, batches=2)

    assert torch.autograd.gradcheck(f, (x, weight, bias))
    assert torch.autograd.gradgradcheck(f, (x, weight, bias))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", KEEP)
def test_second_derivatives_are_those_of_the_definition(name, shape):
    x, dy, weight, bias = problem(shape)
    layer, leaf = layer_of(name, shape, weight, bias), x.clone().requires_grad_()
    twins = [value.clone().requires_grad_() for value in (x, weight, bias)]
    found = []
    for y, inputs in ((layer(leaf), [leaf, layer.weight, layer.bias]), (by_definition(name, *twins), twins)):
        first = torch.autograd.grad((y.tanh() * dy).sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(sum(of.square().sum() for of in first), inputs))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


GOLDEN = {
    "l1_bn": ({}, [-0.319152805733, -1.276611222931, 0.319152805733, 1.276611222931]),
    "linf_bn": ({}, [-0.269704569789, -1.078818279154, 0.269704569789, 1.078818279154]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vectors(name):
    options, expected = GOLDEN[name]
    a = torch.tensor([1.0, -2, 3, 6], dtype=torch.float64)[:, None]
    layer = layer_of(name, a.shape, momentum=1.0, **options)
    torch.testing.assert_close(layer(a).flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-12)
    if name == "l1_bn":
        assert layer.running_scale.item() == pytest.approx(3.13328534328875, abs=1e-12)


@pytest.mark.parametrize(("m", "factor"), [(4, 0.9269376709), (128, 0.4954690262), (131072, 0.3179369981)])
def test_the_factor_of_the_largest_deviations(m, factor):
    a = torch.zeros(m, 1, dtype=torch.float64)
    a[0], a[1] = 1.0, -1.0
    layer = layer_of("linf_bn", a.shape, momentum=1.0)
    layer(a)
    assert layer.running_scale.item() == pytest.approx(factor, abs=5e-11)


def mean_of_the_largest(m, k):
    """The expected mean of the k largest of m magnitudes of standard normal values."""
    x = np.linspace(0, 10, 20_001)
    above = stats.binom.sf(np.arange(k)[:, None], m, 2 * stats.norm.sf(x))  # that more than so many exceed x
    return np.trapezoid(above.mean(0), x)


@pytest.mark.parametrize(("m", "k", "in_words"), [
    (128, 1, 1.40), (4096, 1, 1.44), (131072, 1, 1.46), (128, 10, 1.06), (4096, 10, 1.25), (131072, 10, 1.33)
])  # fmt: skip
def test_on_gaussian_data_l1_estimates_the_deviation_and_the_largest_do_not(m, k, in_words):
    largest = mean_of_the_largest(m, k) * (1 + math.sqrt(math.pi * math.log(4))) / 2 / math.sqrt(2 * math.log(m))
    assert largest == pytest.approx(in_words, abs=0.005)  # the docstring's
    if k == 1:  # drawn at random, in the sheet of the paper
        assert largest == pytest.approx({128: 1.406, 4096: 1.439, 131072: 1.465}[m], abs=0.006)
    draws = {128: 1000, 4096: 200, 131072: 30}[m]
    a = torch.randn(m, draws, generator=stream(3)).double()
    for name, options, expected in (("l1_bn", {}, math.sqrt(1 - 1 / m)), ("topk_bn", {"k": k}, largest)):
        layer = layer_of(name, a.shape, momentum=1.0, **options)
        layer(a)
        found = layer.running_scale
        # the mean is that of the batch, which takes off a share 1 / (2 m) or less
        assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / draws**0.5 + 1 / m)


@pytest.mark.parametrize("name", KEEP)
def test_running_statistics_follow_and_serve_in_eval_mode(name):
    shape, counts = (12, 3, 4, 2), []
    layer = layer_of(name, shape, *problem(shape)[2:])
    layer.momentum = None
    kept, values = [*layer.keeps], {key: [] for key in layer.keeps}
    for seed in range(4):
        x = problem(shape, seed)[0]
        fresh = layer_of(name, shape, momentum=1.0, **({"ghost_size": 12} if name == "ghost" else {}))
        if name == "ghost":
            layer.ghost_size = 12
        fresh(x), layer(x)
        for key in kept:
            values[key].append(fresh.get_buffer(key))
        counts.append(layer.num_batches_tracked.item())
    assert counts == [1, 2, 3, 4]
    for key in kept:
        torch.testing.assert_close(layer.get_buffer(key), torch.stack(values[key]).mean(0))
    before = copy.deepcopy(layer.state_dict())
    x = problem(shape, 9)[0]
    y = layer.eval()(x)
    assert torch.equal(layer(x[:1]), y[:1])
    mean = layer.running_mean if "running_mean" in kept else torch.zeros(3).double()
    scale = torch.ones(3).double()
    if "running_var" in kept:
        scale = (layer.running_var + EPS).sqrt()
    elif "running_scale" in kept:
        scale = layer.running_scale + EPS
    elif "running_std" in kept:
        scale = layer.running_std
    torch.testing.assert_close(y, like(layer.weight, x) * (x - like(mean, x)) / like(scale, x) + like(layer.bias, x))
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    layer.reset_running_stats()
    assert all(torch.equal(one, two) for one, two in zip(layer.buffers(), layer_of(name, shape).buffers(), strict=True))


def test_renorm_holds_then_ramps_and_uncut_it_is_what_eval_mode_gives():
    options = options_of("norm", "batch_renorm", hold=2, ramp=4, r_max=100.0, d_max=1000.0)
    layer, x = BatchRenorm(3, options).double(), problem((64, 3))[0]
    plain = batch_norm_forward(x, torch.ones(3).double(), torch.zeros(3).double(), EPS)[0]
    for _ in range(2):
        torch.testing.assert_close(layer(x), plain)
    for _ in range(3):
        assert not torch.allclose(layer(x), plain)
    layer(x)  # the sixth: the bounds are as wide as they get
    wanted = copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_renorm_is_the_algorithm_of_the_paper_over_many_batches(shape):
    options = {"hold": 2, "ramp": 5, "r_max": 1.5, "d_max": 0.6, "momentum": 0.2}
    weight, bias = problem(shape)[2:]
    layer, cut = layer_of("batch_renorm", shape, weight, bias, **options), {"r": set(), "d": set()}
    mu, sigma = torch.zeros(3).double(), torch.ones(3).double()
    for number in range(1, 12):
        x, dy, *_ = problem(shape, number)
        x = x * (0.2 if number > 8 else 1.0)
        grown = min(max((number - 2) / 5, 0), 1)
        r_max, d_max = 1 + grown * 0.5, grown * 0.6
        leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
        mean = twin.mean(axes(x))
        std = ((twin - like(mean, x)).square().mean(axes(x)) + EPS).sqrt()
        uncut = (std / sigma).detach(), ((mean - mu) / sigma).detach()
        r, d = uncut[0].clamp(1 / r_max, r_max), uncut[1].clamp(-d_max, d_max)
        for name, before, after in zip("rd", uncut, (r, d), strict=True):
            cut[name] |= set((before - after).sign().tolist())
        expected = like(weight, x) * ((twin - like(mean, x)) / like(std, x) * like(r, x) + like(d, x)) + like(bias, x)
        mu, sigma = mu + 0.2 * (mean.detach() - mu), sigma + 0.2 * (std.detach() - sigma)
        found = layer(leaf)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(*torch.autograd.grad((found, expected), (leaf, twin), (dy, dy)))
    assert cut == {"r": {-1, 0, 1}, "d": {-1, 0, 1}}
    x = problem(shape, 50)[0]
    evaluated = like(weight, x) * (x - like(mu, x)) / like(sigma, x) + like(bias, x)
    torch.testing.assert_close(layer.eval()(x), evaluated)


@pytest.mark.parametrize("name", KEEP)
def test_it_has_the_protocols_of_batch_normalization(name):
    assert protocols_of(name) == protocols_of("bn") and len(protocols_of(name)) == 3


def test_evaluation_by_batch_does_not_depend_on_what_was_evaluated_before():
    images = torch.randint(256, (120, 32, 32, 3), generator=stream(101)).byte()
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.3)
    norm = networks.member("norms", networks.Norm, "batch_renorm")
    bound = norm.bound(options_of("norm", "batch_renorm", hold=0, ramp=9, r_max=3.0))
    build = networks.member("models", networks.Model, "vgg11").build
    options = options_of("model", "vgg11", width=1 / 16, init="he")
    model = build(options, bound, shape=(3, 32, 32), num_classes=10, seed=100)
    with torch.no_grad():
        for part in images[:48].split(16):
            model(normalize_images(part, mean, std))
        parts = images.split(20)
        labels = [copy.deepcopy(model)(normalize_images(part, mean, std)).argmax(1) for part in parts]
    split = Split(images, torch.cat(labels))
    asked = {"batch_size": 20, "mean": mean, "std": std, "seed": 0}
    found = accuracies(model, {"before": split, "after": split}, Protocol("batch", False), **asked)
    assert found == {"before": 1.0, "after": 1.0}


def test_statistics_of_the_first_batch_stay_and_survive_a_state_dict():
    layer, (first, later) = layer_of("bn_frozen", (12, 3)), (problem((12, 3), seed)[0] for seed in (0, 5))
    assert torch.equal(layer.eval()(first), F.batch_norm(first, torch.zeros(3).double(), torch.ones(3).double()))
    ones, zeros = torch.ones(3).double(), torch.zeros(3).double()
    expected, cache = batch_norm_forward(first, ones, zeros, EPS)
    torch.testing.assert_close(layer.train()(first), expected)
    wanted = (later - cache.mean) / (cache.var + EPS).sqrt()
    resumed = layer_of("bn_frozen", (12, 3))
    resumed.load_state_dict(layer.state_dict())
    for one in (layer, resumed, layer.eval()):
        torch.testing.assert_close(one(later), wanted)
    leaf = later.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer.train()(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, (1 / (cache.var + EPS).sqrt()).expand(12, 3))
    assert batch_norms(layer) == []


def test_gamma_and_beta_alone():
    x, dy, weight, bias = problem((12, 3, 4, 2))
    layer, leaf = layer_of("affine", x.shape, weight, bias), x.clone().requires_grad_()
    y = layer(leaf)
    y.backward(dy)
    torch.testing.assert_close(y, like(weight, x) * x + like(bias, x))
    torch.testing.assert_close(leaf.grad, like(weight, x) * dy)
    torch.testing.assert_close(layer.weight.grad, (dy * x).sum(axes(x)))
    torch.testing.assert_close(layer.bias.grad, dy.sum(axes(x)))


@pytest.mark.parametrize("model", ["vgg11", "resnet20", "mlp"])
def test_one_batch_normalization_stands_where_it_is_said(model):
    options = {"depth": 3, "units": 8} if model == "mlp" else {"width": 1 / 16}
    for name, of, place in (("bn_first", {}, 0), ("bn_last", {}, -2), ("bn_last", {"at": "output"}, -1)):
        norm = networks.member("norms", networks.Norm, name)
        bound = norm.bound(options_of("norm", name, **of))
        build = networks.member("models", networks.Model, model).build
        net = build(options_of("model", model, **options), bound, shape=(3, 32, 32), num_classes=10, seed=0)
        kinds = [isinstance(block.norm, (nn.BatchNorm1d, nn.BatchNorm2d)) for _, block in net.layers()]
        assert sum(kinds) == 1 and kinds[place]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(batch_size=48, norm=options_of("norm", "ghost")),
         r"^norm\.ghost_size must divide batch_size \(got 32 and 48\); the last ghost batch would be smaller$"),
        (lambda: Config(batch_size=16, norm=options_of("norm", "ghost")), r"^norm\.ghost_size must divide batch_size"),
        (lambda: options_of("norm", "ghost", ghost_size=1), r"^norm\.ghost_size must be at least 2 \(got 1\)$"),
        (lambda: options_of("norm", "topk_bn", k=0), r"^norm\.k must be at least 1 \(got 0\)$"),
        (lambda: options_of("norm", "batch_renorm", r_max=0.5), r"^norm\.r_max must be at least 1 \(got 0\.5\)$"),
        (lambda: options_of("norm", "bn_last", at="end"), r"^norm\.at must be one of hidden, output \(got 'end'\)$"),
        (lambda: layer_of("bn_var", (1, 3))(torch.ones(1, 3)), r"^expected more than one value per channel"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_more_of_the_largest_than_there_are():
    with pytest.raises(IcsbenchError, match=r"^norm\.k must be at most the 4 values that a feature has in a batch"):
        layer_of("topk_bn", (4, 3), k=5)(torch.randn(4, 3).double())


def test_a_ghost_size_that_divides_is_a_run_of_its_own():
    config = Config(batch_size=64, norm=options_of("norm", "ghost"))
    smaller = replace(config, norm=options_of("norm", "ghost", ghost_size=16))
    assert config.fingerprint != smaller.fingerprint and isinstance(GhostBatchNorm(3, smaller.norm), nn.Module)


@pytest.mark.parametrize("name", ["ghost", "bn_frozen", "batch_renorm"])
def test_it_is_trained_the_same_with_all_probes_and_when_it_is_resumed(tmp_path, name):
    options = {"batch_size": 32, "steps": 6, "checkpoint_every": 3}
    plain = run(config(tmp_path / "off", name, **options, probes=probes_options(shift=False)))
    whole = config(tmp_path / "whole", name, **options, probes=probes_options(**EVERYTHING))
    assert plain["diverged_at"] is None
    assert {k: v for k, v in run(whole).items() if "/" in k} == {k: v for k, v in plain.items() if "/" in k}

    def kill(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    halves = replace(whole, results=str(tmp_path / "halves"), checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        run(halves, show=kill)
    run(halves)
    assert (whole.run_dir / "metrics.jsonl").read_bytes() == (halves.run_dir / "metrics.jsonl").read_bytes()
