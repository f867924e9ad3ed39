"""The lab of effective rates: exact where theory says so, in float64, and not elsewhere; its claims on planted rows."""

import json
import types

import numpy as np
import pytest
import torch
from helpers import invoke, isolate, rows, run_dir
from networks import network
from planted import finish
from synthetic import write_lab
from torch import nn
from torch.nn import functional as F

from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import judge
from icsbench.config import options_of
from icsbench.figures import plan
from icsbench.figures.effective_rate import FIGURE
from icsbench.figures.style import house_style
from icsbench.labs.effective_rate import VARIANTS
from icsbench.labs.effective_rate.training import course, scheduled
from icsbench.record.reader import load_runs
from icsbench.training.task import cross_entropy

STEPS = 8
TINY = (
    *("model=mlp", "data=digits8", "model.depth=2", "model.units=8", "steps=12", "batch_size=16", "log_every=5"),
    *("threads=1", "device=cpu", "probes=none", "wandb=disabled", "seed=100"),
)


class Case:
    """A network in float64 with an eps too small to matter, on batches of noise."""

    def __init__(self, name, regime):
        self.name, self.regime = name, regime
        self.lr = 0.3 if name == "vgg11" else 3.0
        self.shape = (3, 32, 32) if name == "vgg11" else (1, 8, 8)
        x = torch.randn(STEPS, 16, *self.shape, generator=torch.Generator().manual_seed(3)).double()
        self.task = types.SimpleNamespace(
            chance=0.1, loss=cross_entropy, batches=lambda step: (x[step], (torch.arange(16) + step) % 10)
        )

    def model(self):
        options = {"width": 1 / 16} if self.name == "vgg11" else {"depth": 2, "units": 12}
        model = network(self.name, self.regime, shape=self.shape, seed=105, **options).double()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eps = 1e-13
        return model

    def course(self, rates=None, **options):
        optim = options_of("optim", lr=self.lr, **options)
        config = types.SimpleNamespace(steps=STEPS, seed=0, optim=optim)
        return course(types.SimpleNamespace(config=config, task=self.task), self.model(), rates)

    def plain(self, **options):
        """The same training as anybody would write it: losses, and squared lengths ahead of every update."""
        model = self.model().train()
        hidden = [block.transform.weight for _, block in model.layers()[:-1]]
        optimizer = torch.optim.SGD(model.parameters(), self.lr, **options)
        losses, squares = [], []
        for step in range(STEPS):
            squares.append([weight.square().sum().item() for weight in hidden])
            x, y = self.task.batches(step)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, np.array(squares)


@pytest.mark.parametrize("name", ["vgg11", "mlp"])
def test_free_is_the_plain_training_and_its_rates_are_those_of_the_lengths(name):
    case = Case(name, "bn")
    losses, squares = case.plain(momentum=0.5, weight_decay=0.01)
    found = case.course(momentum=0.5, weight_decay=0.01)
    assert found.losses == pytest.approx(losses, rel=1e-9)
    np.testing.assert_allclose(found.rates, squares[0] / squares, rtol=1e-9)
    np.testing.assert_allclose(found.lengths, np.sqrt(squares[0]), rtol=1e-12)


@pytest.mark.parametrize("name", ["vgg11", "mlp"])
def test_recorded_rates_are_the_same_training_exactly_where_theory_says_so(name):
    case = Case(name, "bn")
    free = case.course()
    assert free.rates[-1].max() < 0.95  # the weights do grow
    assert case.course(free.rates).losses == pytest.approx(free.losses, rel=1e-7)
    for unlike in ("one_for_all", "constant", "shuffled"):
        other = case.course(scheduled(unlike, free.rates, 1))
        assert other.losses != pytest.approx(free.losses, rel=1e-4), unlike


def test_with_momentum_and_without_bn_they_are_not():
    with_momentum = Case("mlp", "bn").course(momentum=0.9)
    other = Case("mlp", "bn").course(with_momentum.rates, momentum=0.9)
    assert other.losses != pytest.approx(with_momentum.losses, rel=1e-4)
    without = Case("mlp", "none").course()
    assert Case("mlp", "none").course(without.rates).losses != pytest.approx(without.losses, rel=1e-4)


def test_schedules():
    rates = torch.tensor([[1.0, 1.0], [0.5, 0.125], [0.25, 0.04]], dtype=torch.float64)
    assert scheduled("recorded", rates, 0) is rates
    assert scheduled("constant", rates, 0).tolist() == [[1, 1]] * 3
    np.testing.assert_allclose(scheduled("one_for_all", rates, 0), [[1, 1], [0.25, 0.25], [0.1, 0.1]])
    orders = {tuple(scheduled("shuffled", rates, seed)[:, 0].tolist()) for seed in range(20)}
    assert len(orders) > 2 and all(sorted(order) == [0.25, 0.5, 1.0] for order in orders)


def test_a_run_from_the_command_line_and_its_figure(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "effective_rate", *TINY, "norm=bn", "optim.lr=0.5")
    assert done.code == 0, done.err
    found = rows(run_dir())
    for variant in VARIANTS:
        of = [row for row in found if row.get("variant") == variant]
        assert [row["step"] for row in of] == [5, 10, 12]
        assert all(0 <= row["accuracy"] <= 1 for row in of)
    rates = [row for row in found if row["measure"] == "rate"]
    assert [(row["layer"], row["depth"], row["step"]) for row in rates[:2]] == [("fc1", 1, 5), ("fc2", 2, 5)]
    assert all(row["effective_rate"] > 0 and row["relative_rate"] < 1 for row in rates)
    [group] = group_runs(load_runs(tmp_path / "results"))
    assert "effective-rate" in [name for name, *_ in plan(group)]
    with house_style():
        page, _ = FIGURE.page(group)
    assert "chance" in [text.get_text() for text in page.axes[0].texts]


def test_where_free_is_not_finite_there_is_no_other(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "effective_rate", *TINY, "norm=none", "optim.lr=1e38")
    assert done.code == 0, done.err
    assert {row["variant"] for row in rows(run_dir())} == {"free"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data=gaussian", "model=dln", "batch_size=1000"), "effective_rate is about a classifier, and data gaussian"),
        (("optim.train=affine",), "trains all parameters and projects by itself"),
        (("+optim.wrap.project.tensors=all",), "leave out optim.train and optim.wrap.project"),
        (("amp=true",), "trains in float32 and without a compiler; leave out amp and compile"),
        (("norm=weight_norm",), "with norm=weight_norm no weight is ahead of a place for a norm; choose norm=bn"),
        (("model=residual_mlp", "model.depth=2", "norm=fixup"), "norm=fixup starts a weight at zero, of no length"),
    ],
)
def test_what_it_cannot_use_is_refused_in_one_line(monkeypatch, tmp_path, overrides, said):
    isolate(monkeypatch, tmp_path)
    settings = [one for one in TINY if not (overrides[0].startswith("data") and one.startswith(("model", "data")))]
    done = invoke("lab", "effective_rate", *settings, *overrides)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err and not (tmp_path / "results").exists()


# --- claims ----------------------------------------------------------------------------------------------------------

TRUE = {"free": 0.40, "recorded": 0.405, "one_for_all": 0.395, "constant": 0.48, "shuffled": 0.33}


def study(root, truth, plain=0.40):
    """Six seeds with momentum and without, whose variants end at these accuracies, nearly."""
    random = np.random.default_rng(0)
    for momentum in (0.0, 0.9):
        for seed in range(6):
            training = {
                **{"steps": 400, "norm": {"name": "bn"}, "optim": {"lr": 0.1, "momentum": momentum}},
                "model": {"name": "mlp"},
            }
            path = write_lab(
                root,
                "effective_rate",
                seed,
                experiment="effective_rate",
                training=training,
                factors={"optim.momentum": ["lab.m"]},
                m=momentum,
            )
            ends = truth if momentum else {**dict.fromkeys(VARIANTS, 0.40), "recorded": plain}
            lines = [
                {"step": step, "measure": "training", "variant": variant, "loss": 1.0} | {"accuracy": end + wobble}
                for variant, end in ends.items()
                for wobble in [0.002 * random.standard_normal()]
                for step in range(40, 401, 40)
            ]
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            finish(path, json.loads((path / "summary.json").read_text()))
    return root


def verdict(root, number):
    [found] = judge(load_runs(root), [claim_of(number)])
    return found


@pytest.mark.parametrize("number", ["40", "40b"])
def test_a_claim_is_supported_where_it_holds(tmp_path, number):
    found = verdict(study(tmp_path, TRUE), number)
    assert (found.verdict, found.n, found.of) == ("supported", 6, "networks"), found.reason


@pytest.mark.parametrize(
    ("number", "changed", "plain"),
    [
        ("40", {"recorded": 0.44}, 0.40),
        ("40", {"constant": 0.41}, 0.40),
        ("40", {}, 0.30),
        ("40b", {"one_for_all": 0.45}, 0.40),
        ("40b", {"shuffled": 0.405}, 0.40),
    ],
)
def test_each_part_can_lose(tmp_path, number, changed, plain):
    assert verdict(study(tmp_path, TRUE | changed, plain), number).verdict == "contradicted"


def test_a_variant_that_ended_early_is_left_out(tmp_path):
    root = study(tmp_path, TRUE)
    for path in root.rglob("metrics.jsonl"):
        kept = [line for line in path.read_text().splitlines() if '"constant"' not in line or '"step": 400' not in line]
        path.write_text("".join(line + "\n" for line in kept))
        finish(path.parent, json.loads((path.parent / "summary.json").read_text()))
    [group] = group_runs(load_runs(root))
    found = claim_of("40").parts[2].measure(group)
    assert found.values == {} and len(found.left_out) == 6


def test_the_figure_is_drawn_of_a_study(tmp_path):
    [group] = group_runs(load_runs(study(tmp_path, TRUE)))
    with house_style():
        page, csv = FIGURE.page(group)
    assert {row["quantity"] for row in csv} == {"accuracy", "loss"}
    assert {(row["norm"], row["momentum"], row["variant"]) for row in csv} == {
        ("bn", momentum, variant) for momentum in (0.0, 0.9) for variant in VARIANTS
    }
    assert len(page.axes) == 6
