"""Rows of random networks: chosen, split, counted, averaged."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from planted import explain
from synthetic import write_lab

from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.analysis.verdicts import decide
from icsbench.figures.series import number_of, series
from icsbench.record.reader import load_runs
from icsbench.report.html import write_report
from icsbench.report.markdown import claims_as_markdown


def rows_of_seed(seed):
    for network in range(4):
        for norm, factor in (("none", 1.0), ("bn", 2.0)):
            for depth in (1, 2, 3):
                yield {
                    "step": depth,
                    "network": network,
                    "norm": norm,
                    "size": factor**depth * (1 + 0.01 * (4 * seed + network)),
                    "theory_size": factor**depth,
                }


@pytest.fixture
def group(tmp_path):
    for seed in range(2):
        path = write_lab(tmp_path, seed=seed)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_seed(seed)))
    [group] = group_runs(load_runs(tmp_path))
    return group


def slope(rows):
    rows = rows.where(norm="bn")
    return float(np.polyfit(rows["step"], np.log(rows["size"]), 1)[0])


def test_rows_are_chosen_and_split(group):
    run = lab_rows(group)[0]
    assert run.where(norm="bn", network=2)["size"].tolist() == pytest.approx([2.04, 4.08, 8.16])
    assert list(run.by("norm")) == ["none", "bn"] and len(run.by("network")[3]["step"]) == 6
    with pytest.raises(NotMeasured, match="no row has width"):
        run.where(width=3)


def test_a_number_per_network_through_all_seeds(group):
    found = per_network(slope)(group)
    assert [*found.values] == [*range(8)] and found.left_out == {}
    assert list(found.values.values()) == pytest.approx([math.log(2)] * 8)
    nothing = per_network(lambda rows: math.inf if rows["network"][0] == 1 else 1.0)(group)
    assert [*nothing.values] == [0, 2, 3, 4, 6, 7] and nothing.left_out == {1: "no finite value", 5: "no finite value"}


def test_a_verdict_on_networks_says_networks(group, tmp_path):
    part = Part("slope", per_network(slope), "slope", ("walks",), of="networks", low=0.6, high=0.8)
    claim = Claim("900", "It doubles.", "Nobody", "nowhere", parts=(part,))
    values = {number: math.log(2) + 0.01 * (number % 5) for number in range(45)}
    [verdict] = decide([(claim, [Finding(part, group, values, {})])])
    assert (verdict.verdict, verdict.n, verdict.of) == ("supported", 45, "networks")
    assert math.isnan(verdict.p_sign_flip) and math.isnan(verdict.findings[0].p_sign_flip) and not verdict.disagree
    assert "| 45 networks |" in claims_as_markdown([verdict])
    assert "per network: 45 values, which are in claims.json" in explain(verdict)
    assert "mean over 45 networks" in explain(verdict)
    page = write_report([], [verdict], tmp_path / "report.html").read_text()
    assert ">45 networks</td>" in page and "Mean over 45 networks" in page
    few = decide([(claim, [Finding(part, group, dict([*values.items()][:3]), {})])])[0]
    assert few.reason.startswith("3 networks with a value")
    named = decide([(claim, [replace(Finding(part, group, values, {}), left_out={7: "no finite value"})])])[0]
    assert "left out: network 7" in named.reason


def test_series_are_means_over_networks_with_theory(group):
    none, bn = series(lab_rows(group), "step", "size", by=("norm",), theory="theory_size", logarithmic=True)
    assert (none.of, bn.of, bn.n) == ({"norm": "none"}, {"norm": "bn"}, 8)
    sizes = [1 + 0.01 * number for number in range(8)]
    expected = math.exp(sum(map(math.log, sizes)) / 8)
    assert bn.mean.tolist() == pytest.approx([2 * expected, 4 * expected, 8 * expected])
    assert bn.theory is not None and bn.theory.tolist() == [2, 4, 8]
    row = next(iter(bn.rows()))
    assert row["norm"] == "bn" and row["step"] == 1 and row["n"] == 8 and row["theory"] == 2
    assert number_of([none, bn]).startswith("Mean and 95 % t-interval over n")
