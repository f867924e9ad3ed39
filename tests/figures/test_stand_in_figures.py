"""The figures of warm-up, batch sharpness and the growing rate: their numbers, and whether their texts stay apart."""

import json

import numpy as np
import pytest
import yaml
from layout import assert_texts_apart
from synthetic import write_lab, write_run

from icsbench import members
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.figures.contract import Figure
from icsbench.figures.style import house_style
from icsbench.record.reader import load_runs

RATES = (0.05, 0.2, 0.8)


def record(root, norm, seed, lr, *, rows=(), warmup=0, shape="linear", **options):
    small = {
        "steps": 100,
        "eval_every": 100,
        "probes": False,
        "factors": {"optim.warmup": [], "optim.warmup_shape": []},
    }
    path = write_run(root / f"{warmup}-{shape}", norm, seed, lr=lr, experiment="study", **small | options)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["optim"] |= {"warmup": warmup, "warmup_shape": shape}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with open(path / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def group_of(root):
    [group] = group_runs(load_runs(root))
    return group


def drawn(name, group):
    figure = members.member("figures", Figure, name)
    assert figure.applies(group)
    with house_style():
        page, numbers = figure.page(group)
        assert_texts_apart(page)
    return numbers, " ".join(text.get_text().replace("\n", " ") for text in page.texts)


def test_the_warm_up_has_a_panel_for_each_start(tmp_path):
    for warmup, shape in ((0, "linear"), (20, "linear"), (20, "held")):
        for norm in ("none", "bn"):
            for lr in RATES:
                for seed in range(3):
                    fails = norm == "none" and lr > 0.3
                    lost = {"diverged_at": 50, "outcome": "diverged"} if fails else {"final": 0.6}
                    record(tmp_path, norm, seed, lr, warmup=warmup, shape=shape, **lost)
    numbers, caption = drawn("warmup", group_of(tmp_path))
    curves = [row for row in numbers if row["quantity"] == "train/accuracy"]
    assert len(curves) == 3 * 2 * 3 and {row["start"] for row in numbers} == {"at once", "linear", "held"}
    lost = [row["mean"] for row in curves if (row["regime"], row["lr"]) == ("none", 0.8)]
    assert lost == pytest.approx([0.1] * 3)
    largest = {(row["start"], row["regime"]): (row["mean"], row["n"]) for row in numbers if row not in curves}
    for start in ("at once", "linear", "held"):
        assert largest[start, "none"] == (pytest.approx(0.2), 3) and largest[start, "bn"] == (pytest.approx(0.8), 3)
    assert "n\N{NO-BREAK SPACE}= 3 seeds" in caption and "ends at 2 times chance or more" in caption


def test_a_network_that_trains_at_no_rate_has_no_largest_one(tmp_path):
    for norm, final in (("none", 0.1), ("bn", 0.6)):
        for lr in RATES:
            for seed in range(3):
                record(tmp_path, norm, seed, lr, warmup=20, final=final)
    numbers, caption = drawn("warmup", group_of(tmp_path))
    assert "Left to right: a rate that rises linearly to it. Mean" in caption
    [none, bn] = [row for row in numbers if row["quantity"] == "largest_lr"]
    assert none["regime"] == "none" and np.isnan(none["mean"]) and none["n"] == 0
    assert (bn["mean"], bn["n"], bn["lr"]) == (pytest.approx(0.8), 3, 0.8)


def test_a_grid_without_a_warm_up_has_no_such_figure(tmp_path):
    for lr in RATES:
        record(tmp_path, "bn", 0, lr)
    assert not members.member("figures", Figure, "warmup").applies(group_of(tmp_path))


def test_warm_ups_of_several_lengths_are_not_drawn(tmp_path):
    for warmup in (10, 20):
        for lr in RATES:
            record(tmp_path, "bn", 0, lr, warmup=warmup)
    with pytest.raises(NotMeasured, match="study has warm-ups of several lengths"):
        members.member("figures", Figure, "warmup").numbers(group_of(tmp_path))


def test_batch_sharpness_is_drawn_beside_the_edge(tmp_path):
    for norm in ("none", "bn"):
        for lr in RATES:
            for seed in range(3):
                levels = {step: 2 / lr * (0.5 + step / 200) for step in range(0, 101, 20)}
                rows = [{"step": step, "batch_sharpness/mean": level} for step, level in levels.items()]
                record(tmp_path, norm, seed, lr, rows=rows)
    numbers, _ = drawn("batch-sharpness", group_of(tmp_path))
    assert len(numbers) == 2 * 3 * 6
    for row in numbers:
        assert row["mean"] == pytest.approx(0.5 + row["step"] / 200)


def test_the_twins_are_drawn(tmp_path):
    for seed in range(3):
        path, rows = write_lab(tmp_path, "exponential_rate", seed, experiment="exponential_rate"), []
        for step in range(0, 101, 20):
            for variant, size in {"bn": 1e-13, "bn_eps": 1e-2, "none": 1.0, "bn_uncorrected": 0.05}.items():
                row = {"step": step, "variant": variant, "loss_decay": 2 * 0.97**step, "loss_growth": 2 * 0.98**step}
                row |= {"difference": size * (step > 0), "length_ratio": 1.01**step, "theory_length_ratio": 1.01**step}
                rows.append(row)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    numbers, caption = drawn("exponential-rate", group_of(tmp_path))
    assert len(numbers) == 4 * 4 * 6
    means = {(row["variant"], row["quantity"], row["step"]): row["mean"] for row in numbers}
    assert means["bn", "difference", 100] == pytest.approx(1e-13) and np.isnan(means["bn", "difference", 0])
    assert "dotted" in caption
