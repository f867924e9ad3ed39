"""Claims 42, 42b, 42c, 43 and 43b on planted rows: each can be supported, and each part can lose."""

import json

import numpy as np
import pytest
from synthetic import write_lab

from icsbench.analysis.claims import claim_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.verdicts import decide
from icsbench.record.reader import load_runs

LINEAR = {  # of each norm and order: from_reshuffled, its theory, from_full, angle, loss at 10 and at 100 epochs
    ("bn", "reshuffle"): (0.0, 0.0, 0.2, 6.0, 0.3, 0.3),
    ("bn", "shuffle_once"): (0.22, 0.22, 0.3, 15.0, 0.5, 1.0),
    ("bn", "fixed_batches"): (0.22, 0.22, 0.3, 15.0, 0.5, 1.0),
    ("none", "reshuffle"): (0.0, 0.0, 0.01, 0.1, 0.1, 0.05),
    ("none", "shuffle_once"): (0.01, 0.0, 0.01, 0.1, 0.1, 0.05),
    ("none", "fixed_batches"): (0.01, 0.0, 0.01, 0.1, 0.1, 0.05),
}
ACCURACY = {  # of each norm and order: running, precise, random batch, batch by class; running, precise early
    ("bn", "reshuffle"): (0.60, 0.60, 0.60, 0.3, 0.2, 0.3),
    ("bn", "by_class"): (0.15, 0.2, 0.2, 0.9, 0.1, 0.1),
    ("none", "reshuffle"): (0.5, None, None, None, 0.2, None),
    ("none", "by_class"): (0.48, None, None, None, 0.2, None),
}
KINDS = (("running", "random"), ("precise", "random"), ("batch", "random"), ("batch", "by_class"))


def linear_rows(truth, random):
    for network in range(3):
        for (norm, order), (apart, theory, full, angle, *losses) in truth.items():
            for step, loss in zip((10, 100), losses, strict=True):
                noise = 1 + 0.02 * random.standard_normal()
                row = {"step": step, "norm": norm, "order": order, "network": network, "loss": loss * noise}
                row |= {"from_reshuffled": apart * noise, "theory_from_reshuffled": theory}
                yield row | {"from_full": full * noise, "angle": angle * noise}


def linear_group(root, truth, task="regression"):
    name = "shuffling" if task == "regression" else "shuffling_classes"
    for seed in range(6):
        path = write_lab(root, "shuffling", seed, experiment=name, task=task)
        found = linear_rows(truth, np.random.default_rng(seed))
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    [group] = group_runs(load_runs(root))
    return group


def network_rows(norm, order, numbers, random):
    *at_end, running, precise = numbers
    early = (running, precise, running, running)
    for step, accuracies in ((1, early), (10, early), (100, at_end)):
        for (statistics, batches), accuracy in zip(KINDS, accuracies, strict=True):
            if accuracy is not None and (norm == "bn" or statistics == "running"):
                about = {"step": step, "norm": norm, "order": order, "statistics": statistics, "batches": batches}
                yield {**about, "size": 64, "accuracy": accuracy + 0.002 * random.standard_normal()}


def network_group(root, truth):
    for (norm, order), numbers in truth.items():
        for seed in range(6):
            training = {"norm": {"name": norm}, "data": {"name": "digits", "order": order}, "batch_size": 64}
            path = write_lab(
                root / f"{norm}-{order}",
                "batch_statistics",
                seed,
                experiment="batch_statistics",
                factors={"data.order": []},
                training=training | {"steps": 100},
            )
            found = network_rows(norm, order, numbers, np.random.default_rng([seed, len(norm), len(order)]))
            (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    [group] = group_runs(load_runs(root))
    return group


def verdict(claim_id, group):
    claim = claim_of(claim_id)
    found = [part.measure(group) for part in claim.parts]
    findings = [Finding(part, group, one.values, one.left_out) for part, one in zip(claim.parts, found, strict=True)]
    return decide([(claim, findings)])[0]


TASKS = {"42": "regression", "42b": "regression", "42c": "classification"}


@pytest.mark.parametrize("claim", TASKS)
def test_what_the_paper_says_of_shuffling_is_supported_where_it_holds(tmp_path, claim):
    found = verdict(claim, linear_group(tmp_path, LINEAR, TASKS[claim]))
    assert (found.verdict, found.of, found.n) == ("supported", "networks", 18)


@pytest.mark.parametrize(
    ("claim", "cell", "numbers"),
    [
        ("42", ("bn", "shuffle_once"), (0.05, 0.22, 0.3, 15.0, 0.5, 1.0)),
        ("42", ("bn", "fixed_batches"), (0.02, 0.22, 0.3, 15.0, 0.5, 1.0)),
        ("42", ("none", "shuffle_once"), (0.2, 0.0, 0.01, 0.1, 0.1, 0.05)),
        ("42b", ("bn", "reshuffle"), (0.0, 0.0, 0.2, 14.0, 0.3, 0.3)),
        ("42b", ("bn", "reshuffle"), (0.0, 0.0, 0.3, 6.0, 0.3, 0.3)),
        ("42c", ("bn", "shuffle_once"), (0.22, 0.22, 0.3, 15.0, 0.5, 0.5)),
        ("42c", ("bn", "reshuffle"), (0.0, 0.0, 0.2, 6.0, 0.3, 0.6)),
        ("42c", ("none", "shuffle_once"), (0.01, 0.0, 0.01, 0.1, 0.1, 0.1)),
    ],
)
def test_each_part_on_shuffling_can_lose(tmp_path, claim, cell, numbers):
    group = linear_group(tmp_path, LINEAR | {cell: numbers}, TASKS[claim])
    assert verdict(claim, group).verdict == "contradicted"


def test_a_study_without_early_epochs_tells_no_growth(tmp_path):
    group = linear_group(tmp_path, LINEAR, "classification")
    for path in tmp_path.rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] == 100))
    [group] = group_runs(load_runs(tmp_path))
    with pytest.raises(NotMeasured, match="no row within the first tenth of its epochs"):
        claim_of("42c").parts[0].measure(group)


def test_a_distance_of_0_has_no_ratio(tmp_path):
    """With one input the angle between two minima is 0 or 180 degrees."""
    nothing = {("bn", "reshuffle"): (0.0, 0.0, 0.2, 0.0, 0.3, 0.3), ("bn", "shuffle_once"): (0.2, 0.0, 0.3, 0, 1, 1)}
    group = linear_group(tmp_path, LINEAR | nothing)
    for claim in ("42", "42b"):
        measured = claim_of(claim).parts[0].measure(group)
        assert not measured.values and len(measured.left_out) == 18


def test_an_accuracy_of_0_has_no_ratio(tmp_path):
    group = network_group(tmp_path, ACCURACY)
    for path in tmp_path.rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | {"accuracy": 0.0 if row["batches"] == "by_class" else row["accuracy"]} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [group] = group_runs(load_runs(tmp_path))
    measured = claim_of("43").parts[0].measure(group)
    assert not measured.values and len(measured.left_out) == 6


@pytest.mark.parametrize("claim", ["43", "43b"])
def test_what_the_paper_says_of_statistics_is_supported_where_it_holds(tmp_path, claim):
    found = verdict(claim, network_group(tmp_path, ACCURACY))
    assert (found.verdict, found.of, found.n) == ("supported", "networks", 6)


@pytest.mark.parametrize(
    ("claim", "cell", "numbers"),
    [
        ("43", ("bn", "by_class"), (0.15, 0.2, 0.88, 0.9, 0.1, 0.1)),
        ("43", ("bn", "by_class"), (0.88, 0.2, 0.2, 0.9, 0.1, 0.1)),
        ("43", ("bn", "by_class"), (0.15, 0.58, 0.2, 0.9, 0.1, 0.1)),
        ("43", ("none", "by_class"), (0.15, None, None, None, 0.1, None)),
        ("43b", ("bn", "reshuffle"), (0.60, 0.60, 0.60, 0.3, 0.2, 0.2)),
        ("43b", ("bn", "reshuffle"), (0.50, 0.60, 0.60, 0.3, 0.2, 0.3)),
    ],
)
def test_each_part_on_statistics_can_lose(tmp_path, claim, cell, numbers):
    assert verdict(claim, network_group(tmp_path, ACCURACY | {cell: numbers})).verdict == "contradicted"


def test_the_measures_are_what_they_say(tmp_path):
    group = network_group(tmp_path, ACCURACY)
    means = {
        part.name: np.mean([*part.measure(group).values.values()])
        for claim in ("43", "43b")
        for part in claim_of(claim).parts
    }
    assert means["random_over_by_class"] == pytest.approx(0.2 / 0.9, abs=0.01)
    assert means["running_over_by_class"] == pytest.approx(0.15 / 0.9, abs=0.01)
    assert means["by_class_over_random_bn"] == pytest.approx(0.2 / 0.6, abs=0.01)
    assert means["kept_bn_over_none"] == pytest.approx(0.2 / 0.6 / (0.48 / 0.5), abs=0.01)
    assert means["precise_minus_running_early"] == pytest.approx(10, abs=0.5)
    assert means["precise_minus_running_end"] == pytest.approx(0, abs=0.5)
