import csv
import json
import math
import re
import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
from layout import assert_texts_apart
from matplotlib import get_configdir
from matplotlib.image import imread
from scipy import stats
from synthetic import CONVS, LAYERS, write_run, write_study

from icsbench import figures
from icsbench.analysis.groups import group_runs
from icsbench.analysis.quantities.shift import chosen_layers
from icsbench.errors import IcsbenchError
from icsbench.figures import ridges
from icsbench.figures.contract import Figure
from icsbench.members import member
from icsbench.record.reader import Layer, load_runs
from icsbench.record.regime import Regime

DRAW = ("accuracy", "ridges", "moments", "heatmap", "protocols")
NAMES = sorted(DRAW)
SHORT = {"steps": 200, "layers": [*CONVS[:4], "head.fc1"], "eval_every": 50}


def page(name, group):
    return member("figures", Figure, name).page(group)


def draw(root, out):
    said = []
    files = figures.draw_all(load_runs(root), out, said.append)
    return files, said


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    paths = write_study(root / "results", ("none", "bn", "noisy_bn"), 3, **SHORT)
    files, said = draw(root / "results", root / "figures")
    assert said == []
    return root, paths, files


def brute_force(paths, key, interval=None):
    """{step: (mean, low, high)} from the raw lines, with scipy's interval."""
    seeds = []
    for path in paths:
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if key in row and (interval is None or row.get("shift/interval") == interval)]
        seeds.append({row["step"]: row[key] for row in rows})
    expected = {}
    for step in reduce(set.intersection, (set(seed) for seed in seeds)):
        values = np.array([seed[step] for seed in seeds])
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        expected[step] = (values.mean(), low, high)
    return expected


def drawn(rows, **where):
    chosen = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return {int(row["step"]): tuple(float(row[key]) for key in ("mean", "low", "high")) for row in chosen}


def same(first, second):
    assert first.keys() == second.keys() and first
    for step in first:
        assert first[step] == pytest.approx(second[step], rel=1e-6)


def test_every_figure_is_drawn_in_three_formats(study):
    root, _, files = study
    assert sorted(files) == sorted(
        root / "figures" / f"{name}.{kind}" for name in NAMES for kind in ("csv", "pdf", "png")
    )
    assert sorted((root / "figures").iterdir()) == sorted(files)
    for name in NAMES:
        assert imread(root / "figures" / f"{name}.png").shape[1] == 2025
        pdf = (root / "figures" / f"{name}.pdf").read_bytes()
        assert b"/Type3" not in pdf and b"CreationDate" not in pdf


def test_accuracy_numbers(study):
    root, paths, _ = study
    rows = read(root / "figures" / "accuracy.csv")
    for regime, group in (("none", paths[:3]), ("noisy_bn", paths[6:])):
        same(drawn(rows, regime=regime, quantity="train/accuracy"), brute_force(group, "train/accuracy"))
        same(drawn(rows, regime=regime, quantity="test/accuracy"), brute_force(group, "test/accuracy"))
    key = "test/accuracy/batch-on"
    same(drawn(rows, regime="noisy_bn", quantity=key), brute_force(paths[6:], key))
    assert not drawn(rows, regime="bn", quantity=key)


def test_moment_numbers(study):
    root, paths, _ = study
    rows = read(root / "figures" / "moments.csv")
    assert {row["layer"] for row in rows} == {CONVS[0], CONVS[1], CONVS[3]}
    for quantity in ("mean_raw", "variance_raw"):
        expected = brute_force(paths[3:6], f"shift/{CONVS[1]}/{quantity}", interval=1)
        same(drawn(rows, regime="bn", layer=CONVS[1], quantity=quantity), expected)
    for quantity in ("mean_from_start_raw", "variance_from_start_raw"):
        expected = brute_force(paths[3:6], f"shift/{CONVS[1]}/{quantity}")
        kept = {step: value for step, value in expected.items() if step not in (99, 199)}
        same(drawn(rows, regime="bn", layer=CONVS[1], quantity=quantity), kept)


def test_heatmap_numbers(study):
    root, paths, _ = study
    rows = read(root / "figures" / "heatmap.csv")
    for layer in SHORT["layers"]:
        expected = brute_force(paths[:3], f"shift/{layer}/w1", interval=1)
        same(drawn(rows, regime="none", layer=layer, quantity="w1"), expected)
        expected = brute_force(paths[:3], f"shift/{layer}/w1_from_start")
        kept = {step: value for step, value in expected.items() if step not in (99, 199)}
        same(drawn(rows, regime="none", layer=layer, quantity="w1_from_start"), kept)


def test_ridge_numbers(study):
    root, paths, _ = study
    rows = read(root / "figures" / "ridges.csv")
    assert {row["seed"] for row in rows} == {"0"}
    steps = sorted({int(row["step"]) for row in rows})
    assert steps[0] == 0 and steps[-1] == 200 and len(steps) <= 10
    with np.load(paths[3] / "probes" / "shift" / "step-00000200.npz") as arrays:
        counts, edges = arrays["histogram_counts_preactivation"][1], arrays["histogram_edges_preactivation"][1]
    chosen = [row for row in rows if (row["regime"], row["layer"], row["step"]) == ("bn", CONVS[1], "200")]
    density, _ = np.histogram(edges[:-1], bins=edges, weights=counts, density=True)
    assert [float(row["density"]) for row in chosen] == pytest.approx(density.tolist(), rel=1e-6)
    assert [float(row["left"]) for row in chosen] == pytest.approx(edges[:-1].tolist(), rel=1e-6)


def test_protocol_numbers(study):
    root, paths, _ = study
    rows = read(root / "figures" / "protocols.csv")
    for row in rows:
        path = paths[("none", "bn", "noisy_bn").index(row["regime"]) * 3 + int(row["seed"])]
        accuracies = json.loads((path / "summary.json").read_text())["test/accuracy"]
        assert float(row["test/accuracy"]) == pytest.approx(accuracies[row["protocol"]], rel=1e-6)
    assert len(rows) == 3 * (1 + 3 + 6)


def test_redrawing_changes_no_byte_whatever_the_users_style(study):
    root, _, files = study
    before = {file: file.read_bytes() for file in files}
    (root / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 5\nsavefig.dpi: 50\n")
    code = (
        "import sys, pathlib\nfrom icsbench.record.reader import load_runs\nfrom icsbench.figures import draw_all\n"
        "draw_all(load_runs(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(root / "results"), str(root / "again")],
        check=True,
        env={
            "PYTHONPATH": ":".join(sys.path),
            "MATPLOTLIBRC": str(root / "matplotlibrc"),
            "MPLCONFIGDIR": get_configdir(),
        },
    )
    for file, content in before.items():
        assert (root / "again" / file.name).read_bytes() == content, file.name


def drawings(group):
    """Captions and rows of the five figures, in order of DRAW."""
    with figures.house_style():
        drawn_ones = [page(name, group) for name in DRAW]
        for figure, _ in drawn_ones:
            figure.draw_without_rendering()
    return [re.sub(r"\s+", " ", figure.texts[0].get_text()) for figure, _ in drawn_ones], [
        rows for _, rows in drawn_ones
    ]


def test_captions_state_data_network_steps_scale_and_seeds(study):
    root, _, _ = study
    [group] = group_runs(load_runs(root / "results"))
    facts = "CIFAR-10 (JPEG copy), VGG16 at width 1/4, batch 128, lr 0.1, 200 steps, scale cpu."
    texts, _ = drawings(group)
    assert all(facts in text for text in texts)
    assert all("over n = 3 seeds" in text for position, text in enumerate(texts) if position != 1)
    assert "seed 0" in texts[1]
    assert not any("diverged" in text or "chance" in text for text in texts)


def test_texts_neither_overlap_nor_leave_the_page(tmp_path):
    regimes = ("none", "bn", "noisy_bn", "noise")
    write_study(tmp_path, regimes, 2, **SHORT)
    write_run(tmp_path, "noise", 2, outcome="diverged", diverged_at=100, **SHORT)
    write_study(tmp_path, regimes[:2], 2, lr=0.5, **SHORT)
    [group] = group_runs(load_runs(tmp_path))
    with figures.house_style():
        for name in DRAW:
            figure, _ = page(name, group if name == "accuracy" else group.at(0.1))
            assert_texts_apart(figure)


def test_diverged_and_chance_runs_are_drawn_and_counted(tmp_path):
    write_study(tmp_path, ("bn",), 2, **SHORT)
    kept = [write_run(tmp_path, "noise", seed, **SHORT) for seed in (0, 1)]
    write_run(tmp_path, "noise", 2, outcome="diverged", diverged_at=70, **SHORT)
    write_run(tmp_path, "none", 0, outcome="chance", **SHORT)
    [group] = group_runs(load_runs(tmp_path))
    texts, (accuracy, _, moments, _, protocols) = drawings(group)
    quantity = {"regime": "noise", "quantity": "train/accuracy"}
    same(drawn(accuracy, **quantity, diverged_at=""), brute_force(kept, "train/accuracy"))
    single = [row for row in accuracy if row["diverged_at"] == 70 and row["quantity"] == "train/accuracy"]
    assert {row["seeds"] for row in single} == {"2"} and max(row["step"] for row in single) == 70
    assert {row["seeds"] for row in moments if row["regime"] == "noise"} == {"0 1"}
    assert [row["diverged"] for row in protocols if row["regime"] == "noise"][:3] == [False, False, True]
    assert all("Standard + noise: 1 of 3 runs diverged. " in f"{text} " for text in texts)
    assert all("Standard: 1 of 1 runs were at chance at the end." in text for text in texts)
    assert "over n = 2 seeds (Standard: 1)." in texts[0]
    assert "Diverged runs are left out." in texts[2] and "crosses those that diverged" in texts[4]


def test_a_regime_that_diverged_altogether(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "results", "none", seed, outcome="diverged", diverged_at=4, **SHORT)
    files, said = draw(tmp_path / "results", tmp_path / "figures")
    assert [file.name for file in files[::3]] == ["accuracy.pdf", "protocols.pdf"]
    assert len(said) == 3 and all("no run that finished without diverging has shift probes" in line for line in said)


def test_without_probes_the_rest_is_drawn_and_the_skipped_are_said(tmp_path):
    write_study(tmp_path / "results", ("none", "bn"), 2, **SHORT | {"probes": False})
    write_run(tmp_path / "results", "bn", 5, finished=False, **SHORT | {"probes": False})
    files, said = draw(tmp_path / "results", tmp_path / "figures")
    assert {file.stem for file in files} == {"accuracy", "protocols"}
    assert [re.sub(r".*/", "", line).split(":")[0] for line in said[1:]] == ["ridges", "moments", "heatmap"]
    assert said[0].startswith("not drawn: 1 of 5 runs, which are not finished")


def test_one_seed_has_no_interval(tmp_path):
    write_study(tmp_path, ("none", "bn"), 1, **SHORT)
    [group] = group_runs(load_runs(tmp_path))
    texts, (accuracy, *_) = drawings(group)
    assert np.isnan([row["low"] for row in accuracy]).all() and np.isfinite([row["mean"] for row in accuracy]).all()
    assert all("One seed." in text for position, text in enumerate(texts) if position != 1)


def test_groups_and_learning_rates_get_files_of_their_own(tmp_path):
    short = SHORT | {"probes": False}
    write_study(tmp_path / "results", ("none", "bn"), 2, **short)
    write_study(tmp_path / "results", ("none", "bn"), 2, lr=0.5, **short)
    write_study(tmp_path / "results", ("none",), 2, scale="demo", data="digits", label="Digits", **short)
    files, _ = draw(tmp_path / "results", tmp_path / "figures")
    assert {str(file.relative_to(tmp_path / "figures")) for file in files if file.suffix == ".pdf"} == {
        "three_regimes-cpu/accuracy.pdf",
        "three_regimes-cpu/protocols-lr0.1.pdf",
        "three_regimes-cpu/protocols-lr0.5.pdf",
        "three_regimes-demo/accuracy.pdf",
        "three_regimes-demo/protocols.pdf",
    }


def test_two_settings_of_one_regime_are_not_averaged(tmp_path):
    for n_mu in (0.5, 1.0):
        write_run(tmp_path / "results", "noisy_bn", 0, norm={"n_mu": n_mu}, **SHORT)
    files, said = draw(tmp_path / "results", tmp_path / "figures")
    assert files == [] and len(said) == 5 and all("a second setting of noisy_bn at lr 0.1" in line for line in said)


def test_probes_that_are_not_finite_or_zero_are_drawn(tmp_path):
    path = write_run(tmp_path, "none", 0, **SHORT)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        for key in row:
            if key.startswith("shift/features"):
                row[key] = {16: float("inf"), 32: float("nan")}.get(row["step"], 0.0)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    probe = path / "probes" / "shift" / "step-00000100.npz"
    with np.load(probe) as file:
        arrays = dict(file)
    arrays["histogram_counts_preactivation"][:] = 0
    arrays["histogram_edges_preactivation"][:] = np.nan
    np.savez(probe, **arrays)
    write_run(tmp_path, "none", 1, **SHORT)
    texts, rows = drawings(group_runs(load_runs(tmp_path))[0])
    assert len(texts) == len(DRAW) and all(rows)
    shifts = {(row["quantity"], row["layer"], row["step"]): row["mean"] for part in rows[2:4] for row in part}
    assert {step for (_, _, step), mean in shifts.items() if math.isinf(mean)} == {16}
    assert {step for (_, _, step), mean in shifts.items() if math.isnan(mean)} == {32}
    assert "Grey: no shift at all, or none that is finite." in texts[3]


@pytest.mark.parametrize(("low", "high"), [(-9.0, 9.0), (-0.5, 0.5)])
def test_a_ridge_is_its_density_and_nothing_beyond_its_bins(low, high):
    edges, density = np.linspace(-1, 2, 4), np.array([1.0, 4.0, 2.0])
    ridge = ridges.Ridge(Regime("bn"), 0.1, 0, Layer("features.conv1", 1), 0, edges, density)
    x, y = ridges._outline(ridge, low, high)
    assert (np.diff(x) >= 0).all() and (x[0], x[-1]) == (min(low, -1), max(high, 2))
    np.testing.assert_allclose(np.interp([-0.5, 0.5, 1.5], x, y), density / 4)
    np.testing.assert_allclose(np.interp([-8, -1, 2, 8], x, y), 0)


def test_two_seeds_are_drawn_themselves_and_three_as_a_band(tmp_path):
    for seeds in (2, 3):
        write_study(tmp_path / str(seeds), ("bn",), seeds, **SHORT)
        [group] = group_runs(load_runs(tmp_path / str(seeds)))
        with figures.house_style():
            figure, _ = page("accuracy", group)
        training = figure.axes[0]
        drawn = [np.asarray(line.get_ydata()) for line in training.lines]
        for run in group.runs:
            _, values = run.metrics.series("train/accuracy")
            alone = any(len(line) == len(values) and np.allclose(line, 100 * values) for line in drawn)
            assert alone == (seeds == 2)
        assert len(training.collections) == (seeds == 3)
        said = re.sub(r"\s+", " ", figure.texts[0].get_text())
        assert ("Mean over n = 2 seeds. Of two seeds each is drawn, and no interval." in said) == (seeds == 2)
        assert ("Mean and 95 % t-interval over n = 3 seeds." in said) == (seeds == 3)


def test_damaged_probe_stops_the_drawing(tmp_path):
    path = write_run(tmp_path / "results", **SHORT)
    probe = path / "probes" / "shift" / "step-00000200.npz"
    probe.write_bytes(probe.read_bytes()[:500])
    with pytest.raises(IcsbenchError, match="damaged"):
        draw(tmp_path / "results", tmp_path / "figures")


def test_no_finished_run_and_a_folder_that_cannot_be_written(tmp_path):
    path = write_run(tmp_path / "results", finished=False, **SHORT)
    with pytest.raises(IcsbenchError, match="none of 1 runs is finished"):
        draw(tmp_path / "results", tmp_path / "figures")
    (path / "summary.json").write_text(
        json.dumps({"outcome": "trained", "steps": 200, "train/accuracy": 0.5, "test/accuracy": {"running-off": 0.5}})
    )
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(IcsbenchError, match="cannot be written"):
        draw(tmp_path / "results", tmp_path / "figures")


def test_layers_and_steps_are_chosen_by_the_stated_rule():
    vgg = [Layer(path, depth) for depth, path in enumerate(LAYERS, 1)]
    assert [layer.depth for layer in chosen_layers(vgg)] == [2, 7, 13]
    assert [layer.depth for layer in chosen_layers([Layer(f"fc{n}", n) for n in (1, 2, 3)])] == [1, 2]
    assert [layer.depth for layer in chosen_layers([Layer("fc1", 1)])] == [1]
    assert ridges.spread_steps([0], 10) == [0]
    assert ridges.spread_steps([0, 1, 2, 4, 99, 100], 3) == [0, 4, 100]


def test_neither_torch_nor_pyplot_nor_scipy_stats_is_imported():
    code = (
        "import sys\nimport icsbench.figures, icsbench.analysis.tables, icsbench.record.reader\n"
        "from icsbench.figures.contract import Figure\nfrom icsbench.members import members\n"
        "assert len(members('figures', Figure)) >= 12\n"
        "print({'torch', 'matplotlib.pyplot', 'scipy.stats', 'pandas', 'omegaconf'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
