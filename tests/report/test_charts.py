import json

import numpy as np
import pytest
from page import EVIL
from synthetic import DLN, write_run, write_study

from icsbench.analysis.groups import group_runs
from icsbench.analysis.statistics import mean_band
from icsbench.figures import plan
from icsbench.record.reader import load_runs
from icsbench.report.charts import MOST_POINTS, chart_of
from icsbench.report.svg import page_style

SHORT = {"steps": 100, "eval_every": 50, "probes": False}


def charts(root, *names):
    """The charts of these figures of the one group of these records, by name; None where a figure has none."""
    [group] = group_runs(load_runs(root))
    found = {}
    with page_style():
        for name, part, kind in plan(group):
            if name not in names:
                continue
            figure, numbers = kind.drawn(part)
            text = chart_of(numbers, kind.titles, figure)
            found[name] = json.loads(text) if text else None
    return found


def lines_of(chart, title):
    [panel] = [panel for panel in chart["panels"] if panel["title"] == title]
    return panel["lines"]


def recorded(root, regime, seed, key):
    """Steps and values of a run, read from its file."""
    [path] = root.glob(f"*/{regime}-*/seed-{seed}/metrics.jsonl")
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if key in row]
    return [row["step"] for row in rows], [row[key] for row in rows]


def test_a_chart_has_what_was_recorded_of_every_seed_and_the_interval(tmp_path):
    write_study(tmp_path, ("none", "bn"), 3, **SHORT)
    chart = charts(tmp_path, "accuracy")["accuracy"]
    assert [regime["label"] for regime in chart["regimes"]] == ["Standard", "Standard + BatchNorm"]
    assert [regime["dash"] for regime in chart["regimes"]] == [[], [5, 1.2]]
    assert (chart["x"], chart["log"], chart["note"]) == ("step", False, "")
    assert "t-interval over n = 3 seeds" in chart["caption"].replace("\N{NO-BREAK SPACE}", " ")
    for number, regime in enumerate(("none", "bn")):
        line = lines_of(chart, "training accuracy (%)")[number]
        series = [recorded(tmp_path, regime, seed, "train/accuracy") for seed in range(3)]
        assert (line["regime"], line["seeds"], chart["xs"][line["x"]]) == (number, [0, 1, 2], series[0][0])
        np.testing.assert_allclose(line["values"], [100 * np.array(values) for _, values in series], rtol=5e-3)
        band = mean_band([100 * np.array(values) for _, values in series])
        for end in ("mean", "low", "high"):
            np.testing.assert_allclose(line[end], getattr(band, end), rtol=5e-4)


def test_two_seeds_have_no_interval_and_one_is_its_own_mean(tmp_path):
    write_study(tmp_path, ("none",), 2, **SHORT)
    write_run(tmp_path, "bn", 0, **SHORT)
    two, one = lines_of(charts(tmp_path, "accuracy")["accuracy"], "training accuracy (%)")
    assert "low" not in two and len(two["values"]) == 2
    assert not {"low", "values"} & one.keys() and one["seeds"] == [0]


def test_long_curves_are_thinned_evenly_from_end_to_end_and_the_page_says_so(tmp_path):
    write_run(tmp_path, "bn", 0, steps=2000, probes=False)
    chart = charts(tmp_path, "accuracy")["accuracy"]
    [line] = lines_of(chart, "training accuracy (%)")
    steps, values = recorded(tmp_path, "bn", 0, "train/accuracy")
    kept = chart["xs"][line["x"]]
    assert len(steps) == 200 and len(kept) == MOST_POINTS == 150
    assert (kept[0], kept[-1]) == (10, 2000) and set(np.diff(kept)) == {10, 20}
    np.testing.assert_allclose(line["mean"], [100 * values[steps.index(step)] for step in kept], rtol=5e-4)
    assert chart["note"] == "Thinned: the chart has 150 of up to 200 points of a curve. The drawing has all."


def test_curves_of_many_panels_have_fewer_points(tmp_path):
    for lr in (0.1, 0.2, 0.4):
        write_run(tmp_path, "bn", 0, steps=1000, lr=lr, probes=False)
    chart = charts(tmp_path, "accuracy")["accuracy"]
    assert len(chart["panels"]) == 6 and chart["panels"][0]["title"] == "training accuracy (%), lr 0.1"
    assert {len(places) for places in chart["xs"]} == {75, 10}  # 450 / 6, and all of 10 tests
    assert "75 of up to 100 points" in chart["note"]


def test_a_run_that_diverged_is_a_line_of_its_own_without_what_is_not_finite(tmp_path):
    write_run(tmp_path, "none", 0, diverged_at=40, outcome="diverged", **SHORT)
    write_run(tmp_path, "none", 1, **SHORT)
    whole, diverged = lines_of(charts(tmp_path, "accuracy")["accuracy"], "training accuracy (%)")
    assert (whole["seeds"], "diverged" in whole) == ([1], False)
    assert (diverged["seeds"], diverged["diverged"], None in diverged["mean"]) == ([0], 40, False)


def test_the_axis_is_logarithmic_at_first_where_the_figure_has_one(tmp_path):
    write_study(tmp_path, ("none", "bn"), 1, **DLN | {"steps": 100, "probes": False})
    chart = charts(tmp_path, "loss")["loss"]
    assert chart["log"] and [panel["title"] for panel in chart["panels"]] == ["training loss"]
    assert "y" not in chart["panels"][0]


def test_distributions_have_a_line_per_regime_and_step(tmp_path):
    write_study(tmp_path, ("none", "bn"), 1, steps=100, eval_every=50, probe_every=50)
    chart = charts(tmp_path, "ridges")["ridges"]
    assert [panel["title"] for panel in chart["panels"]] == [f"density, layer {depth}" for depth in (2, 7, 13)]
    assert chart["steps"][0] == 0 and chart["steps"][-1] == 100 and len(chart["steps"]) <= 10
    [path] = tmp_path.glob("*/bn-*/seed-0/probes/shift/step-00000100.npz")
    with np.load(path) as arrays:
        counts, edges = arrays["histogram_counts_preactivation"][6], arrays["histogram_edges_preactivation"][6]
    [line] = [
        line
        for line in lines_of(chart, "density, layer 7")
        if (line["regime"], chart["steps"][line["step"]]) == (1, 100)
    ]
    np.testing.assert_allclose(chart["xs"][line["x"]], (edges[1:] + edges[:-1]) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(line["mean"], counts / counts.sum() / np.diff(edges), rtol=5e-4)
    low, high = chart["panels"][1]["range"]
    assert low < high and "scaled" in chart["note"]


def test_a_picture_by_depth_is_no_chart(tmp_path):
    write_study(tmp_path, ("none", "bn"), 1, steps=100, eval_every=50, probe_every=50)
    found = charts(tmp_path, "heatmap", "protocols", "moments")
    assert found["heatmap"] is found["protocols"] is None
    assert len(found["moments"]["panels"]) == 12


@pytest.mark.parametrize("label", [EVIL, "</script><script>alert(3)", "a & b"])
def test_what_a_record_says_cannot_leave_the_data(tmp_path, label):
    write_study(tmp_path, ("none", "bn"), 1, label=label, **SHORT)
    [group] = group_runs(load_runs(tmp_path))
    name, part, kind = next(plan(group))
    with page_style():
        figure, numbers = kind.drawn(part)
        text = chart_of(numbers, kind.titles, figure)
    assert name == "accuracy" and not set("<>&") & set(text)
    assert label.replace(" ", "\N{NO-BREAK SPACE}") in json.loads(text)["caption"].replace(" ", "\N{NO-BREAK SPACE}")
