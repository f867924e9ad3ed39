import json
from pathlib import Path

import pytest
import yaml
from synthetic import write_run

from icsbench.analysis.groups import _SCALES, group_runs
from icsbench.analysis.results import load_runs
from icsbench.config import Config

SCALE_FILES = Path(__file__).resolve().parents[2] / "configs" / "scale"


def change(path, key, value):
    file = path / "config.yaml"
    config = yaml.safe_load(file.read_text())
    part = config
    for name in key.split(".")[:-1]:
        part = part.setdefault(name, {})
    part[key.split(".")[-1]] = value
    file.write_text(json.dumps(config))


def facts(root):
    (group,) = group_runs(load_runs(root))
    return group.facts


def test_the_scales_are_those_of_the_configuration():
    assert {file.stem for file in SCALE_FILES.glob("*.yaml")} == _SCALES.keys()
    for name, scale in _SCALES.items():
        written = yaml.safe_load((SCALE_FILES / f"{name}.yaml").read_text())
        data = next(entry["override /data"] for entry in written["defaults"])
        found = {"data.name": data, "model.width": written["model"]["width"]}
        assert scale == found | {key: written[key] for key in ("steps", "batch_size")}


def test_a_scale_that_was_altered_does_not_pose_as_it(tmp_path):
    write_run(tmp_path / "a", scale="cpu")
    assert facts(tmp_path / "a").endswith("scale cpu")
    write_run(tmp_path / "b", scale="paper")
    assert facts(tmp_path / "b").endswith("scale paper altered")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("optim.momentum", 0.9, "momentum 0.9"),
        ("optim.weight_decay", 5e-4, "weight decay 0.0005"),
        ("optim.schedule", "cosine", "cosine schedule"),
        ("data.flip", True, "flipped"),
        ("data.crop", True, "cropped"),
        ("model.init", "he", "he init"),
        ("model.head", "512-512", "head 512-512"),
        ("model.head_norm", True, "norm in the head"),
        ("amp", True, "bfloat16"),
    ],
)
def test_an_unusual_setting_is_said(tmp_path, key, value, said):
    usual = write_run(tmp_path / "usual")
    run = write_run(tmp_path / "run")
    change(run, key, value)
    assert f", {said}, " in facts(run)
    assert said not in facts(usual)


def test_nothing_unusual_is_said_of_the_defaults(tmp_path):
    run = write_run(tmp_path)
    usual = facts(tmp_path)
    (run / "config.yaml").write_text(Config(experiment="three_regimes", scale="cpu", steps=2000).to_yaml())
    assert len(facts(tmp_path).split(", ")) == len(usual.split(", "))


@pytest.mark.parametrize(("key", "value"), [("probes.batch_size", 4), ("probes.samples", 8), ("log_every", 3)])
def test_what_was_measured_differently_is_not_compared(tmp_path, key, value):
    write_run(tmp_path, "none")
    change(write_run(tmp_path, "bn"), key, value)
    assert len(group_runs(load_runs(tmp_path))) == 2


def test_a_copy_of_a_seed_is_no_further_seed(tmp_path):
    run = write_run(tmp_path)
    run.rename(run.with_name("seed-0-backup"))
    write_run(tmp_path, steps=2000, seed=1)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "config.yaml").write_text("somebody: else")
    assert [run.seed for run in load_runs(tmp_path)] == [1]
