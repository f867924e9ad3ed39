"""The reference batch normalization against golden numbers, its own identities, autograd and torch."""

import pytest
import torch
from torch import nn

from icsbench.norms.batch_norm import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    population_statistics,
)

SHAPES = [(2, 1), (7, 3), (64, 5), (3, 4, 6), (2, 3, 5, 4), (8, 2, 1, 1)]
EPS = [0.0, 1e-5, 0.3]


def problem(shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(shape, generator=g, dtype=torch.float64) + 2
    dy = torch.randn(shape, generator=g, dtype=torch.float64)
    gamma, beta = torch.randn(2, shape[1], generator=g, dtype=torch.float64)
    return x, dy, gamma, beta


def per_feature(values, x):
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def axes(x):
    return (0, *range(2, x.dim()))


def torch_layer(x, gamma, beta, eps, momentum=0.1):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[x.dim()]
    layer = kind(x.shape[1], eps=eps, momentum=momentum, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(gamma)
        layer.bias.copy_(beta)
    return layer


def test_golden_numbers():
    def column(*values):
        return torch.tensor(values, dtype=torch.float64)[:, None]

    x, dy = column(1, 2, 3, 4), column(1, 0, -1, 2)
    gamma, beta = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    y, cache = batch_norm_forward(x, gamma, beta, 1e-5)
    gradients = batch_norm_backward(dy, cache)
    mean, var = population_statistics([x])
    expected = [
        (y, column(-2.183270839938, -0.394423613313, 1.394423613313, 3.183270839938)),
        (cache.mean, torch.tensor([2.5], dtype=torch.float64)),
        (cache.var, torch.tensor([1.25], dtype=torch.float64)),
        (gradients.dx, column(1.431073488101, -0.715540321716, -2.862154131534, 2.146620965149)),
        (gradients.dgamma, torch.tensor([0.894423613313], dtype=torch.float64)),
        (gradients.dbeta, torch.tensor([2.0], dtype=torch.float64)),
        (gradients.dvar, torch.tensor([-0.715533166385], dtype=torch.float64)),
        (gradients.dmean, torch.tensor([-3.577694453250], dtype=torch.float64)),
        (var, torch.tensor([5 / 3], dtype=torch.float64)),
        (
            batch_norm_inference(x, gamma, beta, mean, var, 1e-5),
            column(-1.823783036386, -0.274594345462, 1.274594345462, 2.823783036386),
        ),
    ]
    for actual, golden in expected:
        torch.testing.assert_close(actual, golden, rtol=0, atol=1e-9)
    inner = (gradients.dx * cache.x_hat).sum()
    assert inner.item() == pytest.approx(1.279979520e-5, abs=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", EPS)
class TestIdentities:
    def test_normalized_activations(self, shape, eps):
        x, _, gamma, beta = problem(shape)
        _, cache = batch_norm_forward(x, gamma, beta, eps)
        zero = torch.zeros_like(gamma)
        torch.testing.assert_close(cache.x_hat.mean(axes(x)), zero, rtol=0, atol=1e-13)
        torch.testing.assert_close(cache.x_hat.square().mean(axes(x)), cache.var / (cache.var + eps))

    def test_gradient_is_orthogonal_to_constants_and_almost_to_x_hat(self, shape, eps):
        x, dy, gamma, beta = problem(shape)
        _, cache = batch_norm_forward(x, gamma, beta, eps)
        dx = batch_norm_backward(dy, cache).dx
        torch.testing.assert_close(dx.sum(axes(x)), torch.zeros_like(gamma), rtol=0, atol=1e-12)
        inner = gamma / (cache.var + eps).sqrt() * (dy * cache.x_hat).sum(axes(x)) * eps / (cache.var + eps)
        torch.testing.assert_close((dx * cache.x_hat).sum(axes(x)), inner, rtol=1e-10, atol=1e-12)

    def test_compact_form(self, shape, eps):
        x, dy, gamma, beta = problem(shape)
        _, cache = batch_norm_forward(x, gamma, beta, eps)
        gradients = batch_norm_backward(dy, cache)
        m = x.numel() // shape[1]
        bracket = m * dy - per_feature(dy.sum(axes(x)), x)
        bracket = bracket - cache.x_hat * per_feature((dy * cache.x_hat).sum(axes(x)), x)
        compact = per_feature(gamma / (m * (cache.var + eps).sqrt()), x) * bracket
        torch.testing.assert_close(gradients.dx, compact, rtol=1e-11, atol=1e-12)

    def test_shift_invariance(self, shape, eps):
        x, dy, gamma, beta = problem(shape)
        y, cache = batch_norm_forward(x, gamma, beta, eps)
        shifted_y, shifted = batch_norm_forward(x + per_feature(beta, x), gamma, beta, eps)
        torch.testing.assert_close(shifted_y, y, rtol=1e-11, atol=1e-12)
        dx, shifted_dx = batch_norm_backward(dy, cache).dx, batch_norm_backward(dy, shifted).dx
        torch.testing.assert_close(shifted_dx, dx, rtol=1e-10, atol=1e-11)

    def test_autograd(self, shape, eps):
        x, dy, gamma, beta = (t.requires_grad_() for t in problem(shape))
        y, cache = batch_norm_forward(x, gamma, beta, eps)
        with torch.no_grad():
            gradients = batch_norm_backward(dy, cache)
        wanted = torch.autograd.grad(y, (x, gamma, beta, cache.x_hat), dy)
        for actual, reference in zip(
            (gradients.dx, gradients.dgamma, gradients.dbeta, gradients.dxhat), wanted, strict=True
        ):
            torch.testing.assert_close(actual, reference, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", EPS[1:])  # torch refuses 0
def test_torch_forward_and_backward(shape, eps):
    x, dy, gamma, beta = problem(shape)
    layer = torch_layer(x, gamma, beta, eps)
    y, cache = batch_norm_forward(x, gamma, beta, eps)
    gradients = batch_norm_backward(dy, cache)
    leaf = x.clone().requires_grad_()
    theirs = layer(leaf)
    theirs.backward(dy)
    for actual, reference in (
        (y, theirs.detach()),
        (gradients.dx, leaf.grad),
        (gradients.dgamma, layer.weight.grad),
        (gradients.dbeta, layer.bias.grad),
    ):
        torch.testing.assert_close(actual, reference, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_running_statistics_and_inference(shape):
    x, _, gamma, beta = problem(shape)
    batches = [problem(shape, seed)[0] for seed in range(5)]
    layer = torch_layer(x, gamma, beta, 1e-5, momentum=None)
    for batch in batches:
        layer(batch)
    mean, var = population_statistics(batches)
    torch.testing.assert_close(mean, layer.running_mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(var, layer.running_var, rtol=1e-12, atol=1e-13)
    ours = batch_norm_inference(x, gamma, beta, mean, var, 1e-5)
    torch.testing.assert_close(ours, layer.eval()(x).detach(), rtol=1e-12, atol=1e-12)


def test_population_variance_is_unbiased():
    g = torch.Generator().manual_seed(1)
    batches = [torch.randn(2, 200, generator=g, dtype=torch.float64) for _ in range(500)]
    _, var = population_statistics(batches)
    # A variance estimated from two normal values has variance 2; 100,000 of them are averaged.
    assert abs(var.mean().item() - 1) < 5 * (2 / 100_000) ** 0.5


@pytest.mark.parametrize("shape", [(1, 3), (1, 2, 1, 1), (6, 3), (4, 3, 2, 2)])
def test_constant_feature_gives_beta_and_no_gradient(shape):
    _, dy, gamma, beta = problem(shape)
    y, cache = batch_norm_forward(torch.full(shape, 7.0, dtype=torch.float64), gamma, beta, 1e-5)
    assert torch.equal(y, per_feature(beta, y).expand(shape))
    gradients = batch_norm_backward(dy, cache)
    assert torch.equal(gradients.dgamma, torch.zeros_like(gamma))
    torch.testing.assert_close(gradients.dx.sum(axes(dy)), torch.zeros_like(gamma), rtol=0, atol=1e-9)


def weight_problem(seed=0):
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 6, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=g, dtype=torch.float64, requires_grad=True)
    gamma, beta = torch.randn(2, 4, generator=g, dtype=torch.float64)
    target = torch.randn(16, 4, generator=g, dtype=torch.float64)

    def loss(weight, eps):
        return (batch_norm_forward(inputs @ weight.T, gamma, beta, eps)[0] - target).pow(2).sum()

    return weight, loss


@pytest.mark.parametrize("a", [0.25, 3.0])
def test_loss_ignores_the_scale_of_the_weights(a):
    weight, loss = weight_problem()
    (gradient,) = torch.autograd.grad(loss(weight, 0.0), weight)
    scaled = (a * weight.detach()).requires_grad_()
    (scaled_gradient,) = torch.autograd.grad(loss(scaled, 0.0), scaled)
    torch.testing.assert_close(loss(scaled, 0.0), loss(weight, 0.0), rtol=1e-12, atol=0)
    torch.testing.assert_close(scaled_gradient, gradient / a, rtol=1e-10, atol=1e-11)
    hessian = torch.autograd.functional.hessian(lambda w: loss(w, 0.0), weight)
    scaled_hessian = torch.autograd.functional.hessian(lambda w: loss(w, 0.0), scaled)
    torch.testing.assert_close(scaled_hessian, hessian / a**2, rtol=1e-8, atol=1e-9)


def test_gradient_descent_lengthens_the_weights_by_pythagoras():
    weight, loss = weight_problem()
    (gradient,) = torch.autograd.grad(loss(weight, 0.0), weight)
    stepped = weight.detach() - 0.1 * gradient
    wanted = weight.detach().square().sum() + 0.01 * gradient.square().sum()
    torch.testing.assert_close(stepped.square().sum(), wanted, rtol=1e-11, atol=0)


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_radial_weight_gradient_is_the_eps_term_and_bias_gradient_is_zero(eps):
    g = torch.Generator().manual_seed(3)
    inputs = torch.randn(16, 6, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=g, dtype=torch.float64)
    gamma, beta = torch.randn(2, 4, generator=g, dtype=torch.float64)
    dy = torch.randn(16, 4, generator=g, dtype=torch.float64)
    _, cache = batch_norm_forward(inputs @ weight.T, gamma, beta, eps)
    dx = batch_norm_backward(dy, cache).dx
    # x - mean = sqrt(var + eps) x_hat, so <dl/dw_j, w_j> = <dx_j, x_j> is sqrt(var + eps) <dx_j, x_hat_j>.
    radial = ((dx.T @ inputs) * weight).sum(1)
    wanted = gamma * (dy * cache.x_hat).sum(0) * eps / (cache.var + eps)
    torch.testing.assert_close(radial, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(dx.sum(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "batches", [[], [torch.zeros(1, 3)], [torch.zeros(4, 3), torch.zeros(5, 3)]], ids=["none", "m=1", "unequal"]
)
def test_population_statistics_refuse(batches):
    with pytest.raises(ValueError, match="batches of one size above 1"):
        population_statistics(batches)


def test_input_without_features_is_refused():
    with pytest.raises(ValueError, match=r"expected \(N, C\)"):
        batch_norm_forward(torch.zeros(3), torch.ones(3), torch.zeros(3), 1e-5)
