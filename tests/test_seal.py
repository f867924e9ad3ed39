"""Finished records are sealed, and one that another experiment has is not trained again."""

import json
import shutil
from dataclasses import replace

import pytest
from helpers import PROBED, TINY, content, isolate

import icsbench.training.loop as loop
from icsbench.app.compose import composed
from icsbench.errors import IcsbenchError
from icsbench.record.seal import broken
from icsbench.record.writer import load_config
from icsbench.training import run


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def config():
    return composed([*TINY, *PROBED])


@pytest.fixture
def trained(config):
    run(config)
    return config.run_dir


@pytest.fixture
def untrained(monkeypatch):
    """Training that must not happen."""

    def train(*_):
        raise IcsbenchError("trained")

    monkeypatch.setattr(loop, "_train", train)


def test_a_finished_record_is_whole_and_the_first_changed_file_is_named(trained):
    assert broken(trained) is None
    for name in ("metrics.jsonl", "environment.json", "config.yaml", "summary.json"):
        before = (trained / name).read_bytes()
        (trained / name).write_bytes(before + b" ")
        assert broken(trained) == name
        (trained / name).write_bytes(before)
    probe = next(trained.glob("probes/shift/*.npz"))
    probe.rename(probe.with_name("step-99999999.npz"))
    assert broken(trained) == "probes"


def test_a_seal_that_is_missing_or_damaged_or_of_another_folder(trained):
    moved = trained.with_name("seed-7")
    shutil.copytree(trained, moved)
    assert broken(moved) == "run"
    for text in ("", "[]", "{}"):
        (moved / "seal.json").write_text(text)
        assert broken(moved) in ("seal.json", "run")
    (moved / "seal.json").unlink()
    assert broken(moved) == "seal.json"


def test_the_same_run_of_another_experiment_is_copied_and_not_trained(config, trained, untrained):
    study = {"factors": {"steps": ["eval_every"]}}
    other = replace(config, experiment="other", scale="cpu", study=study)
    assert run(other) == json.loads((trained / "summary.json").read_text())
    mine, theirs = content(other.run_dir), content(trained)
    assert mine.pop("config.yaml") != theirs.pop("config.yaml")
    assert mine == theirs and "probes/shift/layers.json" in mine
    copied = load_config(other.run_dir / "config.yaml")
    assert (copied.experiment, copied.scale, copied.study) == ("other", "cpu", study)
    assert broken(other.run_dir) is None
    assert (other.run_dir / "checkpoint.pt").read_bytes() == (trained / "checkpoint.pt").read_bytes()


def test_a_copy_is_a_record_of_its_own(config, trained):
    other = replace(config, experiment="other")
    run(other)
    before = content(trained)
    (other.run_dir / "summary.json").unlink()
    run(other)  # goes on from the last checkpoint, which rewinds its metrics
    assert content(trained) == before
    assert broken(other.run_dir) is None


def test_a_copy_interrupted_half_way_is_made_again(config, trained, monkeypatch):
    other = replace(config, experiment="other")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("icsbench.record.writer.checksums", lambda *_: 1 / 0)
        run(other)
    assert not (other.run_dir / "summary.json").exists()
    (other.run_dir / "checkpoint.pt").unlink()
    run(other)
    assert broken(other.run_dir) is None


@pytest.mark.parametrize("name", ["metrics.jsonl", "seal.json"])
def test_a_record_that_was_changed_is_not_copied(config, trained, untrained, name):
    (trained / name).write_text("{}")
    with pytest.raises(IcsbenchError, match="trained"):
        run(replace(config, experiment="other"))


def test_another_seed_or_setting_is_not_the_same_run(config, trained, untrained):
    for other in (replace(config, seed=1), replace(config, steps=8), replace(config, results="elsewhere")):
        with pytest.raises(IcsbenchError, match="trained"):
            run(replace(other, experiment="other"))
