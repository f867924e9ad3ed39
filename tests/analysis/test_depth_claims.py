"""The claims on explosion, on rows that say yes and rows that say no."""

import json
import math

import pytest
from planted import finish
from synthetic import write_lab

from icsbench.analysis.claims import claim_of
from icsbench.analysis.verdicts import judge
from icsbench.record.reader import load_runs

SETTINGS = [
    *(("relu", "bn", batch, 1.5) for batch in (8, 32, 128)),
    *((activation, "bn", batch, 1.2) for activation in ("tanh", "gelu") for batch in (8, 128)),
    *(("relu", "none-signals", 4, 1.0), ("tanh", "none-gradients", 4, 1.0)),
]


def explosion(network, seed, factors):
    wobble = 1 + 0.002 * ((3 * network + seed) % 5 - 2)
    for activation, norm, batch, theory in SETTINGS:
        rate = theory * wobble * factors.get((activation, norm, batch), 1)
        setting = {"activation": activation, "norm": norm, "batch": batch}
        yield {"step": 30, "network": network, **setting, "rate": rate, "theory_rate": theory}


def first_steps(network, seed, planted):
    wobble = 1 + 0.01 * ((3 * network + seed) % 5 - 2)
    for depth in (20, 50):
        for norm in ("bn", "none"):
            for lr in (0.01, 0.1):
                for step in (0, 1):
                    changed = step and (depth, lr) == (50, 0.1)
                    span = 18.0 * (planted["range"] if changed and norm == "bn" else 1) * wobble
                    growth = planted[norm] if changed else 1.0
                    setting = {"depth": depth, "norm": norm, "lr": lr}
                    row = {"step": step, "network": network, **setting, "gradient_range": span}
                    yield row | {"weight_growth": growth * wobble**step}


def verdict(root, lab, rows, planted, claim):
    for seed in range(3):
        path = write_lab(root, lab, seed, experiment=lab)
        lines = [json.dumps(row) for network in range(4) for row in rows(network, seed, planted)]
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        finish(path, {"status": "complete", "outcome": "complete", "rows": len(lines)})
    [found] = judge(load_runs(root), [claim_of(claim)])
    return found


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({}, "supported"),
        ({("relu", "bn", 128): 0.95}, "contradicted"),
        ({("tanh", "none-gradients", 4): 1.1}, "contradicted"),
        ({("gelu", "bn", 8): 0.97}, "inconclusive"),
    ],
)
def test_gradients_explode_at_the_rate_of_theory(tmp_path, factors, expected):
    found = verdict(tmp_path, "explosion", explosion, factors, "16")
    assert (found.verdict, found.n, found.of) == (expected, 12, "networks")
    if expected == "supported":
        assert next(iter(found.findings[0].values.values())) == pytest.approx(1 - 0.004)


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"range": 0.2, "bn": 50.0, "none": 1.0}, "supported"),
        ({"range": 0.7, "bn": 50.0, "none": 1.0}, "contradicted"),
        ({"range": 0.2, "bn": 1.02, "none": 1.0}, "contradicted"),
        ({"range": 0.2, "bn": 50.0, "none": 2.0}, "contradicted"),
    ],
)
def test_the_explosion_is_over_after_a_step(tmp_path, planted, expected):
    found = verdict(tmp_path, "first_steps", first_steps, planted, "16b")
    assert (found.verdict, found.n) == (expected, 12)
    assert found.findings[0].interval.mean == pytest.approx(planted["range"], rel=1e-6)


def test_a_network_that_diverged_has_no_value(tmp_path):
    def rows(network, seed, planted):
        kept = first_steps(network, seed, planted)
        return (row for row in kept if not (network == 2 and row["step"] == 1 and row["norm"] == "none"))

    found = verdict(tmp_path, "first_steps", rows, {"range": 0.2, "bn": 50.0, "none": 1.0}, "16b")
    assert [len(finding.values) for finding in found.findings] == [12, 12, 9]
    assert all(math.isfinite(value) for value in found.findings[2].values.values())
