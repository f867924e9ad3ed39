import copy
import math

import pytest
import torch
from networks import small_vgg
from torch import nn
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.norms import noise_modules
from icsbench.probes import NotFinite, internal_covariate_shift, undisturbed


def half_sum(outputs, targets):
    return (outputs - targets).square().sum() / 2


def sequential(*modules):
    torch.manual_seed(0)
    return nn.Sequential(*modules).double()


class Residual(nn.Module):
    """Not a chain: a branch is added to the trunk; the branch is called in another order than it is registered."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.branch = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6))
        self.first = nn.Linear(4, 6)

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.relu(x + self.branch(x)))


class Tied(nn.Module):
    """One module called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.c(torch.tanh(self.a(torch.tanh(self.b(torch.tanh(self.a(x)))))))


class Branching(nn.Module):
    """Python control flow on the data: no tracer follows it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.a(x)
        return self.b(h.relu() if h.mean() > -100 else h)


class Functional(nn.Module):
    """Parameters of its own, and a module whose weight is used without a call."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(1, 4))
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return F.linear(self.a(x + self.shift).tanh(), self.b.weight, self.b.bias)


# network, its layers in forward order, and for each the names that come before it
CHAIN = [
    pytest.param(
        lambda: sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)),
        {"0": "", "2": "0.", "4": "0. 2."},
        id="mlp",
    ),
    pytest.param(
        lambda: sequential(nn.BatchNorm1d(4), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)),
        {"1": "0.", "4": "0. 1. 2."},
        id="mlp-bn-first",
    ),
    pytest.param(
        lambda: sequential(nn.Linear(4, 40), nn.Dropout(0.5), nn.Linear(40, 40), nn.Dropout(0.5), nn.Linear(40, 3)),
        {"0": "", "2": "0.", "4": "0. 2."},
        id="dropout",
    ),
    pytest.param(
        lambda: sequential(
            nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), nn.Sequential(nn.Tanh(), nn.Linear(6, 3))
        ),
        {"0.0": "", "1.1": "0."},
        id="nested",
    ),
]
GENERAL = [
    pytest.param(
        lambda: Residual().double(),
        {"first": "", "branch.0": "first.", "branch.3": "first. branch.0. branch.1.", "last": "first. branch."},
        id="residual",
    ),
    pytest.param(lambda: Tied().double(), {"a": "", "b": "a.", "c": "a. b."}, id="tied"),
    pytest.param(lambda: Branching().double(), {"a": "", "b": "a."}, id="branching"),
    pytest.param(lambda: Functional().double(), {"": "", "a": "shift", "b": "shift a."}, id="functional"),
]


def problem(model, seed=1):
    torch.manual_seed(seed)
    inputs, targets = torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    new = {name: p.detach() + 0.3 * torch.randn_like(p) for name, p in model.named_parameters()}
    return inputs, targets, new


def brute_force(model, loss_fn, inputs, targets, new, before):
    """Definition 2.1 word for word: a fresh copy of the network for every layer, a whole pass, a whole gradient."""
    stream = torch.get_rng_state()

    def gradient(names, path):
        twin = copy.deepcopy(model).train()
        state = {**dict(model.named_parameters()), **{name: new[name] for name in names}}
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter.copy_(state[name])
        torch.set_rng_state(stream)
        loss_fn(twin(inputs), targets).backward()
        own = twin.get_submodule(path).named_parameters(recurse=False)
        return torch.cat([p.grad.flatten() for _, p in own if p.dim() > 1]).double()

    found = {}
    for path, prefixes in before.items():
        names = {name for name in new if prefixes and name.startswith(tuple(prefixes.split()))}
        g, moved = gradient(set(), path), gradient(names, path)
        found[path] = ((g - moved).norm().item(), F.cosine_similarity(g, moved, dim=0).item(), g.norm().item())
    torch.set_rng_state(stream)
    return found


def check(model, loss_fn, inputs, targets, new, before, tolerance):
    layers = list(before)
    expected = brute_force(model, loss_fn, inputs, targets, new, before)
    found = internal_covariate_shift(model, loss_fn, inputs, targets, new, layers)
    assert list(found) == layers
    for path, (l2, cosine, norm) in expected.items():
        ics = found[path]
        assert ics.l2 == pytest.approx(l2, rel=tolerance, abs=tolerance * norm)
        assert ics.relative == pytest.approx(l2 / norm, rel=tolerance, abs=tolerance)
        assert ics.cosine == pytest.approx(cosine, abs=tolerance)
        assert ics.gradient_norm == pytest.approx(norm, rel=tolerance)
        own = [p for p in model.get_submodule(path).parameters(recurse=False) if p.dim() > 1]
        assert ics.weight_norm == pytest.approx(math.sqrt(sum(p.square().sum().item() for p in own)))
        assert ics.scale_free == ics.l2 * ics.weight_norm
    return found


@pytest.mark.parametrize(("build", "before"), [*CHAIN, *GENERAL])
def test_equals_the_definition(build, before):
    model = build()
    check(model, half_sum, *problem(model), before, 1e-9)


def no_chain(monkeypatch):
    monkeypatch.setattr("icsbench.probes.ics._chain", lambda *_: None)


@pytest.mark.parametrize(("build", "before"), CHAIN)
def test_both_paths_agree_on_a_chain(build, before, monkeypatch):
    model = build()
    inputs, targets, new = problem(model)
    fast = internal_covariate_shift(model, half_sum, inputs, targets, new)
    no_chain(monkeypatch)
    general = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert list(fast) == list(general) == list(before)
    for path, ics in fast.items():
        assert ics == pytest.approx(general[path], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("regime", ["none", "bn", "noisy_bn"])
def test_vgg_equals_the_definition_with_the_noise_frozen(regime):
    model, (inputs, targets) = small_vgg(regime), images()
    for module in noise_modules(model):
        module.generator = None  # the twin and the network then draw from one stream
    new = after_a_step(model, inputs, targets)
    paths = [path for path, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(paths) == 14
    before = {}
    for number, path in enumerate(paths):
        blocks = [other.rpartition(".")[0] + "." for other in paths[:number]]
        before[path] = " ".join(blocks)
    found = check(model, F.cross_entropy, inputs, targets, new, before, 2e-3)
    assert found[paths[0]] == (0.0, 0.0, pytest.approx(1), found[paths[0]].gradient_norm, found[paths[0]].weight_norm)
    assert all(ics.l2 > 0 for path, ics in found.items() if path != paths[0])


def images(count=8):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator)


def after_a_step(model, inputs, targets, lr=0.1):
    """The optimizer's real update, on a copy."""
    with undisturbed(model):
        twin = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(twin.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(twin(inputs), targets).backward()
            optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in twin.named_parameters()}


def test_two_linear_layers_have_a_closed_form():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)).double()
    inputs, targets, new = problem(model)
    w1, w2 = (module.weight.detach() for module in model)
    hidden, moved = inputs @ w1.T, inputs @ new["0.weight"].T
    g = (hidden @ w2.T - targets).T @ hidden
    after = (moved @ w2.T - targets).T @ moved
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert found["1"].l2 == pytest.approx((g - after).norm().item(), rel=1e-12)
    assert found["1"].cosine == pytest.approx(((g * after).sum() / (g.norm() * after.norm())).item(), rel=1e-12)
    assert found["0"][:3] == (0, 0, 1)


@pytest.mark.parametrize("build", [CHAIN[0].values[0], lambda: Residual().double()])
def test_no_update_is_no_shift(build):
    model = build()
    inputs, targets, _ = problem(model)
    new = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for ics in internal_covariate_shift(model, half_sum, inputs, targets, new).values():
        assert (ics.l2, ics.relative) == (0, 0)
        assert ics.cosine == pytest.approx(1)


def test_opposite_gradients():
    """The scalar net w2 w1 x with target 0: a first weight of the other sign turns the second's gradient around."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[1].weight.fill_(3.0)
    inputs, targets = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 12.0, dtype=torch.float64)
    new = {"0.weight": torch.tensor([[-2.0]]), "1.weight": torch.tensor([[0.0]])}
    ics = internal_covariate_shift(model, half_sum, inputs, targets, new)["1"]
    # G = (6 - 12) 2 = -12,  G' = (-6 - 12) (-2) = 36
    assert (ics.l2, ics.relative, ics.cosine) == (pytest.approx(48), pytest.approx(4), pytest.approx(-1))
    assert (ics.gradient_norm, ics.weight_norm, ics.scale_free) == (12, 3, pytest.approx(144))


def test_a_loss_that_reads_the_parameters_sees_the_mixed_ones():
    model = CHAIN[0].values[0]()
    inputs, targets, new = problem(model)

    def penalised(outputs, targets):
        return half_sum(outputs, targets) * (1 + model[0].weight.square().sum())

    found = internal_covariate_shift(model, penalised, inputs, targets, new)["2"]
    twin = copy.deepcopy(model)
    gradients = []
    for first in (False, True):
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                if first and name.startswith("0."):
                    parameter.copy_(new[name])
        twin.zero_grad()
        (half_sum(twin(inputs), targets) * (1 + twin[0].weight.square().sum())).backward()
        gradients.append(twin[2].weight.grad.clone())
    assert found.l2 == pytest.approx((gradients[0] - gradients[1]).norm().item(), rel=1e-9)


def test_a_container_as_a_layer():
    model = Residual().double()
    inputs, targets, new = problem(model)
    found = internal_covariate_shift(model, half_sum, inputs, targets, new, ["branch"])["branch"]
    weights = [model.branch[0].weight, model.branch[3].weight]
    twin = copy.deepcopy(model)
    vectors = []
    for first in (False, True):
        with torch.no_grad():
            if first:
                twin.first.weight.copy_(new["first.weight"])
                twin.first.bias.copy_(new["first.bias"])
        twin.zero_grad()
        half_sum(twin(inputs), targets).backward()
        vectors.append(torch.cat([twin.branch[0].weight.grad.flatten(), twin.branch[3].weight.grad.flatten()]))
    assert found.l2 == pytest.approx((vectors[0] - vectors[1]).norm().item(), rel=1e-9)
    assert found.weight_norm == pytest.approx(math.sqrt(sum(w.square().sum().item() for w in weights)))


class OverwritesItsInput(nn.Linear):
    def forward(self, input):
        return super().forward(input.mul_(2) if not input.requires_grad else input * 2)


def test_a_layer_that_overwrites_its_input_takes_the_general_path():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), OverwritesItsInput(6, 3)).double()
    inputs, targets, new = problem(model)
    twin = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), OverwritesItsInput(6, 3)).double()
    twin.load_state_dict(model.state_dict())
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    expected = brute_force(model, half_sum, inputs, targets, new, {"3": "0. 2."})
    assert found["3"].l2 == pytest.approx(expected["3"][0], rel=1e-9)


def test_passes_through_a_chain(monkeypatch):
    """Layer l runs in the network's own pass, for G, updated, and for each layer up to it; backward stops there."""
    depth = 6
    counts = {"forward": [0] * depth, "backward": [0] * depth}

    class Counted(nn.Linear):
        def __init__(self, number):
            super().__init__(5, 5)
            self.number = number

        def forward(self, input):
            counts["forward"][self.number] += 1
            output = super().forward(input)
            if output.requires_grad:
                output.register_hook(self.count)
            return output

        def count(self, _):
            counts["backward"][self.number] += 1

    torch.manual_seed(0)
    model = nn.Sequential(*(Counted(number) for number in range(depth)))
    inputs, targets = torch.randn(8, 5), torch.randn(8, 5)
    new = {name: p.detach() + 0.1 for name, p in model.named_parameters()}
    internal_covariate_shift(model, half_sum, inputs, targets, new)
    # twice all old, then the mixed networks of the layers 2 ... l + 1, then once updated (the last is never needed so)
    assert counts["forward"] == [2 + number + (number < depth - 1) for number in range(depth)]
    assert counts["backward"] == [1 + number for number in range(depth)]


def test_the_default_layers_are_those_that_own_a_matrix_and_take_part():
    model = Residual().double()
    model.unused = nn.Linear(2, 2).double()
    inputs, targets, new = problem(model)
    assert list(internal_covariate_shift(model, half_sum, inputs, targets, new)) == [
        *("first", "branch.0", "branch.3", "last")
    ]


def test_torchvision_and_attention():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.vgg11_bn(num_classes=3)
    inputs, targets = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    new = {name: p.detach() - 1e-3 * torch.randn_like(p) for name, p in model.named_parameters()}
    found = internal_covariate_shift(model, F.cross_entropy, inputs, targets, new, ["features.0", "classifier.6"])
    assert found["features.0"].l2 == 0 < found["classifier.6"].l2
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    inputs, targets = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    new = {name: p.detach() + 0.1 * torch.randn_like(p) for name, p in block.named_parameters()}
    found = internal_covariate_shift(block, half_sum, inputs, targets, new)
    assert list(found) == ["self_attn", "self_attn.out_proj", "linear1", "linear2"]
    assert found["self_attn"].l2 == 0 < found["linear1"].l2


# --- what is left behind, and what is refused -----------------------------------------------------------------------


def snapshot(model):
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "stream": torch.get_rng_state(),
        "noise": [m.generator.get_state() for m in noise_modules(model) if m.generator is not None],
        "hooks": [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()],
    }


def assert_same(before, after):
    assert before["state"].keys() == after["state"].keys()
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), name
    for key in ("modes", "requires", "hooks"):
        assert before[key] == after[key]
    for key in ("grads", "noise"):
        for a, b in zip(before[key], after[key], strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
    assert torch.equal(before["stream"], after["stream"])


@pytest.mark.parametrize("path", ["chain", "general"])
@pytest.mark.parametrize("fails_at", [None, 1, 2, 4])
def test_the_model_is_left_as_it_was(path, fails_at, monkeypatch):
    if path == "general":
        no_chain(monkeypatch)
    model, (inputs, targets) = small_vgg("noisy_bn"), images()
    new = after_a_step(model, inputs, targets)
    for module in noise_modules(model):
        module.generator = torch.Generator().manual_seed(3)
    model.eval()
    model.head.requires_grad_(False)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    calls = 0

    def loss_fn(outputs, targets):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise KeyError("half way")
        return F.cross_entropy(outputs, targets)

    before = snapshot(model)
    if fails_at is None:
        internal_covariate_shift(model, loss_fn, inputs, targets, new)
    else:
        with pytest.raises(KeyError, match="half way"):
            internal_covariate_shift(model, loss_fn, inputs, targets, new)
    assert_same(before, snapshot(model))


def bad(change):
    model = sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    inputs, targets, new = problem(model)
    arguments = {"model": model, "loss_fn": half_sum, "inputs": inputs, "targets": targets, "new_params": new}
    return arguments | change(arguments)


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"layers": ["3"]}, "has no module '3'"),
        (lambda a: {"layers": ["1"]}, "'1' holds no weight of two or more dimensions"),
        (lambda a: {"loss_fn": lambda o, t: o - t}, r"must return a scalar tensor.*shape \(16, 3\)"),
        (lambda a: {"loss_fn": lambda o, t: 1.0}, "must return a scalar tensor.*a float"),
        (lambda a: {"loss_fn": lambda o, t: t.sum()}, "does not depend on the network's parameters"),
        (lambda a: {"new_params": without(a["new_params"], "2.bias")}, "new_params has no '2.bias'"),
        (lambda a: {"new_params": a["new_params"] | {"x": torch.ones(1)}}, "'x', which is no parameter"),
        (
            lambda a: {"new_params": a["new_params"] | {"2.bias": torch.ones(4)}},
            r"'2.bias'.*wrong shape: \(4,\), not \(3,\)",
        ),
        (lambda a: {"new_params": dict(a["model"].named_parameters())}, "is the model's own parameter"),
        (lambda a: {"model": nn.ReLU(), "new_params": {}}, "ReLU has no parameters"),
        (lambda a: {"inputs": a["inputs"][:1], "targets": a["targets"][:1]}, "at least 2 samples"),
        (lambda a: {"inputs": a["inputs"] * math.nan}, "layer '0' is not finite at the current weights"),
        (
            lambda a: {"new_params": a["new_params"] | {"0.weight": torch.full((6, 4), math.nan)}},
            "layer '2' is not finite at the updated weights",
        ),
    ],
)
def test_bad_input(change, message):
    arguments = bad(change)
    before = snapshot(arguments["model"])
    with pytest.raises(IcsbenchError, match=message) as raised:
        internal_covariate_shift(**arguments)
    assert isinstance(raised.value, NotFinite) == ("finite" in message)
    assert "\n" not in str(raised.value)
    assert_same(before, snapshot(arguments["model"]))


def test_a_layer_without_part_in_the_loss():
    model = Residual().double()
    model.unused = nn.Linear(2, 2).double()
    inputs, targets, new = problem(model)
    with pytest.raises(IcsbenchError, match="'unused' has no part in the loss"):
        internal_covariate_shift(model, half_sum, inputs, targets, new, ["last", "unused"])


def test_it_works_where_gradients_are_off():
    model = CHAIN[0].values[0]()
    inputs, targets, new = problem(model)
    expected = internal_covariate_shift(model, half_sum, inputs, targets, new)
    model.requires_grad_(False)
    with torch.no_grad():
        assert internal_covariate_shift(model, half_sum, inputs, targets, new) == expected
