"""The residual networks: sizes, layers, the shortcut, and a twin of plain functions."""

import pytest
import torch
from networks import network
from torch.nn import functional as F

from icsbench.models import Residual
from icsbench.models.resnet import Subsampling


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "bn", "none", "biases", "fixup", "skipinit"),
    [
        ("resnet20", 269_722, 268_346, 269_034, 268_393, 269_043),
        ("resnet56", 853_018, 848_954, 850_986, 849_091, 851_013),
        ("resnet110", 1_727_962, 1_719_866, 1_723_914, 1_720_138, 1_723_968),
    ],
)
def test_parameter_counts(name, bn, none, biases, fixup, skipinit):
    assert [count(network(name, norm)) for norm in ("bn", "none", "fixup")] == [bn, none, fixup]
    assert [count(network(name, norm, bias=True)) for norm in ("none", "skipinit")] == [biases, skipinit]


@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet56", 9), ("resnet110", 18)])
def test_layers(name, n):
    model = network(name, width=1 / 16)
    convolutions = [f"stage{s}.block{b}.conv{c}" for s in (1, 2, 3) for b in range(1, n + 1) for c in (1, 2)]
    assert [path for path, _ in model.layers()] == ["stem", *convolutions, "fc"]
    channels = [block.transform.weight.shape[0] for _, block in model.layers()]
    assert channels == [1] * (2 * n + 1) + [2] * 2 * n + [4] * 2 * n + [10]
    strides = [block.transform.stride[0] for _, block in model.layers()[:-1]]
    assert [index for index, stride in enumerate(strides) if stride == 2] == [2 * n + 1, 4 * n + 1]
    assert all(block.transform.bias is None for _, block in model.layers()[:-1])


def test_width_never_loses_the_last_channel():
    model = network("resnet20", width=1 / 64)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_shortcut_keeps_every_second_pixel_and_adds_channels_of_zeros():
    x = torch.randn(2, 3, 5, 6)
    found = Subsampling(7, 2)(x)
    assert torch.equal(found[:, :3], F.avg_pool2d(x, 1, stride=2)) and (found[:, 3:] == 0).all()
    assert found.shape == (2, 7, 3, 3)


def test_he_init_is_by_fan_in():
    model = network("resnet20")
    for _, block in model.layers():
        weight = block.transform.weight
        std = (2 / weight[0].numel()) ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=5 / (2 * weight.numel()) ** 0.5)


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_a_twin_of_plain_functions_gives_the_same_logits(norm):
    model = network("resnet20", norm, width=1 / 8, bias=True, seed=2).double().eval()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state = model.state_dict()

    def conv(value, path, stride=1):
        value = F.conv2d(value, state[f"{path}.transform.weight"], state[f"{path}.transform.bias"], stride, 1)
        return value / (1 + 1e-5) ** 0.5 if norm == "bn" else value  # running statistics at their start

    value = torch.relu(conv(x, "stem"))
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            path, stride = f"stage{stage}.block{block}", 2 if stage > 1 and block == 1 else 1
            branch = conv(torch.relu(conv(value, f"{path}.conv1", stride)), f"{path}.conv2")
            kept = value[:, :, ::stride, ::stride]
            added = torch.zeros(4, branch.shape[1] - kept.shape[1], *kept.shape[2:], dtype=torch.float64)
            value = torch.relu(torch.cat([kept, added], 1) + branch)
    expected = value.mean((2, 3)) @ state["fc.transform.weight"].T + state["fc.transform.bias"]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("shape", [(7,), (1, 3, 4)])
def test_the_residual_mlp_is_what_it_says(shape):
    model = network("residual_mlp", shape=shape, depth=2, units=6, seed=1).double()
    x = torch.randn(5, *shape, dtype=torch.float64)
    layer = {path: block.transform for path, block in model.layers()}
    assert [*layer] == ["stem", "block1.fc1", "block1.fc2", "block2.fc1", "block2.fc2", "fc"]
    value = torch.relu(layer["stem"](x.flatten(1)))
    for block in ("block1", "block2"):
        value = torch.relu(value + layer[f"{block}.fc2"](torch.relu(layer[f"{block}.fc1"](value))))
    torch.testing.assert_close(model(x), layer["fc"](value))
    assert count(model) == 6 * torch.Size(shape).numel() + 6 + 4 * (36 + 6) + 10 * 7
    assert [len(module.branch) for module in model.modules() if isinstance(module, Residual)] == [2, 2]


def test_a_depth_of_zero_is_one_clear_line():
    with pytest.raises(ValueError, match=r"^model\.depth must be at least 1 \(got 0\)$"):
        network("residual_mlp", depth=0, units=4)
