"""Claims 39 to 39d, and 41, on planted records: each can be supported, and each part can lose."""

import json

import numpy as np
import pytest
import yaml
from planted import write
from synthetic import write_lab, write_run

from icsbench.analysis.claims import claim_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.warmup import starts
from icsbench.analysis.verdicts import decide
from icsbench.record.reader import load_runs

RATES = (0.1, 0.2, 0.4, 0.8)
SHARP = (0.05, 0.1, 0.2)


def record(root, study, norm, seed, lr, *, trains=True, rows=(), warmup=0, shape="linear"):
    """A short run of a study, with further rows and its warm-up."""
    final = 0.6 if trains else 0.1
    small = {
        "steps": 100,
        "eval_every": 100,
        "probes": False,
        "factors": {"optim.warmup": [], "optim.warmup_shape": []},
    }
    path = write_run(root / f"{warmup}-{shape}", norm, seed, lr=lr, experiment=study, final=final, **small)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["optim"] |= {"warmup": warmup, "warmup_shape": shape}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with open(path / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def warmup(root, study, largest):
    """Runs of a study in which each (norm, start) trains up to its rate; ``largest`` is a rate for each seed."""
    for (norm, start), rate in largest.items():
        for seed in range(6):
            for lr in RATES:
                length, shape = (0 if start == "at once" else 20), ("held" if start == "held" else "linear")
                record(root, study, norm, seed, lr, trains=lr <= rate[seed], warmup=length, shape=shape)


def group_of(root, study):
    [group] = [group for group in group_runs(load_runs(root)) if group.runs[0].setting("experiment") == study]
    return group


def verdict(claim_id, root):
    claim = claim_of(claim_id)
    groups = [group_of(root, part.studies[0]) for part in claim.parts]
    found = [part.measure(group) for part, group in zip(claim.parts, groups, strict=True)]
    findings = [
        Finding(part, group, one.values, one.left_out)
        for part, group, one in zip(claim.parts, groups, found, strict=True)
    ]
    return decide([(claim, findings)])[0].verdict


BN = (0.8, 0.8, 0.4, 0.8, 0.8, 0.4)
LARGE = ((0.1, 0.1, 0.1, 0.1, 0.2, 0.1), (0.8,) * 6)
BETWEEN = ((0.1,) * 6, (0.2, 0.2, 0.2, 0.4, 0.2, 0.2))
SMALL = ((0.2, 0.4, 0.2, 0.2, 0.2, 0.2), (0.1, 0.2, 0.2, 0.2, 0.2, 0.1))


def of(none, warmed):
    """The largest rates of each seed."""
    return {("none", "at once"): none, ("none", "linear"): warmed, ("bn", "at once"): BN}


@pytest.mark.parametrize(
    ("residual", "plain", "as_with_bn", "larger"),
    [
        (LARGE, LARGE, "supported", "supported"),
        (BETWEEN, BETWEEN, "contradicted", "supported"),
        (LARGE, SMALL, "contradicted", "contradicted"),  # it has to help both networks
    ],
)
def test_warm_up_is_judged_by_the_largest_rates(tmp_path, residual, plain, as_with_bn, larger):
    for study, rates in (("warmup", residual), ("warmup_plain", plain)):
        warmup(tmp_path, study, of(*rates))
    assert (verdict("39", tmp_path), verdict("39d", tmp_path)) == (as_with_bn, larger)


def test_without_a_warm_up_nothing_is_measured(tmp_path):
    warmup(tmp_path, "warmup", {("none", "at once"): BN, ("bn", "at once"): BN})
    group = group_of(tmp_path, "warmup")
    assert [*starts(group)] == ["at once"]
    with pytest.raises(NotMeasured, match="no runs with and without a linear warm-up"):
        claim_of("39").parts[0].measure(group)


def sharpness(root, level):
    for norm in ("none", "bn"):
        for seed in range(6):
            for lr in SHARP:
                random = np.random.default_rng([seed, int(1000 * lr)])
                late = [50, 60, 70, 80, 90, 100]
                values = 2 / lr * level(norm, lr) * np.exp(0.02 * random.standard_normal(len(late)))
                rows = [{"step": 0, "batch_sharpness/mean": 0.3}]
                rows += [{"step": s, "batch_sharpness/mean": v} for s, v in zip(late, values.tolist(), strict=True)]
                record(root, "batch_sharpness", norm, seed, lr, rows=rows)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (lambda norm, lr: 1.0, "supported"),
        (lambda norm, lr: 0.5 if norm == "bn" else 1.0, "contradicted"),
        (lambda norm, lr: 1.6 if norm == "none" else 1.0, "contradicted"),
        (lambda norm, lr: lr / 0.1, "contradicted"),  # the same sharpness at every rate, right on average
    ],
)
def test_batch_sharpness_is_judged_by_level_and_slope(tmp_path, level, expected):
    sharpness(tmp_path, level)
    assert verdict("39b", tmp_path) == expected


def twins(root, differences):
    for seed in range(6):
        path = write_lab(root, "exponential_rate", seed, experiment="exponential_rate")
        rows = [
            {"step": step, "variant": variant, "difference": size * (1 + 0.01 * seed) * (step > 0)}
            for variant, size in differences.items()
            for step in (0, 10)
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("bn", "none", "expected"),
    [(1e-13, 0.9, "supported"), (1e-3, 0.9, "contradicted"), (1e-13, 1e-6, "contradicted")],
)
def test_the_twins_are_judged_by_their_functions_and_the_control(tmp_path, bn, none, expected):
    twins(tmp_path, {"bn": bn, "none": none})
    assert verdict("39c", tmp_path) == expected


def test_each_trained_part_counts_at_the_rate_at_which_it_trained_best(tmp_path):
    """The rate is chosen by training accuracy; the better tests at the other rate do not count."""
    planted = {
        ("affine", 0.1): {"train": 0.2, "test": 0.9},
        ("affine", 1.0): {"train": 0.3, "test": 0.25},
        ("random", 0.1): {"train": 0.25, "test": 0.2},
        ("random", 1.0): {"train": 0.15, "test": 0.8},
    }
    for (trains, lr), values in planted.items():
        for seed in range(3):
            write(tmp_path, "affine_only", "bn", seed, lr=lr, trains=trains, **values)
    found = claim_of("41").parts[0].measure(group_of(tmp_path, "affine_only"))
    assert found.values == {seed: pytest.approx(0.25 / 0.2) for seed in range(3)}
