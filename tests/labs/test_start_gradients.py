"""The lab of gradients at the start: against copies of the network; its claim and figure on planted rows."""

import copy
import json

import pytest
import torch
from helpers import invoke, isolate, rows, run_dir
from networks import network
from planted import finish
from synthetic import write_lab
from torch.nn import functional as F

from icsbench import figures
from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import group_runs
from icsbench.analysis.quantities.start_gradients import gradients as of_run
from icsbench.analysis.verdicts import judge
from icsbench.figures.contract import Figure
from icsbench.labs.start_gradients.measure import gradients
from icsbench.members import member
from icsbench.record.reader import load_runs

LAB = (
    *("model=vgg11", "model.width=0.0625", "batch_size=16", "threads=1", "device=cpu", "probes=none"),
    *("wandb=disabled", "lab.batches=2"),
)
START = {  # gradient at the first layer, with a growth by layer towards the last
    "none": (0.1, 1.0),
    "layer": (0.1, 1.0),
    "group": (0.2, 0.95),
    "instance": (0.4, 0.9),
}


@pytest.mark.parametrize(
    ("kind", "norm"),
    [("vgg11", "none"), ("vgg11", "bn"), ("vgg11", "instance"), ("resnet20", "none"), ("resnet20", "dyt")],
)
def test_gradients_are_those_by_a_change_of_the_output(kind, norm):
    """An addition of zeros to an output has the output's gradient."""
    model = network(kind, norm, width=1 / 16, init="he", seed=1).double()
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6)
    twin, zeros = copy.deepcopy(model), {}
    found = gradients(model, F.cross_entropy, x, y)
    assert [*found] == [path for path, _ in twin.layers()]

    def added(path):
        def add(_, __, output):
            zeros[path] = torch.zeros_like(output, requires_grad=True)
            return output + zeros[path]

        return add

    for path, block in twin.layers():
        block.transform.register_forward_hook(added(path))
    F.cross_entropy(twin(x), y).backward()
    for path, value in found.items():
        assert value == pytest.approx(zeros[path].grad.norm().item(), rel=1e-9), path


def test_the_last_gradient_is_that_of_the_cross_entropy():
    model = network("mlp", shape=(12,), depth=2, units=7).double()
    x = torch.randn(9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(9)
    p = F.softmax(model(x), 1)
    expected = (p - F.one_hot(y, 10)).norm() / 9
    assert [*gradients(model, F.cross_entropy, x, y).values()][-1] == pytest.approx(expected.item(), rel=1e-9)


def test_a_run_is_a_function_of_its_config_and_starts_from_the_data(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    found = []
    for results in "ab":
        done = invoke("lab", "start_gradients", *LAB, "norm=weight_norm", f"results={results}")
        assert done.code == 0, done.err
        assert "head.fc1" in done.out
        found.append(rows(run_dir(results)))
    assert found[0] == found[1]
    assert [row["step"] for row in found[0]] == [*range(1, 10)] * 2
    plain = invoke("lab", "start_gradients", *LAB, "norm=weight_norm", "norm.from_data=false", "results=c")
    assert plain.code == 0 and rows(run_dir("c"))[0] != found[0][0]


def test_bad_options_are_one_line(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    done = invoke("lab", "start_gradients", *LAB, "lab.batches=0")
    assert done.code and "lab.batches must be at least 1 (got 0)" in done.err


# --- claim and figure on planted rows --------------------------------------------------------------------------------


def plant(root, seeds=6, **planted):
    """Runs in which every seed scatters a little, and in every norm another way."""
    for seed in range(seeds):
        for number, (norm, (first, growth)) in enumerate((START | planted).items()):
            training = {"model": {"name": "vgg19"}, "norm": {"name": norm}, "batch_size": 64}
            options = {"factors": {"lab.key": []}, "training": training, "batches": 2, "key": norm}
            path = write_lab(root, "start_gradients", seed, experiment="family_start", **options)
            lines = [
                {
                    "step": depth,
                    "batch": batch,
                    "layer": f"conv{depth}",
                    "gradient": size * 1.01 ** (number * seed * depth % 7 + batch),
                }
                for batch in range(2)
                for depth, size in enumerate([first * growth**layer for layer in range(12)], start=1)
            ]
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            environment = json.loads((path / "environment.json").read_text())
            environment |= {"data": {"label": "Planted images", "num_classes": 10, "fingerprint": "0" * 16}}
            environment |= {"model": {"label": "Planted network", "units": False, "scales": {}}}
            look = {"label": norm, "order": 1, "color": "#000000", "linestyle": "-", "marker": "o"}
            (path / "environment.json").write_text(json.dumps(environment | {"regime": look}))
            finish(path, {"status": "complete", "outcome": "complete", "rows": len(lines)})
    return load_runs(root)


def test_gradients_of_a_run_are_geometric_means_over_batches(tmp_path):
    [run, *_] = plant(tmp_path, seeds=1)
    first, growth = START[run.setting("norm.name")]
    assert of_run(run) == pytest.approx([first * growth**layer * 1.01**0.5 for layer in range(12)])


def test_the_claim_is_supported_where_gradients_grow_with_smaller_groups(tmp_path):
    [found] = judge(plant(tmp_path), [claim_of("37b")])
    assert (found.verdict, found.of, found.n) == ("supported", "networks", 6)
    [one, two, growth] = [finding.values[0] for finding in found.findings]  # seed 0, without scatter
    assert (one, two, growth) == pytest.approx((2, 2, 0.9**-10))


@pytest.mark.parametrize(
    "planted",
    [{"instance": (0.2, 0.9)}, {"group": (0.1, 0.9), "instance": (0.4, 0.9)}, {"instance": (0.4, 1.0)}],
)
def test_each_part_can_lose(tmp_path, planted):
    [found] = judge(plant(tmp_path, **planted), [claim_of("37b")])
    assert found.verdict == "contradicted"


def test_the_figure_has_both_panels_and_says_what_it_shows(tmp_path):
    [group] = group_runs(plant(tmp_path))
    with figures.house_style():
        figure, found = member("figures", Figure, "start-gradients").page(group)
    assert len(figure.axes) == 2
    assert {row["regime"] for row in found} == {*START}
    last = [row for row in found if row["quantity"] == "gradient over the last" and row["regime"] == "instance"]
    assert [row["depth"] for row in last] == [*range(1, 12)] and last[-1]["mean"] == pytest.approx(1)
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts).replace("\xa0", " ")
    assert "the first 2 batches of 64" in said and "n = 6 seeds" in said
