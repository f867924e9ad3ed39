import copy
import math

import pytest
import torch
from networks import small_vgg
from torch import nn
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.norms import noise_modules
from icsbench.probes import NotFinite, loss_landscape


def half_sum(outputs, targets):
    return (outputs - targets).square().sum() / 2


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 3)).double()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.unused = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(2, 2)
        self.double()

    def forward(self, x):
        return self.b(x + F.dropout(self.a(x).tanh(), 0.5, self.training))


def problem():
    torch.manual_seed(1)
    return torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)


def brute_force(model, loss_fn, inputs, targets, alphas):
    """A copy of the network for every point, moved by plain gradient descent."""
    stream = torch.get_rng_state()

    def measure(network):
        torch.set_rng_state(stream)
        network.zero_grad()
        loss = loss_fn(network.train()(inputs), targets)
        loss.backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]
        return loss.item(), torch.cat([grad.flatten() for grad in grads]).double()

    base = copy.deepcopy(model)
    loss, gradient = measure(base)
    losses, differences = [], []
    for alpha in alphas:
        moved = copy.deepcopy(base)
        with torch.no_grad():
            for parameter, origin in zip(moved.parameters(), base.parameters(), strict=True):
                if origin.grad is not None:
                    parameter.sub_(alpha * origin.grad)
        moved_loss, moved_gradient = measure(moved)
        losses.append(moved_loss)
        differences.append((moved_gradient - gradient).norm().item())
    torch.set_rng_state(stream)
    return loss, gradient.norm().item(), losses, differences


ALPHAS = (0.01, 0.1, 0.5, 2.0)


@pytest.mark.parametrize("build", [mlp, Residual])
def test_equals_the_definition(build):
    model, (inputs, targets) = build(), problem()
    loss, norm, losses, differences = brute_force(model, half_sum, inputs, targets, ALPHAS)
    found = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    assert found.alphas == ALPHAS
    assert (found.loss, found.gradient_norm) == (pytest.approx(loss), pytest.approx(norm))
    assert found.losses == pytest.approx(losses, rel=1e-9)
    assert found.gradient_differences == pytest.approx(differences, rel=1e-9)
    assert found.beta == pytest.approx(max(d / (a * norm) for a, d in zip(ALPHAS, differences, strict=True)))


@pytest.mark.parametrize("regime", ["none", "bn", "noisy_bn"])
def test_vgg_equals_the_definition_with_the_noise_frozen(regime):
    model = small_vgg(regime)
    for module in noise_modules(model):
        module.generator = None
    generator = torch.Generator().manual_seed(5)
    inputs, targets = torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)
    loss, norm, losses, differences = brute_force(model, F.cross_entropy, inputs, targets, (0.05, 0.1))
    found = loss_landscape(model, F.cross_entropy, inputs, targets, (0.05, 0.1))
    assert (found.loss, found.gradient_norm) == (pytest.approx(loss), pytest.approx(norm, rel=1e-3))
    assert found.losses == pytest.approx(losses, rel=1e-3)
    assert found.gradient_differences == pytest.approx(differences, rel=1e-2)


@pytest.mark.parametrize("alphas", [[0.1], [1e-3, 0.5, 3.0]])
def test_a_quadratic_has_a_closed_form(alphas):
    """L = |W x - y|^2 / 2 summed: the Hessian is x x^T, and ||g' - g|| = alpha ||H g||."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    inputs, targets = problem()
    hessian = inputs.T @ inputs
    g = (model.weight.detach() @ inputs.T - targets.T) @ inputs
    found = loss_landscape(model, half_sum, inputs, targets, alphas)
    curvature = ((g @ hessian).norm() / g.norm()).item()
    assert found.beta == pytest.approx(curvature)
    assert found.gradient_differences == pytest.approx([a * (g @ hessian).norm().item() for a in alphas])
    slope, bend = g.square().sum().item(), ((g @ hessian) * g).sum().item()
    assert found.losses == pytest.approx([found.loss - a * slope + a * a * bend / 2 for a in alphas])


@pytest.mark.parametrize("points", [1, 5])
def test_one_pass_per_point_and_one_for_the_gradient(points):
    model, (inputs, targets) = mlp(), problem()
    counts = {"forward": 0, "backward": 0}
    model[0].register_forward_hook(lambda *_: counts.update(forward=counts["forward"] + 1))
    model[3].register_full_backward_hook(lambda *_: counts.update(backward=counts["backward"] + 1))
    loss_landscape(model, half_sum, inputs, targets, [0.1 * (k + 1) for k in range(points)])
    assert counts == {"forward": points + 1, "backward": points + 1}


def test_frozen_parameters_stay():
    model, (inputs, targets) = mlp(), problem()
    model[0].requires_grad_(False)
    found = loss_landscape(model, half_sum, inputs, targets, [0.1])
    rest = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(half_sum(model(inputs), targets), rest)])
    assert found.gradient_norm == pytest.approx(gradient.norm().item())


def test_what_is_no_number_any_more_is_infinite():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    inputs, targets = (tensor.float() for tensor in problem())
    found = loss_landscape(model, half_sum, inputs, targets, [1e-3, 1e30])
    assert math.isfinite(found.losses[0]) and found.losses[1] == math.inf
    flat = loss_landscape(model, lambda o, t: 0 * o.sum(), inputs, targets, [0.1])
    assert flat.gradient_norm == 0 and math.isnan(flat.beta)


def snapshot(model):
    return [
        *(value.clone() for value in model.state_dict().values()),
        torch.tensor([module.training for module in model.modules()]),
        torch.get_rng_state(),
        *(m.generator.get_state() for m in noise_modules(model)),
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
    ]


@pytest.mark.parametrize("fails_at", [None, 1, 3])
def test_the_model_is_left_as_it_was(fails_at):
    model = small_vgg("noisy_bn", name="vgg11").eval()
    for module in noise_modules(model):
        module.generator = torch.Generator().manual_seed(3)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    calls = 0

    def loss_fn(outputs, targets):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise KeyError("half way")
        return F.cross_entropy(outputs, targets)

    before = snapshot(model)
    inputs, targets = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    if fails_at is None:
        loss_landscape(model, loss_fn, inputs, targets, [0.1, 0.2])
    else:
        with pytest.raises(KeyError, match="half way"):
            loss_landscape(model, loss_fn, inputs, targets, [0.1, 0.2])
    for a, b in zip(before, snapshot(model), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alphas": []}, "alphas is empty"),
        ({"alphas": [0.1, -0.1]}, r"greater than 0 \(got -0.1\)"),
        ({"alphas": [0.0]}, "greater than 0"),
        ({"alphas": [math.nan]}, "finite"),
        ({"loss_fn": lambda o, t: o}, "must return a scalar tensor"),
        ({"model": nn.Flatten()}, "Flatten has no parameters"),
        ({"model": nn.Linear(4, 3).double().requires_grad_(False)}, "no parameter of Linear requires a gradient"),
        ({"model": nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double()}, "overwrites its inputs in place"),
        ({"inputs": torch.ones(1, 4, dtype=torch.float64)}, r"at least 2 samples \(got 1\)"),
        ({"inputs": torch.full((16, 4), math.nan, dtype=torch.float64)}, "gradient of Sequential is not finite"),
    ],
)
def test_bad_input(change, message):
    inputs, targets = problem()
    arguments = {"model": mlp(), "loss_fn": half_sum, "inputs": inputs, "targets": targets, "alphas": [0.1]} | change
    before = [p.clone() for p in arguments["model"].parameters()]
    with pytest.raises(IcsbenchError, match=message) as raised:
        loss_landscape(**arguments)
    assert isinstance(raised.value, NotFinite) == ("is not finite" in message)
    for a, b in zip(before, arguments["model"].parameters(), strict=True):
        assert torch.equal(a, b)
