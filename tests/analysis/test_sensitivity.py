"""What a verdict rests on: planted records whose windows disagree, and seeds of which one decides."""

import csv
import json

import pytest
from helpers import invoke
from planted import write

from icsbench.analysis.claims import all_claims, claim_of
from icsbench.analysis.claims.contract import Measured, Part
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.sensitivity import of_verdicts, sensitivities
from icsbench.analysis.verdicts import decide, judge
from icsbench.record.reader import load_runs
from icsbench.report.files import write_claims
from icsbench.report.words import agreement


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Gradients with BN change 10 times as much as without over the first half, and a twentieth over the second."""
    root = tmp_path_factory.mktemp("results")
    for seed in range(8):
        write(root, "landscape", "bn", seed, reach=600, difference=[10.0] * 20 + [0.05 * 1.05 ** (seed - 3.5)] * 20)
        write(root, "landscape", "none", seed, reach=600, difference=1.0)
    return root


def by_name(found):
    return {one.name: one.verdict.verdict for one in found.others}


def test_windows_that_disagree_are_told(results):
    (found,) = sensitivities(judge(load_runs(results), [claim_of("11b")]))
    assert found.registered.verdict == "supported"
    outcomes = by_name(found)
    # 40 updates, every 25th: the median over all is between the halves. Both leave chance at 600, where the second is.
    first = "part 1, window: "
    assert outcomes[f"{first}first quarter"] == outcomes[f"{first}whole"] == "contradicted"
    assert outcomes[f"{first}after both left chance"] == outcomes["part 1, relative"] == "supported"
    assert outcomes["part 1, median of the ratios step by step"] == outcomes["part 2, not relative"] == "supported"
    # The loss falls by the same factor at each update: 4 of 8 bins at 10, 4 at 0.05, geometric mean 0.7.
    assert outcomes["part 2, window: whole"] == "contradicted"
    assert all(outcomes[f"without seed {seed}"] == "supported" for seed in range(8))
    assert [outcomes[f"the first {n} seeds"] for n in range(3, 8)] == ["inconclusive"] * 3 + ["supported"] * 2
    assert agreement(found) == "16 of 19 (84 %); flipped by: part 1, window: first quarter"


def test_the_command_prints_and_writes_them(results, tmp_path):
    said = invoke("claims", "sensitivity", str(results), "--out", str(tmp_path))
    assert said.code == 0 and "16 of 19 (84 %); flipped by: part 1, window:" in " ".join(said.out.split())
    with open(tmp_path / "sensitivity.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "11b"]
    assert rows[0]["specification"] == "registered" and len(rows) == 1 + 9 + 8 + 5
    assert sum(row["agrees"] == "True" for row in rows[1:]) == 16 and sum(row["counts"] == "False" for row in rows) == 3
    assert "| 11b |" in (tmp_path / "sensitivity.md").read_text()


def test_the_table_of_verdicts_shows_them(results, tmp_path):
    verdicts = judge(load_runs(results))
    files = write_claims(verdicts, tmp_path, results)
    by_id = {entry["id"]: entry for entry in json.loads(files[0].read_text())["claims"]}
    assert by_id["11b"]["sensitivity"] == {
        "by_itself": "supported",
        "agree": 16,
        "of": 19,
        "flipped_by": "part 1, window: first quarter",
        "left_open_by": None,
    }
    assert "sensitivity" not in by_id["13b"]  # not measured
    (row,) = (line for line in files[2].read_text().splitlines() if line.startswith("| 11b |"))
    assert row.endswith("| 16 of 19 (84 %); flipped by: part 1, window: first quarter |")


def test_another_verdict_before_holm_is_told():
    open_by_holm = decide([(verdict_on(WEAK)[0].claim, verdict_on(WEAK)[0].findings)], members=100_000)
    assert open_by_holm[0].verdict == "inconclusive"
    ((verdict, found),) = of_verdicts(open_by_holm).items()
    assert agreement(found, verdict) == "by itself supported: 8 of 8 (100 %)"


WEAK = [1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1]


def verdict_on(values, group=None, **more):
    part = Part("m", lambda group: Measured({}, {}), "what", ("study",), low=0, **more)
    claim = claim_of("11b").__class__(id="900", statement="S.", by="B", where="w", parts=(part,))
    return decide([(claim, [Finding(part, group, dict(enumerate(values)), {})])])


def test_one_seed_that_decides_is_found():
    (found,) = sensitivities(verdict_on([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, -1.5]))
    assert found.registered.verdict == "inconclusive"
    outcomes = by_name(found)
    assert outcomes["without seed 6"] == "supported" and outcomes["without seed 0"] == "inconclusive"
    assert found.flipped_by is None and found.opened_by is None  # nothing was decided
    (found,) = sensitivities(verdict_on([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1]))
    assert agreement(found) == "8 of 8 (100 %)"  # each of seven left out, and the first six


def test_what_cannot_be_measured_neither_agrees_nor_not(results):
    def lacking(group):
        raise NotMeasured("no such probe")

    claim = claim_of("4")
    assert {"mean over all steps", "last tenth of the steps"} == {
        name for part in claim.parts for name in part.variants
    }
    assert all(name for one in all_claims() for part in one.parts for name in part.variants)
    (group,) = group_runs(load_runs(results))
    (found,) = sensitivities(verdict_on([1.0, 1.1, 0.9, 1.2, 0.8, 1.0], group, variants={"other": lacking}))
    assert by_name(found)["other"] == "not measured"
    assert agreement(found) == "none to compare with: too few seeds to leave one out"
    assert sensitivities(verdict_on([])) == []
