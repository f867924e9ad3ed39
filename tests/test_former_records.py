"""Records of the former format, whose config held the options of all members, are found, resumed and copied."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from helpers import ANY_MODEL, content, isolate

from icsbench.app.compose import composed
from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.record.seal import checksums
from icsbench.record.strict_json import dumps
from icsbench.record.writer import folder_of, load_config, names_of
from icsbench.training import run

FINGERPRINT = "a82dd05066"  # that the former version gave this run, with model.width 0.125 of scale demo
FOLDER = Path("results/single") / f"none-mlp-w0.125-digits8-lr0.1-{FINGERPRINT}" / "seed-0"
FORMER = {
    "model": {"width": 0.125, "head": "linear", "head_norm": False},
    "norm": {
        **{"eps": 1e-5, "momentum": 0.1, "n_mu": 0.5, "n_sigma": 1.25},
        **{"r_mu": 0.1, "r_sigma": 0.1, "strength": 1.0},
    },
}


class Killed(Exception):
    pass


def kill(progress):
    if progress.step == 4:
        raise Killed


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def config(*overrides):
    return composed([*ANY_MODEL, "model=mlp", "data=digits8", "norm=none", *overrides])


def make_former(c: Config) -> None:
    """Turn the record of a run into that of the former version."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(c.run_dir, FOLDER)
    c.run_dir.parent.rmdir()
    path = FOLDER / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    for group, keys in FORMER.items():
        settings[group] |= keys
    del settings["optim"]["name"], settings["optim"]["wrap"], settings["lab"], settings["study"]
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    state = torch.load(FOLDER / "checkpoint.pt", weights_only=True)
    torch.save({**state, "fingerprint": FINGERPRINT}, FOLDER / "checkpoint.pt")


def test_the_config_of_the_former_version_is_read():
    c = config()
    run(c)
    assert "model.width" not in c.identity()
    make_former(c)
    assert load_config(FOLDER / "config.yaml") == c
    assert folder_of(c) == FOLDER
    assert folder_of(replace(c, seed=1)) == replace(c, seed=1).run_dir


def test_a_key_that_never_was_one_is_still_refused():
    c = config()
    run(c)
    path = c.run_dir / "config.yaml"
    path.write_text(path.read_text().replace("  depth: 3\n", "  depth: 3\n  dpth: 3\n"))
    with pytest.raises(IcsbenchError, match=r"unknown key 'model\.dpth'; did you mean 'model\.depth'\?"):
        load_config(path)


def test_a_run_goes_on_in_its_former_folder_and_ends_as_it_would_have(tmp_path):
    whole = config(f"results={tmp_path / 'whole'}")
    run(whole)
    c = config("checkpoint_every=3")
    with pytest.raises(Killed):
        run(c, show=kill)
    make_former(c)
    run(c)
    assert not c.run_dir.exists()
    ours, theirs = content(FOLDER), content(whole.run_dir)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if name != "config.yaml")
    ends = [torch.load(end / "checkpoint.pt", weights_only=True)["model"] for end in (FOLDER, whole.run_dir)]
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


def test_a_complete_one_is_left_alone():
    c = config()
    summary = run(c)
    make_former(c)
    before = content(FOLDER)
    assert run(c) == summary
    assert content(FOLDER) == before and not c.run_dir.exists()


def test_a_complete_one_is_copied_to_another_experiment():
    c = config()
    run(c)
    make_former(c)
    seal = checksums(FOLDER, (FOLDER / "summary.json").read_bytes())
    (FOLDER / "seal.json").write_text(dumps(seal))
    other = replace(c, experiment="other")
    trained = []
    run(other, show=trained.append)
    assert not trained  # copied, not trained again
    ours, theirs = content(other.run_dir), content(FOLDER)
    assert {name: ours[name] for name in ours if name != "config.yaml"} == {
        name: theirs[name] for name in theirs if name != "config.yaml"
    }
    assert load_config(other.run_dir / "config.yaml") == other


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (
            ["model=mlp", "data=digits8", "batch_size=64", "recalibration_batches=40"],
            ["bn-mlp-w0.125-digits8-lr0.1-21b17c47b7"],
        ),
        (["model=mlp", "data=mnist", "scale=cpu"], ["bn-mlp-w0.25-mnist-lr0.1-1f97d0da6f"]),
        (
            ["model=dln", "data=gaussian", "batch_size=1000", "norm=noisy_bn", "recalibration_batches=40"],
            ["noisy_bn-dln-w0.125-gaussian-lr0.1-3bac8ee922"],
        ),
        (["model=mlp", "data=digits8", "scale=paper"], []),
        (["model=vgg11"], []),
    ],
)
def test_the_former_names_are_those_that_the_former_version_gave(overrides, names):
    c = composed([*overrides, "steps=6"])
    assert [name for name, _ in names_of(c)] == [c.run_name, *names]
    if overrides[-1] == "scale=paper":
        assert c.run_name == "bn-mlp-digits8-lr0.1-c96960a44a"
