"""Figures of the optimisation half, of regressions and of the sigmoid network."""

import csv
import json

import numpy as np
import pytest
from layout import assert_texts_apart
from synthetic import CONVS, DLN, MLP, write_run, write_study

from icsbench import figures
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities import shift, updates
from icsbench.figures import percentiles
from icsbench.figures.contract import Figure
from icsbench.members import member
from icsbench.record.reader import load_runs

VGG = {"steps": 200, "layers": [*CONVS[:4], "head.fc1"], "eval_every": 50, "updates": ("ics", "landscape")}
OPTIMISATION = ["ics", "landscape", "matched", "step-size"]


def group_of(root):
    (group,) = group_runs(load_runs(root))
    return group


def page(name, group):
    return member("figures", Figure, name).page(group)


def names(root, out):
    said = []
    files = figures.draw_all(load_runs(root), out, said.append)
    assert said == []
    assert sorted({path.suffix for path in files}) == [".csv", ".pdf", ".png"]
    return sorted({path.stem for path in files})


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def text_of(figure):
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_a_vgg_study_has_the_figures_of_its_updates(tmp_path):
    write_study(tmp_path / "r", ("none", "bn", "noisy_bn"), 2, **VGG)
    shift = ["accuracy", "heatmap", "moments", "protocols", "ridges"]
    assert names(tmp_path / "r", tmp_path) == sorted([*shift, *OPTIMISATION])


def test_two_learning_rates_get_files_of_their_own(tmp_path):
    for lr in (0.1, 0.01):
        write_study(tmp_path / "r", ("none", "bn"), 1, **VGG, lr=lr)
    (group,) = group_runs(load_runs(tmp_path / "r"))
    found = [name for name, *_ in figures.plan(group)]
    assert "accuracy" in found
    assert {f"{name}-lr{lr}" for name in OPTIMISATION for lr in ("0.1", "0.01")} <= set(found)


def test_a_regression_has_a_loss_and_no_accuracy(tmp_path):
    options = DLN | {"steps": 400, "updates": ("ics", "landscape")}
    write_study(tmp_path / "r", ("none", "bn"), 2, **options)
    assert names(tmp_path / "r", tmp_path) == sorted([*OPTIMISATION, "heatmap", "loss", "moments", "ridges"])
    rows = read(tmp_path / "loss.csv")
    first = [row for row in rows if (row["regime"], row["step"]) == ("bn", "10")]
    paths = sorted((tmp_path / "r").glob("*/bn-*/seed-*/metrics.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if line["step"] == 10 and "train/loss" in line]
    assert len(losses) == 2
    assert float(first[0]["mean"]) == pytest.approx(np.sqrt(np.prod(losses)), rel=1e-6)


def test_the_sigmoid_network_has_percentiles(tmp_path):
    write_study(tmp_path / "r", ("none", "bn"), 2, **MLP | {"steps": 400})
    assert names(tmp_path / "r", tmp_path) == sorted(
        ["accuracy", "heatmap", "moments", "percentiles", "protocols", "ridges"]
    )


def test_percentiles_and_their_drift_by_hand(tmp_path):
    paths = write_study(tmp_path, ("none", "bn"), 3, **MLP | {"steps": 400})
    group = group_of(tmp_path)
    layer = shift.last_hidden_layer(group)
    assert (layer.path, layer.depth) == ("fc3", 3)
    drifts = {drift.curve.regime: drift for drift in shift.percentile_drift(group, layer)}
    tracks = {track.regime: track for track in percentiles.percentile_tracks(group, layer)}
    for regime, own in (("none", paths[:3]), ("bn", paths[3:])):
        by_seed = []
        for path in own:
            quantiles = []
            for step in tracks[regime].steps:
                with np.load(path / "probes" / "shift" / f"step-{step:08d}.npz") as arrays:
                    quantiles.append(arrays["quantiles_preactivation"][:, 200:300])
            last = quantiles[-1]
            by_seed.append(
                [
                    np.mean(
                        [abs(q[p, u] - last[p, u]) / (last[2, u] - last[0, u]) for p in range(3) for u in range(100)]
                    )
                    for q in quantiles
                ]
            )
            if path is own[0]:
                assert np.array_equal(tracks[regime].values, quantiles)
        found = drifts[regime]
        assert found.curve.mean == pytest.approx(np.mean(by_seed, axis=0))
        assert found.curve.mean[-1] == 0
        steps = tracks[regime].steps
        for seed, values in enumerate(by_seed):
            area = sum((b - a) * (v + w) / 2 for a, b, v, w in zip(steps, steps[1:], values, values[1:], strict=False))
            assert found.averages[seed] == pytest.approx(area / (steps[-1] - steps[0]))
        assert set(found.left_out.values()) == {0}
    low, high = tracks["bn"].band(0.5)
    assert low[0, 0] == pytest.approx(np.percentile(tracks["bn"].values[0, 0], 25))
    assert high[0, 0] == pytest.approx(np.percentile(tracks["bn"].values[0, 0], 75))


def test_a_vgg_has_no_percentiles_and_a_classifier_no_loss_figure(tmp_path):
    write_study(tmp_path, ("bn",), 1, **VGG)
    found = names(tmp_path, tmp_path / "figures")
    assert "percentiles" not in found and "loss" not in found


@pytest.mark.parametrize("options", [VGG, DLN | {"steps": 400, "updates": ("ics", "landscape")}], ids=["vgg", "dln"])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_texts_neither_overlap_nor_leave_the_page(tmp_path, options, seeds):
    write_study(tmp_path, ("none", "bn", "l1", "l2", "linf"), seeds, **options)
    group = group_of(tmp_path)
    with figures.house_style():
        for name in OPTIMISATION:
            figure, rows = page(name, group)
            assert rows
            assert_texts_apart(figure)
            assert group.facts in text_of(figure)
        if group.regression:
            assert_texts_apart(page("loss", group)[0])


def test_texts_of_the_percentiles(tmp_path):
    write_study(tmp_path, ("none", "bn"), 2, **MLP | {"steps": 400})
    with figures.house_style():
        figure, _ = page("percentiles", group_of(tmp_path))
    assert_texts_apart(figure)
    assert "percentiles 15, 50, 85" in text_of(figure) and "100 units of layer 3" in text_of(figure)


def test_a_diverged_seed_is_left_out_and_said(tmp_path):
    write_study(tmp_path, ("none", "bn"), 2, **VGG)
    write_run(tmp_path, "none", 2, **VGG, outcome="diverged", diverged_at=100)
    with figures.house_style():
        figure, _ = page("ics", group_of(tmp_path))
    assert "Diverged runs are left out." in text_of(figure)


@pytest.mark.parametrize("wide", [False, True])
def test_intervals_of_a_cosine_that_leave_its_panel_are_said_to_be_cut_off(tmp_path, wide):
    """All else is the same for every seed."""
    paths = write_study(tmp_path, ("bn",), 3, **VGG)
    for seed, path in enumerate(paths):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            if "landscape/loss" in row:
                row["landscape/loss"] = 1.0 + row["step"]
                row |= {key: 0.5 for key in row if key.endswith(("norm", "/l2", "/relative"))}
                row |= {key: (1 - seed) * (1.0 if wide else 0.1) for key in row if key.endswith("/cosine")}
                row["landscape/beta"] = 2.0
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with figures.house_style():
        for name in ("ics", "matched"):
            assert ("Intervals that leave a panel are cut off." in text_of(page(name, group_of(tmp_path))[0])) == wide


def test_the_edge_of_stability_is_in_every_figure_of_beta(tmp_path):
    write_study(tmp_path, ("none", "bn"), 2, **VGG)
    group = group_of(tmp_path)
    with figures.house_style():
        pages = [page(name, group)[0] for name in ("ics", "landscape", "matched")]
    for figure in pages:
        lines = [line for axes in figure.axes for line in axes.get_lines()]
        flat = {float(v) for line in lines for v in np.unique(np.asarray(line.get_ydata(), dtype=float))[:1]}
        assert {1.0, 20.0} & flat


def test_a_regime_at_chance_is_drawn_at_its_own_loss(tmp_path):
    write_study(tmp_path, ("bn",), 2, **VGG)
    write_study(tmp_path, ("none",), 2, **VGG, outcome="chance", final=0.1)
    matched = {c.regime: c for c in updates.matched_curves(group_of(tmp_path)) if c.quantity == updates.BETA_LR}
    both = (matched["none"].n > 0) & (matched["bn"].n > 0)
    assert (matched["none"].n > 0).sum() < len(both)


def test_without_the_measurements_the_figures_are_not_planned(tmp_path):
    write_study(tmp_path, ("bn",), 1, **VGG | {"updates": ()})
    assert not set(OPTIMISATION) & set(names(tmp_path, tmp_path / "figures"))
    with pytest.raises(NotMeasured):
        page("ics", group_of(tmp_path))
