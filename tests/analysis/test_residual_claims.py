"""Claims 18, 18b, 18c, 34 and 34b on planted rows: each can be supported, and each part can lose."""

import json
import math

import numpy as np
import pytest
from synthetic import write_lab

from icsbench.analysis.claims import claim_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.analysis.verdicts import decide
from icsbench.record.reader import load_runs

BLOCKS = [*range(1, 11), *range(15, 101, 5)]
DEPTHS = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 80]
GROWS = {  # ln squared gradient, second moment, branch over skip, of block n
    "plain_bn": (lambda n: 0.39 * (100 - n), lambda n: 1.0, None),
    "residual": (lambda n: np.log(2) * (100 - n), lambda n: 2.0**n, lambda n: 0.9),
    "residual_bn": (lambda n: 1.45 * np.log(100 / n), lambda n: 1.0 * n, lambda n: 1 / n),
}
SHATTERS = {
    "plain": lambda n: 0.7**n,
    "plain_bn_held": lambda n: 0.5**n,
    "residual": lambda n: 0.8**n,
    "residual_bn_held": lambda n: 0.9 * n**-0.5,
}


def residual_rows(grows, random):
    for network in range(3):
        for kind, (gradient, moment, ratio) in grows.items():
            for block in BLOCKS:
                noise = 1 + 0.01 * random.standard_normal()
                row = {"step": block, "network": network, "kind": kind, "second_moment": moment(block) * noise}
                row["log_gradient"] = gradient(block) + 0.02 * random.standard_normal()
                yield row if ratio is None else row | {"branch_ratio": ratio(block) * noise}


def shattered_rows(shatters, random):
    for network in range(3):
        for condition, value in shatters.items():
            for depth in DEPTHS:
                size = value(depth) * (1 + 0.01 * random.standard_normal())
                yield {"step": depth, "network": network, "condition": condition, "correlation": size}


def group_of(root, lab, make, truth):
    for seed in range(6):
        path = write_lab(root, lab, seed, experiment=lab)
        rows = make(truth, np.random.default_rng(seed))
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [group] = group_runs(load_runs(root))
    return group


def verdict(claim_id, group):
    claim = claim_of(claim_id)
    found = [part.measure(group) for part in claim.parts]
    findings = [Finding(part, group, one.values, one.left_out) for part, one in zip(claim.parts, found, strict=True)]
    return decide([(claim, findings)])[0]


@pytest.mark.parametrize("claim", ["18", "18b", "18c"])
def test_what_the_papers_say_of_residual_networks_is_supported_where_it_holds(tmp_path, claim):
    found = verdict(claim, group_of(tmp_path, "residual", residual_rows, GROWS))
    assert (found.verdict, found.of, found.n) == ("supported", "networks", 18)


@pytest.mark.parametrize(
    ("claim", "kind", "gradient", "moment", "ratio"),
    [
        ("18", "residual_bn", lambda n: 0.05 * (100 - n), lambda n: 1.0 * n, lambda n: 1 / n),
        ("18", "residual_bn", lambda n: 2.5 * np.log(100 / n), lambda n: 1.0 * n, lambda n: 1 / n),
        ("18", "plain_bn", lambda n: 3 * np.log(100 / n), lambda n: 1.0, None),
        ("18b", "residual_bn", lambda n: -n, lambda n: 1.0 * n, lambda n: n**-0.5),
        ("18b", "residual", lambda n: -n, lambda n: 2.0**n, lambda n: 1 / n),
        ("18c", "residual", lambda n: -0.7 * n, lambda n: 1.3**n, lambda n: 1.0),
        ("18c", "residual", lambda n: -0.1 * n, lambda n: 2.0**n, lambda n: 1.0),
        ("18c", "residual_bn", lambda n: -n, lambda n: 0.5 * n, lambda n: 1.0),
        ("18c", "residual_bn", lambda n: -n, lambda n: 1.02**n, lambda n: 1.0),
    ],
)
def test_each_part_on_residual_networks_can_lose(tmp_path, claim, kind, gradient, moment, ratio):
    group = group_of(tmp_path, "residual", residual_rows, GROWS | {kind: (gradient, moment, ratio)})
    assert verdict(claim, group).verdict == "contradicted"


@pytest.mark.parametrize("claim", ["34", "34b"])
def test_shattering_is_supported_where_it_holds(tmp_path, claim):
    found = verdict(claim, group_of(tmp_path, "shattered", shattered_rows, SHATTERS))
    assert (found.verdict, found.of, found.n) == ("supported", "networks", 18)


@pytest.mark.parametrize(
    ("claim", "condition", "value"),
    [
        ("34", "plain", lambda n: 0.5 * n**-1.5),
        ("34", "plain_bn_held", lambda n: 0.5 * n**-1.5),
        ("34", "residual", lambda n: 0.7**n),
        ("34", "residual_bn_held", lambda n: 0.5**n),
        ("34b", "residual_bn_held", lambda n: 0.97**n),
        ("34b", "residual_bn_held", lambda n: n**-0.73),
    ],
)
def test_each_part_on_shattering_can_lose(tmp_path, claim, condition, value):
    group = group_of(tmp_path, "shattered", shattered_rows, SHATTERS | {condition: value})
    assert verdict(claim, group).verdict == "contradicted"


def test_a_mean_that_is_not_positive_has_no_logarithm(tmp_path):
    group = group_of(tmp_path, "shattered", shattered_rows, SHATTERS | {"plain": lambda n: 0.5 - 0.1 * n})
    for part in (claim_of("34").parts[0], claim_of("34").parts[2]):
        found = part.measure(group)
        assert found.values == {} and set(found.left_out.values()) == {"a mean correlation is not positive"}


def test_the_jackknife_is_the_textbooks(tmp_path):
    group = group_of(tmp_path, "shattered", shattered_rows, SHATTERS)
    found = claim_of("34").parts[2].measure(group).values
    runs = lab_rows(group)
    of = {
        condition: np.concatenate([run.where(condition=condition, step=20)["correlation"] for run in runs])
        for condition in ("residual", "plain")
    }
    assert len(found) == 18
    for network in range(18):
        whole, rest = (
            math.log(one["residual"].mean() / one["plain"].mean())
            for one in (of, {name: np.delete(values, network) for name, values in of.items()})
        )
        assert math.log(found[network]) == pytest.approx(18 * whole - 17 * rest)


def test_a_study_that_is_too_shallow_measures_nothing(tmp_path):
    group = group_of(tmp_path, "residual", lambda *_: [{"step": 1, "network": 0, "kind": "residual_bn"}], None)
    with pytest.raises(NotMeasured):
        claim_of("18").parts[0].measure(group)
