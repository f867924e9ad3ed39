"""Batch sharpness: closed form, the whole Hessian by brute force, and training undisturbed."""

import math

import numpy as np
import pytest
import torch
from networks import ANYWHERE, OF_MAPS, network
from test_every_probe import Settings
from test_update import problem, same, train
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.norms import noise_modules
from icsbench.probes import BatchSharpnessProbe, NotFinite, curvature_along_gradient, start_probes


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Quadratic(nn.Module):
    """``1/2 w' A w`` with a diagonal A; a second parameter has no part in it."""

    def __init__(self, diagonal):
        super().__init__()
        self.a = torch.tensor(diagonal, dtype=torch.float64)
        self.w = nn.Parameter(torch.ones(len(diagonal), dtype=torch.float64))
        self.apart = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return x * (self.a * self.w**2).sum() / 2


def loss_is_output(outputs, targets):
    return outputs.sum()


def test_the_closed_form_of_a_quadratic():
    found = curvature_along_gradient(Quadratic([1.0, 2.0, 4.0]), loss_is_output, torch.ones(1).double(), None)
    assert found.sharpness == pytest.approx((1 + 8 + 64) / (1 + 4 + 16)) and found.gradient_norm == math.sqrt(21)
    flat = curvature_along_gradient(Quadratic([3.0, 3.0]), loss_is_output, torch.ones(1).double(), None)
    assert flat.sharpness == pytest.approx(3)


def brute_force(model, inputs, targets):
    """g'Hg / |g|^2 from the whole Hessian, in training mode."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = {name: model.get_parameter(name) for name in names}
    flat = torch.cat([p.detach().flatten() for p in parameters.values()])

    def loss(vector):
        parts = vector.split([p.numel() for p in parameters.values()])
        moved = {name: part.view_as(p) for (name, p), part in zip(parameters.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(model, moved, (inputs,)), targets)

    model.train()
    hessian = torch.autograd.functional.hessian(loss, flat)
    (gradient,) = torch.autograd.grad(loss(flat.requires_grad_()), flat)
    return (gradient @ hessian @ gradient / gradient.square().sum()).item()


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.out = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 4)

    def forward(self, x):
        return self.out(torch.tanh(self.bn(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("norm", [name for name in ANYWHERE if name not in OF_MAPS])
def test_it_is_that_of_the_whole_hessian_in_an_mlp(norm):
    """Reference sheet 2, F.12; for every norm of an MLP, with one draw of what is random."""
    model = network("mlp", norm, shape=(1, 3, 3), units=4, depth=2, num_classes=4).double()
    for module in noise_modules(model):
        module.generator = torch.Generator()
        module.register_forward_pre_hook(lambda one, _: one.generator.manual_seed(3) and None)
    inputs, targets = drawn(12, 1, 3, 3, seed=1), torch.arange(12) % 4
    found = curvature_along_gradient(model, F.cross_entropy, inputs, targets)
    assert found.sharpness == pytest.approx(brute_force(model, inputs, targets), rel=1e-9)
    assert found.sharpness != 0


def test_it_is_that_of_the_whole_hessian_in_a_convolutional_network_with_a_frozen_layer():
    torch.manual_seed(0)
    model, inputs, targets = Convolutional().double(), drawn(6, 1, 7, 7, seed=2), torch.arange(6) % 4
    whole = curvature_along_gradient(model, F.cross_entropy, inputs, targets)
    assert whole.sharpness == pytest.approx(brute_force(model, inputs, targets), rel=1e-9)
    model.out.requires_grad_(False)
    part = curvature_along_gradient(model, F.cross_entropy, inputs, targets)
    assert part.sharpness == pytest.approx(brute_force(model, inputs, targets), rel=1e-9) != whole.sharpness


def test_a_small_step_changes_the_gradient_by_as_much():
    model = network("mlp", "bn", shape=(1, 3, 3), units=5, depth=2, num_classes=4).double()
    inputs, targets = drawn(9, 1, 3, 3, seed=4), torch.arange(9) % 4
    found, parameters, step = curvature_along_gradient(model, F.cross_entropy, inputs, targets), [], 1e-6
    parameters = [*model.parameters()]
    first = torch.autograd.grad(F.cross_entropy(model(inputs), targets), parameters)
    with torch.no_grad():
        for parameter, g in zip(parameters, first, strict=True):
            parameter -= step * g
    second = torch.autograd.grad(F.cross_entropy(model(inputs), targets), parameters)
    along = sum((a * (a - b)).sum().item() for a, b in zip(first, second, strict=True)) / step
    assert along / found.gradient_norm**2 == pytest.approx(found.sharpness, rel=1e-4)


def test_the_noise_is_the_draw_of_the_next_pass_and_is_put_back():
    model = network("mlp", "noisy_bn", shape=(1, 8, 8), units=6, depth=2).double()
    for module in noise_modules(model):
        module.generator = torch.Generator().manual_seed(3)
    inputs, targets = drawn(9, 1, 8, 8, seed=6), torch.arange(9) % 10
    one, other = (curvature_along_gradient(model, F.cross_entropy, inputs, targets) for _ in range(2))
    assert one == other


def test_what_cannot_be_measured_is_refused_in_one_line():
    inputs, targets = drawn(6, 4), torch.arange(6) % 4
    frozen = nn.Linear(4, 4).double().requires_grad_(False)
    with pytest.raises(IcsbenchError, match=r"^no parameter of Linear requires a gradient$"):
        curvature_along_gradient(frozen, F.cross_entropy, inputs, targets)
    model = nn.Linear(4, 4).double()
    with pytest.raises(NotFinite, match="the gradient of Linear or its curvature is not finite"):
        curvature_along_gradient(model, lambda y, t: y.square().sum() * math.inf, inputs, targets)
    assert math.isnan(curvature_along_gradient(model, lambda y, t: 0 * y.sum(), inputs, targets).sharpness)
    linear = curvature_along_gradient(model, lambda y, t: y.sum(), inputs, targets)
    assert linear.sharpness == 0 and linear.gradient_norm > 0


# --- along training --------------------------------------------------------------------------------------------------


class Task:
    loss = staticmethod(F.cross_entropy)

    def __init__(self, batches):
        self.batches = lambda step: batches[step % len(batches)]


def started(model, batches, **probes):
    return [watcher for _, watcher in start_probes(Settings(shift=False, **probes), model, Task(batches))]


@pytest.mark.parametrize("regime", ["none", "bn", "noisy_bn"])
def test_a_row_has_the_mean_over_the_batches_of_the_next_updates(regime):
    model, optimizer, batches, _ = problem(regime)
    [probe] = started(model, batches, batch_sharpness=True, sharpness_batches=3, update_every=2)
    assert isinstance(probe, BatchSharpnessProbe) and [probe.due(step) for step in range(4)] == [True, False] * 2
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()}]
    row = probe.measure(1).row
    expected = [curvature_along_gradient(model, F.cross_entropy, *batches[k]) for k in (1, 2, 3)]
    assert row["batch_sharpness/batches"] == [one.sharpness for one in expected]
    assert row["batch_sharpness/gradient_norms"] == [one.gradient_norm for one in expected]
    assert row["batch_sharpness/mean"] == pytest.approx(np.mean(row["batch_sharpness/batches"]))
    assert same(before, [model.state_dict()])
    assert train(model, optimizer, batches)[2] == train(*problem(regime)[:3])[2]


def test_it_is_off_where_nobody_asks_and_refuses_no_batches():
    model, _, batches, _ = problem("bn")
    assert started(model, batches) == []
    with pytest.raises(ValueError, match=r"^probes.sharpness_batches must be at least 1 \(got 0\)$"):
        started(model, batches, batch_sharpness=True, sharpness_batches=0)


def test_where_a_gradient_is_not_finite_there_is_no_row():
    model, _, batches, _ = problem("bn")
    probe = BatchSharpnessProbe(model, lambda y, t: y.sum() * math.inf, lambda step: batches[0], count=1, every=1)
    assert probe.measure(0).row is None
