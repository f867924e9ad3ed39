"""The probes on networks of other people: each is measured right, or refused in one line."""

import copy
import math
import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, spectral_norm
from torch.utils.checkpoint import checkpoint

from icsbench.errors import IcsbenchError
from icsbench.probes import internal_covariate_shift, loss_landscape

ALPHAS = (0.01, 0.3)


def half_sum(outputs, targets):
    return (outputs - targets).square().sum() / 2


class Layers(nn.Module):
    """Three layers; 4 features in, 6 and 6 inside, 3 out. What is between them is the subclass's."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def between(self, h):
        return h.tanh()

    def forward(self, x):
        return self.c(self.between(self.b(self.between(self.a(x)))))


def through(make, last=nn.Linear):
    """a, a module, b, a module, c: a chain if it is one of torch's."""
    modules = {"a": nn.Linear(4, 6), "one": make(), "b": nn.Linear(6, 6), "two": make(), "c": last(6, 3)}
    model = nn.Sequential()
    for name, module in modules.items():
        model.add_module(name, module)
    return model


ORDER = {"a": "", "b": "a one", "c": "a one b two"}


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(16, 4, generator=generator).to(dtype), torch.randn(16, 3, generator=generator).to(dtype)


def moved(model, size=0.3):
    generator = torch.Generator().manual_seed(3)
    noise = {name: torch.randn(p.shape, generator=generator).to(p.dtype) for name, p in model.named_parameters()}
    return {name: p.detach() + size * noise[name] for name, p in model.named_parameters()}


def streams():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def set_streams(states):
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])


def gradients(model, loss_fn, inputs, targets, values, call):
    """Of one pass of a copy of the network whose weights have been set by name; the streams are put back."""
    before = streams()
    twin = copy.deepcopy(model).train()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(values[name])
    twin.requires_grad_(True)
    loss = loss_fn(call(twin, inputs), targets)
    loss.backward()
    set_streams(before)
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in twin.named_parameters()}
    return loss.item(), found


def shift_by_hand(model, loss_fn, inputs, targets, new, order, weights=None, call=lambda m, x: m(x)):
    """For every layer l2, cosine and norm of G, by Definition 2.1 word for word."""
    old = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = {}
    for layer, before in order.items():
        own = (weights or {}).get(layer) or [
            name for name, p in model.get_submodule(layer).named_parameters(layer, recurse=False) if p.dim() > 1
        ]
        first = tuple(f"{prefix}." if prefix in dict(model.named_modules()) else prefix for prefix in before.split())
        mixed = {name: new[name] if name.startswith(first) and first else old[name] for name in old}
        vectors = []
        for values in (old, mixed):
            _, gradient = gradients(model, loss_fn, inputs, targets, values, call)
            vectors.append(torch.cat([gradient[name].flatten() for name in own]).double())
        g, after = vectors
        found[layer] = (g - after).norm().item(), F.cosine_similarity(g, after, dim=0).item(), g.norm().item()
    return found


def landscape_by_hand(model, loss_fn, inputs, targets, call=lambda m, x: m(x)):
    old = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss, g = gradients(model, loss_fn, inputs, targets, old, call)
    losses, differences = [], []
    for alpha in ALPHAS:
        values = {name: old[name] - alpha * g[name] for name in old}
        moved_loss, after = gradients(model, loss_fn, inputs, targets, values, call)
        losses.append(moved_loss)
        differences.append(math.sqrt(sum((after[name] - g[name]).double().square().sum().item() for name in g)))
    return loss, losses, differences


def everything(model):
    """Bytes and bindings of what a pass can change, deep in whatever holds it."""
    return {
        "state": {name: (value.clone(), value.stride()) for name, value in model.state_dict().items()},
        "bound": [id(value) for module in model.modules() for value in vars(module).values()],
        "buffers": [id(buffer) for buffer in model.buffers()],
        "plain": [copy.deepcopy(vars(module)) for module in model.modules() if type(module).__module__ == __name__],
        "requires": [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "streams": streams(),
    }


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif hasattr(a, "__dict__") and not isinstance(a, nn.Module):
        assert_same(vars(a), vars(b))
    elif isinstance(a, (int, float, str, bool)):
        assert a == b


def check(model, order, *, loss_fn=half_sum, data=None, weights=None, layers=None, call=lambda m, x: m(x), rel=1e-9):
    """ICS and landscape are those by hand, nothing is left behind, and no update is no shift at all."""
    inputs, targets = data or problem()
    new = moved(model)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = shift_by_hand(model, loss_fn, inputs, targets, new, order, weights, call)
    loss, losses, differences = landscape_by_hand(model, loss_fn, inputs, targets, call)
    before = everything(model)
    found = internal_covariate_shift(model, loss_fn, inputs, targets, new, layers)
    landscape = loss_landscape(model, loss_fn, inputs, targets, ALPHAS)
    assert_same(before, everything(model))
    assert list(found) == list(order)
    for layer, (l2, cosine, norm) in expected.items():
        assert found[layer].l2 == pytest.approx(l2, rel=rel, abs=rel * norm), layer
        assert found[layer].gradient_norm == pytest.approx(norm, rel=rel), layer
        if l2 < norm:
            assert found[layer].cosine == pytest.approx(cosine, abs=rel), layer
    assert landscape.loss == pytest.approx(loss, rel=rel)
    assert landscape.losses == pytest.approx(losses, rel=rel)
    assert landscape.gradient_differences == pytest.approx(differences, rel=rel)
    still = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for layer, ics in internal_covariate_shift(model, loss_fn, inputs, targets, still, layers).items():
        assert (ics.l2, ics.relative) == (0, 0), layer
    assert_same(before, everything(model))
    return found


def build(make, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype)


# --- state that a forward pass changes and reads ---------------------------------------------------------------------


class Renorm(nn.Module):
    """The deviation of the batch from running averages that the call itself updates, as in batch renormalization."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("var", torch.ones(6))

    def forward(self, x):
        mean, var = x.mean(0), x.var(0, correction=0)
        r = (var.detach() / self.var).sqrt().clamp(0.5, 2)
        d = ((mean.detach() - self.mean) / self.var.sqrt()).clamp(-1, 1)
        with torch.no_grad():
            self.mean.lerp_(mean, 0.3)
            self.var.lerp_(var, 0.3)
        return (x - mean) / (var + 1e-5).sqrt() * r + d


class BoundAnew(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean = 0.5 * self.mean + 0.5 * x.mean(0).detach()
        return (x - self.mean).tanh()


@dataclass
class Average:
    value: torch.Tensor
    steps: list = field(default_factory=lambda: [0])


class Nested(nn.Module):
    """Averages and counters in containers, plain objects and arrays."""

    def __init__(self):
        super().__init__()
        self.state = {"averages": [torch.zeros(6, dtype=torch.double), (torch.zeros(6, dtype=torch.double),)]}
        self.plain = Average(torch.zeros(6, dtype=torch.double))
        self.spaced = SimpleNamespace(scale=1.0)
        self.array = np.ones(1)

    def forward(self, x):
        averages = self.state["averages"]
        averages[0] = averages[0] + 0.1 * x.mean(0).detach()
        averages[1][0].add_(0.2 * x.std(0).detach())
        self.plain.value = self.plain.value - averages[0]
        self.plain.steps[0] += 1
        self.spaced.scale *= 1.1
        self.array += 0.5
        scale = self.spaced.scale * float(self.array[0]) * self.plain.steps[0]
        return (x + self.plain.value + averages[1][0]).tanh() * scale


class Counting(nn.Module):
    """Behaves by the number of its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.tanh() * (1 + 0.1 * self.calls)


class Expanded(nn.Module):
    """A buffer that cannot be written in place: one number seen as six, changed through its base."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.ones(1, dtype=torch.double).expand(6))

    def forward(self, x):
        self.level[:1].add_(0.1 * x.mean().detach())
        return x.tanh() + self.level


class Swapped(nn.Module):
    """A buffer whose memory is exchanged below it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.ones(6))

    def forward(self, x):
        self.level.data = self.level.data * 2 + x.mean(0).detach()
        return x + self.level


class MaxNorm(nn.Linear):
    """Rows are brought back to norm 1/2 in forward."""

    def forward(self, x):
        with torch.no_grad():
            self.weight.copy_(torch.renorm(self.weight, 2, 0, 0.5))
        return super().forward(x)


class OwnStream(nn.Module):
    """A generator of numpy's and one of Python's on the module."""

    def __init__(self):
        super().__init__()
        self.numpy, self.python = np.random.default_rng(1), random.Random(2)

    def forward(self, x):
        return x.tanh() * self.numpy.uniform(0.5, 2) * (1 + self.python.random())


@pytest.mark.parametrize("between", [Renorm, BoundAnew, Nested, Counting, Expanded, Swapped, OwnStream])
@pytest.mark.parametrize("chain", [True, False])
def test_state_between_the_layers(between, chain):
    if chain:
        check(build(lambda: through(between)), ORDER)
        return

    class Model(Layers):
        def __init__(self):
            super().__init__()
            self.one = between()

        def between(self, h):
            return self.one(h)

    check(build(Model), {"a": "", "b": "a one", "c": "a one b"})


def test_weights_changed_in_forward():
    check(build(lambda: through(nn.Tanh, last=MaxNorm)), {"a": "", "b": "a", "c": "a b"})
    model = build(lambda: nn.Sequential(MaxNorm(4, 6), nn.Tanh(), MaxNorm(6, 6), nn.Tanh(), nn.Linear(6, 3)))
    check(model, {"0": "", "2": "0", "4": "0 2"})


def test_an_embedding_with_a_largest_norm():
    model = build(lambda: nn.Sequential(nn.Embedding(5, 6, max_norm=0.5), nn.Flatten(), nn.Linear(24, 3)))
    data = torch.randint(5, (16, 4), generator=torch.Generator().manual_seed(1)), problem()[1]
    check(model, {"0": "", "2": "0"}, data=data)


@pytest.mark.parametrize("normed", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm(normed):
    def make():
        layers = [normed(nn.Linear(4, 6)), nn.Tanh(), normed(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 3)]
        return nn.Sequential(*layers)

    if normed is spectral_norm:
        check(build(make), {"0": "", "2": "0", "4": "0 2"})
    else:
        paths = "0.parametrizations.weight", "2.parametrizations.weight"
        check(build(make), {paths[0]: "", paths[1]: "0", "4": "0 2"})


class Dropping(Layers):
    """A layer is left out by a coin of one of the streams."""

    def __init__(self, coin):
        super().__init__()
        self.coin = coin

    def forward(self, x):
        h = self.a(x).tanh()
        if self.coin() < 0.5:
            h = h + self.b(h).tanh()
        return self.c(h * self.coin())


COINS = {"python": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(()).item()}


@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("seed", range(4))
def test_all_passes_see_one_draw_of_every_stream(coin, seed):
    model, (inputs, targets) = build(lambda: Dropping(COINS[coin])), problem()
    new = moved(model)
    torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
    before = streams()
    kept = COINS[coin]() < 0.5
    set_streams(before)
    order = {"a": "", "b": "a", "c": "a b"} if kept else {"a": "", "c": "a"}
    expected = shift_by_hand(model, half_sum, inputs, targets, new, order)
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert list(found) == list(order)
    for layer, (l2, _, norm) in expected.items():
        assert found[layer].l2 == pytest.approx(l2, rel=1e-9, abs=1e-9 * norm)
    loss, losses, _ = landscape_by_hand(model, half_sum, inputs, targets)
    landscape = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    assert (landscape.loss, landscape.losses) == (pytest.approx(loss), pytest.approx(losses))
    assert_same(before, streams())


SEEN = []


class Forgetful(Layers):
    """Keeps what it has seen in a global variable."""

    def forward(self, x):
        SEEN.append(x)
        h = self.a(x).tanh()
        return self.c(h + self.b(h)) * len(SEEN)


def test_what_cannot_be_put_back_is_refused():
    model, (inputs, targets) = build(Forgetful), problem()
    with pytest.raises(IcsbenchError, match="Forgetful changes something outside its modules"):
        internal_covariate_shift(model, half_sum, inputs, targets, moved(model))
    with pytest.raises(IcsbenchError, match="Forgetful changes something outside its modules"):
        loss_landscape(model, half_sum, inputs, targets, ALPHAS)


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_all_is_put_back_when_something_raises_half_way(fails_at):
    model = build(lambda: through(Nested))
    model.one.register_buffer("level", torch.ones(1).expand(3))
    (inputs, targets), calls = problem(), []

    def loss_fn(outputs, targets):
        calls.append(1)
        if len(calls) == fails_at:
            raise KeyError("half way")
        return half_sum(outputs, targets)

    before = everything(model)
    with pytest.raises(KeyError, match="half way"):
        internal_covariate_shift(model, loss_fn, inputs, targets, moved(model))
    assert_same(before, everything(model))


def test_a_loss_with_buffers():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(3, dtype=torch.double))

        def forward(self, outputs, targets):
            self.centre.lerp_(outputs.mean(0).detach(), 0.5)
            return (outputs - targets - self.centre).square().sum()

    model, loss_fn, (inputs, targets) = build(Layers), Centred(), problem()
    expected = landscape_by_hand(model, lambda o, t: copy.deepcopy(loss_fn)(o, t), inputs, targets)
    found = loss_landscape(model, loss_fn, inputs, targets, ALPHAS)
    assert found.losses == pytest.approx(expected[1], rel=1e-9)
    assert torch.equal(loss_fn.centre, torch.zeros(3))


# --- branches and traces ---------------------------------------------------------------------------------------------


class Gated(Layers):
    gate: torch.Tensor | None = None

    def between(self, h):
        return h.tanh() if self.gate is None else h * self.gate


class ByType(Layers):
    def between(self, h):
        return h.tanh() if isinstance(h, torch.Tensor) and type(h) is torch.Tensor else h


class ByIsTensor(Layers):
    def between(self, h):
        return h.tanh() if torch.is_tensor(h) else h


class ByHasattr(Layers):
    def between(self, h):
        return h.tanh() if hasattr(h, "storage_offset") and h.is_leaf is False else h.relu()


class OnTheData(Layers):
    """Another nonlinearity where the updated weights make the activations large."""

    def between(self, h):
        return h.tanh() if h.abs().mean() < 0.55 else h.sin()


class OneOutput(nn.Module):
    """Given the input as a keyword with a default that tells a stand-in from a call."""

    def __init__(self):
        super().__init__()
        self.inner = Layers()

    def forward(self, x, gate=None):
        h = self.inner.a(x)
        if gate is None:
            h = h.sigmoid()
        return self.inner.c(self.inner.b(h).relu())


@pytest.mark.parametrize("make", [Layers, Gated, ByType, ByIsTensor, ByHasattr, OnTheData])
def test_the_branch_of_a_real_call(make):
    check(build(make), {"a": "", "b": "a", "c": "a b"})


def test_the_branch_of_a_real_call_with_a_default():
    check(build(OneOutput), {"inner.a": "", "inner.b": "inner.a", "inner.c": "inner.a inner.b"})


def test_forward_replaced_on_the_instance():
    model = build(Layers)
    model.forward = lambda x: model.c(model.b(model.a(x)).sin())
    check_in_place(model, {"a": "", "b": "a", "c": "a b"})
    chain = build(lambda: through(nn.Tanh))
    original = chain.forward
    chain.forward = lambda x: 2 * original(x)
    check_in_place(chain, ORDER)


def check_in_place(model, order):
    """Like check, for what does not survive a copy: the weights of the network itself are set."""
    inputs, targets = problem()
    new, old = moved(model), {name: p.detach().clone() for name, p in model.named_parameters()}

    def gradient(layer, first):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(new[name] if first and name.startswith(first) else old[name])
        (g,) = torch.autograd.grad(half_sum(model(inputs), targets), [model.get_parameter(f"{layer}.weight")])
        return g

    expected = {
        layer: (gradient(layer, ()) - gradient(layer, tuple(f"{p}." for p in before.split()))).norm().item()
        for layer, before in order.items()
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(old[name])
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert {layer: ics.l2 for layer, ics in found.items()} == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["register_full_backward_pre_hook", "register_full_backward_hook"])
def test_backward_hooks_on_containers(kind):
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)
    )
    torch.manual_seed(0)
    model = model.double()

    def double(module, *gradients):
        return tuple(2 * g for g in gradients[0])

    getattr(model[1], kind)(double)
    check_in_place(model, {"0.0": "", "1.0": "0", "2": "0 1"})


def test_a_forward_hook_on_a_container():
    model = build(lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Sequential(nn.Linear(6, 3))))
    model[0].register_forward_hook(lambda module, inputs, output: output.sin() * output.detach().mean().item())
    check_in_place(model, {"0.0": "", "1.0": "0"})


class Keeping(Layers):
    """Leaves its features on itself, where the loss finds them."""

    def forward(self, x):
        self.h = self.b(self.a(x).tanh()).tanh()
        return self.c(self.h)


def test_an_attribute_that_the_loss_reads(tmp_path):
    model, (inputs, targets) = build(Keeping), problem()

    def loss_fn(outputs, targets):
        return half_sum(outputs, targets) + model.h.square().sum()

    model(inputs)
    kept, new = model.h, moved(model)
    order = {"a": "", "b": "a", "c": "a b"}
    expected = {}
    for layer, before in order.items():
        vectors = []
        for first in ((), tuple(before.split())):
            twin = copy.deepcopy({name: p.detach() for name, p in model.named_parameters()})
            values = {n: (new[n] if first and n.startswith(first) else v).requires_grad_() for n, v in twin.items()}
            h = F.linear(F.linear(inputs, values["a.weight"], values["a.bias"]).tanh(), values["b.weight"])
            h = (h + values["b.bias"]).tanh()
            outputs = F.linear(h, values["c.weight"], values["c.bias"])
            loss = half_sum(outputs, targets) + h.square().sum()
            vectors.append(torch.autograd.grad(loss, values[f"{layer}.weight"])[0])
        expected[layer] = (vectors[0] - vectors[1]).norm().item()
    found = internal_covariate_shift(model, loss_fn, inputs, targets, new)
    assert {layer: ics.l2 for layer, ics in found.items()} == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert model.h is kept
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    model.h = None
    torch.save(model, tmp_path / "model.pt")


def test_a_context_around_a_part_of_a_chain():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6)), nn.Linear(6, 3)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                h = self.body(x)
            return self.head(h.float())

    model = build(Half, torch.float32)
    order = {"body.0": "", "body.2": "body.0", "head": "body"}
    check(model, order, data=problem(torch.float32), rel=1e-4)


# --- what calls the weights, and where -------------------------------------------------------------------------------


class ByFunction(Layers):
    def forward(self, x):
        h = F.linear(x, self.a.weight, self.a.bias).tanh()
        return self.c(F.linear(h, self.b.weight, self.b.bias).tanh())


class ByForward(Layers):
    def forward(self, x):
        return self.c.forward(self.b.forward(self.a.forward(x).tanh()).tanh())


class ByMatmul(Layers):
    def forward(self, x):
        h = (x @ self.a.weight.t() + self.a.bias).tanh()
        return (h @ self.b.weight.T + self.b.bias).tanh() @ self.c.weight.mT + self.c.bias


class InAnotherOrder(Layers):
    """Registered in another order than used."""

    def __init__(self):
        super().__init__()
        self.c, self.b = self._modules.pop("c"), self._modules.pop("b")


@pytest.mark.parametrize("make", [ByFunction, ByForward, ByMatmul, InAnotherOrder])
def test_layers_that_are_not_called_as_modules(make):
    found = check(build(make), {"a": "", "b": "a", "c": "a b"})
    assert found["b"].l2 > 0 < found["c"].l2


class TwoWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.W2, self.W1 = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        return (x @ self.W1.T).tanh() @ self.W2.T


def test_a_module_with_two_weights_is_two_layers():
    model = build(TwoWeights)
    check(model, {"W1": "", "W2": "W1"}, weights={"W1": ["W1"], "W2": ["W2"]})
    twin = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()
    with torch.no_grad():
        twin[0].weight.copy_(model.W1)
        twin[2].weight.copy_(model.W2)
    (inputs, targets), new = problem(), moved(model)
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    expected = internal_covariate_shift(twin, half_sum, inputs, targets, {"0.weight": new["W1"], "2.weight": new["W2"]})
    assert found["W2"] == pytest.approx(expected["2"], rel=1e-9)
    assert internal_covariate_shift(model, half_sum, inputs, targets, new, ["W2"])["W2"] == found["W2"]
    with pytest.raises(IcsbenchError, match=r"'' uses its weights at different places; choose among 'W2', 'W1'"):
        internal_covariate_shift(model, half_sum, inputs, targets, new, [""])


@pytest.mark.parametrize("kind", ["trace", "script"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_torch_script(kind):
    model, (inputs, targets) = build(Layers), problem()
    new = moved(model)
    scripted = torch.jit.trace(model, inputs) if kind == "trace" else torch.jit.script(model)
    scripted.eval()
    expected = shift_by_hand(model, half_sum, inputs, targets, new, {"a": "", "b": "a", "c": "a b"})
    found = internal_covariate_shift(scripted, half_sum, inputs, targets, new)
    assert {layer: ics.l2 for layer, ics in found.items()} == pytest.approx(
        {layer: l2 for layer, (l2, _, _) in expected.items()}, rel=1e-9, abs=1e-12
    )
    assert not scripted.training


def test_recurrent_weights_are_used_together():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(self.rnn(x.view(-1, 2, 4))[0][:, -1])

    (inputs, targets) = problem()
    check(build(Recurrent), {"rnn": "", "out": "rnn"}, data=(inputs, targets[:8]))


class Attending(nn.Module):
    """The weight of the output projection is used inside the attention, without a call of its module."""

    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        h = x.view(-1, 2, 4)
        return self.out(self.attention(h, h, h, need_weights=False)[0].mean(1))


def test_attention():
    inputs, targets = problem()
    order = {
        "attention": "",
        "attention.out_proj": "attention.in_proj_weight attention.in_proj_bias",
        "out": "attention",
    }
    found = check(build(Attending), order, data=(inputs, targets[:8]))
    assert found["attention.out_proj"].l2 > 0


class Positioned(nn.Module):
    """A position parameter and a scale that are used after the children of their owner."""

    def __init__(self):
        super().__init__()
        self.position, self.scale = nn.Parameter(torch.randn(1, 6)), nn.Parameter(torch.full((6,), 0.5))
        self.embed, self.mix, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        position, scale = self.position.expand(len(x), -1), self.scale.view(1, -1)
        h = self.embed(x) + position
        return self.out(h + self.mix(h).tanh() * scale)


def test_a_parameter_is_where_it_is_used():
    order = {"embed": "", "": "embed", "mix": "embed position", "out": "embed position mix scale"}
    found = check(build(Positioned), order)
    assert found["embed"].l2 == 0 < found[""].l2


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.mix, self.decode = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.mix(self.encode(x).tanh()).tanh())


def test_tied_weights():
    model, inputs = build(Tied), problem()[0]
    weights = {"encode": ["encode.weight"], "decode": ["encode.weight"]}
    order = {"encode": "", "decode": "", "mix": "encode"}
    found = check(model, order, data=(inputs, inputs), weights=weights)
    state = copy.deepcopy(model.state_dict())
    for value in state.values():
        value.add_(0.1)
    state["decode.weight"] = state["encode.weight"]
    names = {name: state[name] for name, _ in model.named_parameters()}
    by_state = internal_covariate_shift(model, half_sum, inputs, inputs, state)
    assert by_state == internal_covariate_shift(model, half_sum, inputs, inputs, names)
    assert by_state["mix"].l2 > 0 == found["encode"].l2
    state["decode.weight"] = state["encode.weight"] + 1
    with pytest.raises(IcsbenchError, match=r"different values for 'encode.weight' and 'decode.weight'"):
        internal_covariate_shift(model, half_sum, inputs, inputs, state)


def test_a_state_dict_as_new_parameters():
    model = build(lambda: through(lambda: nn.BatchNorm1d(6)))
    (inputs, targets), state = problem(), copy.deepcopy(model.state_dict())
    for value in state.values():
        value.add_(1)
    names = {name: state[name] for name, _ in model.named_parameters()}
    assert internal_covariate_shift(model, half_sum, inputs, targets, state) == internal_covariate_shift(
        model, half_sum, inputs, targets, names
    )


# --- kinds of parameters and of inputs -------------------------------------------------------------------------------


class Experts(nn.Module):
    """Each sample goes to the expert that the gate chooses."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 2)
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        score, chosen = self.gate(x).softmax(1).max(1)
        h = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            if mine.any():
                h = h.index_put((mine.nonzero()[:, 0],), expert(x[mine]).tanh() * score[mine, None])
        return self.out(h)


def towards(model, expert):
    """New weights whose gate sends everything to one expert."""
    new = moved(model)
    new["gate.weight"] = torch.zeros_like(new["gate.weight"])
    new["gate.bias"] = torch.tensor([5.0, -5.0] if expert == 0 else [-5.0, 5.0], dtype=torch.double)
    return new


@pytest.mark.parametrize("kept", [0, 1])
def test_an_expert_that_the_update_empties(kept):
    model, (inputs, targets) = build(Experts), problem()
    new = towards(model, kept)
    order = {"gate": "", "experts.0": "gate", "experts.1": "gate experts.0", "out": "gate experts"}
    expected = shift_by_hand(model, half_sum, inputs, targets, new, order)
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert {k: v.l2 for k, v in found.items()} == pytest.approx({k: v[0] for k, v in expected.items()}, rel=1e-9)
    emptied = found[f"experts.{1 - kept}"]
    assert emptied.l2 == pytest.approx(emptied.gradient_norm) and emptied.relative == pytest.approx(1)
    assert math.isnan(emptied.cosine)


def test_an_expert_that_the_update_fills():
    """At the old weights one expert is not used at all; it still comes before what follows it."""
    model, (inputs, targets) = build(Experts), problem()
    with torch.no_grad():
        for name, value in towards(model, 0).items():
            model.get_parameter(name).copy_(value)
    new = towards(model, 1)
    expected = shift_by_hand(
        model, half_sum, inputs, targets, new, {"gate": "", "experts.0": "gate", "out": "gate experts"}
    )
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert list(found) == list(expected)
    assert {k: v.l2 for k, v in found.items()} == pytest.approx({k: v[0] for k, v in expected.items()}, rel=1e-9)


def test_frozen_layers():
    model = build(lambda: through(nn.Tanh))
    model.b.requires_grad_(False)
    (inputs, targets), new = problem(), moved(model)
    expected = shift_by_hand(model, half_sum, inputs, targets, new, ORDER)
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert {k: v.l2 for k, v in found.items()} == pytest.approx({k: v[0] for k, v in expected.items()}, abs=1e-12)
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False, True, True]


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(5, 4, dtype=torch.cdouble))
        self.b = nn.Parameter(torch.randn(3, 5, dtype=torch.cdouble))

    def forward(self, x):
        return ((x.to(torch.cdouble) @ self.a.T).tanh() @ self.b.T).abs()


def test_complex_weights_are_their_real_and_imaginary_parts():
    torch.manual_seed(0)
    model, (inputs, targets) = Complex(), problem()
    new = {name: p.detach() + 0.3 * torch.randn_like(p) for name, p in model.named_parameters()}

    def gradient(a):
        parts = torch.view_as_real(model.b.detach()).clone().requires_grad_()
        outputs = ((inputs.to(torch.cdouble) @ a.T).tanh() @ torch.view_as_complex(parts).T).abs()
        return torch.autograd.grad(half_sum(outputs, targets), parts)[0].flatten()

    g, after = gradient(model.a.detach()), gradient(new["a"])
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)["b"]
    assert found.l2 == pytest.approx((g - after).norm().item(), rel=1e-9)
    assert found.cosine == pytest.approx(F.cosine_similarity(g, after, dim=0).item(), rel=1e-9)
    landscape = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    loss = half_sum(model(inputs), targets)
    grads = torch.autograd.grad(loss, [model.a, model.b])
    moved_to = [p.detach() - ALPHAS[0] * g for p, g in zip(model.parameters(), grads, strict=True)]
    at = half_sum(((inputs.to(torch.cdouble) @ moved_to[0].T).tanh() @ moved_to[1].T).abs(), targets)
    assert landscape.losses[0] == pytest.approx(at.item(), rel=1e-9)


def test_sparse_gradients():
    def make():
        return nn.Sequential(nn.Embedding(5, 6, sparse=True), nn.Flatten(), nn.Linear(24, 3))

    model, dense = build(make), build(make)
    dense[0].sparse = False
    inputs, targets = torch.randint(5, (16, 4), generator=torch.Generator().manual_seed(1)), problem()[1]
    new = moved(model)
    assert internal_covariate_shift(model, half_sum, inputs, targets, new) == internal_covariate_shift(
        dense, half_sum, inputs, targets, new
    )
    assert loss_landscape(model, half_sum, inputs, targets, ALPHAS) == loss_landscape(
        dense, half_sum, inputs, targets, ALPHAS
    )


def test_integer_parameters_are_moved_and_not_measured():
    class Shifting(Layers):
        def __init__(self):
            super().__init__()
            self.steps = nn.Parameter(torch.tensor([[1, 2, 3, 4, 5, 6]]), requires_grad=False)

        def forward(self, x):
            return self.c((self.b(self.a(x).tanh()) + self.steps).tanh())

    model, (inputs, targets) = build(Shifting), problem()
    new = moved(model, 0) | {"c.bias": model.c.bias.detach() + 1, "steps": torch.tensor([[0, 0, 0, 0, 0, 0]])}
    found = internal_covariate_shift(model, half_sum, inputs, targets, new)
    assert list(found) == ["a", "b", "c"]
    assert (found["a"].l2, found["b"].l2) == (0, 0)
    h = model.b(model.a(inputs).tanh()).detach()
    gradient = [(model.c(f.tanh()) - targets).T @ f.tanh() for f in (h + model.steps, h)]
    assert found["c"].l2 == pytest.approx((gradient[0] - gradient[1]).norm().item(), rel=1e-9)
    loss_landscape(model, half_sum, inputs, targets, ALPHAS)


def test_half_precision_is_compared_in_float32():
    model = build(lambda: through(nn.Tanh), torch.bfloat16)
    check(model, ORDER, data=problem(torch.bfloat16), rel=2e-2)


class Pair(Layers):
    def forward(self, x, scale):
        return super().forward(x * scale)


class OnePair(Layers):
    def forward(self, pair):
        return super().forward(pair[0] * pair[1])


class Optional(Layers):
    def forward(self, x, scale=None):
        return super().forward(x if scale is None else x * scale)


class Keyed(Layers):
    def forward(self, batch):
        return super().forward(batch["x"] * batch["more"]["scale"][0])


class Keywords(Layers):
    def forward(self, x, *, scale=1.0):
        return super().forward(x * scale)


X, SCALE = problem()[0], 1.5


@pytest.mark.parametrize(
    ("make", "inputs", "call"),
    [
        (Pair, (X, torch.tensor(SCALE)), lambda m, i: m(*i)),
        (Pair, [X, SCALE], lambda m, i: m(*i)),
        (OnePair, (X, torch.tensor(SCALE)), lambda m, i: m(i)),
        (OnePair, [X, SCALE], lambda m, i: m(i)),
        (Optional, (X, torch.tensor(SCALE)), lambda m, i: m(*i)),
        (Optional, {"x": X}, lambda m, i: m(**i)),
        (Keyed, {"x": X, "more": {"scale": [SCALE]}}, lambda m, i: m(i)),
        (Keywords, {"x": X, "scale": torch.tensor(SCALE)}, lambda m, i: m(**i)),
    ],
)
def test_inputs_as_the_network_takes_them(make, inputs, call):
    check(build(make), {"a": "", "b": "a", "c": "a b"}, data=(inputs, problem()[1]), call=call)


def test_inputs_that_the_network_does_not_take():
    model, targets = build(Pair), problem()[1]
    with pytest.raises(TypeError):
        loss_landscape(model, half_sum, {"y": X}, targets, ALPHAS)
    with pytest.raises(KeyError, match="more"):
        loss_landscape(build(Keyed), half_sum, {"x": X}, targets, ALPHAS)


def test_nested_inputs_that_are_overwritten():
    class Overwriting(Keyed):
        def forward(self, batch):
            batch["x"].mul_(2)
            return super().forward(batch)

    inputs = {"x": X.clone(), "more": {"scale": [SCALE]}}
    with pytest.raises(IcsbenchError, match="overwrites its inputs in place"):
        loss_landscape(build(Overwriting), half_sum, inputs, problem()[1], ALPHAS)
    assert torch.equal(inputs["x"], X)


def test_a_batch_of_one_with_positions():
    def make():
        return nn.Sequential(nn.Conv1d(1, 3, 2), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(9, 3))

    inputs, targets = problem()
    check(build(make), {"0": "", "3": "0 1"}, data=(inputs[:1, None], targets[:1]))
    flat = build(lambda: through(lambda: nn.BatchNorm1d(6)))
    with pytest.raises(IcsbenchError, match=r"inputs must hold at least 2 samples \(got 1\)"):
        internal_covariate_shift(flat, half_sum, inputs[:1], targets[:1], moved(flat))


# --- modes around a measurement --------------------------------------------------------------------------------------


def test_inference_mode_around_it():
    model, (inputs, targets) = build(lambda: through(nn.Tanh)), problem()
    new = moved(model)
    expected = internal_covariate_shift(model, half_sum, inputs, targets, new)
    landscape = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    with torch.inference_mode():
        others = inputs.clone(), targets.clone()
        assert internal_covariate_shift(model, half_sum, *others, new) == expected
        assert loss_landscape(model, half_sum, *others, ALPHAS) == landscape
        made_inside = Layers()
    with pytest.raises(IcsbenchError, match=r"made under torch.inference_mode"):
        loss_landscape(made_inside, half_sum, inputs, targets, ALPHAS)


@pytest.mark.parametrize("make", [lambda: through(nn.Tanh), Layers, lambda: through(lambda: nn.BatchNorm1d(6))])
def test_autocast_around_it(make):
    """By hand each pass has a context of its own; no cast of an old weight may be kept."""
    model, (inputs, targets) = build(make, torch.float32), problem(torch.float32)
    order = ORDER if "one" in dict(model.named_children()) else {"a": "", "b": "a", "c": "a b"}
    new = moved(model)

    def call(m, x):
        with torch.autocast("cpu", torch.bfloat16):
            return m(x)

    expected = shift_by_hand(model, half_sum, inputs, targets, new, order, call=call)
    _, losses, differences = landscape_by_hand(model, half_sum, inputs, targets, call)
    with torch.autocast("cpu", torch.bfloat16):
        model(inputs)  # leaves casts behind
        found = internal_covariate_shift(model, half_sum, inputs, targets, new)
        landscape = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
        assert torch.is_autocast_cache_enabled()
    for layer, (l2, _, norm) in expected.items():
        assert found[layer].l2 == pytest.approx(l2, rel=2e-2, abs=2e-2 * norm)
    assert found["b"].l2 > 0.1 * found["b"].gradient_norm
    assert landscape.losses == pytest.approx(losses, rel=1e-2)
    assert landscape.gradient_differences == pytest.approx(differences, rel=3e-2)


def test_cached_parametrizations_around_it():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model, (inputs, targets) = build(Layers), problem()
    for layer in model.children():
        parametrize.register_parametrization(layer, "weight", Doubled())
    new = moved(model)
    expected = internal_covariate_shift(model, half_sum, inputs, targets, new)
    landscape = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    assert expected["c.parametrizations.weight"].l2 > 0
    with parametrize.cached():
        outputs = model(inputs)
        assert internal_covariate_shift(model, half_sum, inputs, targets, new) == expected
        assert loss_landscape(model, half_sum, inputs, targets, ALPHAS) == landscape
        assert torch.equal(model(inputs), outputs)


class Checkpointed(Layers):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        h = self.a(x).tanh()
        h = checkpoint(lambda h: F.dropout(self.b(h).tanh(), 0.5), h, use_reentrant=self.reentrant)
        return self.c(h)


def test_checkpointing():
    check(build(lambda: Checkpointed(False)), {"a": "", "b": "a", "c": "a b"})
    model, (inputs, targets) = build(lambda: Checkpointed(True)), problem()
    with pytest.raises(IcsbenchError, match="use_reentrant=False"):
        internal_covariate_shift(model, half_sum, inputs, targets, moved(model))
    with pytest.raises(IcsbenchError, match="use_reentrant=False"):
        loss_landscape(model, half_sum, inputs, targets, ALPHAS)


@pytest.mark.parametrize("inner", [False, True])
def test_compiled_networks_are_run_as_they_were_written(inner):
    model, (inputs, targets) = build(lambda: through(nn.Tanh)), problem()
    new = moved(model)
    expected = internal_covariate_shift(model, half_sum, inputs, targets, new)
    landscape = loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    if inner:
        model.b.compile()
        assert internal_covariate_shift(model, half_sum, inputs, targets, new) == expected
    else:
        compiled = torch.compile(model)
        named = {f"_orig_mod.{name}": value for name, value in new.items()}
        found = internal_covariate_shift(compiled, half_sum, inputs, targets, named)
        assert found == {
            f"_orig_mod.{layer}": pytest.approx(ics, rel=1e-9, abs=1e-12) for layer, ics in expected.items()
        }
        model = compiled
    assert loss_landscape(model, half_sum, inputs, targets, ALPHAS) == landscape


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("b", "give a list of module paths.*got 'b'"),
        ([], "layers is empty"),
        ((layer for layer in ()), "layers is empty"),
        (nn.Linear(2, 2), "got a Linear"),
        ([nn.Linear(2, 2)], "it holds a Linear"),
        (3, "got a int"),
        (["bb"], "has no module 'bb'; did you mean"),
        (["b.bias"], "'b.bias' holds no weight of two or more dimensions"),
    ],
)
def test_layers_that_are_none(layers, message):
    model, (inputs, targets) = build(lambda: through(nn.Tanh)), problem()
    with pytest.raises(IcsbenchError, match=message):
        internal_covariate_shift(model, half_sum, inputs, targets, moved(model), layers)


def test_layers_from_a_generator():
    model, (inputs, targets) = build(lambda: through(nn.Tanh)), problem()
    found = internal_covariate_shift(model, half_sum, inputs, targets, moved(model), (name for name in "cb"))
    assert list(found) == ["b", "c"]


def sparse():
    model = Layers().double()
    model.b.weight = nn.Parameter(model.b.weight.detach().to_sparse())
    return model


def expanded():
    model = Layers().double()
    model.b.bias = nn.Parameter(torch.zeros(1, dtype=torch.double).expand(6))
    return model


def lazy():
    model = Layers().double()
    model.b = nn.LazyLinear(6)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sparse, "parameter 'b.weight' is sparse"),
        (expanded, "parameter 'b.bias' is an expanded view"),
        (lazy, "parameter 'b.weight' has no shape yet"),
        (lambda: Layers().to("meta"), "'a.weight' is on the device meta"),
    ],
)
def test_networks_that_cannot_be_measured(make, message):
    model, (inputs, targets) = make(), problem()
    with pytest.raises(IcsbenchError, match=message):
        loss_landscape(model, half_sum, inputs, targets, ALPHAS)
    with pytest.raises(IcsbenchError, match=message):
        internal_covariate_shift(model, half_sum, inputs, targets, {})


@pytest.mark.parametrize(
    ("new_params", "message"),
    [
        ([torch.ones(2)], "give the new weights by name.*got a list"),
        ({"a.weight": 1.0}, "must be a tensor"),
    ],
)
def test_new_parameters_that_are_none(new_params, message):
    model, (inputs, targets) = build(Layers), problem()
    with pytest.raises(IcsbenchError, match=message):
        internal_covariate_shift(model, half_sum, inputs, targets, new_params)


def test_a_complex_loss_is_refused():
    model, (inputs, targets) = Complex(), problem()
    with pytest.raises(IcsbenchError, match=r"must return a scalar tensor.*complex values"):
        loss_landscape(model, lambda o, t: (o * 1j).sum(), inputs, targets, ALPHAS)
