"""What BN removes of the gradient: golden numbers, least squares by brute force, autograd, and training undisturbed."""

import math

import numpy as np
import pytest
import torch
from networks import network, small_vgg
from test_every_probe import Settings, Task
from test_update import problem, same, train
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from icsbench.errors import IcsbenchError
from icsbench.norms import noise_modules
from icsbench.probes import (
    LeastSquaresProbe,
    NotFinite,
    Update,
    least_squares_fit,
    least_squares_shares,
    start_probes,
)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_golden_numbers():
    x, g = torch.tensor([[1.0, 2, 3, 4]]).double(), torch.tensor([[1.0, 0, -1, 2]]).double()
    fit = least_squares_fit(2 * g, x)
    sigma = math.sqrt(1.25)
    assert fit.intercept.item() == pytest.approx(1) and fit.slope.item() == pytest.approx(0.4472135955, abs=1e-10)
    expected = [1.43108351, -0.71554175, -2.86216701, 2.14662526]
    assert (fit.residual[0] / sigma).tolist() == pytest.approx(expected, abs=1e-8)
    assert fit.residual.square().sum().item() / sigma**2 == pytest.approx(15.36, rel=1e-10)
    shares = [(part / fit.squared).item() for part in (fit.mean, fit.xhat, fit.mean + fit.xhat)]
    assert shares == pytest.approx([1 / 6, 1 / 30, 0.2], rel=1e-10)


@pytest.mark.parametrize(("features", "m", "seed"), [(3, 6, 1), (5, 40, 2)])
def test_it_is_ordinary_least_squares_with_an_intercept(features, m, seed):
    g, x = drawn(features, m, seed=seed), 3 + 2 * drawn(features, m, seed=seed + 10)
    fit = least_squares_fit(g, x)
    for c in range(features):
        xhat = ((x[c] - x[c].mean()) / x[c].std(correction=0)).numpy()
        design = np.c_[np.ones(m), xhat]
        coefficients, (rest,), *_ = np.linalg.lstsq(design, g[c].numpy())
        assert [fit.intercept[c].item(), fit.slope[c].item()] == pytest.approx(coefficients.tolist())
        assert fit.residual[c].numpy() == pytest.approx(g[c].numpy() - design @ coefficients)
        assert (fit.squared - fit.mean - fit.xhat)[c].item() == pytest.approx(rest)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_the_length_of_the_residual_for_every_eps(eps):
    g, x = drawn(4, 9, seed=3), drawn(4, 9, seed=4)
    x[1] = 2.0
    fit = least_squares_fit(g, x, eps)
    assert torch.allclose(fit.residual.square().sum(1), fit.squared - fit.mean - fit.xhat, rtol=1e-12)
    assert fit.xhat[1] == 0 and fit.mean[1] > 0


class Convolutional(nn.Module):
    """Two BN layers, one without an affine map, ReLU in place behind."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=0.1)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.out(self.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn1, self.fc2 = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)

    def forward(self, x):
        return self.fc2(torch.tanh(self.bn1(self.fc1(x))))


@pytest.mark.parametrize(("make", "shape"), [(Convolutional, (6, 2, 7, 7)), (Dense, (11, 5))])
def test_the_shares_are_those_of_automatic_differentiation(make, shape):
    """||dx||^2 sigma^2 = ||dxhat||^2 (1 - removed), with the gradients that autograd finds at each BN."""
    torch.manual_seed(0)
    model = make().double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight)
    inputs, targets = drawn(*shape, seed=5), torch.arange(shape[0]) % 3
    found = least_squares_shares(model, F.cross_entropy, inputs, targets)
    assert list(found) == [path for path, m in model.named_modules() if "BatchNorm" in type(m).__name__]
    seen = {}

    def note(path):
        def hook(module, given, output):
            seen[path] = (module, given[0], output)
            given[0].retain_grad()
            output.retain_grad()
            return output.clone()

        return hook

    for path in found:
        model.get_submodule(path).register_forward_hook(note(path))
    F.cross_entropy(model(inputs), targets).backward()
    for path, (module, x, z) in seen.items():
        variance = x.movedim(1, 0).flatten(1).var(1, correction=0) + module.eps
        weight = module.weight if module.affine else torch.ones_like(variance)
        arrives = (z.grad.movedim(1, 0).flatten(1) * weight[:, None]).square().sum(1)
        passes = x.grad.movedim(1, 0).flatten(1).square().sum(1) * variance
        assert found[path].removed == pytest.approx(1 - (passes.sum() / arrives.sum()).item(), abs=1e-10)
        assert found[path].removed == pytest.approx(found[path].mean_share + found[path].xhat_share)
        assert 0 < found[path].mean_share < 1 and 0 < found[path].xhat_share < 1


def test_a_gradient_in_a_random_direction():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.BatchNorm1d(5000)).double(), drawn(8, 5000)
    direction = drawn(8, 5000, seed=1)
    shares = least_squares_shares(model, lambda y, t: (y * direction).sum(), inputs, None)["0"]
    assert shares.random == 0.25 and shares.removed == pytest.approx(0.25, rel=0.05)
    assert shares.mean_share == pytest.approx(0.125, rel=0.05)


def test_of_two_values_nothing_passes():
    torch.manual_seed(0)
    model, inputs = Dense().double(), drawn(2, 5)
    model.bn1.eps = 1e-300
    assert least_squares_shares(model, F.cross_entropy, inputs, torch.tensor([0, 1]))["bn1"].removed == pytest.approx(1)


def test_the_noise_behind_a_bn_is_in_the_gradient_that_arrives():
    """Against the same network with a plain BN whose output is multiplied by the noise that was drawn."""
    model = network("mlp", "noisy_bn", shape=(1, 8, 8), units=6, depth=2).double()
    for module in noise_modules(model):
        module.generator = torch.Generator().manual_seed(3)
    inputs, targets = drawn(9, 1, 8, 8, seed=6), torch.arange(9) % 10
    found = least_squares_shares(model, F.cross_entropy, inputs, targets)
    assert len(found) == 2
    quiet = least_squares_shares(model, F.cross_entropy, inputs, targets)
    assert quiet == found  # the same draw: it was put back
    for module in noise_modules(model):
        module.noise = False
    without = least_squares_shares(model, F.cross_entropy, inputs, targets)
    assert all(without[path].removed != found[path].removed for path in found)
    for shares in (*found.values(), *without.values()):
        assert 0 < shares.removed < 1


def sequential(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), *layers)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.bn(self.bn(x))


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.fc, self.bn, self.reentrant = nn.Linear(4, 4), nn.BatchNorm1d(4), reentrant

    def forward(self, x):
        return checkpoint(self.bn, self.fc(x), use_reentrant=self.reentrant)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (sequential(), "Sequential makes no batch normalization with the statistics of the batch"),
        (sequential(nn.LayerNorm(4)), "makes no batch normalization"),
        (sequential(Twice()), r"1\.bn makes a batch normalization more than once"),
        (sequential(Checkpointed(True)), r"1\.bn runs without gradients"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(model, line):
    with pytest.raises(IcsbenchError, match=line) as error:
        least_squares_shares(model, F.cross_entropy, drawn(6, 4).float(), torch.arange(6) % 4)
    assert "\n" not in str(error.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_checkpoint_that_can_be_measured_is():
    plain, kept = sequential(Checkpointed(False)), sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    kept.load_state_dict(dict(zip(kept.state_dict(), plain.state_dict().values(), strict=True)))
    inputs, targets = drawn(6, 4).float(), torch.arange(6) % 4
    [one], [other] = (least_squares_shares(m, F.cross_entropy, inputs, targets).values() for m in (plain, kept))
    assert one == pytest.approx(other)


def test_frozen_weights_and_a_gradient_that_does_not_arrive():
    model = sequential(nn.BatchNorm1d(4), nn.Linear(4, 4))
    for parameter in (*model[0].parameters(), *model[1].parameters()):
        parameter.requires_grad_(False)
    inputs, targets = drawn(6, 4).float(), torch.arange(6) % 4
    assert 0 < least_squares_shares(model, F.cross_entropy, inputs, targets)["1"].removed < 1
    nothing = least_squares_shares(model, lambda y, t: 0 * y.sum(), inputs, targets)["1"]
    assert all(math.isnan(share) for share in nothing[:3]) and nothing.random == 2 / 6
    with pytest.raises(NotFinite, match="the gradient at 1 is not finite"):
        least_squares_shares(model, lambda y, t: y.sum() * math.inf, inputs, targets)


# --- along training --------------------------------------------------------------------------------------------------


def started(model, **probes):
    return [watcher for _, watcher in start_probes(Settings(shift=False, **probes), model, Task())]


@pytest.mark.parametrize("regime", ["bn", "noisy_bn"])
def test_training_is_bit_identical_and_each_layer_has_its_row(regime):
    model, optimizer, batches, _ = problem(regime, momentum=0.9)
    _, gradients, losses = train(model, optimizer, batches)
    twin, optimizer, batches, _ = problem(regime, momentum=0.9)
    [probe] = started(twin, least_squares=True, update_every=2)
    assert isinstance(probe, LeastSquaresProbe) and [probe.due(step) for step in range(4)] == [True, False, True, False]
    readings, watched_gradients, watched = train(twin, optimizer, batches, probe)
    assert watched == losses and same(gradients, watched_gradients)
    assert same([model.state_dict()], [twin.state_dict()])
    layers = [path for path, block in model.layers() if isinstance(block.norm, nn.BatchNorm2d)]
    assert readings[0].layers == [{"layer": path, "depth": depth} for depth, path in enumerate(layers, 1)]
    assert readings[1].layers is None
    for reading in readings:
        keys = ("removed", "mean_share", "xhat_share", "random")
        assert list(reading.row) == [f"least_squares/{path}/{key}" for path in layers for key in keys]
        assert all(0 < value < 1 for value in reading.row.values())


@pytest.mark.parametrize("regime", ["none", "noise", "l2"])
def test_a_network_without_bn_has_no_row(regime):
    assert started(small_vgg(regime, name="vgg11"), least_squares=True) == []


def test_it_is_off_where_nobody_asks():
    assert started(small_vgg("bn", name="vgg11")) == []


def test_where_a_gradient_is_not_finite_there_is_no_row():
    model, _, [(inputs, targets), *_], _ = problem("bn")
    probe = LeastSquaresProbe(model, lambda y, t: y.sum() * math.inf, names={}, every=1)
    update = Update(0, inputs, targets, 0.1)
    probe.before(update)
    assert probe.after(update).row is None
