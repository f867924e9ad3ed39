"""The effect of each part of a claim against the budget."""

import csv
import json

import numpy as np
import pytest
import yaml
from planted import finish, write
from synthetic import write_lab

from icsbench import figures
from icsbench.analysis.budgets import budgets, over_budget
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.figures.contract import Figure
from icsbench.members import member
from icsbench.record.reader import load_runs


def study(root, seeds=6, **noisy):
    """BN trains to 60 % at step 200, noisy BN to 58 %, and none never."""
    for seed in range(seeds):
        write(root, "three_regimes", "bn", seed, train=0.6)
        write(root, "three_regimes", "noisy_bn", seed, train=0.58, **noisy)
        write(root, "three_regimes", "none", seed, train=0.1)
    return root


def group_of(root):
    (group,) = group_runs(load_runs(root))
    return group


def planned(root):
    return [name for name, *_ in figures.plan(group_of(root))]


def evaluate(root, steps):
    """Have all runs make an evaluation at these steps."""
    for path in sorted(root.glob("*/*/seed-*")):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        rows += [{"step": step, "test/accuracy": 0.5} for step in steps]
        (path / "metrics.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in sorted(rows, key=lambda r: r["step"]))
        )


def test_each_budget_has_the_effect_of_the_records_cut_there(tmp_path):
    found = {one.part.name: one for one in over_budget(group_of(study(tmp_path)))}
    one = found["train_noisy_minus_bn"]
    assert one.steps.tolist() == [10, 20, 50, 100, 200, 500, 1000] and one.n.tolist() == [6] * 7
    # At 200 the last tenth is the rows of steps 190, at chance, and 200: (10 + 58) / 2 - (10 + 60) / 2.
    assert one.mean == pytest.approx([0, 0, 0, 0, -1, -2, -2])
    assert not any(name.startswith("test_") for name in found)  # test accuracy is measured at the end alone


def test_budgets_are_evaluations_that_all_runs_share(tmp_path):
    group = group_of(study(tmp_path / "rows"))
    assert budgets(group) == [10, 20, 50, 100, 200, 500, 1000]
    evaluate(study(tmp_path / "few"), [0, 300, 700])
    assert budgets(group_of(tmp_path / "few")) == [300, 700, 1000]
    evaluate(study(tmp_path / "round"), range(0, 1001, 50))
    assert budgets(group_of(tmp_path / "round")) == [50, 100, 200, 500, 1000]
    evaluate(study(tmp_path / "spread"), range(30, 1001, 70))
    spread = budgets(group_of(tmp_path / "spread"))
    assert len(spread) <= 8 and spread[0] == 30 and spread[-1] == 1000 and set(spread[:-1]) <= {*range(30, 1001, 70)}
    assert np.diff(np.log(spread)).min() > 0.2


def test_the_figure_is_drawn_with_its_rows(tmp_path):
    group = group_of(study(tmp_path))
    with figures.house_style():
        page, rows = member("figures", Figure, "budget").page(group)
        figures.save(page, rows, tmp_path / "budget")
    said = " ".join(" ".join(text.get_text() for text in page.texts).split())
    assert "all runs cut at 10, 20, 50, 100, 200, 500 steps, and whole" in said and "n = 6 values" in said
    titles = [axes.texts[0].get_text() for axes in page.axes]
    assert "4: train noisy minus bn" in titles and len(titles) == len({row["measure"] for row in rows})
    with open(tmp_path / "budget.csv", newline="") as file:
        kept = [row for row in csv.DictReader(file) if row["measure"] == "train_noisy_minus_bn"]
    assert [row["steps"] for row in kept] == ["10", "20", "50", "100", "200", "500", "1000"]
    assert kept[-1]["claim"] == "4" and float(kept[-1]["mean"]) == pytest.approx(-2) and kept[-1]["region_low"] == "-2"


def test_it_is_planned_for_enough_seeds_of_a_claims_study_that_can_be_cut(tmp_path):
    assert "budget" in planned(study(tmp_path / "six"))
    assert "budget" not in planned(study(tmp_path / "five", seeds=5))
    for seed in range(6):
        write(tmp_path / "unclaimed", "single", "bn", seed)
        write_lab(tmp_path / "lab", seed=seed)
    assert "budget" not in planned(tmp_path / "unclaimed") and "budget" not in planned(tmp_path / "lab")
    for path in study(tmp_path / "cosine").glob("*/*/seed-*"):
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["optim"]["schedule"] = "cosine"
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        finish(path, json.loads((path / "summary.json").read_text()))
    assert "budget" not in planned(tmp_path / "cosine")


def test_without_a_claim_at_two_budgets_it_says_so(tmp_path):
    for seed in range(6):
        write(tmp_path, "three_regimes", "l1", seed)
    with pytest.raises(NotMeasured, match="three_regimes has no claim that can be measured at two budgets"):
        over_budget(group_of(tmp_path))
