"""The figure of what BN removes of the gradient: whose curves, and whether its texts stay apart."""

import json

import pytest
from layout import assert_texts_apart
from synthetic import CONVS, write_run

from icsbench import members
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.figures.contract import Figure
from icsbench.figures.least_squares import removed_shares
from icsbench.figures.style import house_style
from icsbench.record.reader import load_runs

LAYERS = CONVS[:4]


@pytest.fixture
def group(tmp_path):
    for regime in ("none", "bn", "noisy_bn"):
        for seed in (0, 1):
            path = write_run(tmp_path, regime, seed, steps=100, layers=CONVS[:3], eval_every=50, probes=False)
            if regime != "none":
                add_shares(path, seed)
    [group] = group_runs(load_runs(tmp_path))
    return group


def add_shares(path, seed):
    folder = path / "probes" / "least_squares"
    folder.mkdir(parents=True)
    entries = [{"layer": layer, "depth": depth} for depth, layer in enumerate(LAYERS, 1)]
    (folder / "layers.json").write_text(json.dumps(entries))
    rows = []
    for step in range(0, 100, 10):
        row = {"step": step}
        for depth, layer in enumerate(LAYERS[:3], 1):  # no gradient reaches the fourth
            shares = {"mean_share": 0.01 * depth, "xhat_share": 0.02 * depth + 0.01 * seed, "random": 0.001 * depth}
            shares["removed"] = shares["mean_share"] + shares["xhat_share"]
            row |= {f"least_squares/{layer}/{key}": value for key, value in shares.items()}
        rows.append(row)
    with open(path / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_a_curve_is_the_mean_over_seeds_of_a_layer_that_a_gradient_reaches(group):
    curves = removed_shares(group)
    assert len(curves) == 2 * 4 * 3 and {curve.regime for curve in curves} == {"bn", "noisy_bn"}
    by_key = {(c.regime, c.quantity, c.layer.depth): c for c in curves}
    assert by_key["bn", "xhat_share", 2].mean.tolist() == pytest.approx([0.045] * 10)
    assert by_key["noisy_bn", "removed", 3].mean.tolist() == pytest.approx([0.095] * 10)


def test_it_is_drawn_where_there_are_records_of_it(group, tmp_path):
    figure = members.members("figures", Figure)["least-squares"]
    assert figure.applies(group)
    with house_style():
        page, numbers = figure.page(group)
        assert_texts_apart(page)
    assert len(numbers) == 240 and {row["quantity"] for row in numbers} >= {"removed", "random"}
    write_run(tmp_path / "other", "bn", 0, steps=100, layers=CONVS[:3], eval_every=50, probes=False)
    [without] = group_runs(load_runs(tmp_path / "other"))
    assert not figure.applies(without)
    with pytest.raises(NotMeasured, match="has what batch normalization removes"):
        removed_shares(without)
