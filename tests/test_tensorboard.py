"""The TensorBoard mirror, read back with TensorBoard's own reader."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import PROBED, TINY, content, invoke, isolate, rows, run_dir

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MIRRORED = (*TINY, *PROBED, "tracker=tensorboard", "norm=noisy_bn")


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> Path:
    """A run record with its event file."""
    folder = tmp_path_factory.mktemp("mirrored")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        done = invoke("train", *MIRRORED)
        assert (done.code, done.out) == (0, ""), done.err
        assert "TensorBoard" not in done.err
        return folder / run_dir()


@pytest.fixture
def here(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return events.Reload()


def scalars(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_the_scalars_are_the_records(mirrored):
    events, recorded = read(mirrored), rows(mirrored)
    keys = {key for row in recorded for key in row if isinstance(row[key], int | float)} - {"step"}
    assert {"train/loss", "train/accuracy"} < keys and any(key.startswith("shift/") for key in keys)
    assert {tag for tag in events.Tags()["scalars"] if not tag.startswith("summary/")} == keys
    for key in keys:
        expected = [(row["step"], np.float32(row[key])) for row in recorded if key in row]
        assert scalars(events, key) == expected


def test_the_histograms_are_the_records(mirrored):
    events = read(mirrored)
    layers = json.loads((mirrored / "probes" / "shift" / "layers.json").read_text())
    probes = sorted((mirrored / "probes" / "shift").glob("step-*.npz"))
    assert len(probes) > 3
    for number, layer in enumerate(layers):
        drawn = {event.step: event.histogram_value for event in events.Histograms(f"activations/{layer['layer']}")}
        assert sorted(drawn) == [int(path.stem.removeprefix("step-")) for path in probes]
        for path in probes:
            arrays, histogram = np.load(path), drawn[int(path.stem.removeprefix("step-"))]
            counts = arrays["histogram_counts_preactivation"][number]
            edges = arrays["histogram_edges_preactivation"][number].astype(float)
            assert histogram.bucket == [0, *counts]
            assert histogram.bucket_limit == pytest.approx(edges)
            assert (histogram.min, histogram.max, histogram.num) == (edges[0], edges[-1], counts.sum())
            spread = np.repeat((edges[1:] + edges[:-1]) / 2, counts.astype(int))
            assert histogram.sum == pytest.approx(spread.sum(), rel=1e-9, abs=1e-6)
            assert histogram.sum_squares == pytest.approx((spread**2).sum())


def test_config_and_summary_are_the_records(mirrored):
    events, summary = read(mirrored), json.loads((mirrored / "summary.json").read_text())
    (text,) = events.Tensors("config")
    found = text.tensor_proto.string_val[0].decode()
    assert yaml.safe_load(found.removeprefix("```yaml\n").removesuffix("```")) == yaml.safe_load(
        (mirrored / "config.yaml").read_text()
    )
    for protocol, value in summary["test/accuracy"].items():
        assert scalars(events, f"summary/test/accuracy/{protocol}") == [(6, np.float32(value))]


def test_the_record_is_the_same_without_it(mirrored, here):
    assert invoke("train", *(o for o in MIRRORED if not o.startswith("tracker"))).code == 0
    plain = content(run_dir())
    assert not [name for name in plain if name.startswith("tensorboard")]
    assert plain == {key: value for key, value in content(mirrored).items() if not key.startswith("tensorboard/")}
    assert run_dir().parent.name == mirrored.parent.name


def test_without_tensorboard_it_is_one_line(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    done = invoke("train", *TINY, "tracker=tensorboard")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if line.startswith("icsbench: ")]
    assert line == (
        "icsbench: TensorBoard: ImportError: not installed: pip install 'icsbench[tensorboard]'; nothing is mirrored"
    )


@pytest.mark.parametrize("call", ["add_event", "close"])
def test_what_tensorboard_raises_is_one_line_and_never_reaches_the_run(here, monkeypatch, call):
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(EventFileWriter, call, broken)
    done = invoke("train", *TINY, "tracker=tensorboard")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if line.startswith("icsbench: ")]
    assert line.startswith("icsbench: TensorBoard: OSError: disk full; ")
    assert json.loads((run_dir() / "summary.json").read_text())["status"] == "complete"


def test_a_run_that_goes_on_loses_no_row(mirrored, here):
    shutil.copytree(mirrored.parents[2], "results")
    folder = run_dir()
    (folder / "summary.json").unlink()  # as if it had been stopped after its last step
    shutil.rmtree(folder / "probes")
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    assert invoke("train", *MIRRORED).code == 0
    assert len([*folder.glob("tensorboard/events*")]) == 2
    expected = {(row["step"], np.float32(row["train/loss"])) for row in rows(folder) if "train/loss" in row}
    assert {*scalars(read(folder), "train/loss")} == expected


def test_a_tracker_that_is_not_there_is_refused(here):
    done = invoke("train", *TINY, "tracker.name=mlflow")
    assert done.code == 1
    assert "tracker.name must be one of wandb, tensorboard" in done.err
