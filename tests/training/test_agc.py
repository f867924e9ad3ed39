"""Adaptive gradient clipping: golden tensors, which parameters are exempt, zero gains, order, and refusals."""

import itertools

import pytest
import torch
from networks import network
from omegaconf import OmegaConf
from torch import nn

from icsbench.config import options_of, resolve
from icsbench.errors import IcsbenchError
from icsbench.training.optimizers import build_optimizer
from icsbench.training.optimizers.agc import AgcOptions, clip, unit_norms


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def clipped(weight, gradient, clipping=0.01, eps=1e-3):
    gradient = tensor(gradient)
    clip(tensor(weight), gradient, clipping, eps)
    return gradient


def convolution():
    weight = (torch.arange(1, 25).double() / 10).view(3, 2, 2, 2)
    weight[2] = 0
    count = torch.arange(8).double()
    rows = [torch.full((8,), 0.1, dtype=torch.float64), 1e-3 * (count + 1), 1e-5 * count]
    return weight, torch.stack(rows).view(3, 2, 2, 2)


def test_units_of_a_convolution():
    weight, gradient = convolution()
    assert unit_norms(weight).flatten().tolist() == pytest.approx([1.428285685709, 3.594440151122, 0])
    assert unit_norms(gradient).flatten().tolist() == pytest.approx(
        [0.2828427124746, 0.01428285685709, 1.183215956620e-4]
    )
    for clipping, factors in (
        (0.01, [0.050497524692, 1, 0.084515425473]),
        (0.16, [0.807960395069, 1, 1]),
    ):
        found = gradient.clone()
        clip(weight, found, clipping, 1e-3)
        expected = gradient * tensor(factors).view(3, 1, 1, 1)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("weight", "gradient", "expected"),
    [
        ([[3, 4], [0.3, 0.4]], [[0.6, 0.8], [0.006, 0.008]], [[0.03, 0.04], [0.003, 0.004]]),
        ([3, 4], [0.6, 0.8], [0.03, 0.04]),
        ([0, 0], [0.3, 0.4], [6e-6, 8e-6]),
        ([1, 2, 2], [0.3, 0, 0.4], [0.018, 0, 0.024]),
        ([1, 2, 2], [0.0, 0, 0], [0, 0, 0]),
        ([[0, 0], [1, 1]], [[0.0, 0], [0, 0]], [[0, 0], [0, 0]]),
        (2.0, 5.0, 0.02),
        (0.0, -5.0, -1e-5),
    ],
)
def test_golden_matrices_vectors_and_scalars(weight, gradient, expected):
    torch.testing.assert_close(clipped(weight, gradient), tensor(expected), rtol=1e-12, atol=1e-18)


def test_three_dimensions_are_clipped_as_in_the_authors_code():
    weight = torch.arange(1, 9).double().view(2, 2, 2)
    gradient = torch.ones_like(weight)
    clip(weight, gradient, 0.01, 1e-3)
    expected = tensor([0.036055512755, 0.044721359550, 0.053851648071, 0.063245553203]).view(2, 2).expand(2, 2, 2)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=0)


def test_gains_of_the_shape_of_a_convolution_are_one_unit():
    gains, gradient = torch.tensor([1.0, 2, 2]).view(3, 1, 1, 1).double(), torch.tensor([0.3, 0, 0.4]).double()
    gradient = gradient.view(3, 1, 1, 1)
    clip(gains, gradient, 0.01, 1e-3)
    torch.testing.assert_close(gradient.flatten(), tensor([0.018, 0, 0.024]))


def test_five_dimensions_are_refused_in_one_line():
    with pytest.raises(IcsbenchError, match=r"^optim\.wrap\.agc knows no units of a parameter of 5 dimensions$"):
        unit_norms(torch.ones(2, 2, 2, 2, 2))


def build(parameters, lr=0.1, momentum=0.0, weight_decay=0.0, **agc):
    wrap = {"agc": AgcOptions(**agc)}
    options = options_of("optim", lr=lr, momentum=momentum, weight_decay=weight_decay, wrap=wrap)
    return build_optimizer(parameters, options)


def test_weight_decay_is_not_clipped_and_momentum_comes_after():
    weight = nn.Parameter(tensor([[3.0, 4.0], [0.3, 0.4]]))
    optimizer = build([weight], lr=0.5, momentum=0.9, weight_decay=0.1)
    before = weight.detach().clone()
    step = torch.zeros_like(before)
    for _ in range(2):
        weight.grad = tensor([[0.6, 0.8], [0.006, 0.008]])
        lengths = before.norm(dim=1, keepdim=True)
        allowed = (0.01 * lengths / weight.grad.norm(dim=1, keepdim=True)).clamp(max=1)
        step = 0.9 * step + allowed * weight.grad + 0.1 * before
        before = before - 0.5 * step
        optimizer.step()
        torch.testing.assert_close(weight.detach(), before)


def test_a_scalar_at_zero_moves_by_lr_times_a_hundred_thousandth():
    gain = nn.Parameter(tensor(0.0))
    optimizer = build([gain], lr=0.4)
    gain.grad = tensor(-7.0)
    optimizer.step()
    assert gain.item() == pytest.approx(0.4e-5, rel=1e-12)


@pytest.mark.parametrize(
    ("lr", "momentum", "steps"),
    [(0.1, 0.0, (1000, 5608, 7912)), (0.1, 0.9, (109, 610, 860)), (1.6, 0.9, (13, 65, 91))],
)
def test_clipping_throttles_a_gain_that_starts_at_zero(lr, momentum, steps):
    gain = nn.Parameter(tensor(0.0))
    optimizer = build([gain], lr, momentum)
    reached = {}
    for step in itertools.count(1):
        gain.grad = tensor(-1.0)
        optimizer.step()
        for goal in (1e-3, 0.1, 1.0):
            if gain.item() >= goal * (1 - 1e-9):
                reached.setdefault(goal, step)
        if len(reached) == 3:
            break
    assert tuple(reached.values()) == steps


def test_without_scalars_a_gain_is_free():
    gain, bias = nn.Parameter(tensor(0.0)), nn.Parameter(tensor([0.0, 0.0]))
    optimizer = build([gain, bias], scalars=False)
    for parameter in (gain, bias):
        parameter.grad = -torch.ones_like(parameter)
    optimizer.step()
    assert gain.item() == pytest.approx(0.1)
    assert bias.norm().item() == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("exempt", "free"),
    [("classifier_weight", {"weight"}), ("classifier", {"weight", "bias"}), ("none", set())],
)
@pytest.mark.parametrize(("model", "head"), [("vgg11", "head.fc1"), ("resnet20", "fc"), ("mlp", "fc2")])
@pytest.mark.parametrize("norm", ["none", "nf"])
def test_which_parameters_are_exempt(model, head, exempt, free, norm):
    options = {"depth": 1, "units": 4} if model == "mlp" else {"width": 1 / 32}
    net = network(model, norm, **options)
    optimizer = build(net.parameters(), exempt=exempt)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    optimizer.step()
    touched = {name for name, parameter in net.named_parameters() if (parameter.grad != 10).any()}
    everything = {name for name, _ in net.named_parameters()}
    assert everything - touched == {f"{head}.transform.{name}" for name in free}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clipping": 0}, "optim.wrap.agc.clipping must be greater than 0 (got 0.0)"),
        ({"clipping": -0.01}, "optim.wrap.agc.clipping must be greater than 0 (got -0.01)"),
        ({"eps": 0}, "optim.wrap.agc.eps must be greater than 0 (got 0.0)"),
        ({"exempt": "all"}, "optim.wrap.agc.exempt must be one of classifier_weight, classifier, none (got 'all')"),
        ({"clip": 1}, "unknown key 'optim.wrap.agc.clip'; did you mean 'optim.wrap.agc.clipping'?"),
    ],
)
def test_bad_options_of_clipping_are_one_clear_line(options, said):
    with pytest.raises(IcsbenchError) as caught:
        resolve(OmegaConf.create({"optim": {"wrap": {"agc": options}}}))
    assert said in str(caught.value) and "\n" not in str(caught.value)


SAME_EVERYWHERE = {  # weight and gradient: what all public forms have the same units of
    "convolution": convolution(),
    "matrix": (tensor([[3, 4], [0.3, 0.4]]), tensor([[0.6, 0.8], [0.006, 0.008]])),
    "vector": (tensor([1, 2, 2]), tensor([0.3, 0, 0.4])),
    "scalar at 0": (tensor(0.0), tensor(-5.0)),
    "no gradient": (tensor([[0, 0], [1, 1]]), tensor([[0.0, 0], [0, 0]])),
}


def of_timm(weight, gradient, clipping=0.01):
    theirs = pytest.importorskip("timm.utils.agc")
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    theirs.adaptive_clip_grad([parameter], clip_factor=clipping, eps=1e-3)
    return parameter.grad


def of_optax(weight, gradient, clipping=0.01):
    """In its layout, where the outputs come last; arrays of three dimensions as they are."""
    optax = pytest.importorskip("optax")
    axes = {2: (1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}.get(weight.dim(), tuple(range(weight.dim())))
    weight, gradient = (value.permute(axes).float().numpy() for value in (weight, gradient))
    found, _ = optax.adaptive_grad_clip(clipping).update(gradient, optax.EmptyState(), weight)
    back = [axes.index(axis) for axis in range(len(axes))]
    return torch.tensor(found.tolist(), dtype=torch.float64).permute(back)


@pytest.mark.parametrize("clipping", [0.01, 0.16])
@pytest.mark.parametrize("case", SAME_EVERYWHERE)
@pytest.mark.parametrize("theirs", [of_timm, of_optax])
def test_against_other_implementations_where_they_are_installed(theirs, case, clipping):
    weight, gradient = SAME_EVERYWHERE[case]
    expected = theirs(weight, gradient, clipping)
    clip(weight, ours := gradient.clone(), clipping, 1e-3)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-12)


def test_where_timms_units_are_others():
    """It takes gains of shape (out, 1, 1, 1) one by one, sums over the last two of three dimensions, and knows five."""
    gains, gradient = tensor([1.0, 2, 2]).view(3, 1, 1, 1), tensor([0.3, 0, 0.4]).view(3, 1, 1, 1)
    torch.testing.assert_close(of_timm(gains, gradient).flatten(), tensor([0.01, 0, 0.02]))
    weight = torch.arange(1, 9).double().view(2, 2, 2)
    expected = tensor([0.027386127875, 0.065954529791]).view(2, 1, 1).expand(2, 2, 2)
    torch.testing.assert_close(of_timm(weight, torch.ones_like(weight)), expected, rtol=1e-10, atol=0)
    volume = torch.arange(1, 33).double().view(2, 2, 2, 2, 2)
    lengths = volume.flatten(1).norm(dim=1).view(2, 1, 1, 1, 1)
    expected = (0.01 * lengths / 4).expand(2, 2, 2, 2, 2)
    torch.testing.assert_close(of_timm(volume, torch.ones_like(volume)), expected)


def test_where_optaxs_units_are_others():
    """Gains and three dimensions are as here; it knows five."""
    gains, gradient = tensor([1.0, 2, 2]).view(3, 1, 1, 1), tensor([0.3, 0, 0.4]).view(3, 1, 1, 1)
    torch.testing.assert_close(of_optax(gains, gradient).flatten(), tensor([0.018, 0, 0.024]))
    weight = torch.arange(1, 9).double().view(2, 2, 2)
    clip(weight, ours := torch.ones_like(weight), 0.01, 1e-3)
    torch.testing.assert_close(of_optax(weight, torch.ones_like(weight)), ours, rtol=1e-6, atol=0)
    volume = torch.arange(1, 33).double().view(2, 2, 2, 2, 2)
    lengths = volume.flatten(1).norm(dim=1).view(2, 1, 1, 1, 1)
    expected = (0.01 * lengths / 4).expand(2, 2, 2, 2, 2)
    torch.testing.assert_close(of_optax(volume, torch.ones_like(volume)), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["vgg11", "resnet20"])
def test_the_classifier_is_what_timm_exempts(name):
    """It leaves out the last two parameters, whatever they are."""
    models = pytest.importorskip("timm.models")
    net = network(name, width=1 / 32)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    build(net.parameters(), exempt="classifier").step()
    clipped_here = {parameter for parameter in net.parameters() if (parameter.grad != 10).any()}
    assert clipped_here == {*models.model_parameters(net, exclude_head=True)}
