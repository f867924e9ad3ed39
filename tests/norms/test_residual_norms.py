"""SkipInit and Fixup: initial values against the papers, what the network computes, groups of rates, and refusals."""

import copy

import pytest
import torch
from networks import network
from torch import nn
from torch.nn import functional as F

from icsbench.config import Config, options_of
from icsbench.errors import IcsbenchError
from icsbench.models import Block, InitOptions, Network, NormPlace, Residual
from icsbench.norms.contract import Branch, Place
from icsbench.norms.fixup import FIXUP, ScalarBias
from icsbench.norms.skipinit import ScalarGain
from icsbench.probes import internal_covariate_shift, loss_landscape
from icsbench.training.optimizers import build_optimizer

CONV1_STDS = {  # by stage: He by fan-out times L^(-1/2)
    "resnet20": (0.0392837101, 0.0277777778, 0.0196418550),
    "resnet56": (0.0226804606, 0.0160375075, 0.0113402303),
    "resnet110": (0.0160375075, 0.0113402303, 0.0080187537),
}


def images(count=4, dtype=torch.float32):
    return torch.randn(count, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(0))


def modules(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", CONV1_STDS)
def test_fixup_draws_the_first_convolution_of_a_branch_by_fan_out_and_depth(name, monkeypatch):
    asked = []
    draw = nn.init.normal_
    monkeypatch.setattr(nn.init, "normal_", lambda weight, std: asked.append(std) or draw(weight, std=std))
    model = network(name, "fixup", init="torch", bias=True)
    blocks = modules(model, Residual)
    third = len(blocks) // 3
    for index, (block, std) in enumerate(zip(blocks, asked, strict=True)):
        first, last = (layer.transform.inside for layer in block.branch)
        assert std == pytest.approx(CONV1_STDS[name][index // third], rel=1e-8)
        assert first.weight.std().item() == pytest.approx(std, rel=5 / (2 * first.weight.numel()) ** 0.5)
        assert (last.weight == 0).all() and (last.bias == 0).all() and (first.bias == 0).all()
    assert all((parameter == 0).all() for parameter in model.fc.transform.inside.parameters())


def test_fixup_of_deeper_branches_has_the_exponent_of_their_depth():
    class Deep(Network):
        def __init__(self, layers, norm):
            super().__init__()
            for number in range(16):
                branch = {f"fc{i}": Block(nn.Linear(400, 400), NormPlace(400, 1), nn.ReLU()) for i in range(layers)}
                self.add_module(f"block{number}", Residual(branch, nn.Identity(), nn.Identity()))
            self.finish(norm, InitOptions("deep"), 0)

    bound = FIXUP.bound(options_of("norm", "fixup"))
    for layers, factor in ((3, 16**-0.25), (5, 16**-0.125)):
        for block in modules(Deep(layers, bound), Residual):
            *others, last = (layer.transform.inside.weight for layer in block.branch)
            assert (last == 0).all()
            assert all(w.std().item() == pytest.approx((2 / 400) ** 0.5 * factor, rel=0.01) for w in others)
    with pytest.raises(IcsbenchError, match=r"^norm fixup needs two layers or more in every residual branch \(got 1\)"):
        Deep(1, bound)


@pytest.mark.parametrize(
    ("layers", "blocks", "factor"),
    [
        *((2, 9, 0.333333333333), (2, 15, 0.258198889747), (2, 27, 0.192450089730), (2, 54, 0.136082763488)),
        *((3, 16, 0.5), (3, 33, 0.4172261449), (3, 50, 0.3760603093)),
    ],
)
def test_the_factor_of_depth_of_the_papers_resnets(layers, blocks, factor, monkeypatch):
    """ResNet-20, 32, 56 and 110; 50, 101 and 152."""
    asked = []
    monkeypatch.setattr(nn.init, "normal_", lambda weight, std: asked.append(std))
    FIXUP.bound(options_of("norm", "fixup"))(nn.Conv2d(5, 8, 3), Place(0, 2, 8, 2, Branch(0, blocks, 0, layers)))
    assert asked == [pytest.approx((2 / 72) ** 0.5 * factor, rel=1e-9)]


@pytest.mark.parametrize("model", ["resnet20", "residual_mlp"])
def test_fixup_starts_with_logits_of_exactly_zero(model):
    options = {"width": 1 / 8} if model == "resnet20" else {"depth": 3, "units": 8}
    assert (network(model, "fixup", init="torch", **options)(images()) == 0).all()


@pytest.mark.parametrize("model", ["resnet20", "residual_mlp"])
def test_skipinit_starts_with_the_logits_of_stem_and_output_alone(model):
    options = {"width": 1 / 8} if model == "resnet20" else {"depth": 3, "units": 8}
    skipinit = network(model, "skipinit", **options)
    value = skipinit.stem(images() if model == "resnet20" else images().flatten(1))
    for block in modules(skipinit, Residual):
        value = block.shortcut(value)
    value = value.mean((2, 3)) if model == "resnet20" else value
    assert torch.equal(skipinit(images()), skipinit.fc(value))
    assert skipinit(images()).abs().max() > 0
    gains = modules(skipinit, ScalarGain)
    assert len(gains) == len(modules(skipinit, Residual)) and all(gain.gain == 0 for gain in gains)


def test_skipinit_with_a_gain_of_one_is_the_network_without():
    plain, skipinit = network("resnet20", width=1 / 8), network("resnet20", "skipinit", width=1 / 8)
    for gain in modules(skipinit, ScalarGain):
        nn.init.ones_(gain.gain)
    assert torch.equal(plain(images()), skipinit(images()))


def test_fixup_is_what_it_says():
    model = network("resnet20", "fixup", width=1 / 8).double()
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=stream) + 0.1)
    x, state = images(dtype=torch.float64), model.state_dict()

    def conv(value, path, stride=1):
        value = F.conv2d(value + state[f"{path}.transform.ahead.bias"], state[f"{path}.transform.inside.weight"], None,
                         stride, 1)  # fmt: skip
        return state.get(f"{path}.norm.scale", 1) * value + state[f"{path}.norm.bias"]

    value = torch.relu(F.conv2d(x, state["stem.transform.weight"], None, 1, 1) + state["stem.norm.bias"])
    for path in (f"stage{stage}.block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)):
        stride = 2 if path in ("stage2.block1", "stage3.block1") else 1
        branch = conv(torch.relu(conv(value, f"{path}.conv1", stride)), f"{path}.conv2")
        kept = value[:, :, ::stride, ::stride]
        value = torch.relu(branch + F.pad(kept, (0, 0, 0, 0, 0, branch.shape[1] - kept.shape[1])))
    value = value.mean((2, 3)) + state["fc.transform.ahead.bias"]
    expected = value @ state["fc.transform.inside.weight"].T + state["fc.transform.inside.bias"]
    torch.testing.assert_close(model(x), expected)
    assert sum(name.endswith("conv2.norm.scale") for name in state) == 9
    assert sum("scale" in name for name in state) == 9


def test_the_scalars_of_fixup_learn_at_a_tenth_of_the_rate():
    model = network("resnet20", "fixup", width=1 / 8)
    optimizer = build_optimizer(model.parameters(), options_of("optim", lr=0.5, momentum=0.9, weight_decay=0.1))
    weights, scalars = optimizer.param_groups
    owned = {scalar for module in modules(model, ScalarBias) for scalar in module.parameters()}
    assert {*scalars["params"]} == owned and len(owned) == 9 * 5 + 2
    assert {*weights["params"]} == {*model.parameters()} - owned
    assert scalars["lr_scale"] == 0.1 and "lr_scale" not in weights
    assert scalars["momentum"] == 0.9 and scalars["weight_decay"] == 0.1

    whole = network("resnet20", "none", width=1 / 8)
    (group,) = build_optimizer(whole.parameters(), options_of("optim")).param_groups
    assert group["params"] == [*whole.parameters()]


@pytest.mark.parametrize("norm", ["none", "bn", "skipinit", "fixup"])
def test_shift_of_an_update_against_copies_of_the_network(norm):
    """Definition 2.1 word for word, with skips: a copy for every layer, all layers before it at their new values."""
    model = network("resnet20", norm, width=1 / 16, seed=1).double()
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # off the zeros, where there would be no gradient
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=stream)
    noise = {name: torch.randn(p.shape, dtype=torch.float64, generator=stream) for name, p in model.named_parameters()}
    old = {name: p.detach().clone() for name, p in model.named_parameters()}
    new = {name: value + 0.05 * noise[name] for name, value in old.items()}
    x, y = images(6, torch.float64), torch.arange(6)

    def gradient(values, path):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter.copy_(values[name])
        F.cross_entropy(twin(x), y).backward()
        (weight,) = (p for p in twin.get_submodule(f"{path}.transform").parameters() if p.dim() > 1)
        return weight.grad.flatten()

    paths = [path for path, _ in model.layers()]
    found = internal_covariate_shift(model, F.cross_entropy, x, y, new, [f"{path}.transform" for path in paths])
    assert [*found] == [f"{path}.transform" for path in paths]
    for index, path in enumerate(paths):
        before = tuple(f"{earlier}." for earlier in paths[:index])
        mixed = {name: new[name] if before and name.startswith(before) else old[name] for name in old}
        g, moved = gradient(old, path), gradient(mixed, path)
        ics = found[f"{path}.transform"]
        assert ics.l2 == pytest.approx((g - moved).norm().item(), rel=1e-9, abs=1e-12)
        assert ics.gradient_norm == pytest.approx(g.norm().item(), rel=1e-9)
        assert ics.cosine == pytest.approx(F.cosine_similarity(g, moved, dim=0).item(), rel=1e-9)
    assert max(ics.relative for ics in found.values()) > 0.1


def test_the_landscape_of_a_resnet_against_a_copy():
    model, x, y = network("resnet20", "bn", width=1 / 16).double(), images(6, torch.float64), torch.arange(6)
    found = loss_landscape(model, F.cross_entropy, x, y, [0.1, 0.4])
    F.cross_entropy(model(x), y).backward()
    for alpha, loss in zip(found.alphas, found.losses, strict=True):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, own in zip(twin.parameters(), model.parameters(), strict=True):
                parameter -= alpha * own.grad
        assert loss == pytest.approx(F.cross_entropy(twin(x), y).item(), rel=1e-9)


@pytest.mark.parametrize("norm", ["skipinit", "fixup"])
@pytest.mark.parametrize("model", ["vgg16", "mlp"])
def test_a_network_without_residual_branches_is_refused_in_one_line(norm, model):
    options = {"depth": 2, "units": 4} if model == "mlp" else {}
    expected = (
        rf"^norm {norm} is one of residual branches, and model {model} has none; "
        "choose model=residual_mlp, resnet20, resnet56, resnet110$"
    )
    with pytest.raises(ValueError, match=expected):
        Config(norm=options_of("norm", norm), model=options_of("model", model, **options))


@pytest.mark.parametrize(
    ("norm", "options", "message"),
    [
        ("skipinit", {"gain": 2.0}, r"^norm\.gain must be at least -1 and at most 1 \(got 2\.0\)$"),
        ("fixup", {"scalar_lr": -0.1}, r"^norm\.scalar_lr must be at least 0 and at most 1 \(got -0\.1\)$"),
    ],
)
def test_options_out_of_range_are_one_clear_line(norm, options, message):
    with pytest.raises(ValueError, match=message):
        options_of("norm", norm, **options)
