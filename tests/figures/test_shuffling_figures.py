"""The figures of the labs on the statistics of the batch, from rows of small runs."""

import json
from typing import Any

import pytest
from synthetic import write_lab

from icsbench import figures
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.figures.contract import Figure
from icsbench.labs.shuffling import LAB as SHUFFLING
from icsbench.labs.shuffling import ShufflingOptions
from icsbench.members import members
from icsbench.record.reader import load_runs

SMALL: dict[str, Any] = {"samples": 12, "inputs": 3, "batch": 4, "epochs": 20, "networks": 2}
CELLS = [("bn", "reshuffle"), ("bn", "by_class"), ("none", "reshuffle"), ("none", "by_class")]


def group_of(root):
    [group] = group_runs(load_runs(root))
    return group


@pytest.mark.parametrize(
    ("task", "panels", "says"), [("regression", 3, "dashed"), ("classification", 2, "independent")]
)
def test_where_sgd_ends_is_drawn(tmp_path, task, panels, says):
    for seed in range(2):
        path = write_lab(tmp_path, "shuffling", seed, label=SHUFFLING.label, task=task, **SMALL)
        rows = SHUFFLING.rows(ShufflingOptions("shuffling", task=task, **SMALL), seed)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    group = group_of(tmp_path)
    assert [name for name, *_ in figures.plan(group)] == ["shuffling"]
    figure = members("figures", Figure)["shuffling"]
    text = figure.caption(group, figure.numbers(group))
    assert says in text and "n\N{NO-BREAK SPACE}= 4 random problems" in text
    page, rows = figure.page(group)
    assert len(page.axes) == panels and any("theory" in row for row in rows) == (task == "regression")


def write_networks(root, cells):
    kinds = [("running", "random"), ("precise", "random"), ("batch", "random"), ("batch", "by_class")]
    for norm, order in cells:
        for seed in range(2):
            data = {"name": "digits", "order": order}
            training = {"norm": {"name": norm}, "data": data, "batch_size": 32, "steps": 10}
            training["model"] = {"name": "mlp"}
            label, study = "Test accuracy", {"data.order": []}
            folder = root / f"{norm}-{order}"
            path = write_lab(folder, "batch_statistics", seed, label=label, factors=study, training=training)
            environment = json.loads((path / "environment.json").read_text())
            environment["data"] = {"label": "Digits", "num_classes": 10, "fingerprint": "0" * 16}
            environment["model"] = {"label": "MLP", "units": True, "scales": {}}
            (path / "environment.json").write_text(json.dumps(environment))
            rows = [
                {"step": step, "norm": norm, "order": order, "statistics": statistics, "batches": batches}
                | {"size": size, "accuracy": 0.1 + 0.01 * step + 0.001 * seed}
                for step in (1, 5, 10)
                for statistics, batches in (kinds if norm == "bn" else kinds[:1])
                for size in ((32, 8) if step == 10 and statistics == "batch" else (32,))
            ]
            (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_accuracies_by_statistics_are_drawn(tmp_path):
    write_networks(tmp_path, CELLS)
    group = group_of(tmp_path)
    assert [name for name, *_ in figures.plan(group)] == ["batch_statistics"]
    page, rows = members("figures", Figure)["batch_statistics"].page(group)
    assert len(page.axes) == 5
    along = [row for row in rows if "step" in row]
    assert len(along) == 3 * (4 + 4 + 1 + 1) and len(rows) - len(along) == 2 * 2 * 2
    assert along[-1]["mean"] == pytest.approx(0.2005) and along[-1]["n"] == 2


def test_networks_without_statistics_alone_are_not_drawn(tmp_path):
    write_networks(tmp_path, CELLS[2:])
    with pytest.raises(NotMeasured, match="no network has statistics of a batch"):
        members("figures", Figure)["batch_statistics"].page(group_of(tmp_path))
