"""Folders with YAML of a user's own, and of installed packages."""

import os
from pathlib import Path

import pytest
from helpers import TINY, command, invoke, isolate, run_dirs

from icsbench.app import folders
from icsbench.app.compose import composed
from icsbench.app.reproduce import reproduction_of
from icsbench.errors import IcsbenchError
from icsbench.record.writer import load_config

STUDY = """# @package _global_
experiment: mine
study:
  factors:
    steps: [eval_every]
  affords: {demo: 7}
hydra:
  sweeper:
    params:
      steps: 2,4
      norm: bn
"""


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def write(name: str, text: str) -> None:
    path = Path("own") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_study_of_a_folder_is_swept_and_its_declaration_is_in_the_record():
    write("experiment/mine.yaml", STUDY)
    tiny = [override for override in TINY if not override.startswith("steps")]
    done = invoke("sweep", "--config-dir", "own", "experiment=mine", *tiny, "hydra/launcher=basic")
    assert done.code == 0, done.err
    configs = [load_config(folder / "config.yaml") for folder in run_dirs()]
    assert sorted(config.steps for config in configs) == [2, 4]
    declared = {"factors": {"steps": ["eval_every"]}, "affords": {"demo": 7}}
    assert [config.study for config in configs] == [declared] * 2
    assert "study" not in " ".join(configs[0].identity())


def test_a_norm_of_a_folder_and_the_project_without_it():
    write("norm/strong.yaml", "name: noisy_bn\nstrength: 2.0\n")
    shown = invoke("train", "--config-dir", "own", "norm=strong", "--cfg", "job")
    assert (shown.code, shown.err) == (0, "")
    assert "strength: 2.0" in shown.out
    assert "Could not find 'norm/strong'" in invoke("train", "norm=strong").err


def test_a_folder_takes_part_in_what_a_scale_affords(monkeypatch):
    monkeypatch.setattr(
        "icsbench.app.reproduce._checked", lambda overrides: None
    )  # it composes every run of every study
    write("experiment/mine.yaml", STUDY)
    with folders.also([Path("own")]):
        assert "mine" in reproduction_of(["scale=demo"]).studies
        assert "mine" in reproduction_of(["scale=paper"]).studies
    demo = reproduction_of(["scale=demo"]).studies
    assert demo[:6] == ("long", "noise_control", "percentiles", "lr_grid", "explosion", "first_steps")
    assert "mine" not in demo
    afforded = reproduction_of(["scale=cpu"]).studies
    assert afforded[:7] == ("landscape", "lp", "dose", "noise_control", "lr_grid", "batch_size", "percentiles")
    assert afforded[7:12] == ("dln", "dln_lr", "dln_lp", "explosion", "first_steps")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("norm/evil.yaml", "name: bn\n_target_: os.system\n", "own/norm/evil.yaml: '_target_' is refused"),
        ("experiment/x.yaml", "a: [{b: {_partial_: true}}]\n", "own/experiment/x.yaml: '_partial_' is refused"),
        ("x.yaml", "hydra:\n  sweeper:\n    params:\n      +hydra.callbacks.x: '{_target_: y}'\n", "is refused"),
        ("x.yaml", "hydra:\n  searchpath: [/tmp]\n", "own/x.yaml: 'searchpath' is refused"),
        ("x.yaml", "a: [\n", "own/x.yaml cannot be read ("),
        ("experiment/dose.yaml", "a: 1\n", "own/experiment/dose.yaml has the name of "),
    ],
)
@pytest.mark.parametrize("arguments", [["train"], ["sweep"], ["reproduce", "--list"], ["lab", "theorems"]])
def test_a_file_that_is_refused_is_one_line(name, text, said, arguments):
    write(name, text)
    done = invoke(*arguments, "--config-dir", "own")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err
    assert not Path("results").exists()


def test_a_folder_that_is_not_there():
    assert invoke("train", "-cd", "nowhere").err == "icsbench: --config-dir: folder 'nowhere' not found\n"


def test_yaml_of_an_installed_package(tmp_path):
    site = tmp_path / "site"
    (site / "other" / "configs" / "experiment").mkdir(parents=True)
    (site / "other" / "__init__.py").write_text("raise RuntimeError('code of the package has no part in it')\n")
    (site / "other" / "configs" / "experiment" / "mine.yaml").write_text(STUDY)
    info = site / "other-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[icsbench.configs]\nother = other\n")
    env = {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}
    shown = command("train", "experiment=mine", "--cfg", "job", env=env)
    assert (shown.code, shown.err) == (0, "")
    assert "experiment: mine\n" in shown.out
    info.joinpath("entry_points.txt").write_text("[icsbench.configs]\nother = nosuch\n")
    refused = command("train", "--cfg", "job", env=env)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "entry point other = nosuch of icsbench.configs names no package with a folder" in refused.err


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("{factor: {}}", "a key of study must be one of factors, affords (got 'factor')"),
        ("{affords: {cpu: many}}", "study.affords must map scales to places in their order (got {'cpu': 'many'})"),
        ("{affords: {huge: 1}}", "a scale of study.affords must be one of demo, cpu, paper (got 'huge')"),
        ("{factors: [steps]}", "study.factors must map each key to the list of keys that hang on it"),
        ("{factors: {norm.strenght: []}}", "study.factors: unknown key 'norm.strenght'; did you mean 'norm.strength'?"),
        ("{factors: {steps: [evla_every]}}", "unknown key 'evla_every'; did you mean 'eval_every'?"),
    ],
)
def test_a_declaration_that_is_wrong_is_one_line(study, said):
    write("experiment/mine.yaml", f"# @package _global_\nexperiment: mine\nstudy: {study}\n")
    with folders.also([Path("own")]), pytest.raises(IcsbenchError) as error:
        composed(["experiment=mine"])
    assert str(error.value).startswith("configuration: ") and said in str(error.value)
