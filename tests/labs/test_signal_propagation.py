"""The lab of signal propagation against a pass written out, its theory against wide networks, claims and figure."""

import copy
import json
import math

import pytest
import torch
from helpers import invoke, isolate, rows, run_dir
from layout import assert_texts_apart
from networks import network
from planted import finish
from synthetic import write_lab

from icsbench import figures
from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.signal_propagation import variance_to_theory
from icsbench.analysis.verdicts import judge
from icsbench.config import options_of
from icsbench.figures.contract import Figure
from icsbench.labs.signal_propagation import measure
from icsbench.members import member
from icsbench.record.legacy import LOOKS
from icsbench.record.reader import load_runs
from icsbench.record.strict_json import dumps

LAB = (
    *("batch_size=32", "threads=1", "device=cpu", "probes=none", "wandb=disabled", "lab.samples=4"),
    *("model.width=0.0625", "seed=100"),
)


def of(value):
    channels = value.detach().double().transpose(0, 1).reshape(value.shape[1], -1)
    return {
        "squared_mean": channels.mean(1).square().mean().item(),
        "variance": channels.var(1, unbiased=False).mean().item(),
    }


@pytest.mark.parametrize("norm", ["none", "bn", "ws"])
def test_layers_of_a_vgg_are_those_of_a_pass_written_out(norm):
    model = network("vgg11", norm, width=1 / 16, init="he", seed=101)
    x = measure.noise(8, (3, 32, 32), 5)
    found = measure.signals(model, x)
    assert [(row["measure"], row["step"]) for row in found] == [("layer", step) for step in range(1, 9)]
    value, wanted = x, []
    for module in copy.deepcopy(model).features:
        if hasattr(module, "transform"):
            wanted.append(of(module.norm(module.transform(value))))
        value = module(value)
    assert [{key: row[key] for key in wanted[0]} for row in found] == [pytest.approx(one) for one in wanted]


@pytest.mark.parametrize("norm", ["none", "nf"])
def test_blocks_of_a_resnet_are_those_of_a_pass_written_out(norm):
    model = network("resnet20", norm, width=1 / 8, bias=True, seed=102)
    for scalar in measure.scalars_of(model):
        scalar.data.fill_(1.0)
    x = measure.noise(6, (3, 32, 32), 6)
    found = [row for row in measure.signals(model, x) if row["measure"] == "block"]
    value = copy.deepcopy(model).stem(x)
    wanted = [of(value)]
    for block in measure.blocks_of(model):
        value = block(value)
        wanted.append(of(value))
    assert [row["step"] for row in found] == [*range(10)]
    assert [{key: row[key] for key in wanted[0]} for row in found] == [pytest.approx(one) for one in wanted]


def test_a_network_in_float64_gets_the_same_inputs():
    model = network("dln", "ws", shape=(10,), num_classes=None, depth=3, units=10, seed=103).double()
    x = measure.noise(8, (10,), 7)
    assert x.dtype == torch.float32
    first, *_ = measure.signals(model, x)
    pre_activation = x.double() @ model.layers()[0][1].transform.weight.T
    assert {key: first[key] for key in of(x)} == pytest.approx(of(pre_activation))


def test_at_their_start_blocks_are_the_identity():
    model = network("resnet20", "nf", width=1 / 8, bias=True, seed=102)
    found = measure.signals(model, measure.noise(4, (3, 32, 32), 6))
    blocks = [row["variance"] for row in found if row["measure"] == "block"]
    assert blocks[:4] == [blocks[0]] * 4
    assert len(measure.scalars_of(model)) == 9 and measure.scalars_of(network("vgg11", "nf", width=1 / 64)) == []


@pytest.mark.parametrize("norm", ["nf", "bn"])
def test_theory_is_what_a_wide_network_does(norm):
    """Fully connected, without borders: twelve blocks of 400 units."""
    variances, means = [], []
    for seed in (100, 101):
        model = network("residual_mlp", norm, shape=(300,), depth=12, units=400, seed=seed)
        for scalar in measure.scalars_of(model):
            scalar.data.fill_(1.0)
        found = [row for row in measure.signals(model, measure.noise(400, (300,), seed)) if row["measure"] == "block"]
        variances.append([row["variance"] / found[0]["variance"] for row in found])
        means.append([row["squared_mean"] / row["variance"] for row in found])
        said = measure.theory(model, options_of("norm", norm))
    assert [*said] == [*range(13)]
    theory = [said[step]["theory_variance"] / said[0]["theory_variance"] for step in said]
    assert torch.tensor(variances).mean(0).tolist() == pytest.approx(theory, rel=0.08)
    shares = [said[step]["theory_squared_mean"] / said[step]["theory_variance"] for step in said]
    assert torch.tensor(means).mean(0).tolist() == pytest.approx(shares, rel=0.08)


def test_theory_stops_where_shortcuts_pad_and_says_nothing_of_other_norms():
    for norm, count in (("nf", 4), ("bn", 4), ("ws", 0), ("none", 0)):
        assert len(measure.theory(network("resnet20", norm, width=1 / 64), options_of("norm", norm))) == count
    assert measure.theory(network("vgg11", "nf", width=1 / 64), options_of("norm", "nf")) == {}


def test_a_run_of_signals_from_the_command_line(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "signal_propagation", "norm=nf", "model=resnet20", *LAB)
    assert done.code == 0, done.err
    assert "squared mean" in done.out and "theory" in done.out
    found = rows(run_dir())
    kinds = [(row["scalars"], row["measure"]) for row in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **{("start", "block"): 10, ("start", "layer"): 19, ("one", "block"): 10, ("one", "layer"): 19}
    }
    assert [row["step"] for row in found if "theory_variance" in row] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lab.samples=1", "configuration: lab.samples must be at least 2 (got 1)"),
        ("norm.form=tim", "configuration: norm.form must be one of official, timm, lubana (got 'tim')"),
    ],
)
def test_what_the_lab_of_signals_cannot_use_is_one_line(monkeypatch, tmp_path, override, said):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "signal_propagation", "norm=nf", "model=resnet20", *LAB, override)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err and not (tmp_path / "results").exists()


SIGNALS = {  # share of the mean, growth of the variance per block
    "none": (0.6, 1.5),
    "ws": (0.03, 1.3),
    "nf": (0.1, 0.99),
    "bn": (0.001, 1.6),
}


def study(root, seeds=6, plain=None, **planted):
    """Write the runs of both studies; theory says of nf that the variance falls by 1 % a block."""
    for seed in range(seeds):
        for norm, values in SIGNALS.items():
            write(root, "signal_propagation", norm, seed, *planted.get(norm, values), blocks=6)
        for norm in ("none", "ws"):
            share = (plain or {}).get(norm, SIGNALS[norm][0])
            write(root, "signal_propagation_plain", norm, seed, share, 1.0, blocks=0)


def write(root, experiment, norm, seed, share, growth, *, blocks):
    training = {"model": {"name": experiment}, "norm": {"name": norm}, "batch_size": 64}
    options = {"factors": {"lab.key": []}, "training": training, "key": norm}
    path = write_lab(root, "signal_propagation", seed, experiment=experiment, **options)
    lines = []
    for scalars in ("start", "one") if norm == "nf" else ("one",):
        for step in range(1, 8):
            size = 1 + 0.01 * seed if step > 1 else 99.0
            of_mean = 0.99 if step == 1 else share * (1 + 0.01 * seed * (norm == "ws"))
            row = {"squared_mean": size * of_mean, "variance": size * (1 - of_mean) * (scalars == "one")}
            lines.append({"step": step, "measure": "layer", "scalars": scalars, **row})
        for step in range(blocks + 1 if blocks else 0):
            variance = (growth * (1 + 0.002 * seed)) ** step if scalars == "one" else 1.0
            row = {"step": step, "measure": "block", "scalars": scalars, "squared_mean": 0.5, "variance": variance}
            if norm == "nf" and step < 4:
                row |= {"theory_variance": 0.99**step, "theory_squared_mean": 0.5} if scalars == "one" else {}
            lines.append(row)
    (path / "metrics.jsonl").write_text("".join(dumps(row) + "\n" for row in lines))
    environment = json.loads((path / "environment.json").read_text())
    environment |= {
        "model": {"label": "Planted network", "units": False, "scales": {}},
        "data": {"name": "planted", "label": "Planted images", "fingerprint": "f" * 16, "num_classes": 10},
        "regime": LOOKS["none"] | {"label": norm},
    }
    (path / "environment.json").write_text(json.dumps(environment))
    finish(path, {"status": "complete", "outcome": "complete", "rows": len(lines)})


@pytest.mark.parametrize(
    ("number", "planted", "outcome"),
    [
        ("36b", {}, "supported"),
        ("36b", {"nf": (0.1, 1.2)}, "contradicted"),
        ("36b", {"nf": (0.1, 0.8)}, "contradicted"),
        ("36b", {"none": (0.6, 1.05)}, "contradicted"),
        ("36c", {}, "supported"),
        ("36c", {"ws": (0.3, 1.3)}, "contradicted"),
        ("36c", {"plain": {"ws": 0.4}}, "contradicted"),
    ],
)
def test_claims_on_signals_on_planted_rows(tmp_path, number, planted, outcome):
    study(tmp_path, **planted)
    (found,) = judge(load_runs(tmp_path), [claim_of(number)])
    assert (found.verdict, found.of, found.n) == (outcome, "networks", 6)


def test_what_is_measured_of_planted_signals(tmp_path):
    study(tmp_path, seeds=1)
    groups = {group.name: group for group in group_runs(load_runs(tmp_path))}
    residual = groups["signal_propagation"]
    to_theory, per_block = claim_of("36b").parts
    assert [*to_theory.measure(residual).values.values()] == pytest.approx([1.0])
    assert [*per_block.measure(residual).values.values()] == pytest.approx([1.5])
    share, of_plain = claim_of("36c").parts
    found = share.measure(residual)
    assert [*found.values.values()] == pytest.approx([0.05]) and found.note == "ws: 0.03; none: 0.6"
    assert [*of_plain.measure(groups["signal_propagation_plain"]).values.values()] == pytest.approx([0.05])
    with pytest.raises(NotMeasured, match="theory says nothing of its blocks"):
        variance_to_theory(residual.select(norm="signal_propagation", **{"norm.name": "ws"}).runs[0])


@pytest.mark.parametrize(("name", "panels"), [("signal_propagation", 4), ("signal_propagation_plain", 2)])
def test_the_figure_of_signals(tmp_path, name, panels):
    study(tmp_path, seeds=3)
    [group] = [group for group in group_runs(load_runs(tmp_path)) if group.name == name]
    with figures.house_style():
        figure, drawn = member("figures", Figure, "signal-propagation").page(group)
    assert len(figure.axes) == panels
    assert_texts_apart(figure)
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts).replace("\xa0", " ")
    assert ("theory for infinite width" in said) == (panels == 4) and "n = 3 seeds" in said
    theory = [row for row in drawn if row["quantity"] == "theory of variance"]
    assert [row["mean"] for row in theory] == pytest.approx([0.99**step for step in range(4)] if panels == 4 else [])
    layers = [row for row in drawn if row["quantity"] == "variance" and row["regime"] == "ws" and "layer" in row]
    sizes = [(1 + 0.01 * seed) * (1 - 0.03 * (1 + 0.01 * seed)) for seed in range(3)]
    assert layers[1]["mean"] == pytest.approx(math.prod(sizes) ** (1 / 3))
