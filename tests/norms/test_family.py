"""Layer, group, instance and RMS norm, DyT and weight normalization: their definitions, invariances and refusals."""

import math

import pytest
import torch
from networks import network, norm_module
from torch import nn
from torch.nn import functional as F

from icsbench.config import Config, options_of
from icsbench.errors import IcsbenchError
from icsbench.members import member
from icsbench.norms import Norm, Place, start_from_data
from icsbench.norms.dyt import DynamicTanh
from icsbench.norms.per_sample import RMSNorm

F64 = torch.float64
SHAPES = [(3, 8), (5, 12), (2, 4, 3, 5), (3, 6, 1, 7), (4, 8, 2, 2)]
MAPS = SHAPES[2:]
EPS = 1e-5


def values(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 2 + 0.7


def filled(module, seed=3):
    """The module in float64 with other parameters than it starts from."""
    module = module.to(F64)
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, dtype=F64, generator=stream)
    return module


def by_channel(parameter, x):
    return parameter.view(-1, *[1] * (x.dim() - 2))


def standardized(x, groups, *, centred=True):
    """Every sample and group of channels by itself, in a loop."""
    samples = []
    for sample in x:
        parts = []
        for part in sample.chunk(groups):
            mean = part.mean() if centred else 0.0
            square = ((part - mean) ** 2).sum() / part.numel()
            parts.append((part - mean) / (square + EPS) ** 0.5)
        samples.append(torch.cat(parts))
    return torch.stack(samples)


TWINS = {
    "layer": lambda module, x: standardized(x, 1),
    "group": lambda module, x: standardized(x, 2),
    "instance": lambda module, x: standardized(x, x.shape[1]),
    "rms": lambda module, x: standardized(x, 1, centred=False),
    "dyt": lambda module, x: (module.alpha * x).tanh(),
}


def twin(norm, module, x):
    y = TWINS[norm](module, x)
    return by_channel(module.weight, x) * y + by_channel(module.bias, x)


@pytest.mark.parametrize(
    ("norm", "shape"), [(norm, shape) for norm in TWINS for shape in (MAPS if norm == "instance" else SHAPES)]
)
def test_a_norm_is_its_definition_forward_and_backward(norm, shape):
    module = filled(norm_module(norm, shape[1], len(shape) // 2))
    dy = values(*shape, seed=1)
    found = []
    for compute in (module, lambda x: twin(norm, module, x)):
        x = values(*shape).requires_grad_()
        y = compute(x)
        found.append([y, *torch.autograd.grad(y, [x, *module.parameters()], dy)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("norm", "shape"), [(norm, shape) for norm in TWINS for shape in (MAPS if norm == "instance" else SHAPES)]
)
def test_second_derivatives_are_those_of_the_definition(norm, shape):
    module = filled(norm_module(norm, shape[1], len(shape) // 2))
    dy = values(*shape, seed=1)
    found = []
    for compute in (module, lambda x: twin(norm, module, x)):
        x = values(*shape).requires_grad_()
        inputs = [x, *module.parameters()]
        first = torch.autograd.grad((compute(x).tanh() * dy).sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(sum(of.square().sum() for of in first), inputs))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("norm", TWINS)
def test_scale_and_shift_start_at_1_and_0_and_float32_and_memory_formats_agree(norm):
    module = norm_module(norm, 6, 2)
    assert (module.weight == 1).all() and (module.bias == 0).all()
    x = values(4, 6, 5, 5).float()
    y = module(x)
    torch.testing.assert_close(y.double(), twin(norm, module, x.double()), rtol=1e-4, atol=1e-5)
    last = module(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("norm", TWINS)
def test_a_sample_does_not_depend_on_its_batch_nor_on_the_mode(norm):
    module, x = filled(norm_module(norm, 4, 2)), values(6, 4, 3, 3)
    torch.testing.assert_close(module(x)[:2], module(x[:2]), rtol=1e-12, atol=1e-12)
    assert torch.equal(module.eval()(x), module.train()(x))


def test_groups_from_one_to_a_channel_each_are_layer_and_instance_norm():
    x = values(3, 6, 4, 4)
    one, each = (norm_module("group", 6, 2, groups=groups).to(F64) for groups in (1, 6))
    torch.testing.assert_close(one(x), F.layer_norm(x, x.shape[1:]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(each(x), F.instance_norm(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm_module("layer", 6, 2).to(F64)(x), one(x))
    torch.testing.assert_close(norm_module("instance", 6, 2).to(F64)(x), nn.InstanceNorm2d(6).to(F64)(x))


def test_rms_does_not_take_the_mean_off_and_is_scale_free():
    x = values(3, 8)
    found = RMSNorm(8, 1e-300).to(F64)(x)
    torch.testing.assert_close(found.square().mean(1), torch.ones(3, dtype=F64))
    assert found.mean(1).abs().max() > 0.1
    torch.testing.assert_close(RMSNorm(8, 1e-300).to(F64)(10 * x), found)
    torch.testing.assert_close(RMSNorm(8, EPS).to(F64)(x), nn.RMSNorm(8, EPS, dtype=F64)(x))


def test_dyt_is_the_papers():
    module = DynamicTanh(2)
    assert module.alpha.item() == 0.5 and module.alpha.dim() == 0
    torch.testing.assert_close(module(torch.tensor([[2.0, -4.0]])), torch.tensor([[math.tanh(1), math.tanh(-2)]]))


# --- weight normalization --------------------------------------------------------------------------------------------


def weighted(transform, dimensions=1, **options):
    bound = member("norms", Norm, "weight_norm").bound(options_of("norm", "weight_norm", **options))
    return bound(transform.to(F64), Place(0, 1, transform.weight.shape[0], dimensions))


def set_to(transform, g, v):
    with torch.no_grad():
        transform.parametrizations.weight.original0.copy_(torch.tensor(g).view_as(transform.weight[:, :1]))
        transform.parametrizations.weight.original1.copy_(torch.tensor(v))


def test_the_golden_gradient_of_weight_normalization():
    transform, _ = weighted(nn.Linear(2, 1))
    set_to(transform, [2.0], [[3.0, 4.0]])
    torch.testing.assert_close(transform.weight, torch.tensor([[1.2, 1.6]], dtype=F64))
    (transform.weight * torch.tensor([[1.0, -1.0]])).sum().backward()
    dg, dv = (transform.parametrizations.weight.get_parameter(f"original{number}").grad for number in (0, 1))
    torch.testing.assert_close(dg, torch.tensor([[-0.2]], dtype=F64))
    torch.testing.assert_close(dv, torch.tensor([[0.448, -0.336]], dtype=F64))
    assert (dv * torch.tensor([[3.0, 4.0]])).sum().item() == pytest.approx(0, abs=1e-15)


def test_the_golden_start():
    transform, behind = weighted(nn.Linear(1, 1))
    set_to(transform, [1.0], [[1.0]])
    nn.init.zeros_(transform.bias)
    t = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=F64)
    start_from_data(nn.Sequential(transform, behind), lambda: t)
    assert transform.parametrizations.weight.original0.item() == pytest.approx(0.8944271909999159, abs=1e-15)
    assert transform.bias.item() == pytest.approx(-2.23606797749979, abs=1e-14)


@pytest.mark.parametrize("shape", [(5, 4), (6, 3, 5, 5)])
def test_weight_normalization_against_its_definition(shape):
    make = nn.Linear(shape[1], 4) if len(shape) == 2 else nn.Conv2d(shape[1], 4, 3, bias=False)
    transform, behind = weighted(make, len(shape) // 2, from_data=False)
    assert type(behind) is nn.Identity and transform.bias is not None
    filled(transform)
    g, v = transform.parametrizations.weight.original0, transform.parametrizations.weight.original1
    dw = values(*v.shape, seed=5)
    dg, dv = torch.autograd.grad((transform.weight * dw).sum(), [g, v])
    for unit in range(4):
        length = v[unit].square().sum().sqrt()
        torch.testing.assert_close(transform.weight[unit], g[unit] * v[unit] / length)
        expected = (dw[unit] * v[unit]).sum() / length
        torch.testing.assert_close(dg[unit].sum(), expected)
        torch.testing.assert_close(dv[unit], g[unit] / length * dw[unit] - g[unit] * expected / length**2 * v[unit])


@pytest.mark.parametrize("kind", ["vgg11", "resnet20", "mlp", "residual_mlp"])
def test_every_layer_starts_standardized_on_what_those_before_it_give(kind):
    maps = kind in ("vgg11", "resnet20")
    options = {"width": 1 / 16} if maps else {"depth": 3, "units": 6, "shape": (20,)}
    plain = network(kind, **options).to(F64)
    model = network(kind, "weight_norm", **options).to(F64)
    x = values(16, 3, 32, 32) if maps else values(16, 20)
    start_from_data(model, lambda: x)
    outputs = []
    for (path, block), (_, ours) in zip(plain.layers()[:-1], model.layers()[:-1], strict=True):
        ours.register_forward_hook(lambda module, args, _: outputs.append(module.transform(args[0])))
        v = ours.transform.parametrizations.weight.original1
        assert torch.equal(v, block.transform.weight), path
    model(x)
    for output in outputs:
        channels = output.transpose(0, 1).flatten(1)
        torch.testing.assert_close(channels.mean(1), torch.zeros(len(channels), dtype=F64), atol=1e-9, rtol=0)
        torch.testing.assert_close(channels.std(1, correction=0), torch.ones(len(channels), dtype=F64))
    again = {name: value.clone() for name, value in model.state_dict().items()}
    start_from_data(model, lambda: x)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, again[name], atol=1e-9, rtol=1e-9)


def test_a_constant_channel_keeps_its_length():
    transform, behind = weighted(nn.Linear(2, 2))
    nn.init.zeros_(transform.bias)
    before = transform.parametrizations.weight.original0.clone()
    start_from_data(nn.Sequential(transform, behind), lambda: torch.ones(4, 2, dtype=F64))
    assert torch.equal(transform.parametrizations.weight.original0, before)
    assert torch.equal(transform(torch.ones(4, 2, dtype=F64)), torch.zeros(4, 2, dtype=F64))


def test_a_network_without_a_start_asks_for_no_batch():
    drawn = []
    start_from_data(network("vgg11", "bn", width=1 / 16), lambda: drawn.append("a batch"))
    assert not drawn


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "place", "options", "said"),
    [
        (
            *("group", Place(0, 1, 24, 2, path="features.conv3"), {"groups": 32}),
            r"^norm.groups must divide the channels of every layer, and 32 does not divide the 24 of layer "
            r"features.conv3$",
        ),
        (
            *("group", Place(0, 1, 6, 1, path="fc1"), {"groups": 6}),
            "^norm group would normalize every value by itself in layer fc1, whose 6 channels are single units; "
            "choose norm=layer$",
        ),
        ("instance", Place(0, 1, 6, 1, path="head.fc1"), {}, "^norm instance would normalize every value by itself"),
    ],
)
def test_a_place_that_does_not_fit_is_refused_in_one_line(norm, place, options, said):
    bound = member("norms", Norm, norm).bound(options_of("norm", norm, **options))
    with pytest.raises(IcsbenchError, match=said):
        bound(nn.Identity(), place)


def test_a_place_knows_its_layer():
    with pytest.raises(IcsbenchError, match=r"and 2 does not divide the 5 of layer stem$"):
        network("residual_mlp", "group", shape=(6,), depth=1, units=5)


def test_instance_norm_of_single_units_is_refused_by_the_configuration():
    with pytest.raises(ValueError, match=r"^norm instance is one of feature maps, and model mlp has none; choose mod"):
        Config(norm=options_of("norm", "instance"), model=options_of("model", "mlp", depth=2, units=4))


@pytest.mark.parametrize(
    ("norm", "options", "said"),
    [
        ("layer", {"eps": 0.0}, r"^norm\.eps must be greater than 0 \(got 0\.0\)$"),
        ("rms", {"eps": -1.0}, r"^norm\.eps must be greater than 0 \(got -1\.0\)$"),
        ("group", {"groups": 0}, r"^norm\.groups must be at least 1 \(got 0\)$"),
        ("dyt", {"alpha": 0.0}, r"^norm\.alpha must be greater than 0 \(got 0\.0\)$"),
    ],
)
def test_options_out_of_range_are_one_line(norm, options, said):
    with pytest.raises(ValueError, match=said):
        options_of("norm", norm, **options)
