import json
import os
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock
from synthetic import LAYERS, write_lab, write_run, write_study

from icsbench.analysis.groups import Group, group_runs
from icsbench.errors import IcsbenchError
from icsbench.record.metrics import Metrics
from icsbench.record.reader import load_runs

SHORT = {"steps": 200, "layers": LAYERS[:3]}


def only(root):
    [run] = load_runs(root)
    return run


def test_runs_are_found_from_every_level_and_hidden_folders_are_skipped(tmp_path):
    paths = write_study(tmp_path / "results", ("none", "bn"), 2, **SHORT)
    write_run(tmp_path / "results" / ".trash", "bn", 7, **SHORT)
    assert [run.path for run in load_runs(tmp_path / "results")] == [*paths[2:], *paths[:2]]
    assert len(load_runs(tmp_path / "results" / "three_regimes")) == 4
    assert [run.seed for run in load_runs(paths[0].parent)] == [0, 1]
    assert only(paths[3]).path == paths[3]


def test_seeds_are_ordered_as_numbers(tmp_path):
    for seed in (10, 2, 1):
        write_run(tmp_path, seed=seed, **SHORT)
    assert [run.seed for run in load_runs(tmp_path)] == [1, 2, 10]


def test_missing_folder_and_empty_folder_are_one_clear_line(tmp_path):
    with pytest.raises(IcsbenchError, match="nowhere: no such folder"):
        load_runs(tmp_path / "nowhere")
    with pytest.raises(IcsbenchError, match="no run records"):
        load_runs(tmp_path)


def test_status(tmp_path):
    paths = {
        "complete": write_run(tmp_path, seed=0, **SHORT),
        "diverged": write_run(tmp_path, seed=1, outcome="diverged", diverged_at=70, **SHORT),
        "chance": write_run(tmp_path, seed=2, outcome="chance", **SHORT),
        "incomplete": write_run(tmp_path, seed=3, finished=False, **SHORT),
        "failed": write_run(tmp_path, seed=4, finished=False, **SHORT),
        "running": write_run(tmp_path, seed=5, finished=False, **SHORT),
    }
    for status in ("failed", "running", "complete"):
        (paths[status] / "failure.json").write_text('{"error": "disk full"}')
    (paths["incomplete"] / "run.lock").touch()
    code = (
        "import sys, filelock\nlock = filelock.FileLock(sys.argv[1])\n"
        "lock.acquire()\nprint('held', flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(paths["running"] / "run.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        assert [run.status for run in load_runs(tmp_path)] == list(paths)
        holder.communicate()
    assert only(paths["running"]).status == "failed"
    assert only(paths["failed"]).error == "disk full"
    assert not (paths["failed"] / "run.lock").exists()
    with FileLock(paths["incomplete"] / "run.lock", timeout=0):
        pass


def test_lock_that_cannot_be_opened_is_not_an_error(tmp_path):
    path = write_run(tmp_path, finished=False, **SHORT)
    (path / "run.lock").mkdir()
    assert only(path).status == "incomplete"


def test_partial_last_line_of_an_unfinished_run_is_ignored(tmp_path):
    path = write_run(tmp_path, finished=False, **SHORT)
    metrics = path / "metrics.jsonl"
    whole = only(path).metrics
    metrics.write_text(metrics.read_text() + '{"step": 210, "train/lo')
    assert only(path).metrics.rows == whole.rows
    assert whole.last_step == 200


@pytest.mark.parametrize("damage", ['{"step": 210, "train/lo', "[1, 2]", '{"loss": 1}', '{"step": "ten"}'])
def test_damaged_line_of_a_finished_run_names_file_and_line(tmp_path, damage):
    path = write_run(tmp_path, **SHORT)
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text().count("\n")
    metrics.write_text(metrics.read_text() + damage)
    with pytest.raises(IcsbenchError, match=rf"metrics.jsonl, line {lines + 1}: not a JSON object with a step"):
        _ = only(path).metrics


def test_damaged_line_in_the_middle_is_an_error_even_when_unfinished(tmp_path):
    path = write_run(tmp_path, finished=False, **SHORT)
    metrics = path / "metrics.jsonl"
    metrics.write_text("nonsense\n" + metrics.read_text())
    with pytest.raises(IcsbenchError, match="line 1"):
        _ = only(path).metrics


def test_finished_run_without_metrics_is_an_error_and_unfinished_is_not(tmp_path):
    finished, unfinished = write_run(tmp_path, seed=0, **SHORT), write_run(tmp_path, seed=1, finished=False, **SHORT)
    for path in (finished, unfinished):
        os.unlink(path / "metrics.jsonl")
    assert only(unfinished).metrics.rows == []
    with pytest.raises(IcsbenchError, match="cannot be read"):
        _ = only(finished).metrics


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "a: [", "not a YAML mapping"),
        ("config.yaml", "- 1", "not a YAML mapping"),
        ("config.yaml", "seed: 0", "no norm.name"),
        ("config.yaml", "{seed: 0, norm: {name: bn}, lab: {depth: 3}}", "no lab.name"),
        ("config.yaml", "{seed: 0, norm: {name: bn}, lab: walk}", "no lab.name"),
        ("environment.json", '{"regime": "bn"}', "regime is 'bn'; it would be an object"),
        ("summary.json", '{"status": ', "not a JSON object"),
        ("summary.json", '{"outcome": "fine"}', "outcome is 'fine'"),
        ("environment.json", "[]", "not a JSON object"),
    ],
)
def test_damaged_file_is_one_clear_line(tmp_path, name, content, message):
    path = write_run(tmp_path, **SHORT)
    (path / name).write_text(content)
    with pytest.raises(IcsbenchError, match=message) as caught:
        load_runs(tmp_path)
    assert str(path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_config_cannot_run_code(tmp_path):
    path = write_run(tmp_path, **SHORT)
    (path / "config.yaml").write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    with pytest.raises(IcsbenchError, match="not a YAML mapping"):
        load_runs(tmp_path)
    assert not (tmp_path / "made").exists()


def test_series_are_the_rows_with_the_key(tmp_path):
    path = write_run(tmp_path, **SHORT)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    metrics = only(path).metrics
    key = f"shift/{LAYERS[1]}/w1"
    for interval in (None, 1):
        expected = [r for r in rows if key in r and (interval is None or r["shift/interval"] == interval)]
        steps, values = metrics.series(key, interval)
        assert steps.tolist() == [row["step"] for row in expected]
        assert values.tolist() == [row[key] for row in expected]
    assert metrics.series("nothing")[0].size == 0


def test_tables_and_lists_are_the_rows_that_hold_all_of_it(tmp_path):
    rows = [
        {"step": 3, "a": 1.0, "b": 2, "l": [5, 6]},
        {"step": 1, "a": 3.0, "l": [7, 8]},
        {"step": 2, "a": 4.0, "b": 9.0},
        {"step": 3, "a": 10.0, "b": 20.0, "l": [50, 60]},
    ]
    metrics = Metrics(rows, tmp_path / "metrics.jsonl")
    steps, values = metrics.table(["b", "a"])
    assert steps.tolist() == [2, 3] and values.tolist() == [[9, 4], [2, 1]]
    steps, values = metrics.lists("l")
    assert steps.tolist() == [1, 3] and values.tolist() == [[7, 8], [5, 6]]
    assert [part.shape for part in metrics.table(["a", "c"])] == [(0,), (0, 2)]
    assert [part.shape for part in metrics.lists("c")] == [(0,), (0, 0)]


@pytest.mark.parametrize("value", ["text", [1.0], {"x": 1}])
def test_a_column_that_is_no_numbers_is_one_clear_line(tmp_path, value):
    for rows in ([{"step": 0, "a": 1.0}, {"step": 1, "a": value}], [{"step": 0, "a": value}]):
        metrics = Metrics(rows, tmp_path / "metrics.jsonl")
        for read in (lambda of: of.series("a"), lambda of: of.table(["a"])):
            with pytest.raises(IcsbenchError, match=r"metrics\.jsonl: a is not a number at every step") as caught:
                read(metrics)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], [1.0, 2.0], [[], []], [["x"], ["y"]], [[1.0], None]])
def test_lists_of_unequal_length_or_none_are_one_clear_line(tmp_path, values):
    metrics = Metrics([{"step": at, "l": value} for at, value in enumerate(values)], tmp_path / "metrics.jsonl")
    with pytest.raises(IcsbenchError, match=r"metrics\.jsonl: l is not a list of equally many numbers"):
        metrics.lists("l")


def test_the_channels_of_a_layer(tmp_path):
    options = {"steps": 20, "layers": ["fc1", "fc2"], "channels": [3, 4]}
    path = write_run(tmp_path, **options)
    run = only(path)
    with np.load(path / "probes" / "shift" / "step-00000016.npz") as file:
        arrays = dict(file)
    assert np.array_equal(
        run.channels_of("shift", 16, "quantiles_preactivation", "fc2", (3,)), arrays["quantiles_preactivation"][:, 3:]
    )
    with pytest.raises(IcsbenchError, match="no probe of fc3; the probed layers are fc1, fc2"):
        run.channels_of("shift", 16, "quantiles_preactivation", "fc3", (3,))
    arrays["quantiles_preactivation"] = arrays["quantiles_preactivation"][:, 1:]
    np.savez(path / "probes" / "shift" / "step-00000016.npz", **arrays)
    with pytest.raises(
        IcsbenchError, match=r"quantiles_preactivation of shape \(3, 6\), where layers.json has 7 channels"
    ):
        only(path).channels_of("shift", 16, "quantiles_preactivation", "fc2", (3,))
    np.savez(path / "probes" / "shift" / "step-00000016.npz", quantiles_preactivation=np.zeros((2, 7)))
    with pytest.raises(IcsbenchError, match=r"quantiles_preactivation of shape \(2, 7\)"):
        only(path).channels_of("shift", 16, "quantiles_preactivation", "fc2", (3,))


HISTOGRAM = ("histogram_counts_preactivation", "histogram_edges_preactivation")


def test_the_arrays_of_a_probe(tmp_path):
    path = write_run(tmp_path, **SHORT)
    run = only(path)
    assert run.steps_of("shift") == [0, 1, 2, 4, 8, 16, 32, 64, 99, 100, 199, 200]
    counts, edges = run.arrays("shift", 99, *HISTOGRAM)
    with np.load(path / "probes" / "shift" / "step-00000099.npz") as arrays:
        assert np.array_equal(counts, arrays["histogram_counts_preactivation"])
        assert np.array_equal(edges, arrays["histogram_edges_preactivation"])
    assert counts.shape == (3, 64) and edges.shape == (3, 65)
    with pytest.raises(IcsbenchError, match="no such probe"):
        run.arrays("shift", 3, *HISTOGRAM)


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_truncated_probe_is_one_clear_line(tmp_path, keep):
    path = write_run(tmp_path, **SHORT)
    probe = path / "probes" / "shift" / "step-00000100.npz"
    probe.write_bytes(probe.read_bytes()[:keep])
    with pytest.raises(IcsbenchError, match=r"step-00000100.npz: damaged"):
        only(path).arrays("shift", 100, *HISTOGRAM)


def test_damaged_layers(tmp_path):
    path = write_run(tmp_path, **SHORT)
    (path / "probes" / "shift" / "layers.json").write_text('[{"depth": 1}]')
    with pytest.raises(IcsbenchError, match=r"layers\.json"):
        only(path).layers_of("shift")


def test_any_probe_is_read_by_its_name(tmp_path):
    path = write_run(tmp_path, probes=False, **SHORT)
    folder = path / "probes" / "rank"
    folder.mkdir(parents=True)
    (folder / "layers.json").write_text(
        '[{"layer": "b", "depth": 2, "channels": 1}, {"layer": "a", "depth": 1, "channels": 3}]'
    )
    for step in (20, 3):
        np.savez(folder / f"step-{step:08d}.npz", spectrum=np.arange(4) + step)
    run = only(path)
    assert [(layer.path, layer.depth, layer.channels) for layer in run.layers_of("rank")] == [("a", 1, 3), ("b", 2, 1)]
    assert run.steps_of("rank") == [3, 20]
    assert run.arrays("rank", 20, "spectrum")[0].tolist() == [20, 21, 22, 23]
    assert run.channels_of("rank", 3, "spectrum", "b").tolist() == [6]
    assert run.layers_of("shift") == [] and run.steps_of("shift") == []
    with pytest.raises(IcsbenchError, match=r"probes/rank/step-00000020\.npz: damaged or not a rank probe"):
        run.arrays("rank", 20, "norm")


def test_a_run_of_a_lab(tmp_path):
    path = write_lab(tmp_path, label="Random walk", depth=3)
    run = only(path)
    assert (run.kind, run.regime, run.regime.label, run.status, run.seed) == (
        "lab",
        "walk",
        "Random walk",
        "complete",
        0,
    )
    assert run.settings["lab.depth"] == 3 and np.isnan(run.lr)
    assert run.metrics.series("walk/distance")[1].tolist() == list(range(10)) and run.metrics.last_step == 9
    assert only(write_lab(tmp_path / "begun", finished=False)).status == "incomplete"
    trained = only(write_run(tmp_path / "trained", **SHORT))
    assert trained.kind == "training"
    assert only(write_lab(tmp_path / "noise", "noise")).regime.label == "noise"


def test_settings_are_flat_and_without_nulls(tmp_path):
    path = write_run(tmp_path, model={"name": "resnet", "skip": {"every": 2, "from": None}, "sizes": [3, 4]}, **SHORT)
    settings = only(path).settings
    assert settings["model.skip.every"] == 2 and settings["model.sizes"] == "[3, 4]" and settings["optim.lr"] == 0.1
    assert "model.skip.from" not in settings and "data.root" not in settings


def test_groups_are_named_by_what_tells_them_apart(tmp_path):
    write_study(tmp_path, ("none", "bn"), 1, **SHORT)
    write_study(tmp_path, ("none", "bn"), 1, lr=0.5, **SHORT)
    write_run(tmp_path, "bn", 0, width=1.0, **SHORT)
    write_run(tmp_path, "bn", 0, scale="paper", **SHORT)
    write_run(tmp_path, "bn", 0, experiment="other", **SHORT)
    write_run(tmp_path, "bn", 9, experiment="other", finished=False, **SHORT)
    groups = {group.name: group for group in group_runs(load_runs(tmp_path))}
    assert list(groups) == [
        "other",
        "three_regimes-cpu-width0.25",
        "three_regimes-cpu-width1.0",
        "three_regimes-paper-width0.25",
    ]
    assert groups["three_regimes-cpu-width0.25"].lrs == [0.1, 0.5]
    assert [len(group.runs) for group in groups.values()] == [1, 4, 1, 1]


def test_one_experiment_on_two_versions_of_the_data_is_two_groups(tmp_path):
    write_run(tmp_path, "bn", 0, **SHORT)
    write_run(tmp_path, "none", 0, label="CIFAR-10", **SHORT)
    runs = load_runs(tmp_path)
    fingerprints = sorted(run.environment["data"]["fingerprint"][:8] for run in runs)
    assert [group.name for group in group_runs(runs)] == [
        f"three_regimes-{fingerprint}" for fingerprint in fingerprints
    ]
    with pytest.raises(IcsbenchError, match="not comparable"):
        Group("both", tuple(runs))


def test_finished_run_must_state_its_data(tmp_path):
    path = write_run(tmp_path, **SHORT)
    (path / "environment.json").write_text("{}")
    with pytest.raises(IcsbenchError, match=r"environment.json: does not state data label"):
        group_runs(load_runs(tmp_path))
