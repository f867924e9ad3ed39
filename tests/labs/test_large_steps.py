"""The lab of large steps against a plain copy, a step of SGD and softmax written out; its claims on planted rows."""

import copy
import json
import math

import pytest
import torch
import yaml
from helpers import invoke, isolate, rows, run_dir
from networks import network
from planted_steps import study
from torch.nn import functional as F

from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.large_steps import divergence_step as of_run
from icsbench.analysis.verdicts import judge
from icsbench.config import options_of
from icsbench.errors import IcsbenchError
from icsbench.labs.large_steps import divergence_step, useful_step
from icsbench.labs.large_steps.measure import first_step
from icsbench.record.reader import load_runs
from icsbench.training.task import cross_entropy

ALPHAS = (1e-4, 1e-2, 1.0, 30.0)
LAB = (
    *("model=vgg11", "model.width=0.0625", "batch_size=32", "threads=1", "device=cpu", "probes=none"),
    *("wandb=disabled", "lab.batches=2", "lab.per_decade=1"),
)


@pytest.fixture(params=["vgg-none", "vgg-bn", "mlp-none", "mlp-bn"])
def case(request):
    """A VGG or an MLP with or without BN, in float64, with images of noise and their classes."""
    x = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(7)).double()
    name, regime = request.param.split("-")
    if name == "vgg":
        model = network("vgg11", regime, width=1 / 16, init="he", seed=101)
    else:
        model = network("mlp", regime, shape=(48,), depth=5, units=12, init="glorot", seed=102)
        x = x[:, :, :4, :4].contiguous()
    return model.double(), x, torch.arange(24) % 10


def test_relative_losses_are_those_of_a_step_of_sgd(case):
    model, x, y = case
    before = copy.deepcopy(model.state_dict())
    found = first_step(model, cross_entropy, x, y, ALPHAS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    start = F.cross_entropy(copy.deepcopy(model).train()(x), y).item()
    for alpha, relative in zip(ALPHAS, found.relative_losses, strict=True):
        copied = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(copied.parameters(), lr=alpha)
        F.cross_entropy(copied(x), y).backward()
        optimizer.step()
        assert relative == pytest.approx(F.cross_entropy(copied(x), y).item() / start, rel=1e-9)
    lengths = [torch.cat([p.grad.flatten() for p in copied.parameters()]).norm().item()]
    lengths.append(torch.cat([p.detach().flatten() for p in model.parameters()]).norm().item())
    assert found.whole["loss"] == pytest.approx(start, rel=1e-12)
    assert [found.whole["gradient_norm"], found.whole["weight_norm"]] == pytest.approx(lengths, rel=1e-9)


def test_channels_are_those_ahead_of_the_norm(case):
    model, x, y = case
    found = first_step(model, cross_entropy, x, y, ALPHAS[:1]).layers
    paths = [path for path, _ in model.layers()][:-1]
    assert [row["layer"] for row in found] == paths
    copied, signal = copy.deepcopy(model).train(), x
    blocks = [module for module in copied.modules() if type(module).__name__ in ("Block", "MaxPool2d", "Flatten")]
    wanted = []
    for block in blocks[: blocks.index(copied.get_submodule(paths[-1])) + 1]:
        if type(block).__name__ == "Block":
            ahead = block.transform(signal)
            channels = ahead.detach().transpose(0, 1).reshape(ahead.shape[1], -1)
            wanted.append((channels.mean(1).abs().mean().item(), channels.var(1, unbiased=False).sqrt().mean().item()))
        signal = block(signal)
    assert [(row["channel_mean"], row["channel_std"]) for row in found] == [pytest.approx(one) for one in wanted]


def test_output_gradients_are_p_minus_y(case):
    model, x, y = case
    found = first_step(model, cross_entropy, x, y, ALPHAS[:1])
    logits = copy.deepcopy(model).train()(x).detach()
    g = logits.softmax(1) - F.one_hot(y, 10)
    for column, row in zip(g.T, found.classes, strict=True):
        sizes = [column[column > 0].sum().item(), -column[column < 0].sum().item()]
        assert row["sign_share_by_size"] == pytest.approx(max(sizes) / sum(sizes))
    counts = y.bincount(minlength=10).tolist()
    assert [row["sign_share"] for row in found.classes] == [max(n, 24 - n) / 24 for n in counts]
    common = g.mean(0).norm() ** 2 / (g.norm(dim=1) ** 2).mean()
    assert found.whole["common"] == pytest.approx(common.item())
    assert found.whole["commonest_prediction"] == max(logits.argmax(1).bincount().tolist()) / 24


class Fixed(torch.nn.Module):
    """A network whose outputs are the same for every sample: ``outputs``, its weights."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = torch.nn.Parameter(torch.tensor(outputs).double())

    def layers(self):
        return []

    def forward(self, x):
        return self.outputs.expand(len(x), -1)


def test_one_class_for_all_agrees_and_equal_outputs_cancel():
    x, y = torch.zeros(40, 1), torch.arange(40) % 4
    for outputs, share, common in (([0.0] * 4, 0.5, 0.0), ([0.0, 0.0, 50.0, 0.0], 1.0, None)):
        found = first_step(Fixed(outputs), cross_entropy, x, y, [0.1])
        assert [row["sign_share_by_size"] for row in found.classes] == pytest.approx([share] * 4)
        assert [row["sign_share"] for row in found.classes] == [0.75] * 4
        assert found.whole["commonest_prediction"] == 1
        assert common is None or found.whole["common"] == pytest.approx(common, abs=1e-12)
    # p = (0, 0, 1, 0): three quarters of the samples have (-1, 0, 1, 0) or the like, of length sqrt 2, the others 0
    assert found.whole["common"] == pytest.approx((0.75**2 + 3 * 0.25**2) / (0.75 * 2))


def test_the_noise_of_a_noisy_norm_is_the_same_in_all_passes():
    model = network("vgg11", "noisy_bn", width=1 / 16, init="he", seed=103)
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tiny, small = first_step(model, cross_entropy, x, torch.arange(16) % 10, [1e-9, 1e-8]).relative_losses
    assert tiny == pytest.approx(1, abs=1e-5) and small == pytest.approx(1, abs=1e-5)


def test_divergence_and_useful_steps_and_those_beyond_the_grid():
    alphas = [0.1, 1.0, 10.0]
    assert divergence_step(alphas, [0.5, 1000.0, 1000.1]) == 10.0
    assert divergence_step(alphas, [0.5, math.inf, 2.0]) == 1.0
    assert divergence_step(alphas, [0.5, 2.0, 1000.0]) == math.inf
    assert useful_step(alphas, [0.5, 1.5, 0.5]) == 0.1
    assert useful_step(alphas, [0.5, 1.0, 0.9]) == 10.0
    assert useful_step(alphas, [1.1, 0.5, 0.5]) == 0.0


def test_the_grid_is_even_on_a_logarithmic_axis_and_ends_where_it_says():
    options = options_of("lab", "large_steps", lowest=1e-3, highest=1.0, per_decade=2)
    assert options.alphas == [1e-3, 0.003162, 0.01, 0.03162, 0.1, 0.3162, 1.0]
    assert len(options_of("lab", "large_steps").alphas) == 65
    assert options_of("lab", "large_steps", lowest=1.0, highest=1.1).alphas == [1.0, 1.1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lowest": 0.0}, "lab.lowest must be greater than 0"),
        ({"lowest": -1.0}, "lab.lowest must be greater than 0"),
        ({"lowest": 1.0, "highest": 1.0}, "lab.highest must be greater than 1.0"),
        ({"per_decade": 0}, "lab.per_decade must be at least 1"),
        ({"batches": 0}, "lab.batches must be at least 1"),
    ],
)
def test_a_grid_that_is_none_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        options_of("lab", "large_steps", **options)


def test_a_run_from_the_command_line(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "large_steps", *LAB, "norm=bn", "seed=100")
    assert done.code == 0, done.err
    assert "divergence" in done.out and "commonest" in done.out
    found = rows(run_dir())
    by = {of: [row for row in found if row["measure"] == of] for of in ("step_size", "layer", "class", "batch")}
    assert {of: len(some) for of, some in by.items()} == {"step_size": 18, "layer": 16, "class": 20, "batch": 2}
    assert by["layer"][7]["layer"] == "features.conv8" and by["layer"][7]["step"] == 8
    assert by["batch"][0]["loss"] != by["batch"][1]["loss"]
    environment = json.loads((run_dir() / "environment.json").read_text())
    assert environment["regime"]["label"] == "Standard + BatchNorm" and environment["data"]["num_classes"] == 10
    [run] = load_runs(tmp_path / "results")
    assert (run.regime, run.norm, run.norm.label) == ("large_steps", "bn", "Standard + BatchNorm")
    [group] = group_runs([run])
    assert "VGG11 at width 1/16" in group.facts and "Digits" in group.facts
    assert yaml.safe_load((run_dir() / "config.yaml").read_text())["norm"]["name"] == "bn"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data=gaussian", "model=dln", "batch_size=1000"), "large_steps is about a classifier, and data gaussian"),
        (("model=mlp", "model.init_std=1e38"), "the untrained network has a loss of "),
    ],
)
def test_what_it_cannot_use_is_refused_in_one_line(monkeypatch, tmp_path, overrides, said):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "large_steps", *LAB[2:], "norm=none", *overrides)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err and not (tmp_path / "results").exists()


def verdict(root, number, **planted):
    study(root, **planted)
    (found,) = judge(load_runs(root), [claim_of(number)])
    return found


@pytest.mark.parametrize(
    ("number", "planted", "outcome"),
    [
        ("31", {}, "supported"),
        ("31", {"none": {"divergence": 0.5}}, "contradicted"),
        ("31", {"none": {"divergence": math.inf}, "bn": {"divergence": 0.1}}, "contradicted"),
        ("31b", {}, "supported"),
        ("31b", {"fixup": {"divergence": 2e-3}}, "contradicted"),
        ("31c", {}, "supported"),
        ("31c", {"plain": {"none": {"divergence": 1e-3}}}, "contradicted"),
        ("32", {}, "supported"),
        ("32", {"none": {"growth": 0.0}}, "contradicted"),
        ("32", {"bn": {"growth": 0.05}}, "contradicted"),
        ("32b", {}, "supported"),
        ("32b", {"plain": {"none": {"growth": 0.05}}}, "contradicted"),
        ("33", {}, "supported"),
        ("33", {"none": {"share": 0.6}}, "contradicted"),
        ("33", {"bn": {"share": 0.97}}, "contradicted"),
        ("33", {"none": {"commonest": 0.3}}, "contradicted"),
    ],
)
def test_claims_on_planted_rows(tmp_path, number, planted, outcome):
    assert verdict(tmp_path, number, **planted).verdict == outcome


def test_steps_outside_the_grid_count_as_its_ends_and_are_said(tmp_path):
    none = {"divergence": 1e-6}
    [finding] = verdict(tmp_path, "31", bn={"divergence": math.inf}, none=none).findings
    assert [*finding.values.values()] == pytest.approx([1e7] * 6)
    assert finding.note == (
        "bn: 6 of 6 beyond the grid, counted as its end; none: 6 of 6 at its first step or below; "
        "in distance relative to the weights x1e+07"
    )


def test_seeds_that_diverge_nowhere_have_no_ratio(tmp_path):
    found = verdict(tmp_path, "31", **{norm: {"divergence": math.inf} for norm in ("bn", "none")})
    assert found.verdict in ("inconclusive", "not measured") and found.findings[0].values == {}
    assert of_run(load_runs(tmp_path)[0]) == math.inf


def test_a_study_without_the_norm_does_not_measure(tmp_path):
    study(tmp_path, norms=("bn",))
    [group] = [group for group in group_runs(load_runs(tmp_path)) if group.name == "large_steps"]
    with pytest.raises(NotMeasured, match="has no finished run of large_steps with"):
        claim_of("33").parts[0].measure(group)


def test_a_class_without_a_gradient_has_no_share_by_size():
    x, y = torch.zeros(8, 1), torch.zeros(8, dtype=torch.long)
    found = first_step(Fixed([0.0, 1.0, -2000.0]), cross_entropy, x, y, [0.1])
    assert "sign_share_by_size" not in found.classes[2] and "sign_share_by_size" in found.classes[0]


def test_a_loss_of_zero_is_refused():
    with pytest.raises(IcsbenchError, match="a loss of 0 and a gradient of length 0"):
        first_step(Fixed([2000.0, 0.0]), cross_entropy, torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), [0.1])
