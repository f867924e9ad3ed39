"""The optimisation measurements, against plain arithmetic on the lines of metrics.jsonl."""

import csv
import io
import json
import math
from statistics import median

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from synthetic import DLN, LAYERS, write_run, write_study

from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities import optimisation, updates
from icsbench.errors import IcsbenchError
from icsbench.figures import ics, landscape, step_size
from icsbench.record.reader import Layer, load_runs
from icsbench.report.console import print_updates
from icsbench.report.files import write_updates

SHORT = {"steps": 300, "probes": False, "updates": ("ics", "landscape")}


def group_of(root):
    (group,) = group_runs(load_runs(root))
    return group


def raw(path, key="landscape/alphas"):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def rewrite(path, change):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def geometric(values):
    """Geometric mean and its interval, as scipy has it."""
    logs = np.log(values)
    low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    return np.exp([logs.mean(), low, high])


def curve(curves, quantity, regime, depth=None):
    (found,) = (
        c for c in curves if (c.quantity, c.regime, c.layer.depth if c.layer else None) == (quantity, regime, depth)
    )
    return found


def test_ics_curves(tmp_path):
    paths = {regime: write_study(tmp_path, (regime,), 3, **SHORT) for regime in ("none", "bn")}
    curves = ics.ics_curves(group_of(tmp_path))
    for regime, of_regime in paths.items():
        for depth in (5, 10):
            layer = f"ics/{LAYERS[depth - 1]}"
            l2 = np.array([[row[f"{layer}/l2"] for row in raw(path)] for path in of_regime])
            weights = np.array([[row[f"{layer}/weight_norm"] for row in raw(path)] for path in of_regime])
            cosine = np.array([[row[f"{layer}/cosine"] for row in raw(path)] for path in of_regime])
            relative = np.array([[row[f"{layer}/relative"] for row in raw(path)] for path in of_regime])
            for quantity, values in (("ics/l2", l2), ("ics/relative", relative), ("ics/scaled", l2 * weights)):
                found = curve(curves, quantity, regime, depth)
                assert found.steps.tolist() == [row["step"] for row in raw(of_regime[0])]
                for at in range(values.shape[1]):
                    drawn = found.mean[at], found.low[at], found.high[at]
                    assert drawn == pytest.approx(geometric(values[:, at]))
            found = curve(curves, "ics/cosine", regime, depth)
            assert found.mean == pytest.approx(cosine.mean(axis=0))
        edge = [[row["landscape/beta"] * 0.1 / 2 for row in raw(path)] for path in of_regime]
        assert curve(curves, "landscape/beta_lr_half", regime).mean == pytest.approx(np.exp(np.log(edge).mean(axis=0)))


@pytest.mark.parametrize(("total", "numbers"), [(14, [5, 10]), (25, [9, 17]), (4, [2, 3]), (2, [2]), (1, [1])])
def test_the_layers_shown_are_those_of_the_paper(total, numbers):
    layers = [Layer(f"fc{n}", n) for n in range(1, total + 1)]
    assert [layer.depth for layer in ics.third_layers(layers)] == numbers


def test_landscape_curves(tmp_path):
    paths = write_study(tmp_path, ("bn",), 3, **SHORT)
    group = group_of(tmp_path)
    curves = landscape.landscape_curves(group)

    def of(compute):
        return np.exp(np.log([[compute(row) for row in raw(path)] for path in paths]).mean(axis=0))

    expected = {
        "landscape/loss_min": lambda row: min(row["landscape/losses"]),
        "landscape/loss_max": lambda row: max(row["landscape/losses"]),
        "landscape/loss_log10_width": lambda row: math.log10(
            max(row["landscape/losses"]) / min(row["landscape/losses"])
        ),
        "landscape/difference_min": lambda row: min(row["landscape/gradient_differences"]),
        "landscape/difference_max": lambda row: max(row["landscape/gradient_differences"]),
        "landscape/difference_relative": lambda row: (
            max(row["landscape/gradient_differences"]) / row["landscape/gradient_norm"]
        ),
        "landscape/gradient_norm": lambda row: row["landscape/gradient_norm"],
        "landscape/beta": lambda row: max(
            d / (a * row["landscape/gradient_norm"])
            for a, d in zip(row["landscape/alphas"], row["landscape/gradient_differences"], strict=True)
        ),
    }
    assert {c.quantity for c in curves} == expected.keys()
    for quantity, compute in expected.items():
        assert curve(curves, quantity, "bn").mean == pytest.approx(of(compute)), quantity
    steps, edge = landscape.edge_of_stability(group)
    assert steps.tolist() == [row["step"] for row in raw(paths[0])]
    assert set(edge) == {2 / 0.1}


def test_profiles_of_the_gradient_difference(tmp_path):
    paths = write_study(tmp_path, ("none", "bn"), 2, **SHORT)
    profiles = step_size.profiles(group_of(tmp_path))
    steps = sorted({profile.step for profile in profiles})
    measured = [row["step"] for row in raw(paths[0])]
    assert len(steps) == 6 and steps[0] == measured[0] and steps[-1] == measured[-1]
    for profile in profiles:
        own = [path for path in paths if path.parent.name.startswith(f"{profile.regime}-")]
        rows = [next(row for row in raw(path) if row["step"] == profile.step) for path in own]
        assert profile.x == pytest.approx(rows[0]["landscape/alphas"])
        values = np.array([row["landscape/gradient_differences"] for row in rows])
        assert profile.mean == pytest.approx(np.exp(np.log(values).mean(axis=0)))


def test_matched_loss_by_hand(tmp_path):
    """Each median recomputed with loops, and the bins with plain arithmetic."""
    paths = {regime: write_study(tmp_path, (regime,), 3, **SHORT) for regime in ("none", "bn", "noisy_bn")}
    curves = updates.matched_curves(group_of(tmp_path))
    logs = sorted(math.log(row["landscape/loss"]) for own in paths.values() for path in own for row in raw(path))
    low, high = np.quantile(logs, [0.01, 0.99])
    edges = [low + (high - low) * k / 8 for k in range(9)]

    def cosine(row):
        return median(row[f"ics/{layer}/cosine"] for layer in LAYERS[1:])

    def edge(row):
        return row["landscape/beta"] * 0.1 / 2

    for quantity, of_row, mean in (
        ("ics/cosine", cosine, np.mean),
        ("landscape/beta_lr_half", edge, lambda values: np.exp(np.mean(np.log(values)))),
    ):
        for regime, own in paths.items():
            (found,) = (c for c in curves if (c.quantity, c.regime) == (quantity, regime))
            assert found.edges == pytest.approx(np.exp(edges))
            assert found.x == pytest.approx(np.exp(np.array(edges[1:]) / 2 + np.array(edges[:-1]) / 2))
            for place in range(8):
                medians = []
                for path in own:
                    inside = [
                        of_row(row)
                        for row in raw(path)
                        if edges[place] <= math.log(row["landscape/loss"]) < edges[place + 1]
                    ]
                    medians += [median(inside)] if inside else []
                if 2 * len(medians) < len(own):
                    assert found.n[place] == 0 and np.isnan(found.mean[place])
                else:
                    assert found.n[place] == len(medians)
                    assert found.mean[place] == pytest.approx(mean(medians))
    assert any(0 < n for c in curves for n in c.n) and any(n == 0 for c in curves for n in c.n)


def test_table_is_the_median_over_a_window_then_the_mean_over_seeds(tmp_path):
    paths = write_study(tmp_path, ("none", "bn"), 3, **SHORT)
    rows = optimisation.optimisation_table(load_runs(tmp_path))
    assert [(row["regime"], row["window"], row["n"]) for row in rows] == [
        (regime, window, 3) for regime in ("none", "bn") for window in ("first tenth", "second half", "matched loss")
    ]
    for row in (row for row in rows if row["window"] != "matched loss"):
        own = [path for path in paths if path.parent.name.startswith(f"{row['regime']}-")]
        first, end = {"first tenth": (0, 30), "second half": (150, 300)}[row["window"]]
        inside = [[line for line in raw(path) if first <= line["step"] < end] for path in own]
        relative = [median(median(r[f"ics/{layer}/relative"] for layer in LAYERS[1:]) for r in of) for of in inside]
        found = row["ics/relative"]
        assert (found.mean, found.low, found.high) == pytest.approx(geometric(relative))
        width = [median(max(r["landscape/gradient_differences"]) for r in of) for of in inside]
        assert row["landscape/difference_max"].mean == pytest.approx(geometric(width)[0])


def test_tables_are_written_and_printed(tmp_path):
    write_study(tmp_path / "runs", ("none", "bn"), 3, **SHORT)
    runs = load_runs(tmp_path / "runs")
    files = write_updates(runs, tmp_path)
    assert [file.name for file in files] == ["optimisation.csv", "optimisation.md"]
    rows = list(csv.DictReader(io.StringIO(files[0].read_text())))
    (expected,) = (
        row for row in optimisation.optimisation_table(runs) if (row["regime"], row["window"]) == ("bn", "second half")
    )
    assert float(rows[4]["ics/cosine/mean"]) == pytest.approx(expected["ics/cosine"].mean, rel=1e-6)
    shown = f"{expected['ics/cosine'].mean:.3g} [{expected['ics/cosine'].low:.3g}, {expected['ics/cosine'].high:.3g}]"
    console = Console(width=200, record=True, file=io.StringIO())
    print_updates(console, runs)
    for text in (files[1].read_text(), console.export_text()):
        assert shown in text
        assert "second half" in text and "95 % t-interval" in text and "at matched training loss" in text
    assert float(rows[5]["loss_low"]) < float(rows[5]["loss_high"])


def test_runs_without_the_measurements_have_no_table(tmp_path):
    write_run(tmp_path / "runs", steps=100, probes=False)
    runs = load_runs(tmp_path / "runs")
    assert optimisation.optimisation_table(runs) == []
    assert write_updates(runs, tmp_path) == []
    assert not updates.has_ics(runs) and not updates.has_landscape(runs)
    for function in (ics.ics_curves, landscape.landscape_curves, updates.matched_curves):
        with pytest.raises(NotMeasured):
            function(group_of(tmp_path / "runs"))


@pytest.mark.parametrize("measured", ["ics", "landscape"])
def test_one_measurement_without_the_other(tmp_path, measured):
    write_study(tmp_path, ("bn",), 2, **SHORT | {"updates": (measured,)})
    runs = load_runs(tmp_path)
    assert (updates.has_ics(runs), updates.has_landscape(runs)) == (measured == "ics", measured != "ics")
    (row, _) = optimisation.optimisation_table(runs)
    assert ("ics/cosine" in row, "landscape/beta_lr_half" in row) == (measured == "ics", measured != "ics")


def test_diverged_runs_are_left_out_and_counted(tmp_path):
    write_study(tmp_path, ("bn",), 3, **SHORT)
    write_run(tmp_path, "bn", 3, **SHORT, outcome="diverged", diverged_at=120)
    rows = optimisation.optimisation_table(load_runs(tmp_path))
    assert [(row["n"], row["diverged"]) for row in rows] == [(3, 1), (3, 1)]
    assert curve(ics.ics_curves(group_of(tmp_path)), "ics/l2", "bn", 5).seeds == (0, 1, 2)


def test_what_is_not_a_positive_number_is_no_value_on_a_logarithmic_scale(tmp_path):
    paths = write_study(tmp_path, ("bn",), 2, **SHORT)

    def change(line):
        if line["step"] == 25 and "landscape/losses" in line:
            line["landscape/losses"] = [math.inf for _ in line["landscape/losses"]]
        return line

    rewrite(paths[1], change)
    found = curve(landscape.landscape_curves(group_of(tmp_path)), "landscape/loss_max", "bn")
    assert np.isnan(found.mean).tolist() == [step == 25 for step in found.steps]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line | ({"landscape/alphas": "0.1"} if line["step"] == 50 and "landscape/alphas" in line else {}),
        lambda line: line | ({"landscape/losses": [1.0]} if line["step"] == 50 and "landscape/losses" in line else {}),
        lambda line: line | ({"landscape/losses": [1.0]} if "landscape/losses" in line else {}),
        lambda line: line | ({"landscape/alphas": []} if "landscape/losses" in line else {}),
        lambda line: line | ({"landscape/alphas": 0.1} if "landscape/losses" in line else {}),
        lambda line: line | ({"landscape/beta": "high"} if line["step"] == 50 and "landscape/beta" in line else {}),
        lambda line: {k: v for k, v in line.items() if k != "landscape/losses" or line["step"] != 50},
    ],
)
def test_a_damaged_measurement_is_one_clear_line(tmp_path, change):
    (path,) = write_study(tmp_path, ("bn",), 1, **SHORT)
    rewrite(path, change)
    with pytest.raises(IcsbenchError, match=r"metrics\.jsonl: ") as error:
        landscape.landscape_curves(group_of(tmp_path))
    assert "\n" not in str(error.value)


def test_lists_that_lack_different_steps_are_not_put_together(tmp_path):
    (path,) = write_study(tmp_path, ("bn",), 1, **SHORT)
    lacking = {50: "landscape/losses", 60: "landscape/gradient_differences", 70: "landscape/alphas"}
    rewrite(path, lambda line: {k: v for k, v in line.items() if k != lacking.get(line["step"])})
    for function in (landscape.landscape_curves, step_size.profiles, updates.matched_curves):
        with pytest.raises(IcsbenchError, match=r"metrics\.jsonl: a measurement of the landscape lacks a part"):
            function(group_of(tmp_path))


def test_a_damaged_number_of_the_ics_is_one_clear_line(tmp_path):
    (path,) = write_study(tmp_path, ("bn",), 1, **SHORT)
    key = f"ics/{LAYERS[4]}/cosine"
    rewrite(path, lambda line: line | ({key: [0.5]} if line["step"] == 50 and key in line else {}))
    with pytest.raises(IcsbenchError, match=rf"metrics\.jsonl: {key} is not a number at every step"):
        ics.ics_curves(group_of(tmp_path))


def test_an_update_that_was_not_measured_is_left_out(tmp_path):
    """Its row has none of the keys where a gradient was not finite."""
    paths = write_study(tmp_path, ("bn",), 2, **SHORT)

    def change(line):
        measured = line["step"] == 50 and "landscape/alphas" in line
        return {k: v for k, v in line.items() if not (measured and k != "step")}

    rewrite(paths[0], change)
    expected = [row["step"] for row in raw(paths[0])]
    assert 50 not in expected and 50 in [row["step"] for row in raw(paths[1])]
    group = group_of(tmp_path)
    for found in (*ics.ics_curves(group), *landscape.landscape_curves(group)):
        if found.quantity != "train/accuracy":
            assert found.steps.tolist() == expected


def test_step_sizes_that_differ_are_not_compared(tmp_path):
    write_run(tmp_path, "none", 0, **SHORT)
    write_run(tmp_path, "bn", 0, **SHORT, alphas=(0.5, 1.0, 3.0))
    with pytest.raises(NotMeasured, match="step sizes"):
        landscape.landscape_curves(group_of(tmp_path))


def test_step_sizes_and_edge_follow_the_schedule_of_the_learning_rate(tmp_path):
    """The synthetic records take steps of a constant rate; here they are made those of a cosine."""
    paths = write_study(tmp_path, ("bn",), 2, **SHORT, alphas=(0.5, 1.0, 4.0))
    assert updates.step_sizes(group_of(tmp_path)) == pytest.approx([0.5, 1, 4])

    def share(step):
        return (1 + math.cos(math.pi * step / 300)) / 2

    def rescaled(line):
        alphas = line.get("landscape/alphas")
        return line | ({"landscape/alphas": [alpha * share(line["step"]) for alpha in alphas]} if alphas else {})

    for path in paths:
        config = path / "config.yaml"
        config.write_text(config.read_text().replace("schedule: constant", "schedule: cosine"))
        rewrite(path, rescaled)
    group = group_of(tmp_path)
    assert updates.step_sizes(group) == pytest.approx([0.5, 1, 4])
    steps, edge = landscape.edge_of_stability(group)
    assert edge == pytest.approx([20 / share(step) for step in steps])
    betas = [math.sqrt(math.prod(row["landscape/beta"] for row in rows)) for rows in zip(*map(raw, paths), strict=True)]
    nearness = [beta * 0.1 * share(step) / 2 for beta, step in zip(betas, steps, strict=True)]
    assert curve(ics.ics_curves(group), "landscape/beta_lr_half", "bn").mean == pytest.approx(nearness)
    for profile in step_size.profiles(group):
        assert profile.x == pytest.approx([0.1 * share(profile.step) * m for m in (0.5, 1, 4)])


def test_a_regression_has_a_loss_where_a_classifier_has_an_accuracy(tmp_path):
    paths = write_study(tmp_path, ("none", "bn"), 2, **DLN | {"steps": 400, "updates": ("ics", "landscape")})
    curves = ics.ics_curves(group_of(tmp_path))
    assert {c.quantity for c in curves if c.layer is None} == {"train/loss", "landscape/beta_lr_half"}
    assert {c.layer.depth for c in curves if c.layer} == {9, 17}
    losses = np.array([[row["train/loss"] for row in raw(path, "train/loss")] for path in paths[2:]])
    assert curve(curves, "train/loss", "bn").mean == pytest.approx(np.exp(np.log(losses).mean(axis=0)))


def test_matched_loss_in_the_table_by_hand(tmp_path):
    """Over the bins that are drawn for every regime: the mean of the medians of each run, then over the seeds."""
    paths = {regime: write_study(tmp_path, (regime,), 3, **SHORT) for regime in ("none", "bn")}
    logs = [math.log(row["landscape/loss"]) for own in paths.values() for path in own for row in raw(path)]
    low, high = np.quantile(logs, [0.01, 0.99])
    edges = [low + (high - low) * k / 8 for k in range(9)]

    def medians(path, of_row):
        """{bin: median} of one run."""
        inside = {}
        for row in raw(path):
            place = math.floor((math.log(row["landscape/loss"]) - low) / (high - low) * 8)
            inside.setdefault(place, []).append(of_row(row))
        return {place: median(values) for place, values in inside.items() if 0 <= place < 8}

    def width(row):
        return math.log10(max(row["landscape/losses"]) / min(row["landscape/losses"]))

    def cosine(row):
        return median(row[f"ics/{layer}/cosine"] for layer in LAYERS[1:])

    reached = {regime: [medians(path, width) for path in own] for regime, own in paths.items()}
    shared = [k for k in range(8) if all(2 * sum(k in run for run in own) >= 3 for own in reached.values())]
    assert 0 < len(shared) < 8
    rows = [row for row in optimisation.optimisation_table(load_runs(tmp_path)) if row["window"] == "matched loss"]
    assert [row["regime"] for row in rows] == ["none", "bn"]
    for row in rows:
        assert row["bins"] == len(shared)
        assert (row["loss_low"], row["loss_high"]) == pytest.approx(
            (math.exp(edges[shared[0]]), math.exp(edges[shared[-1] + 1]))
        )
        single = []
        for run in reached[row["regime"]]:
            there = [math.log(run[k]) for k in shared if k in run]
            single.append(math.exp(sum(there) / len(there)))
        found = row["landscape/loss_log10_width"]
        assert (found.mean, found.low, found.high) == pytest.approx(geometric(single))
        single = []
        for path in paths[row["regime"]]:
            run = medians(path, cosine)
            there = [run[k] for k in shared if k in run]
            single.append(sum(there) / len(there))
        assert row["ics/cosine"].mean == pytest.approx(sum(single) / 3)


def test_a_regime_stuck_at_chance_is_compared_at_its_loss_or_not_at_all(tmp_path):
    write_study(tmp_path, ("bn",), 2, **SHORT)
    write_study(tmp_path, ("none",), 2, **SHORT, outcome="chance", final=0.1)
    rows = [row for row in optimisation.optimisation_table(load_runs(tmp_path)) if row["window"] == "matched loss"]
    assert all(row["loss_low"] < 2.303 < row["loss_high"] and row["bins"] < 4 for row in rows)
    stuck = {c.quantity: c for c in updates.matched_curves(group_of(tmp_path)) if c.regime == "none"}
    (bins,) = np.nonzero(stuck["landscape/loss_log10_width"].n)
    edges = stuck["landscape/loss_log10_width"].edges
    assert all(edges[place] < 2.304 and edges[place + 1] > 2.3 for place in bins) and len(bins)


def test_one_regime_alone_is_matched_with_nothing(tmp_path):
    write_study(tmp_path, ("bn",), 3, **SHORT)
    assert "matched loss" not in {row["window"] for row in optimisation.optimisation_table(load_runs(tmp_path))}


def test_learning_rates_are_rows_of_their_own_under_the_facts_of_the_group(tmp_path):
    for lr in (0.1, 0.01):
        write_study(tmp_path, ("none", "bn"), 2, **SHORT, lr=lr)
    rows = optimisation.optimisation_table(load_runs(tmp_path))
    assert [row["lr"] for row in rows] == [0.01] * 6 + [0.1] * 6
    assert all("lr 0.01 and 0.1" in row["facts"] for row in rows)
    alone = {}
    for run in load_runs(tmp_path):
        alone.setdefault(run.lr, []).append(run)
    for lr, runs in alone.items():
        own = optimisation.optimisation_table(runs)
        assert [row["ics/cosine"] for row in own] == [row["ics/cosine"] for row in rows if row["lr"] == lr]


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_have_a_mean_and_no_interval_in_print(tmp_path, seeds):
    write_study(tmp_path, ("none", "bn"), seeds, **SHORT)
    runs = load_runs(tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    print_updates(console, runs)
    text = console.export_text()
    row = optimisation.optimisation_table(runs)[0]
    assert f"{row['landscape/beta_lr_half'].mean:.3g}" in text
    assert "t-interval" not in text and "[" not in text
    assert math.isnan(row["ics/cosine"].low) == (seeds == 1)


def test_a_loss_at_the_very_end_of_the_bins_is_in_the_last(tmp_path):
    """As many measurements of a plateau have: half of them at 1, half at 2, the two ends."""
    (path,) = write_study(tmp_path, ("bn",), 1, **SHORT)

    def change(line):
        if "landscape/loss" in line:
            late = line["step"] >= 150
            line |= {"landscape/loss": 1.0 if late else 2.0, "landscape/beta": 3.0 if late else 5.0}
        return line

    rewrite(path, change)
    (found,) = (c for c in updates.matched_curves(group_of(tmp_path)) if c.quantity == "landscape/beta_lr_half")
    assert found.n.tolist() == [1, 0, 0, 0, 0, 0, 0, 1]
    assert (found.mean[0], found.mean[-1]) == pytest.approx((3 * 0.1 / 2, 5 * 0.1 / 2))
