"""The claims on representations and the figures of their labs, on rows that are made up."""

import csv
import json
from typing import Any

import pytest
from synthetic import write_lab

from icsbench.analysis.claims import claim_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import decide
from icsbench.figures import orthogonal_start, rank
from icsbench.figures.style import house_style, save
from icsbench.record.reader import load_runs

RANK_OPTIONS: dict[str, Any] = {"batch": 4, "isometry_width": 50, "gradient_width": 100}
START_OPTIONS: dict[str, Any] = {"width": 64, "steps": 330, "batch": 64, "rates": [0.01, 0.03]}


def rank_rows(seed, truth):
    """Rows of two networks: as claimed, or with a rank, gap and gradient of which the opposite holds."""
    for network in range(2):
        jitter = 1 + 0.01 * ((3 * seed + 5 * network) % 7)
        of = {"network": network, "layers": "plain", "activation": "linear", "weights": "gaussian", "start": "gaussian"}
        for width in (16, 64):
            for step in (0, 50, 80, 100):
                common = of | {
                    "step": step,
                    "width": width,
                    "orthogonality_gap": 0.4,
                    "isometry_gap": 1.0,
                    "singular": False,
                }
                for norm in ("none", "rescale", "bn"):
                    kept = width ** (0.5 if truth else 0.1) if norm != "none" else 1.0 if truth else 3.0
                    row = common | {"part": "rank", "norm": norm, "soft_rank": kept * jitter, "batch": width}
                    yield row | ({"theory_soft_rank": width**0.5} if norm == "rescale" else {})
                    yield row | {"activation": "relu"}
                    gap = 0.85 if step == 0 or norm == "none" else 1.1 / width ** (0.5 if truth else 0.2)
                    found = {"orthogonality_gap": gap * jitter, "soft_rank": 3.0, "bound_orthogonality_gap": 2.0}
                    yield common | {"part": "orthogonality", "norm": norm, "start": "aligned", "batch": 4} | found
        for step in (0, 50, 100):
            for norm in ("none", "rescale"):
                gap = jitter * (1.0 if norm == "none" or not truth else 0.9**step)
                row = of | {"step": step, "part": "isometry", "norm": norm, "weights": "orthogonal", "batch": 50}
                lost = norm == "none" and step == 100
                yield row | {"width": 50, "isometry_gap": gap, "theory_isometry_gap": gap, "singular": lost}
        for step in (5, 50):
            growth = jitter - 1 + (0 if truth else 0.02 * step)
            row = of | {"step": step, "part": "gradient", "norm": "rescale", "weights": "orthogonal", "width": 100}
            yield row | {"batch": 100, "log_gradient": growth}


def start_rows(seed, truth):
    accuracies = {"glorot": 0.2, "scaled": 0.5, "orthogonal": 0.9 if truth else 0.4, "bn": 0.8}
    for network in range(2):
        for depth in (15, 60):
            for kind, accuracy in accuracies.items():
                for rate in (0.01, 0.03):
                    value = accuracy + 0.01 * ((seed + 3 * network) % 5) - 5 * abs(rate - 0.01)
                    row = {"step": depth, "network": network, "start": kind, "rate": rate, "diverged": False}
                    yield row | {"accuracy": value, "loss": 2.3 * (1 - value), "orthogonality_gap": 0.5}


def records(root, lab, truth):
    rows, options = (rank_rows, RANK_OPTIONS) if lab == "rank" else (start_rows, START_OPTIONS)
    for seed in range(4):
        path = write_lab(root, lab, seed, experiment=lab, label=lab, **options)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(seed, truth)))
    return load_runs(root)


def verdict_on(id, group):
    claim = claim_of(id)
    measured = ((part, part.measure(group)) for part in claim.parts)
    return decide([(claim, [Finding(part, group, found.values, found.left_out) for part, found in measured])])[0]


@pytest.mark.parametrize(("truth", "verdict"), [(True, "supported"), (False, "contradicted")])
@pytest.mark.parametrize("id", ["24", "25", "25b", "26"])
def test_a_claim_can_win_and_lose(tmp_path, id, truth, verdict):
    lab = "orthogonal_start" if id == "25b" else "rank"
    [group] = group_runs(records(tmp_path, lab, truth))
    found = verdict_on(id, group)
    assert (found.verdict, found.n, found.of) == (verdict, 8, "networks"), found.reason


def test_the_numbers_are_those_that_were_planted(tmp_path):
    [group] = group_runs(records(tmp_path / "a", "rank", True))
    means = {one.part.name: one.interval.mean for one in verdict_on("24", group).findings}
    assert means["rank_on_width"] == pytest.approx(0.5)
    assert means["relu_rank_ratio"] == pytest.approx(8)
    [group] = group_runs(records(tmp_path / "b", "orthogonal_start", True))
    found = verdict_on("25b", group).findings[1]
    assert found.interval.mean == pytest.approx(10)  # at the better of two learning rates


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (rank.FIGURE, "from 1 on are lower bounds"),
        (orthogonal_start.FIGURE, "0 of 128 trainings diverged"),
    ],
    ids=["rank", "orthogonal_start"],
)
def test_figures(tmp_path, figure, said):
    [group] = group_runs(records(tmp_path, figure.name, True))
    assert figure.applies(group)
    with house_style():
        page, table = figure.page(group)
        save(page, table, tmp_path / "figure")
    assert said in figure.caption(group, figure.numbers(group))
    with open(tmp_path / "figure.csv") as file:
        written = list(csv.DictReader(file))
    assert {"quantity", "mean", "low", "high", "n"} <= set(written[0]) and {row["n"] for row in written} >= {"8"}


def test_a_network_is_drawn_at_its_best_learning_rate(tmp_path):
    [group] = group_runs(records(tmp_path, "orthogonal_start", True))
    bn = next(
        one for one in orthogonal_start.FIGURE.numbers(group) if one.of["start"] == "bn" and one.y_name == "accuracy"
    )
    assert bn.mean.tolist() == pytest.approx([0.815, 0.815], abs=0.01) and bn.n == 8
