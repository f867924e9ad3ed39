"""Scaled weight standardization and branches in scale: golden numbers, a twin written out, gradients, and refusals."""

import math

import pytest
import torch
from networks import network
from torch import nn
from torch.nn import functional as F

from icsbench.config import options_of
from icsbench.members import member
from icsbench.models import Model, Residual
from icsbench.norms.normalizer_free import BranchEnd, ScaledStandardization, activation_gain, expected_stds

ROWS = [[1, 2, 3, 6], [0.001, -0.002, 0.003, 0], [5, 5, 5, 5], [0.001, 0.002, 0.003, 0.006]]
RELU = math.sqrt(2 / (1 - 1 / math.pi))
GAINS = [
    (nn.ReLU(inplace=True), 1.712858550450),
    (nn.LeakyReLU(0.01), 1.704831627177),
    (nn.ELU(), 1.270843417850),
    (nn.CELU(), 1.270843417850),
    (nn.SELU(), 1.0),
    (nn.GELU(), 1.700926243363),
    (nn.GELU("tanh"), 1.700916561695),
    (nn.SiLU(), 1.787187222100),
    (nn.Tanh(), 1.592537419723),
    (nn.Sigmoid(), 4.801313372039),
    (nn.Softplus(), 1.919125980107),
    (nn.LogSigmoid(), 1.919125980107),
    (nn.Softsign(), 2.337533363109),
    (nn.ReLU6(), 1.712858554972),
    (nn.Identity(), 1.0),
    (None, 1.0),
]
OFFICIAL = {  # what the authors' code multiplies by, samples' values, and by how many % it is above the exact one
    nn.ReLU: (1.7139588594436646, 0.064),
    nn.LeakyReLU: (1.70590341091156, 0.063),
    nn.ELU: (1.2716004848480225, 0.060),
    nn.SELU: (1.0008515119552612, 0.085),
    nn.GELU: (1.7015043497085571, 0.034),
    nn.SiLU: (1.7881293296813965, 0.053),
    nn.Tanh: (1.5939117670059204, 0.086),
    nn.Sigmoid: (4.803835391998291, 0.053),
}
BETAS = {
    "resnet20": [1, 0.9805806757, 0.9622504486, *2 * [0.9449111825, 0.9805806757, 0.9622504486]],
    "resnet56": {0: 1, 9: 0.8574929257, 17: 0.8703882798, 18: 0.8574929257, 26: 0.8703882798},
    "resnet110": {0: 1, 18: 0.7624928517, 35: 0.7715167498, 36: 0.7624928517, 53: 0.7715167498},
}


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def standardized(form, eps=None):
    """The four rows as a convolution's weight, standardized in float64."""
    weight = tensor(ROWS).view(4, 1, 2, 2)
    found = ScaledStandardization(4, form, eps).double()(weight)
    assert found.shape == weight.shape
    return found.detach().flatten(1)


@pytest.mark.parametrize(
    ("form", "eps", "squares"),
    [
        ("official", None, [1, 0.13, 0, 0.14]),
        ("timm", None, [0.999999714286, 0.764705882353, 0, 0.777777777778]),
        ("timm", 1e-5, [0.999997142865, 0.245283018868, 0, 0.259259259259]),
        ("lubana", None, [0.999989309636, 0.988997625762, 0, 0.989394657782]),
    ],
)
def test_golden_rows_of_each_form(form, eps, squares):
    found = standardized(form, eps)
    torch.testing.assert_close(found.square().sum(1), tensor(squares), rtol=0, atol=1e-11)
    torch.testing.assert_close(found.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-14)


def test_golden_values():
    expected = tensor(
        [
            [-0.534522483825, -0.267261241912, 0, 0.801783725737],
            [0.05, -0.25, 0.25, -0.05],
            [0, 0, 0, 0],
            [-0.2, -0.1, 0, 0.3],
        ]
    )
    torch.testing.assert_close(standardized("official"), expected, rtol=0, atol=1e-11)
    timm = tensor([-0.471404520791, -0.235702260396, 0, 0.707106781187])
    torch.testing.assert_close(standardized("timm")[3], timm, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("activation", "gain"), GAINS)
def test_gains_are_exact(activation, gain):
    assert activation_gain(activation) == pytest.approx(gain, rel=1e-11)


@pytest.mark.parametrize("activation", OFFICIAL)
def test_the_authors_constants_are_a_little_above_the_exact_ones(activation):
    official, percent = OFFICIAL[activation]
    assert 100 * (official / activation_gain(activation()) - 1) == pytest.approx(percent, abs=6e-4)


def test_the_gain_of_relu_is_in_closed_form():
    assert activation_gain(nn.ReLU()) == pytest.approx(RELU, rel=1e-13)


def test_deviations_by_block():
    for blocks, first, last in ((3, 0.9449111825, 0.9622504486), (9, 0.8574929257, 0.8703882798)):
        betas = [1 / std for std in expected_stds([blocks] * 3, 0.2)]
        assert betas[0] == 1 and betas[blocks] == pytest.approx(first) and betas[-1] == pytest.approx(last)
    f0 = [1 / std for std in expected_stds([1, 2, 6, 3], 0.2)]
    assert f0[:3] == pytest.approx([1, 0.9805806757, 0.9805806757], rel=1e-9)
    assert [f0[8], f0[11]] == pytest.approx([0.9128709292, 0.9622504486], rel=1e-9)


@pytest.mark.parametrize("name", BETAS)
def test_each_block_of_a_resnet_has_its_beta(name):
    model = network(name, "nf", width=1 / 16, bias=True)
    blocks = [module for module in model.modules() if isinstance(module, Residual)]
    found = [block.branch[0].transform.parametrizations.weight[0].scale / RELU for block in blocks]
    expected = dict(enumerate(BETAS[name])) if isinstance(BETAS[name], list) else BETAS[name]
    for block, beta in expected.items():
        assert found[block] == pytest.approx(beta, rel=1e-9)
    ends = [block.branch[1] for block in blocks]
    assert all(end.transform.parametrizations.weight[0].scale == 1 for end in ends)
    assert all(type(end.norm) is BranchEnd and end.norm.gain == 0 and end.norm.alpha == 0.2 for end in ends)


def weights_of(state, path, scale=1.0):
    """The weight of a standardized layer, written out: the authors' form."""
    weight = state[f"{path}.transform.parametrizations.weight.original"]
    gain = state[f"{path}.transform.parametrizations.weight.0.gain"]
    rows = weight.reshape(len(weight), -1)
    centred = rows - rows.mean(1, keepdim=True)
    size = (centred.square().mean(1, keepdim=True) * rows.shape[1]).clamp(min=1e-4).sqrt()
    return (scale * gain[:, None] * centred / size).reshape(weight.shape)


def off_the_start(model):
    stream = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=stream).double()
    return dict(model.named_parameters())


def test_a_resnet_is_its_formula_written_out():
    model = network("resnet20", "nf", width=1 / 8, bias=True, seed=100).double()
    state = off_the_start(model)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    value = F.relu(F.conv2d(x, weights_of(state, "stem", RELU), state["stem.transform.bias"], padding=1))
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            path = f"stage{stage}.block{block}"
            std = [[1, 1.04, 1.08], [1.12, 1.04, 1.08], [1.12, 1.04, 1.08]][stage - 1][block - 1] ** 0.5
            stride = 2 if stage > 1 and block == 1 else 1
            first, second = (state[f"{path}.conv{n}.transform.bias"] for n in (1, 2))
            branch = F.conv2d(value / std, weights_of(state, f"{path}.conv1", RELU), first, stride, padding=1)
            branch = F.conv2d(F.relu(branch), weights_of(state, f"{path}.conv2"), second, padding=1)
            skip = value[:, :, ::stride, ::stride]
            skip = F.pad(skip, (0, 0, 0, 0, 0, branch.shape[1] - skip.shape[1]))
            value = F.relu(skip + 0.2 * state[f"{path}.conv2.norm.gain"] * branch)
    expected = value.mean((2, 3)) @ state["fc.transform.weight"].T + state["fc.transform.bias"]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("norm", ["ws", "nf"])
def test_a_vgg_is_its_formula_written_out(norm):
    model = network("vgg11", norm, width=1 / 16, seed=101).double()
    state = off_the_start(model)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    value = x
    for number in range(1, 9):
        path = f"features.conv{number}"
        value = F.relu(F.conv2d(value, weights_of(state, path, RELU), state[f"{path}.transform.bias"], padding=1))
        if number in (1, 2, 4, 6, 8):
            value = F.max_pool2d(value, 2)
    expected = value.flatten(1) @ state["head.fc1.transform.weight"].T + state["head.fc1.transform.bias"]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("name", "gain"), [("mlp", activation_gain(nn.Sigmoid())), ("dln", 1.0)])
def test_the_gain_is_that_of_the_activation_behind(name, gain):
    shape = (10,) if name == "dln" else (1, 8, 8)
    model = network(name, "ws", shape=shape, depth=3, units=10)
    layers = [block.transform for _, block in model.layers()]
    assert [layer.parametrizations.weight[0].scale for layer in layers[:-1]] == [gain] * (len(layers) - 1)
    assert not nn.utils.parametrize.is_parametrized(layers[-1])


def test_the_stages_of_a_network_are_told():
    assert branches_of("resnet20", width=1 / 64) == {(3, 3, 3)}
    assert branches_of("resnet110", width=1 / 64) == {(18, 18, 18)}
    assert branches_of("residual_mlp", depth=4, units=5) == {(4,)}
    assert branches_of("mlp", depth=4, units=5) == set()


def branches_of(name, **options):
    found = set()

    def layer(transform, place):
        found.update([place.branch.stages] if place.branch else [])
        return transform, nn.Identity()

    build = member("models", Model, name).build
    build(options_of("model", name, **options), layer, shape=(3, 32, 32), num_classes=10, seed=0)
    return found


@pytest.mark.parametrize("form", ["official", "timm", "lubana"])
def test_gradients_are_those_of_finite_differences(form):
    weight = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(5)).double().requires_grad_()
    layer = ScaledStandardization(3, form, scale=1.7).double()
    assert torch.autograd.gradcheck(layer, weight)
    flat = torch.full((2, 4), 5.0, dtype=torch.float64, requires_grad=True)
    ScaledStandardization(2, form).double()(flat)[0, 0].backward()
    assert flat.grad.isfinite().all()


def test_a_wide_layer_keeps_the_variance_and_takes_off_the_common_mean():
    stream = torch.Generator().manual_seed(6)
    weight = torch.randn(512, 512, generator=stream).double()
    x = 3 + torch.randn(2048, 512, generator=stream).double()
    layer = ScaledStandardization(512, scale=activation_gain(nn.ReLU())).double()
    value = F.relu(x @ layer(weight).T)
    assert value.var(0).mean().item() == pytest.approx(1, abs=0.02)
    plain = x @ (weight / 512**0.5).T
    ahead = x @ ScaledStandardization(512).double()(weight).T
    assert ahead.mean(0).square().mean() < 0.01 < plain.mean(0).square().mean()


@pytest.mark.parametrize(
    ("norm", "options", "message"),
    [
        ("ws", {"form": "tim"}, r"^norm\.form must be one of official, timm, lubana \(got 'tim'\)$"),
        ("ws", {"eps": 0.0}, r"^norm\.eps must be greater than 0 and at most 1 \(got 0\.0\)$"),
        ("nf", {"alpha": 0.0}, r"^norm\.alpha must be greater than 0 and at most 1 \(got 0\.0\)$"),
        ("nf", {"gain": 2.0}, r"^norm\.gain must be at least -1 and at most 1 \(got 2\.0\)$"),
    ],
)
def test_options_of_standardization_out_of_range_are_one_clear_line(norm, options, message):
    with pytest.raises(ValueError, match=message):
        options_of("norm", norm, **options)


def of_timm(weight, **options):
    """The weight that timm's convolution computes with: what it answers to unit images of its kernel's size."""
    layers = pytest.importorskip("timm.layers")
    units, *kernel = weight.shape
    layer = layers.ScaledStdConv2d(kernel[0], units, kernel[1:], padding=0, bias=False, **options).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        size = math.prod(kernel)
        return layer(torch.eye(size).double().view(size, *kernel)).flatten(1).T


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_against_timms_where_it_is_installed(eps):
    stream = torch.Generator().manual_seed(7)
    for weight in (tensor(ROWS).view(4, 1, 2, 2), torch.randn(5, 3, 3, 3, generator=stream).double()):
        theirs = of_timm(weight, eps=eps, gamma=RELU)
        ours = ScaledStandardization(len(weight), "timm", eps, RELU).double()(weight).flatten(1)
        torch.testing.assert_close(theirs, ours, rtol=1e-11, atol=1e-12)


def test_where_timms_differs_from_the_authors():
    """By 3e-7 where rows have an ordinary size, and by much where they are small."""
    squares = of_timm(tensor(ROWS).view(4, 1, 2, 2)).square().sum(1)
    authors = standardized("official").square().sum(1)
    assert (1 - squares / authors)[0].item() == pytest.approx(2.85714e-7, rel=1e-4)
    assert (squares / authors)[[1, 3]].tolist() == pytest.approx([0.764705882353 / 0.13, 0.777777777778 / 0.14])
