"""The claims on length and direction and their figure, on rows that say yes and rows that say no."""

import csv
import json

import pytest
from planted import explain, finish
from synthetic import write_lab

from icsbench.analysis.claims import claim_of
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import judge
from icsbench.figures import halfspaces
from icsbench.figures.style import house_style, save
from icsbench.record.reader import load_runs

PROBLEMS, SEEDS = 3, 4
CLAIMS = ("20", "35", "35b", "35c", "35d", "35e", "35f", "35g", "35h", "35i")
METHODS = ("gd", "gd_best", "agd", "weight_norm", "bn", "gdnp")


def halfspace_rows(seed, truth, unreached=(), unfitted=""):
    """As claimed, or not: where not, length and direction apart are as fast as the others, and slow down."""
    conditions = {"square": (5.0, 50.0), "softplus": (5.0, 50.0), "sigmoid": (5.0, 50.0)}
    conditions |= {"first": (5.0,), "second": (5.0,), "breast_cancer": (27.0 + seed,)}
    for problem in range(PROBLEMS):
        wobble = 1 + 0.01 * ((3 * problem + seed) % 5)
        for objective, numbers in conditions.items():
            for condition in numbers:
                for method in (*METHODS, *(["gdnp_printed"] if objective == "softplus" else [])):
                    apart, count = method == "gdnp", 20 * condition * wobble
                    theory = 1 - 0.8 / condition
                    fast = (1.1 if objective == "square" else 1.5) if apart and truth else 0.5 if apart else 1.0
                    row = {"step": round(count * (0.5 if apart and truth else 1)), "problem": problem}
                    row |= {"objective": objective, "condition": condition, "method": method, "theory_rate": theory}
                    row |= {"at": [1, 2, 5, 10], "gradient": [1.0, 0.5, 0.1, 0.01 * wobble]}
                    row["reached"] = (objective, method) not in unreached
                    if row["reached"] and (objective, problem) != (unfitted, 0):
                        row |= {"rate": theory ** (fast * wobble), "steadiness": 1.0 if truth else 0.5 * wobble}
                    if apart and objective in ("square", "softplus", "sigmoid"):
                        row["worst_over_bound"] = (0.7 if truth else 1.2) * wobble
                    yield row


def records(root, truth, **options):
    for seed in range(SEEDS):
        path = write_lab(root, "halfspaces", seed, experiment="halfspaces", label="Halfspaces", tolerance=1e-6)
        rows = halfspace_rows(seed, truth, **options)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        finish(path, json.loads((path / "summary.json").read_text()))
    return load_runs(root)


def verdicts(root, truth, claims=CLAIMS, **options):
    return {one.claim.id: one for one in judge(records(root, truth, **options), [claim_of(id) for id in claims])}


@pytest.mark.parametrize(("truth", "expected"), [(True, "supported"), (False, "contradicted")])
def test_each_claim_can_win_and_lose(tmp_path, truth, expected):
    found = verdicts(tmp_path, truth)
    assert {id: one.verdict for id, one in found.items()} == dict.fromkeys(CLAIMS, expected)
    assert all((one.n, one.of) == (PROBLEMS * SEEDS, "problems") for one in found.values())
    assert f"over {PROBLEMS * SEEDS} problems" in explain(found["20"])


def test_the_numbers_are_those_that_were_planted(tmp_path):
    found = verdicts(tmp_path, True)
    means = {part.part.name: part.interval.mean for one in found.values() for part in one.findings}
    assert means["gd_well"] == pytest.approx(0.5, abs=0.005) and means["real_wn"] == pytest.approx(0.5, abs=0.005)
    assert means["softplus_exponent"] == pytest.approx(1.53, abs=0.01)
    assert means["square_exponents_ill"] == pytest.approx(1.1)
    assert means["units_steadiness"] == pytest.approx(1) and means["square_over_bound"] == pytest.approx(0.71, abs=0.01)


def test_a_method_that_does_not_get_there_counts_with_what_it_took(tmp_path):
    [slow] = verdicts(tmp_path / "a", True, ["35"], unreached={("softplus", "gd")}).values()
    assert slow.verdict == "supported" and slow.n == PROBLEMS * SEEDS
    [none] = verdicts(tmp_path / "b", True, ["35"], unreached={("softplus", "gd"), ("softplus", "gdnp")}).values()
    assert none.verdict == "inconclusive" and none.n == 0
    [stuck] = verdicts(tmp_path / "c", True, ["35f"], unreached={("sigmoid", "gdnp")}).values()
    assert stuck.verdict != "supported"


@pytest.mark.parametrize("unit", ["first", "second"])
def test_a_unit_without_a_fitted_rate_leaves_its_problem_out(tmp_path, unit):
    [found] = verdicts(tmp_path, True, ["35g"], unfitted=unit).values()
    assert (found.verdict, found.n) == ("supported", (PROBLEMS - 1) * SEEDS)


def test_the_figure(tmp_path):
    [group] = group_runs(records(tmp_path, True))
    assert halfspaces.FIGURE.applies(group)
    with house_style():
        page, table = halfspaces.FIGURE.page(group)
        save(page, table, tmp_path / "figure")
    said = halfspaces.FIGURE.caption(group, halfspaces.FIGURE.numbers(group))
    assert "at condition 50 (median): gradient descent 1,020" in said and "condition number is 28.5" in said
    with open(tmp_path / "figure.csv") as file:
        written = list(csv.DictReader(file))
    assert {row["n"] for row in written} == {str(PROBLEMS * SEEDS)}
    first = [row for row in written if row["method"] == "gdnp" and row["evaluations"] == "1"]
    assert len(first) == 9 and all(float(row["theory"]) == pytest.approx(1) for row in first)
