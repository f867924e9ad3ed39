"""The figure of layer Jacobians: what is drawn of which rows, and whether its texts stay apart."""

import json

import pytest
from layout import assert_texts_apart
from synthetic import write_lab

from icsbench import members
from icsbench.analysis.groups import group_runs
from icsbench.figures.contract import Figure
from icsbench.figures.jacobians import spectra
from icsbench.figures.style import house_style
from icsbench.labs.jacobians import JacobiansOptions
from icsbench.labs.jacobians.spectra import rows
from icsbench.record.reader import load_runs


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    root = tmp_path_factory.mktemp("jacobians")
    options = JacobiansOptions("jacobians", width=8, batches=[4, 6, 8], networks=2, burn_in=2)
    for seed in (100, 101):
        path = write_lab(root, "jacobians", seed, experiment="jacobians", width=8)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(options, seed)))
    [group] = group_runs(load_runs(root))
    return group


def test_a_curve_is_the_mean_of_all_networks_at_the_fixed_point(group):
    drawn = spectra(group)
    assert len(drawn) == 2 * 2 * (2 * 3 + 1) and {one.n for one in drawn} == {4}
    assert [one.of["batch"] for one in drawn if one.of["norm"] == "none"] == [4] * 4
    for one in drawn:
        if one.of["norm"] == "bn" and one.of["activation"] == "linear":
            dead = one.x < 2 / one.of["batch"] - 0.05
            assert (one.mean[dead] < 1e-3).all() and one.mean[-1] > 0.5
        told = one.of["norm"] == "none" or (one.of["activation"], one.of["weights"]) == ("linear", "orthogonal")
        assert (one.theory is not None) == told


def test_it_is_drawn_and_its_texts_stay_apart(group):
    figure = members.members("figures", Figure)["jacobians"]
    assert figure.applies(group)
    with house_style():
        page, numbers = figure.page(group)
        assert_texts_apart(page)
    assert {row["weights"] for row in numbers} == {"gaussian", "orthogonal"}
