"""The theorems against brute force: Jacobians and explicit Hessians of a network whose BN is written out here."""

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from networks import small_vgg
from rich.console import Console
from torch import nn
from torch.autograd import functional
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.labs.theorems import network as evaluated
from icsbench.labs.theorems.check import check_theorems
from icsbench.labs.theorems.printing import print_report, sentences
from icsbench.labs.theorems.reports import FAILURE, STATEMENTS, rows
from icsbench.labs.theorems.statements import lemma_4_5
from icsbench.norms import NoisyBatchNorm1d, NoisyBatchNorm2d, noise_modules

EXPLICIT = 64
"""Values per channel up to which a Hessian is written out."""
ALL = 1000
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
RESIDUALS = tuple(STATEMENTS.values())


class WrittenOut(nn.Module):
    """Batch normalization as the definition has it, eps = 0."""

    def __init__(self, norm):
        super().__init__()
        features = norm.num_features
        self.gamma = torch.ones(features).double() if norm.weight is None else norm.weight.detach().double()
        self.beta = torch.zeros(features).double() if norm.bias is None else norm.bias.detach().double()

    def forward(self, y):
        axes = [0, *range(2, y.dim())]
        shape = [1, -1] + [1] * (y.dim() - 2)
        mu = y.mean(axes, keepdim=True)
        sigma = ((y - mu) ** 2).mean(axes, keepdim=True) ** 0.5
        return self.gamma.view(shape) * (y - mu) / sigma + self.beta.view(shape)


def written_out(model):
    model = copy.deepcopy(model).double().eval().requires_grad_(False)
    for module in [*model.modules()]:
        if hasattr(module, "inplace"):
            module.inplace = False
        for name, child in module.named_children():
            if isinstance(child, NORMS):
                setattr(module, name, WrittenOut(child))
    return model


def channel(values, j):
    return values.movedim(1, 0)[j].reshape(-1)


def of_channel(function, values, j):
    """``function`` as one of channel j alone."""

    def of(row):
        full = values.clone().movedim(1, 0)
        full = torch.stack([row.view_as(c) if i == j else c for i, c in enumerate(full)]).movedim(0, 1)
        return function(full)

    return of


def curvature(function, at, along):
    if len(at) > EXPLICIT:
        return functional.hvp(function, at, along)[1]
    return functional.hessian(function, at) @ along


def brute(model, loss_fn, inputs, targets, path, second=True):
    """gamma, sigma, yhat, g, dy and H dy, Hhat dy of every channel of a layer."""
    model = written_out(model)
    norm = model.get_submodule(path)
    caught = {}
    handle = norm.register_forward_hook(lambda _, args, out: caught.update(y=args[0], z=out))
    model(inputs.double())
    handle.remove()

    def from_z(z):
        handle = norm.register_forward_hook(lambda *_: z)
        try:
            return loss_fn(model(inputs.double()), targets)
        finally:
            handle.remove()

    def from_y(y):
        return from_z(norm.forward(y))

    found = []
    for j in range(caught["y"].shape[1]):
        y, z = channel(caught["y"], j), channel(caught["z"], j)
        of_y, of_z = of_channel(from_y, caught["y"], j), of_channel(from_z, caught["z"], j)
        unit = {"gamma": norm.gamma[j], "sigma": (y - y.mean()).square().mean().sqrt(), "y": y}
        unit["yhat"] = (y - y.mean()) / unit["sigma"]
        unit["g"], unit["dy"] = functional.jacobian(of_z, z), functional.jacobian(of_y, y)
        if second:
            unit["h_dy"] = curvature(of_z, z, unit["dy"])
            unit["hat_dy"] = curvature(of_y, y, unit["dy"])
            unit["hat_yhat"] = curvature(of_y, y, unit["yhat"])
        found.append(unit)
    return found


def mlp(norm=nn.BatchNorm1d):
    return nn.Sequential(
        *(nn.Linear(5, 4), norm(4), nn.Tanh(), nn.Linear(4, 3, bias=False), norm(3), nn.Sigmoid(), nn.Linear(3, 3))
    )


def conv(norm=nn.BatchNorm2d):
    return nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), norm(3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 2, 3, padding=1, bias=False), norm(2), nn.Softplus(), nn.Dropout(), nn.Flatten()),
        nn.Linear(8, 3),
    )


def lengthwise():
    return nn.Sequential(
        *(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, affine=False, track_running_stats=False), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(12, 3)),
    )


SHAPES = {"mlp": (7, 5), "noisy mlp": (7, 5), "conv": (4, 2, 4, 4), "noisy conv": (4, 2, 4, 4), "lengthwise": (5, 2, 6)}


def case(name, seed=0):
    """A network, a batch and its classes, with gamma and beta away from 1 and 0; one gamma is negative."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        builders = {"noisy mlp": lambda: mlp(NoisyBatchNorm1d), "noisy conv": lambda: conv(NoisyBatchNorm2d)}
        builders |= {"mlp": mlp, "conv": conv, "lengthwise": lengthwise}
        model = builders[name]()
        for module in model.modules():
            if isinstance(module, NORMS) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                with torch.no_grad():
                    module.weight[0] *= -1
        for module in noise_modules(model):
            module.generator = torch.Generator().manual_seed(3)
        inputs = torch.randn(SHAPES[name])
        return model, inputs, torch.randint(0, 3, (len(inputs),))


def moved(model, by=0.5):
    """Parameters some way off, as the initial ones of Lemma 4.5."""
    stream = torch.Generator().manual_seed(9)
    return {name: p.detach() + by * torch.randn(p.shape, generator=stream) for name, p in model.named_parameters()}


def check(name, **options):
    model, inputs, targets = case(name)
    return check_theorems(model, F.cross_entropy, inputs, targets, initial=moved(model), units=ALL, **options)


def squared(values):
    return (values @ values).item()


def expected(units):
    """What a report must say of these channels, from the printed and the corrected formulas."""
    m = len(units[0]["g"])
    table = []
    for u in units:
        scale = (u["gamma"] / u["sigma"]).item() ** 2
        g2, dy2 = squared(u["g"]), squared(u["dy"])
        total, inner = u["g"].sum().item(), (u["g"] @ u["yhat"]).item()
        assert dy2 == pytest.approx(scale * (g2 - total**2 / m - inner**2 / m), rel=1e-9)
        table.append((scale, g2, dy2, total**2 / m, inner**2 / m, inner))
    scale, g2, dy2, mean2, yhat2, inner = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*table, strict=True)
    )
    weight = scale * g2
    lam = 2
    right = scale * ((lam**2 * g2) ** 2 - mean2 - lam**2 * inner**2)
    return {
        "batch": m,
        "channels": len(units),
        "tested": len(units),
        "printed_4_1_violated": int((dy2 > scale * (g2 - mean2 - inner**2 / math.sqrt(m)) + 1e-12).sum()),
        "printed_4_4_violated": int((lam**2 * dy2 > right).sum()),
        "inner_positive": int((inner > 0).sum()),
        "reduction": (dy2.sum() / g2.sum()).item(),
        "reduction_predicted": (dy2.sum() / g2.sum()).item(),
        "scale_factor": (weight.sum() / g2.sum()).item(),
        "mean_share": ((scale * mean2).sum() / weight.sum()).item(),
        "yhat_share": ((scale * yhat2).sum() / weight.sum()).item(),
        "reduction_median": (dy2 / g2).median().item(),
        "scale_factor_median": scale.median().item(),
        "mean_share_median": (mean2 / g2).median().item(),
        "yhat_share_median": (yhat2 / g2).median().item(),
    }


def angle(u):
    cosine = abs(torch.cosine_similarity(u["dy"], u["hat_dy"], dim=0).item())
    return math.degrees(math.acos(min(cosine, 1)))


# --- agreement with brute force --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_every_number_is_that_of_brute_force(name):
    model, inputs, targets = case(name)
    reports = check(name)
    paths = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    assert [report.layer for report in reports] == paths
    for report in reports:
        units = brute(model, F.cross_entropy, inputs, targets, report.layer)
        row = rows([report])[0]
        for key, value in expected(units).items():
            assert row[key] == pytest.approx(value, rel=1e-9), (report.layer, key)
        assert report.fed_by == str(int(report.layer) - 1)
        assert report.units == len(units)
        assert report.curvature_nonnegative == sum((u["dy"] @ u["h_dy"]).item() >= 0 for u in units)
        assert report.theorem_c1_angle == pytest.approx(min(map(angle, units)), rel=1e-6)
        eps = max(1e-5 / (squared(u["y"] - u["y"].mean()) / report.batch + 1e-5) for u in units)
        assert report.eps_share == pytest.approx(eps, rel=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_every_identity_holds_to_rounding(name):
    for report in check(name):
        for attribute in RESIDUALS:
            assert 0 <= getattr(report, attribute) < 1e-12, (report.layer, attribute)
        assert 0 < report.lemma_4_5_distance < 1


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_the_second_order_by_explicit_hessians(name):
    """Theorem 4.2, Theorem C.1 at its X, and what the docstring says about that X."""
    model, inputs, targets = case(name)
    lam = 2.0
    for path in (path for path, module in model.named_modules() if isinstance(module, NORMS)):
        for u in brute(model, F.cross_entropy, inputs, targets, path):
            m, dy, scale = len(u["g"]), u["dy"], (u["gamma"] / u["sigma"]) ** 2
            kappa = (u["g"] @ u["yhat"]) * (dy @ dy) / (m * u["gamma"])
            left, right = dy @ u["hat_dy"], scale * (dy @ u["h_dy"] - kappa)
            size = scale * (dy.norm() * u["h_dy"].norm() + abs(kappa))
            assert abs(left - right) < 1e-11 * size
            assert abs(left - scale * (dy @ u["h_dy"] + kappa)) > 1e-6 * size
            assert abs(left - scale * dy @ u["h_dy"]) > 1e-6 * size
            x = torch.zeros(m, 3, dtype=torch.float64)
            x[:, 0] = lam * dy / dy.norm()
            gradient = x.T @ dy
            hat_x = torch.zeros_like(x)
            hat_x[:, 0] = lam * u["hat_dy"] / dy.norm()
            assert abs(gradient @ (x.T @ hat_x) @ gradient - lam**4 * right) < 1e-11 * lam**4 * size
            assert torch.allclose(u["hat_yhat"], -dy / u["sigma"], rtol=1e-8, atol=1e-12 * dy.norm().item())
            assert abs(u["yhat"] @ dy) < 1e-12 * dy.norm()


def test_the_x_of_the_proof_is_not_the_maximum_of_theorem_c1():
    """Only rank-one X matter, and along some p near dy the value lambda^4 (p' dy)^2 p' Hhat p is larger."""
    model, inputs, targets = case("mlp")
    net = written_out(model)
    caught = {}
    net[4].register_forward_pre_hook(lambda _, args: caught.update(y=args[0]))
    net(inputs.double())
    y = caught["y"]

    def loss_of(full):
        return F.cross_entropy(net[5:](net[4].forward(full)), targets)

    of = of_channel(loss_of, y, 1)
    dy, hat = functional.jacobian(of, channel(y, 1)), functional.hessian(of, channel(y, 1))
    stream = torch.Generator().manual_seed(0)

    def value(p):
        return ((p @ dy) ** 2 * (p @ hat @ p)).item() / (p @ p).item() ** 2

    near = [value(dy + 0.3 * dy.norm() * torch.randn(7, generator=stream).double()) for _ in range(500)]
    assert max(near) > 1.01 * value(dy)
    x = torch.randn(50, 7, 4, generator=stream).double()
    x /= torch.linalg.matrix_norm(x, 2)[:, None, None]
    for one in x:
        gradient = one.T @ dy
        q = one @ gradient
        assert (gradient @ (one.T @ hat @ one) @ gradient).item() == pytest.approx((q @ hat @ q).item())
        assert q @ q <= (q @ dy) * (
            1 + 1e-12
        )  # so that X = q q' / ||q||^2, scaled, has norm 1 at most and does as well
        assert gradient @ gradient <= (dy @ dy) * (1 + 1e-12)  # Theorem 4.4


def test_what_another_unit_of_y_does_to_the_printed_theorem_c1():
    """y -> c y: the left side becomes 1/c^4 of what it was, gamma^2/sigma^2 g' H g only 1/c^2."""
    model, inputs, targets = case("mlp")
    sides = []
    for c in (1.0, 3.0):
        with torch.no_grad():
            model[3].weight *= c
        u = brute(model, F.cross_entropy, inputs, targets, "4")[0]
        scale = (u["gamma"] / u["sigma"]) ** 2
        sides.append([(u["dy"] @ u["hat_dy"]).item(), (scale * (u["g"] @ u["g"])).item()])
    assert sides[1][0] == pytest.approx(sides[0][0] / 3**4, rel=1e-6)
    assert sides[1][1] == pytest.approx(sides[0][1] / 3**2, rel=1e-6)


@pytest.mark.parametrize("regime", ["bn", "noisy_bn"])
def test_vgg(regime):
    model = small_vgg(regime, name="vgg11")
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=stream)
    inputs, targets = torch.randn(2, 3, 32, 32, generator=stream), torch.tensor([1, 4])
    reports = check_theorems(model, F.cross_entropy, inputs, targets, initial=initial, units=2)
    assert [r.layer for r in reports] == [f"features.conv{i}.norm" for i in range(1, 9)]
    assert [r.fed_by for r in reports] == [f"features.conv{i}.transform" for i in range(1, 9)]
    assert [r.batch for r in reports] == [2 * side**2 for side in (32, 16, 8, 8, 4, 4, 2, 2)]
    for report in reports:
        assert all(0 <= getattr(report, attribute) < 1e-11 for attribute in RESIDUALS)
        assert report.reduction == pytest.approx(report.reduction_predicted, rel=1e-9)
        assert report.units == 2
    for report in (reports[0], reports[-1]):
        units = brute(model, F.cross_entropy, inputs, targets, report.layer)
        for key, value in expected(units).items():
            assert rows([report])[0][key] == pytest.approx(value, rel=1e-8), key
        assert min(abs(angle(u) - report.theorem_c1_angle) for u in units) < 1e-5
    for module, report in zip([m for m in model.modules() if isinstance(m, nn.Conv2d)], reports, strict=True):
        start, end = initial[f"{report.fed_by}.weight"].double().flatten(), module.weight.detach().double().flatten()
        nearest = torch.linalg.lstsq(end[:, None], start[:, None]).solution.item()
        distance = (start - nearest * end).norm() / (start - end).norm()
        assert report.lemma_4_5_distance == pytest.approx(distance.item(), rel=1e-9)


def test_noise_is_off_so_noisy_bn_is_bn():
    noisy, inputs, targets = case("noisy conv")
    plain = conv()
    plain.load_state_dict(noisy.state_dict())
    found = [rows(check_theorems(model, F.cross_entropy, inputs, targets)) for model in (noisy, plain)]
    assert repr(found[0]) == repr(found[1])


def test_scale_invariance_by_hand():
    model, inputs, targets = case("conv")
    net = written_out(model).requires_grad_(True)
    values = []
    for a in (1, 0.5, 10):
        with torch.no_grad():
            net[0].weight *= a
        loss = F.cross_entropy(net(inputs.double()), targets)
        (gradient,) = torch.autograd.grad(loss, [net[0].weight])
        values.append((loss.item(), a * gradient))
        across = (gradient.flatten(1) * net[0].weight.flatten(1)).sum(1).abs().max()
        assert across < 1e-14
        with torch.no_grad():
            net[0].weight /= a
    for loss, gradient in values[1:]:
        assert loss == pytest.approx(values[0][0], rel=1e-13)
        assert torch.allclose(gradient, values[0][1], rtol=1e-10, atol=1e-15)


# --- each residual can fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_with_eps_nothing_but_the_lemma_holds(monkeypatch, name):
    monkeypatch.setattr(evaluated, "_EPS", 0.1)
    reports = check(name)
    for attribute in RESIDUALS:
        worst = max(getattr(report, attribute) for report in reports)
        assert (worst < 1e-14) if attribute == "lemma_4_5" else (worst > 1e-3), attribute
    (said,) = [sentence for sentence in sentences(reports) if "NOT identities" in sentence]
    for statement in set(STATEMENTS) - {"Lemma 4.5"}:
        assert f"{statement} (" in said


class GammaTwice(nn.BatchNorm1d):
    """Another normalization: scale-invariant, but its gamma is not the one that it states."""

    def forward(self, input):
        return 2 * super().forward(input)


class Uncentred(nn.BatchNorm1d):
    """Another one: of the same scale invariance, but without a mean."""

    def forward(self, input):
        return input / input.square().mean(0).sqrt() * self.weight


class Leaking(nn.BatchNorm1d):
    """Normalized, with a bit of the input beside it."""

    def forward(self, input):
        return super().forward(input) + 0.01 * input


@pytest.mark.parametrize(
    ("norm", "fails"),
    [
        (GammaTwice, {"fact_c1", "theorem_4_1", "theorem_4_2", "theorem_4_4", "theorem_c1"}),
        (Uncentred, {"fact_c1", "theorem_4_1", "theorem_4_2", "theorem_4_4", "theorem_c1"}),
        (Leaking, set(RESIDUALS) - {"lemma_4_5"}),
    ],
)
def test_what_is_no_batch_normalization_fails_where_it_should(norm, fails):
    _, inputs, targets = case("mlp")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4, bias=False), norm(4), nn.Tanh(), nn.Linear(4, 3))
    (report,) = check_theorems(model, F.cross_entropy, inputs, targets, initial=moved(model), units=ALL)
    for attribute in RESIDUALS:
        value = getattr(report, attribute)
        assert (value > 1e-5) if attribute in fails else (value < 1e-12), (attribute, value)


def test_a_loss_that_leaves_float64_is_found_out():
    model, inputs, targets = case("mlp")
    reports = check_theorems(model, lambda out, t: F.cross_entropy(out.half(), t), inputs, targets)
    assert max(report.theorem_4_2 for report in reports) > 1e-6
    assert "NOT identities" in sentences(reports)[0]


def test_lemma_4_5_needs_its_own_k_and_gain():
    start, end = torch.tensor([[1.0, 2.0], [0.0, 1.0]]).double(), torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()
    found = lemma_4_5(start, end)  # <W0, W*> = 7, ||W*||^2 = 15, ||W0||^2 = 6: 6 - 49/15 = 7 - 64/15
    assert found["lemma_4_5"] < 1e-15
    assert found["lemma_4_5_distance"] == pytest.approx(math.sqrt((6 - 49 / 15) / 7))
    assert abs((6 - 49 / 15) - (7 - 64 / math.sqrt(15))) > 1
    assert lemma_4_5(start, -end) == {}  # <W0, W*> is not positive
    assert lemma_4_5(end, end) == {}


# --- counts by hand --------------------------------------------------------------------------------------------------


def by_hand(gradients, columns, gamma=2.0, unit=1.0):
    """One BN on given columns, and a loss that is linear in its output, with the given gradient."""
    model = nn.BatchNorm1d(len(columns))
    nn.init.constant_(model.weight, gamma)
    weights = torch.tensor(gradients, dtype=torch.float64).T * unit
    inputs = torch.tensor(columns, dtype=torch.float64).T
    return check_theorems(model, lambda out, t: (out * t).sum() + 1, inputs, weights, units=ALL)[0]


Y = [1.0, 2.0, 3.0, 4.0]
G = [1.0, 0.0, -1.0, 2.0]  # <1, g> = 2, <g, yhat>^2 = 0.8, ||g||^2 = 6, gamma^2 / sigma^2 = 3.2


def test_the_golden_case_of_theorem_4_1():
    report = by_hand([G], [Y])
    assert report.reduction == pytest.approx(15.36 / 6)
    assert report.reduction_predicted == pytest.approx(15.36 / 6)
    assert (report.scale_factor, report.mean_share) == (pytest.approx(3.2), pytest.approx(1 / 6))
    assert report.yhat_share == pytest.approx(0.2 / 6)
    assert (report.tested, report.printed_4_1_violated, report.inner_positive) == (1, 1, 1)  # 15.36 > 14.72
    assert report.theorem_4_1 < 1e-15
    assert report.fed_by == ""
    assert math.isnan(report.scale_loss) and math.isnan(report.orthogonality) and math.isnan(report.lemma_4_5)
    # H = 0, so that dy' Hhat dy = -gamma / (m sigma^2) <g, yhat> ||dy||^2 is negative, and dy' H dy >= 0 a tie
    assert report.curvature_nonnegative == 1
    assert max(report.theorem_4_2, report.theorem_c1) < 1e-14


@pytest.mark.parametrize(("unit", "violated"), [(1.0, 0), (0.1, 1)])
def test_the_printed_theorem_4_4_depends_on_the_unit_of_the_loss(unit, violated):
    """At lambda = 2: 4 * 15.36 u^2 against 3.2 (576 u^4 - 1 u^2 - 3.2 u^2)."""
    report = by_hand([G], [Y], unit=unit)
    assert report.printed_4_4_violated == violated
    assert report.theorem_4_4 < 1e-15


def test_dead_and_silent_channels_and_ties():
    alternating, across = [1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]  # <g, yhat> = 0: the printed form is a tie
    opposite = [-value for value in G]
    columns = [Y, Y, alternating, [5.0] * 4, [0.0] * 4, Y]
    report = by_hand([G, opposite, across, G, G, [0.0] * 4], columns)
    assert (report.channels, report.dead, report.silent, report.tested) == (6, 2, 1, 3)
    assert (report.printed_4_1_violated, report.inner_positive) == (2, 1)
    assert report.fact_c1 < 1e-15
    assert report.units == 3


def test_a_channel_of_gamma_zero_is_silent():
    report = by_hand([G, G], [Y, Y], gamma=0.0)
    assert (report.silent, report.tested, report.units) == (2, 0, 0)
    assert math.isnan(report.fact_c1) and math.isnan(report.reduction)
    assert "No gradient reaches any layer" in " ".join(sentences([report]))


@pytest.mark.parametrize(("offset", "dead"), [(1e5, 0), (1e7, 1)])
def test_a_channel_of_large_mean_is_tested_or_left_out_but_never_fails(offset, dead):
    report = by_hand([G, G], [[value + offset for value in Y], Y])
    assert report.dead == dead
    for attribute in ("fact_c1", "theorem_4_1", "theorem_4_2", "theorem_4_4", "theorem_c1"):
        assert getattr(report, attribute) < FAILURE / 10


def test_a_dead_channel_passes_on_a_constant_as_if_it_were_not_there():
    model, inputs, targets = case("mlp")
    with torch.no_grad():
        model[0].weight[2] = 0
    smaller = mlp()
    smaller[0], smaller[1], smaller[3] = nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False)
    left = torch.tensor([0, 1, 3])
    state = {
        name: value[:, left]
        if name == "3.weight"
        else value[left]
        if name[:2] in ("0.", "1.") and value.dim()
        else value
        for name, value in model.state_dict().items()
    }
    smaller.load_state_dict(state)
    found, expected = (
        rows(check_theorems(net, F.cross_entropy, inputs, targets, units=ALL)) for net in (model, smaller)
    )
    assert (found[0]["channels"], found[0]["dead"], found[0]["silent"], found[0]["tested"]) == (4, 1, 0, 3)
    for one, other in zip(found, expected, strict=True):
        for key, value in other.items():
            if key not in (*RESIDUALS, "channels", "dead", "layer", "fed_by"):
                assert one[key] == pytest.approx(value, rel=1e-9, nan_ok=True), key
        assert all(one[key] < 1e-12 or math.isnan(one[key]) for key in RESIDUALS)


def test_units_are_drawn_from_the_seed():
    model, inputs, targets = case("conv")
    found = [
        check_theorems(model, F.cross_entropy, inputs, targets, units=1, seed=seed)[0].theorem_c1_angle
        for seed in (0, 0, *range(1, 12))
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3  # one angle a channel


# --- which layer feeds ----------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self, twice):
        super().__init__()
        self.fc, self.norm, self.out = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.twice = twice

    def forward(self, x):
        y = self.fc(x)
        return self.out(self.norm(y) + (y if self.twice == "output" else 0)) + (
            self.fc.weight.sum() if self.twice == "weight" else 0
        )


@pytest.mark.parametrize(("twice", "fed_by"), [("", "fc"), ("output", ""), ("weight", "")])
def test_a_layer_feeds_where_its_output_and_weight_go_nowhere_else(twice, fed_by):
    _, inputs, targets = case("mlp")
    (report,) = check_theorems(Branching(twice), F.cross_entropy, inputs, targets)
    assert report.fed_by == fed_by
    assert math.isnan(report.scale_loss) == math.isnan(report.orthogonality) == (not fed_by)
    assert report.fact_c1 < 1e-12


# --- bad input ------------------------------------------------------------------------------------------------------


def nan_loss(out, targets):
    return F.cross_entropy(out, targets) * math.nan


def bad(what):
    """model, loss, inputs, targets, options."""
    model, inputs, targets = case("noisy conv" if what != "few" else "mlp")
    loss, options = F.cross_entropy, {}
    if what == "no bn":
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    elif what == "lp norm":
        model = small_vgg("l2", name="vgg11")
    elif what == "batch of one":
        inputs, targets = inputs[:1], targets[:1]
    elif what == "few":
        inputs, targets = inputs[:2], targets[:2]
    elif what == "vector":
        loss = lambda out, t: F.cross_entropy(out, t, reduction="none")  # noqa: E731
    elif what == "number":
        loss = lambda out, t: 1.0  # noqa: E731
    elif what == "constant":
        loss = lambda out, t: torch.tensor(1.0)  # noqa: E731
    elif what == "nan loss":
        loss = nan_loss
    elif what == "nan weight":
        with torch.no_grad():
            model[4].weight[0] = math.nan
    elif what == "nan input":
        inputs[0, 0] = math.nan
    elif what == "nan gradient":
        loss = lambda out, t: (out - out.detach()).square().sum().sqrt()  # noqa: E731
    elif what == "infinite curvature":
        loss = lambda out, t: (out - out.detach()).abs().pow(1.5).sum() + out.sum()  # noqa: E731
    elif what == "twice":
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3), norm := nn.BatchNorm1d(3), norm)
    elif what == "never":
        model.forward = lambda x: x.flatten(1).mean(1, keepdim=True) * model[1].weight
    elif what == "missing":
        options["initial"] = {name: value for name, value in moved(model).items() if name != "4.weight"}
    elif what == "shape":
        options["initial"] = {**moved(model), "4.weight": torch.zeros(3)}
    elif what == "units":
        options["units"] = 0
    return model, loss, inputs, targets, options


SAID = {
    "no bn": "Sequential has no batch normalization, which the theorems are about",
    "lp norm": "VGG has no batch normalization, which the theorems are about",
    "batch of one": "batch statistics need a batch of at least 2 samples (got 1)",
    "few": "1 has 2 values per channel; with fewer than 3 its gradient is always zero",
    "vector": "loss_fn must return a scalar tensor, such as a mean or a sum (got a tensor of shape (4,))",
    "number": "loss_fn must return a scalar tensor, such as a mean or a sum (got a float)",
    "constant": "loss_fn returned a loss that does not depend on the network's parameters",
    "nan loss": "the loss is nan (not finite after 5), so no theorem can be evaluated there",
    "nan weight": "the loss is nan (not finite from 5 on), so no theorem can be evaluated there",
    "nan input": "the loss is nan (not finite from 1 on), so no theorem can be evaluated there",
    "nan gradient": "the gradient is not finite at 5, so no theorem can be evaluated there",
    "infinite curvature": "the curvature is not finite at 1, so no theorem can be evaluated there",
    "twice": "2 is called more than once in a forward pass; the theorems take one call each",
    "never": "Sequential never calls its batch normalization",
    "missing": "initial has no '4.weight', which Lemma 4.5 compares with the current one",
    "shape": "initial['4.weight'] has the shape (3,), not (2, 3, 3, 3) as now",
    "units": "units must be at least 1, not 0",
}


def state_of(model, inputs):
    return [
        *(value.clone() for value in model.state_dict().values()),
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
        *(m.generator.get_state() for m in noise_modules(model)),
        *(inputs.clone(), torch.get_rng_state()),
        *(torch.tensor([getattr(m, key, 0) or 0 for m in model.modules()]) for key in ("training", "eps", "momentum")),
        *(torch.tensor(bool(getattr(m, "inplace", False))) for m in model.modules()),
        *(torch.tensor([len(m._forward_hooks), len(m._forward_pre_hooks)]) for m in model.modules()),
        torch.tensor([p.requires_grad for p in model.parameters()]),
    ]


def same(before, after):
    return len(before) == len(after) and all(
        torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("what", SAID)
def test_one_line_for_what_cannot_be_measured_and_the_model_untouched(what):
    model, loss, inputs, targets, options = bad(what)
    before = state_of(model, inputs)
    with pytest.raises(IcsbenchError) as error:
        check_theorems(model, loss, inputs, targets, **options)
    assert str(error.value) == SAID[what]
    assert same(before, state_of(model, inputs))


@pytest.mark.parametrize("name", ["noisy conv", "mlp"])
def test_the_model_and_the_random_streams_are_left_as_they_are(name):
    model, inputs, targets = case(name)
    F.cross_entropy(model(inputs), targets).backward()
    model[2].eval()
    model[0].bias.requires_grad_(False)
    before = state_of(model, inputs)

    def drawing(out, t):
        torch.rand(3)
        return F.cross_entropy(out, t)

    check_theorems(model, drawing, inputs, targets, initial=moved(model))
    assert same(before, state_of(model, inputs))

    def raising(out, t):
        raise ZeroDivisionError("in the loss")

    with pytest.raises(ZeroDivisionError):
        check_theorems(model, raising, inputs, targets)
    assert same(before, state_of(model, inputs))


# --- rows, sentences, the printed report ------------------------------------------------------------------------------


def printed(reports, width=170):
    console = Console(file=io.StringIO(), record=True, width=width)
    print_report(console, "A [network]", reports)
    return console.export_text()


def test_rows_are_plain_and_whole():
    reports = check("conv")
    table = rows(reports)
    assert [row["layer"] for row in table] == ["1", "5"]
    assert all(type(value) in (str, int, float) for row in table for value in row.values())
    assert {*RESIDUALS, "tested", "fed_by", "reduction", "printed_4_1_violated"} <= table[0].keys()
    assert table[0]["tested"] == table[0]["channels"] == 3


@pytest.mark.parametrize("width", [60, 200])
def test_the_report_names_every_layer_and_says_that_the_identities_hold(width):
    reports = check("mlp")
    text = printed(reports, width)
    assert text.startswith("A [network]\n")
    for report in reports:
        (residuals, reduction) = [line.split() for line in text.splitlines() if line.startswith(f"{report.layer} ")]
        assert residuals[:3] == [report.layer, "7", f"{report.tested}/{report.channels}"]
        assert [*map(float, residuals[3:])] == [pytest.approx(getattr(report, a), rel=0.5) for a in RESIDUALS]
        assert float(reduction[1]) == float(reduction[2]) == pytest.approx(report.reduction, rel=0.01)
        assert reduction[-2:] == [
            f"{report.inner_positive}/{report.tested}",
            f"{report.curvature_nonnegative}/{report.units}",
        ]
    flowing = " ".join(text.split())
    assert "All that could be tested hold within rounding (1e-08)." in flowing
    assert "NOT identities" not in flowing
    violated = sum(report.printed_4_1_violated for report in reports)
    assert f"Theorem 4.1 (1/sqrt(m)) is violated in {violated} of 7 (" in flowing
    for sentence in sentences(reports):
        assert " ".join(sentence.split()) in flowing


@pytest.mark.parametrize(("statement", "attribute"), STATEMENTS.items())
def test_a_failing_identity_is_reported_as_failing(statement, attribute):
    first, second = check("mlp")
    reports = [first, replace(second, **{attribute: 3e-4})]
    said = sentences(reports)[0]
    assert f"These are NOT identities here: {statement} (3e-04 in 4) is more than rounding (1e-08)." in said
    assert "All that could be tested hold" not in said
    flowing = " ".join(printed(reports).split())
    assert "NOT identities" in flowing and "3e-04" in flowing


def test_a_distance_that_grows_is_reported_as_failing():
    first, second = check("mlp")
    assert "Lemma 4.5 (the distance grows 1.2-fold)" in sentences([first, replace(second, lemma_4_5_distance=1.2)])[0]


def test_what_could_not_be_tested_is_said():
    report = by_hand([G], [Y])
    text = printed([report])
    assert "Lemma 4.5" not in sentences([report])[0]
    assert "–" in text
    assert "Left out: 0 dead and 0 silent of 1 channels." in text
