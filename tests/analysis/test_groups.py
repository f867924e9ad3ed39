import json
import re
from pathlib import Path

import pytest
import yaml
from synthetic import DLN, MLP, write_run

from icsbench.analysis import verdicts
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.tables import result_table
from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.record import legacy
from icsbench.record.reader import load_runs
from icsbench.report.markdown import results_as_markdown

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
    scales = legacy.model({"model.name": "vgg16"})["scales"]
    assert {file.stem for file in SCALE_FILES.glob("*.yaml")} == scales.keys()
    for name, scale in scales.items():
        written = yaml.safe_load((SCALE_FILES / f"{name}.yaml").read_text())
        data = next(entry["override /data"] for entry in written["defaults"])
        found = {"data.name": data, "model.width": written["model"]["width"]}
        found |= {key: written[key] for key in ("steps", "batch_size")}
        assert scale == {key: value for key, value in found.items() if key != "steps" or name == "paper"}


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
    ],
)
def test_an_unusual_setting_is_said(tmp_path, key, value, said):
    usual = write_run(tmp_path / "usual")
    run = write_run(tmp_path / "run")
    change(run, key, value)
    assert f", {said}, " in facts(run)
    assert said not in facts(usual)


def amp_run(root, regime="bn", seed=0, *, precision=True, **options):
    run = write_run(root / "amp", regime, seed, **options)
    change(run, "amp", True)
    if precision:
        path = run / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": {"probes": "float32"}}))
    return run


def test_runs_with_and_without_autocast_are_never_pooled_and_are_told_apart(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed=seed, experiment="amp")
        amp_run(tmp_path, seed=seed, experiment="amp")
    with_it, without = group_runs(load_runs(tmp_path))
    assert (with_it.name, without.name) == ("amp-bf16", "amp-float32")
    assert ", 2,000 steps, bf16, scale cpu" in with_it.facts
    assert "bf16" not in without.facts and "float32" not in without.facts
    with pytest.raises(IcsbenchError, match="amp-float32 and amp-bf16 need figures of their own"):
        Group("both", (*without.runs, *with_it.runs))
    text = results_as_markdown(result_table(load_runs(tmp_path)))
    assert text.count("\namp-") + text.startswith("amp-") == 2 and text.count(" bf16,") == 1


def test_probes_in_bfloat16_of_earlier_records_are_not_pooled_with_those_in_float32(tmp_path):
    change(amp_run(tmp_path, "none", precision=False), "probes", {"shift": True})
    change(amp_run(tmp_path, "bn"), "probes", {"shift": True})
    assert [", bf16 (probes too), " in group.facts for group in group_runs(load_runs(tmp_path))] == [False, True]


def test_the_command_of_a_claim_asks_for_autocast_where_its_runs_had_it(tmp_path):
    for seed in range(2):
        for regime in ("none", "bn"):
            amp_run(tmp_path, regime, seed, experiment="landscape")
    (group,) = group_runs(load_runs(tmp_path))
    assert " amp=true " in verdicts._command(group)


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


def test_facts_of_the_other_networks(tmp_path):
    write_run(tmp_path / "mlp", **MLP | {"steps": 20, "scale": "demo"})
    said = facts(tmp_path / "mlp")
    assert "MLP, 3 x 100 sigmoid units, batch 60, " in said and said.endswith("gaussian init, std 0.1, scale demo")
    write_run(tmp_path / "dln", **DLN | {"steps": 20})
    said = facts(tmp_path / "dln")
    assert "deep linear network, 25 layers of 10 x 10, full batch, lr 1e-06, 20 steps, scale cpu" in said
    (group,) = group_runs(load_runs(tmp_path / "dln"))
    assert group.regression and group.network == "dln"
    with pytest.raises(NotMeasured, match="no classes"):
        _ = group.num_classes


@pytest.mark.parametrize(("name", "options"), [("percentiles", MLP), ("dln", DLN)])
def test_what_scale_paper_stands_for_is_what_the_experiments_say(tmp_path, name, options):
    experiment = yaml.safe_load((SCALE_FILES.parent / "experiment" / f"{name}.yaml").read_text())
    steps = int(re.search(r",(\d+)\}$", experiment["steps"]).group(1))
    assert experiment["batch_size"] == options["batch_size"]
    run = write_run(
        tmp_path / "as", **options | {"scale": "paper", "steps": steps, "probes": False, "log_every": steps}
    )
    if name == "percentiles":
        assert facts(tmp_path / "as").endswith("scale paper altered")
        change(run, "data.binary", True)
    assert facts(tmp_path / "as").endswith("scale paper")
    change(run, "model.depth", 4)
    assert facts(tmp_path / "as").endswith("scale paper altered")


def test_a_network_of_another_depth_is_not_compared(tmp_path):
    write_run(tmp_path, "none", **DLN | {"steps": 20})
    change(write_run(tmp_path, "bn", **DLN | {"steps": 20}), "model.depth", 5)
    assert len(group_runs(load_runs(tmp_path))) == 2
