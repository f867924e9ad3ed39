import statistics

import pytest
import torch
from networks import network
from torch import nn


def build(norm="none", features=10, depth=25, **options):
    return network("dln", norm, shape=(features,), num_classes=None, depth=depth, units=features, **options).double()


@pytest.mark.parametrize(("norm", "extra"), [("none", 0), ("bn", 24 * 20), ("l1", 24 * 20), ("linf", 24 * 20)])
def test_parameter_counts_of_the_paper(norm, extra):
    assert sum(parameter.numel() for parameter in build(norm).parameters()) == 2_500 + extra


def test_layers_of_the_paper():
    layers = build("bn").layers()
    assert [path for path, _ in layers] == [f"fc{index}" for index in range(1, 26)]
    assert all(tuple(b.transform.weight.shape) == (10, 10) and b.transform.bias is None for _, b in layers)
    assert [type(b.norm) for _, b in layers] == [nn.BatchNorm1d] * 24 + [nn.Identity]
    assert all(type(b.activation) is nn.Identity for _, b in layers)


def test_weights_are_glorot_uniform():
    weights = torch.cat([block.transform.weight.detach().flatten() for _, block in build().layers()])
    assert 0.999 * 0.5477226 < weights.abs().max() <= 0.5477226
    assert weights.std().item() == pytest.approx(0.3162278, rel=0.05)  # the 2,500 of them are known to 1 %


def test_values_survive_float64():
    for name, parameter in build().named_parameters():
        assert parameter.dtype == torch.float64
        assert torch.equal(parameter, parameter.float().double()), name


@pytest.mark.parametrize(("features", "depth"), [(4, 1), (3, 5), (10, 25)])
def test_without_a_norm_it_is_a_product_of_matrices(features, depth):
    model = build(features=features, depth=depth, seed=1)
    product = torch.eye(features, dtype=torch.float64)
    for _, block in model.layers():
        product = block.transform.weight @ product
    x = torch.randn(7, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(model(x), x @ product.T)


@pytest.mark.parametrize("norm", ["bn", "l1", "l2", "linf"])
def test_with_a_norm_a_plain_twin_gives_the_same(norm):
    model = build(norm, features=4, depth=5)
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = x
    for index, (_, block) in enumerate(model.layers(), start=1):
        value = value @ block.transform.weight.T
        if index < 5:
            scale = {
                "bn": (value.var(0, correction=0) + 1e-5).sqrt(),
                "l1": value.abs().mean(0),
                "l2": value.square().mean(0).sqrt(),
                "linf": value.abs().amax(0),
            }[norm]
            value = (value - value.mean(0)) / scale
    torch.testing.assert_close(model(x), value)


def initial_loss(norm, seed):
    """Half the summed squares of a network against A x, for 1,000 Gaussian x, and what is due to A alone."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1000, 10, generator=g, dtype=torch.float64)
    targets = x @ torch.randn(10, 10, generator=g, dtype=torch.float64).T
    with torch.no_grad():
        residual = build(norm, seed=seed)(x) - targets
    return residual.square().sum().item() / 2, targets.square().sum().item() / 2


@pytest.mark.parametrize("norm", ["none", "bn", "l1", "l2", "linf"])
def test_initial_loss(norm):
    """It starts at about 5e4, the mean of 1/2 sum ||A x||^2 = 1000 ||A||_F^2 / 2 over A.

    ||A||_F^2 is chi-squared with 100 degrees of freedom, so one seed differs from that by sqrt(2 / 100), 7e3. The
    network's own output M x adds 500 ||M||_F^2, 5e3 with BN before the last matrix, and their product has mean 0 and
    standard deviation 1000 ||M||_F, 3e3. So with BN one seed has 5.5e4 +- 8e3. Without a norm ||M||_F, of 25 factors,
    has a heavy tail, which the median does not feel.
    """
    losses, alone = zip(*(initial_loss(norm, seed) for seed in range(16)), strict=True)
    assert statistics.mean(alone) == pytest.approx(5e4, abs=4 * 7e3 / 16**0.5)
    assert 4e4 < statistics.median(losses) < 7e4
    if norm == "bn":
        assert statistics.mean(losses) == pytest.approx(5.5e4, abs=4 * 8e3 / 16**0.5)
        assert all(abs(loss - 5.5e4) < 4 * 8e3 for loss in losses)
