import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from synthetic import DLN, MLP, write_lab, write_run

from icsbench.analysis.commands import command_of
from icsbench.analysis.groups import Group, NotMeasured, group_runs
from icsbench.analysis.tables import result_table
from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.members import members
from icsbench.models import Model
from icsbench.norms import Norm
from icsbench.record import legacy
from icsbench.record.reader import load_runs
from icsbench.record.regime import Regime
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


OF_FORMER_RECORDS = {"demo": {"batch_size": 64}}  # 32 today


def test_the_scales_are_those_of_the_configuration():
    scales = legacy.model({"model.name": "vgg16"})["scales"]
    assert {file.stem for file in SCALE_FILES.glob("*.yaml")} == scales.keys()
    width = yaml.safe_load((SCALE_FILES.parent / "model" / "vgg16.yaml").read_text())["width"]
    widths = re.fullmatch(r"\$\{icsbench\.by_scale:\$\{scale\},([\d.]+),([\d.]+),([\d.]+)\}", width).groups()
    for (name, scale), width in zip(scales.items(), widths, strict=True):
        written = yaml.safe_load((SCALE_FILES / f"{name}.yaml").read_text())
        data = next(entry["override /data"] for entry in written["defaults"])
        found = {"data.name": data, "model.width": float(width)}
        found |= {key: written[key] for key in ("steps", "batch_size")} | OF_FORMER_RECORDS.get(name, {})
        assert scale == {key: value for key, value in found.items() if key != "steps" or name == "paper"}


def test_earlier_records_show_as_the_members_say_today():
    norms, models = members("norms", Norm), members("models", Model)
    for name, look in legacy.LOOKS.items():
        assert Regime(name, look).__dict__ == Regime(name, norms[name].look._asdict()).__dict__
    for name in ("vgg11", "vgg13", "vgg16", "vgg19", "mlp", "dln"):
        sizes = {"width": 0.25} if name.startswith("vgg") else {"depth": 5, "units": 7}
        said = legacy.model({f"model.{key}": value for key, value in {"name": name, **sizes}.items()})
        model = models[name]
        scales = {scale: {**of} for scale, of in model.scales.items()}
        for scale, former in OF_FORMER_RECORDS.items() if name.startswith("vgg") else ():
            scales[scale] |= former
        today = {"label": model.label(model.options(name=name, **sizes)), "units": model.units, "scales": scales}
        assert said == today


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
        write_run(tmp_path, seed=seed, experiment="mixed")
        amp_run(tmp_path, seed=seed, experiment="mixed")
    with_it, without = group_runs(load_runs(tmp_path))
    assert (with_it.name, without.name) == ("mixed-bf16", "mixed-float32")
    assert ", 2,000 steps, bf16, scale cpu" in with_it.facts
    assert "bf16" not in without.facts and "float32" not in without.facts
    with pytest.raises(IcsbenchError, match="mixed-float32 and mixed-bf16 need figures of their own"):
        Group("both", (*without.runs, *with_it.runs))
    text = results_as_markdown(result_table(load_runs(tmp_path)))
    assert text.count("\nmixed-") + text.startswith("mixed-") == 2 and text.count(" bf16,") == 1


def test_the_study_of_autocast_compares_runs_with_and_without_it(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed=seed, experiment="amp")
        amp_run(tmp_path, seed=seed, experiment="amp")
    (group,) = group_runs(load_runs(tmp_path))
    assert [len(group.select(norm="bn", amp=amp).runs) for amp in (True, False)] == [2, 2]
    assert "amp" in group.factors and "amp" in group.facts


def test_probes_in_bfloat16_of_earlier_records_are_not_pooled_with_those_in_float32(tmp_path):
    change(amp_run(tmp_path, "none", precision=False), "probes", {"shift": True})
    change(amp_run(tmp_path, "bn"), "probes", {"shift": True})
    assert [", bf16 (probes too), " in group.facts for group in group_runs(load_runs(tmp_path))] == [False, True]


def test_the_command_of_a_claim_asks_for_autocast_where_its_runs_had_it(tmp_path):
    for seed in range(2):
        for regime in ("none", "bn"):
            amp_run(tmp_path, regime, seed, experiment="landscape")
    (group,) = group_runs(load_runs(tmp_path))
    assert " amp=true " in command_of(group)


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


LOOK = {"label": "Standard + pinch", "order": 0.5, "color": "#123456", "linestyle": [0, [3, 1]], "marker": "*"}
RESNET = {"label": "ResNet, 8 layers", "units": False, "scales": {"cpu": {"data.name": "cifar10", "model.blocks": 2}}}
TINY = {"steps": 20, "probes": False}


def groups_of(root):
    return group_runs(load_runs(root))


def test_a_regime_that_describes_itself_is_shown_as_it_says(tmp_path):
    for regime in ("none", "bn"):
        write_run(tmp_path, regime, **TINY)
    write_run(tmp_path, "pinch", look=LOOK, **TINY)
    (group,) = groups_of(tmp_path)
    assert [condition.regime for condition in group.conditions] == ["none", "pinch", "bn"]
    regime = group.conditions[1].regime
    assert (regime.label, regime.order, regime.color, regime.marker) == ("Standard + pinch", 0.5, "#123456", "*")
    assert regime.linestyle == (0, (3, 1))
    assert json.dumps([regime]) == '["pinch"]' and f"{regime}" == "pinch"
    assert [row["regime"] for row in result_table(load_runs(tmp_path))] == ["none", "pinch", "bn"]


def test_a_regime_that_nobody_describes_is_grey_and_comes_last(tmp_path):
    for regime in ("aardvark", "linf", "zebra", "noisy_bn", "l2", "l1", "noise", "none", "bn"):
        write_run(tmp_path, regime, **TINY)
    (group,) = groups_of(tmp_path)
    regimes = [condition.regime for condition in group.conditions]
    assert regimes == ["none", "bn", "noisy_bn", "noise", "l1", "l2", "linf", "aardvark", "zebra"]
    assert regimes[2].label == "Standard + 'Noisy' BatchNorm" and len({regime.color for regime in regimes[:-1]}) == 8
    assert (regimes[-1].label, regimes[-1].color) == ("zebra", "#7F7F7F")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("label", 5),
        ("order", "first"),
        ("order", float("nan")),
        ("color", "red; }"),
        ("linestyle", "wavy"),
        ("linestyle", [0, [1]]),
        ("linestyle", [0, [0, 0]]),
        ("linestyle", [0, ["a", "b"]]),
        ("marker", "$x$"),
        ("marker", ["o"]),
    ],
)
def test_a_look_that_cannot_be_drawn_is_one_clear_line(tmp_path, part, value):
    write_run(tmp_path, "pinch", look=LOOK | {part: value}, **TINY)
    with pytest.raises(IcsbenchError, match=rf"environment\.json: regime\.{part} is .*; it would be ") as caught:
        load_runs(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [5, {}, {"label": "a", "units": "no", "scales": {}}, RESNET | {"scales": [1]}])
def test_a_network_that_is_described_in_another_form_is_one_clear_line(tmp_path, network):
    write_run(tmp_path, network=network, **TINY)
    with pytest.raises(
        IcsbenchError, match=r"environment\.json: model is .*; it would be an object with label"
    ) as caught:
        _ = facts(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_network_describes_itself(tmp_path):
    options = {"model": {"name": "resnet", "blocks": 2}, "network": RESNET, **TINY}
    run = write_run(tmp_path / "a", **options)
    assert ", ResNet, 8 layers, batch 128, " in facts(tmp_path / "a") and facts(tmp_path / "a").endswith("scale cpu")
    (group,) = groups_of(tmp_path / "a")
    assert group.network == "resnet" and not group.units
    change(run, "model.blocks", 3)
    assert facts(tmp_path / "a").endswith("scale cpu altered")
    write_run(tmp_path / "b", **options | {"network": RESNET | {"units": True}})
    assert groups_of(tmp_path / "b")[0].units


def test_an_option_that_no_table_names_divides_groups_and_names_them(tmp_path):
    for seed, (blocks, way) in enumerate([(2, "plain"), (2, "plain"), (4, "plain"), (2, "residual")]):
        model = {"name": "resnet", "blocks": blocks, "way": way, "init": "glorot"}
        write_run(tmp_path / f"{seed}", seed=seed, model=model, network=RESNET, **TINY)
    assert [(group.name, len(group.runs)) for group in groups_of(tmp_path)] == [
        ("three_regimes-blocks2-wayplain", 2),
        ("three_regimes-blocks2-wayresidual", 1),
        ("three_regimes-blocks4-wayplain", 1),
    ]


def depth_study(root, **options):
    """Two regimes at three depths, with steps that hang on the depth."""
    for depth in (2, 4, 8):
        network = RESNET | {"label": f"ResNet, {depth} layers", "scales": {}}
        of_depth = {"model": {"name": "resnet", "depth": depth}, "network": network, "steps": 10 * depth}
        for regime in ("none", "bn"):
            for seed in range(2):
                write_run(root / f"{9 - depth}", regime, seed, probes=False, experiment="deep", **of_depth, **options)


def test_a_factor_does_not_divide_a_study_and_its_cells_are_in_order(tmp_path):
    depth_study(tmp_path, factors={"model.depth": ["steps"]})
    (group,) = groups_of(tmp_path)
    assert group.name == "deep" and group.factors == ("norm", "optim.lr", "model.depth")
    cells = [
        (condition.regime, condition.settings["model.depth"], len(condition.runs)) for condition in group.conditions
    ]
    assert cells == [(regime, depth, 2) for regime in ("none", "bn") for depth in (2, 4, 8)]
    assert all("steps" not in condition.settings for condition in group.conditions)
    assert "ResNet, 2 layers and ResNet, 4 layers and ResNet, 8 layers, " in group.facts
    assert ", 20, 40 and 80 steps, scale cpu" in group.facts
    rows = result_table(load_runs(tmp_path))
    assert [row["setting"] for row in rows] == ["depth 2", "depth 4", "depth 8"] * 2
    part = group.at(0.1)
    assert part.factors == group.factors and len(part.conditions) == 6


def test_what_is_no_factor_divides_it(tmp_path):
    depth_study(tmp_path / "none", factors={})
    assert [group.name for group in groups_of(tmp_path / "none")] == ["deep-depth2", "deep-depth4", "deep-depth8"]
    depth_study(tmp_path / "some", factors={"model.depth": []})
    assert [group.name for group in groups_of(tmp_path / "some")] == ["deep-steps20", "deep-steps40", "deep-steps80"]


def test_a_factor_may_be_a_group_of_settings_and_any_run_may_name_it(tmp_path):
    depth_study(tmp_path, factors={"model": [], "steps": []})
    (group,) = groups_of(tmp_path)
    assert {condition.settings["model.depth"] for condition in group.conditions} == {2, 4, 8}
    change(next(run.path for run in group.runs), "study", {"factors": {}})
    assert len(groups_of(tmp_path)) == 1


def test_a_cell_is_compared_with_that_of_no_norm_at_the_same_factors(tmp_path):
    depth_study(tmp_path, factors={"model.depth": ["steps"]})
    (group,) = groups_of(tmp_path)
    for row in result_table(load_runs(tmp_path)):
        if row["regime"] == "bn":
            depth = int(row["setting"].removeprefix("depth "))
            bn, none = (group.select(norm=norm, **{"model.depth": depth}).runs for norm in ("bn", "none"))
            mean = sum(one.train_accuracy - other.train_accuracy for one, other in zip(bn, none, strict=True)) / 2
            assert row["difference/train/accuracy"].mean == pytest.approx(mean)


@pytest.mark.parametrize("factors", [["model.depth"], {"model.depth": "steps"}, "model.depth", 3])
def test_factors_in_another_form_are_one_clear_line(tmp_path, factors):
    write_run(tmp_path, factors=factors, **TINY)
    with pytest.raises(IcsbenchError, match=r"config\.yaml: study\.factors is .*; it would be a mapping") as caught:
        groups_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cell_is_found_by_its_settings(tmp_path):
    for lr in (0.1, 0.5):
        for seed in range(2):
            write_run(tmp_path, "bn", seed, lr=lr, **TINY)
            write_run(tmp_path, "noisy_bn", seed, lr=lr, norm={"strength": 2.0}, **TINY)
    write_run(tmp_path, "noisy_bn", 0, norm={"strength": 1.0}, **TINY)
    (group,) = groups_of(tmp_path)
    cell = group.select(norm="bn", lr=0.5)
    assert (cell.regime, cell.lr, [run.seed for run in cell.runs]) == ("bn", 0.5, [0, 1])
    assert len(group.select(norm="noisy_bn", lr=0.1, **{"norm.strength": 2}).runs) == 2
    assert len(group.select(**{"norm.strength": 2.0, "optim.lr": 0.5}).runs) == 2
    for settings, message in (
        ({"norm": "l1"}, "three_regimes has no finished run of l1"),
        ({"norm": "bn", "lr": 0.2}, "three_regimes has no finished run of bn at learning rate 0.2"),
        ({"norm": "bn"}, "three_regimes has 2 settings of bn, which must not be pooled"),
        ({"norm": "noisy_bn", "lr": 0.1}, "has 2 settings of noisy_bn at learning rate 0.1, which must not be pooled"),
        ({"norm": "bn", "model.depth": 3}, "three_regimes has no finished run of bn with model.depth 3"),
    ):
        with pytest.raises(NotMeasured, match=f"{message}$"):
            group.select(**settings)


def old(run, *keys):
    """Take settings out of a record, as one from before there were such settings."""
    file = run / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for key in keys:
        *groups, leaf = key.split(".")
        part = config
        for name in groups:
            part = part.get(name, {})
        part.pop(leaf, None)
    file.write_text(yaml.safe_dump(config))


def full(run, **options):
    """Make the config of a record that of a whole run."""
    config = asdict(Config(experiment="three_regimes", scale="cpu", steps=20, **options))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def test_records_from_before_a_setting_are_pooled_with_those_that_have_it_at_its_default(tmp_path):
    full(write_run(tmp_path / "new", "bn", 0, **TINY))
    earlier = full(write_run(tmp_path / "old", "bn", 1, **TINY))
    keys = ("amp", "data.binary", "model.init_std", "model.depth", "model.units", "log_every", "recalibration_batches")
    keys += ("optim.momentum", "optim.weight_decay", "optim.schedule", "norm.strength", "wandb", "device", "threads")
    old(
        earlier,
        *keys,
        "probes.batch_size",
        "probes.samples",
        *(f"probes.alpha_{end}" for end in ("low", "high", "points")),
    )
    assert [len(group.runs) for group in groups_of(tmp_path)] == [2]
    old(earlier, "probes")
    assert [len(group.runs) for group in groups_of(tmp_path)] == [2]
    change(tmp_path / "new" / earlier.relative_to(tmp_path / "old").with_name("seed-0"), "optim.momentum", 0.9)
    assert [group.name for group in groups_of(tmp_path)] == ["three_regimes-momentum0.0", "three_regimes-momentum0.9"]


def test_seeds_of_an_earlier_folder_and_of_a_later_one_are_one_cell(tmp_path):
    options = MLP | {"steps": 20, "probes": False}
    runs = [write_run(tmp_path, "bn", seed, **options) for seed in range(2)]
    earlier = runs[1].parent.with_name("bn-mlp-w0.125") / "seed-1"
    earlier.parent.mkdir()
    runs[1].rename(earlier)
    for key, value in {"model.width": 0.125, "model.head": "linear", "norm.n_mu": 0.5, "norm.strength": 1.0}.items():
        change(earlier, key, value)
    change(runs[0], "study", {"factors": {}})
    (group,) = groups_of(tmp_path)
    assert [[run.seed for run in cell.runs] for cell in group.conditions] == [[0, 1]]
    for key, value in {"eval_every": 7, "norm.eps": 1e-3}.items():
        before = (earlier / "config.yaml").read_text()
        change(earlier, key, value)
        (group,) = groups_of(tmp_path)
        assert sorted([run.seed for run in cell.runs] for cell in group.conditions) == [[0], [1]]
        (earlier / "config.yaml").write_text(before)


def test_the_same_seed_twice_is_never_one_cell(tmp_path):
    run = write_run(tmp_path, "bn", **TINY)
    copy = run.parent.with_name("copy") / "seed-0"
    shutil.copytree(run, copy)
    (group,) = groups_of(tmp_path)
    assert [len(cell.runs) for cell in group.conditions] == [1, 1]
    with pytest.raises(NotMeasured, match="2 settings of bn, which must not be pooled"):
        group.select(norm="bn")


def test_options_of_another_network_in_an_earlier_record_divide_nothing(tmp_path):
    options = MLP | {"steps": 20, "probes": False}
    run = write_run(tmp_path, "none", **options)
    for key, value in {"model.width": 0.125, "model.head": "linear", "model.head_norm": False}.items():
        change(run, key, value)
    write_run(tmp_path, "bn", **options)
    assert [group.name for group in groups_of(tmp_path)] == ["sigmoid_mlp"]
    change(run, "model.init_std", 0.2)
    assert len(groups_of(tmp_path)) == 2


def test_options_of_a_probe_that_one_record_knows_and_another_does_not_divide_nothing(tmp_path):
    write_run(tmp_path, "none", **TINY)
    later = write_run(tmp_path, "bn", **TINY)
    for key, value in {"probes.rank": True, "probes.rank_every": 7, "probes.rank_samples": 64}.items():
        change(later, key, value)
    assert len(groups_of(tmp_path)) == 1
    other = write_run(tmp_path, "bn", 1, **TINY)
    for key, value in {"probes.rank": False, "probes.rank_every": 9, "probes.rank_samples": 64}.items():
        change(other, key, value)
    assert len(groups_of(tmp_path)) == 1
    change(other, "probes.rank_samples", 128)
    assert [group.name for group in groups_of(tmp_path)] == [
        "three_regimes",
        "three_regimes-rank_samples128",
        "three_regimes-rank_samples64",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("device", "cuda"), ("threads", 4), ("eval_every", 3), ("checkpoint_every", 7), ("wandb.mode", "disabled")],
)
def test_where_a_run_takes_place_and_how_often_it_is_looked_at_divides_nothing(tmp_path, key, value):
    write_run(tmp_path, "none", **TINY)
    change(write_run(tmp_path, "bn", **TINY), key, value)
    assert len(groups_of(tmp_path)) == 1


def test_batch_sizes_of_earlier_records_of_that_study_are_one_group(tmp_path):
    for size in (16, 64):
        run = write_run(
            tmp_path / f"{size}", batch_size=size, experiment="batch_size", **TINY | {"steps": 1280 // size}
        )
        change(run, "recalibration_batches", 5120 // size)
    (group,) = groups_of(tmp_path)
    assert "batch 16 and 64, " in group.facts and ", 20 and 80 steps" in group.facts
    assert len(group.select(batch_size=64).runs) == 1


def test_runs_of_a_lab_are_grouped_by_its_options(tmp_path):
    for seed in range(2):
        for depth in (3, 5):
            write_lab(tmp_path, seed=seed, label="Random walk", depth=depth, factors={"lab.depth": []})
        write_run(tmp_path, seed=seed, experiment="walks", **TINY)
    training, lab = groups_of(tmp_path)
    assert (training.kind, training.name, lab.kind, lab.name) == ("training", "walks", "lab", "walks-walk")
    assert lab.lrs == [] and not lab.regression and not lab.units
    assert [(cell.regime, cell.settings["lab.depth"], len(cell.runs)) for cell in lab.conditions] == [
        ("walk", 3, 2),
        ("walk", 5, 2),
    ]
    assert lab.conditions[0].regime.label == "Random walk"
    assert len(lab.select(**{"lab.depth": 5}).runs) == 2
    assert lab.facts == "Random walk, depth 3 and 5, scale demo"
    assert lab.provenance == f"icsbench 0.1.0, commit {'0' * 40}, torch 2.6, none, threads a run: 1; seeds 0, 1"
    for run in lab.runs:
        file = run.path / "environment.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"torch": None, "threads": None}))
    _, lab = groups_of(tmp_path)
    assert lab.provenance == f"icsbench 0.1.0, commit {'0' * 40}, none; seeds 0, 1"
    with pytest.raises(NotMeasured, match="a lab has no classes"):
        _ = lab.num_classes
    with pytest.raises(NotMeasured, match="a second setting of walk, next to walk-depth3"):
        _ = lab.single_conditions


def test_an_option_of_a_lab_that_is_no_factor_divides_its_runs(tmp_path):
    for depth in (3, 5):
        write_lab(tmp_path, depth=depth)
    assert [group.name for group in groups_of(tmp_path)] == ["walks-depth3", "walks-depth5"]


def test_a_lab_about_a_network_is_grouped_by_that_too(tmp_path):
    for width in (0.125, 0.25):
        model = {"name": "vgg11", "width": width}
        for norm in ("none", "bn"):
            training = {"model": model, "norm": {"name": norm}, "optim": {"lr": 0.1}}
            write_lab(tmp_path / f"{width}{norm}", label="Random walk", training=training)
    narrow, wide = groups_of(tmp_path)
    assert (narrow.name, wide.name) == ("walks-width0.125", "walks-width0.25")
    assert wide.facts == "Random walk, VGG11 at width 1/4, scale demo"
    assert {cell.settings["norm.name"] for cell in wide.conditions} == {"none", "bn"} and wide.lrs == []
