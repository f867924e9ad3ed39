import pytest
import torch
from torch import nn

from icsbench.config import Config, options_of
from icsbench.models.vgg import VGG, VGGOptions
from icsbench.training import build_model


def build(norm="none", **model):
    return build_model(Config(norm=options_of("norm", norm), model=options_of("model", **model)), 10)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("model", "norm", "expected"),
    [
        ({"name": "vgg16"}, "none", 14_719_818),
        ({"name": "vgg16"}, "bn", 14_728_266),
        ({"name": "vgg16"}, "noisy_bn", 14_728_266),
        ({"name": "vgg16"}, "noise", 14_719_818),
        ({"name": "vgg16", "head": "512-512"}, "none", 15_245_130),
        ({"name": "vgg16", "head": "512-512"}, "bn", 15_253_578),
        ({"name": "vgg16", "head": "512-512", "head_norm": True}, "bn", 15_255_626),
        ({"name": "vgg16", "head": "4096-4096"}, "none", 33_638_218),
        ({"name": "vgg16", "head": "4096-4096", "head_norm": True}, "bn", 33_663_050),
        ({"name": "vgg11"}, "none", 9_225_610),
        ({"name": "vgg11"}, "bn", 9_231_114),
        ({"name": "vgg11", "head": "512-512"}, "none", 9_750_922),
        ({"name": "vgg11", "head": "512-512", "head_norm": True}, "bn", 9_758_474),
        ({"name": "vgg13"}, "none", 9_410_122),
        ({"name": "vgg13"}, "bn", 9_416_010),
        ({"name": "vgg19"}, "none", 20_029_514),
        ({"name": "vgg19"}, "bn", 20_040_522),
    ],
)
def test_parameter_counts(model, norm, expected):
    assert count(build(norm, **model)) == expected


@pytest.mark.parametrize(("name", "buffers"), [("vgg16", 8_448), ("vgg11", 5_504), ("vgg13", 5_888), ("vgg19", 11_008)])
def test_running_buffers(name, buffers):
    running = [b for b in build("bn", name=name).buffers() if b.ndim]
    assert sum(b.numel() for b in running) == buffers


def test_vgg16_convolutions_in_order():
    weights = [block.transform.weight.numel() for _, block in build(name="vgg16").layers()]
    expected = [1728, 36864, 73728, 147456, 294912, 589824, 589824, 1179648, *[2359296] * 5, 5120]
    assert weights == expected


def test_the_regimes_have_the_same_layers_and_shared_weights_start_equal():
    regimes = {norm: build(norm, width=0.125) for norm in ("none", "bn", "noisy_bn", "noise")}
    paths = {norm: [path for path, _ in model.layers()] for norm, model in regimes.items()}
    assert paths["none"][0] == "features.conv1"
    assert paths["none"][-1] == "head.fc1"
    assert len(set(map(tuple, paths.values()))) == 1
    reference = dict(regimes["none"].named_parameters())
    for model in regimes.values():
        parameters = dict(model.named_parameters())
        assert all(torch.equal(parameters[name], value) for name, value in reference.items())


def test_another_seed_is_another_network_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    one = build_model(Config(seed=0, model=options_of("model", width=0.0625)), 10)
    two = build_model(Config(seed=1, model=options_of("model", width=0.0625)), 10)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert name.endswith("bias") or "norm" in name or not torch.equal(a, b)


@pytest.mark.parametrize("init", ["glorot", "he", "torch"])
def test_init_follows_its_law(init):
    model = build(name="vgg16", init=init)
    for _, block in model.layers()[1:-1]:
        weight, bias = block.transform.weight, block.transform.bias
        fan_in, fan_out = weight[0].numel(), weight.shape[0] * 9
        std = {"glorot": (2 / (fan_in + fan_out)) ** 0.5, "he": (2 / fan_in) ** 0.5, "torch": (1 / 3 / fan_in) ** 0.5}
        assert weight.std().item() == pytest.approx(std[init], rel=5 / (2 * weight.numel()) ** 0.5)
        assert abs(weight.mean().item()) < 5 * std[init] / weight.numel() ** 0.5
        if init == "he":
            assert weight.abs().max() > 3 * std[init]
        else:
            assert weight.abs().max() <= 3**0.5 * std[init] * (1 + 1e-6)
        assert (bias.abs().max() <= fan_in**-0.5) if init == "torch" else (bias == 0).all()


def test_torch_init_is_the_law_of_torch():
    torch.manual_seed(0)
    ours, theirs = build(init="torch", width=0.5).features.conv5.transform, nn.Conv2d(64, 128, 3, padding=1)
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.02)
    assert ours.weight.abs().max().item() == pytest.approx(theirs.weight.abs().max().item(), rel=1e-3)


def test_width_multiplies_channels_and_never_loses_the_last_one():
    assert [b.transform.weight.shape[0] for _, b in build(width=0.25).layers()][:4] == [16, 16, 32, 32]
    tiny = build(width=1 / 64)
    assert {b.transform.weight.shape[0] for _, b in tiny.layers()[:-1]} == {1, 2, 4, 8}
    assert tiny(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_plain_module_twin_gives_the_same_logits():
    model = build("bn", width=0.125).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    value = x
    for name, module in model.features.named_children():
        if name.startswith("conv"):
            value = torch.relu(module.norm(module.transform(value.clone())))
        else:
            value = nn.functional.max_pool2d(value, 2)
    expected = value.mean((2, 3)) @ model.head.fc1.transform.weight.T + model.head.fc1.transform.bias
    torch.testing.assert_close(model(x), expected)


def test_any_norm_can_be_plugged_in():
    def layer(transform, place):
        return transform, nn.GroupNorm(1, place.features)

    model = VGG(VGGOptions("vgg11", width=0.125), layer, shape=(3, 32, 32), num_classes=7, seed=0)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
