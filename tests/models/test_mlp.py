import pytest
import torch
from networks import network
from torch import nn

from icsbench.norms import LpNorm1d


def build(norm="none", in_features=784, **options):
    options = {"depth": 3, "units": 100, "init": "gaussian", **options}
    return network("mlp", norm, shape=(in_features,), **options)


@pytest.mark.parametrize(
    ("norm", "expected"), [("none", 99_710), ("noise", 99_710), ("bn", 100_310), ("noisy_bn", 100_310), ("l1", 100_310)]
)
def test_parameter_counts_of_the_paper(norm, expected):
    assert sum(parameter.numel() for parameter in build(norm).parameters()) == expected


def test_layers_of_the_paper():
    layers = build("bn").layers()
    assert [path for path, _ in layers] == ["fc1", "fc2", "fc3", "fc4"]
    assert [tuple(b.transform.weight.shape) for _, b in layers] == [(100, 784), (100, 100), (100, 100), (10, 100)]
    assert [type(b.norm) for _, b in layers] == [nn.BatchNorm1d] * 3 + [nn.Identity]
    assert [type(b.activation) for _, b in layers] == [nn.Sigmoid] * 3 + [nn.Identity]


@pytest.mark.parametrize(("depth", "units"), [(1, 5), (4, 7)])
@pytest.mark.parametrize("norm", ["none", "bn", "l1"])
def test_a_plain_twin_gives_the_same_logits(norm, depth, units):
    model = build(norm, in_features=12, depth=depth, units=units, init_std=0.7).double()
    x = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = x.reshape(6, 12)
    for index in range(1, depth + 1):
        block = model.get_submodule(f"fc{index}")
        value = value @ block.transform.weight.T + block.transform.bias
        if norm == "bn":
            value = (value - value.mean(0)) / (value.var(0, correction=0) + 1e-5).sqrt()
        if norm == "l1":
            assert isinstance(block.norm, LpNorm1d)
            value = (value - value.mean(0)) / value.abs().mean(0)
        value = 1 / (1 + (-value).exp())
    last = model.get_submodule(f"fc{depth + 1}").transform
    torch.testing.assert_close(model(x), value @ last.weight.T + last.bias)
    torch.testing.assert_close(model(x.reshape(6, 12)), model(x))


def test_default_weights_are_small_and_gaussian():
    weight = build(seed=2).fc1.transform.weight
    assert weight.std().item() == pytest.approx(0.1, rel=5 / (2 * weight.numel()) ** 0.5)
    assert torch.equal(weight, build(seed=2, init_std=0.1).fc1.transform.weight)
