import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icsbench.analysis.claims import all_claims
from icsbench.analysis.committed import as_committed, read_claims
from icsbench.analysis.verdicts import decide
from icsbench.report.markdown import claims_as_markdown

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_committed_results():
    subprocess.run([sys.executable, ROOT / "scripts" / "readme_tables.py", "--check"], check=True)
    assert len(re.findall(r"<!-- from \S+ -->", README)) >= 3


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_file_and_claim_beside_the_verdicts_is_there():
    text = (ROOT / "results" / "reference" / "claims" / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / "results" / "reference" / "claims" / link).exists()] == []
    served = {row.split(" | ")[1].rstrip(" |") for row in text.splitlines() if row.startswith("| `icsbench")}
    listed = {id for ids in served for id in ids.split(", ")}
    committed = json.loads((ROOT / "results" / "reference" / "claims" / "claims.json").read_text())["claims"]
    assert listed == {entry["id"] for entry in committed if entry["n"]}


def test_every_config_key_and_option_named_in_the_readme_exists():
    from icsbench.app.folders import CONFIG_DIR

    named = set(re.findall(r"\b(scale|norm|experiment|model|probes|wandb|data)=([a-z]\w*)\b", README))
    assert named
    assert [
        f"{group}={option}" for group, option in named if not (CONFIG_DIR / group / f"{option}.yaml").exists()
    ] == []


def test_the_code_in_the_readme_runs_and_gives_what_it_says():
    probes, norms = (run_code(block) for block in re.findall(r"```python\n(.*?)```", README, re.S))
    layer = probes["shift"]["layer1.0.conv1"]
    assert layer.l2 > 0 and -1 <= layer.cosine < 1
    assert len(probes["landscape"].losses) == 4 and probes["landscape"].beta > 0
    assert norms["norm"].p == math.inf and norms["norm"].weight.shape == (64,)


def run_code(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def numbers_of_the_prose():
    """The numbers that the README's sentences quote, computed from the committed records' CSV files."""
    reference = ROOT / "results" / "reference"

    def rows(name):
        with open(reference / name, newline="") as file:
            return list(csv.DictReader(file))

    results = {row["regime"]: row for row in rows("three_regimes/results.csv")}

    def percent(regime, key):
        return f"{100 * float(results[regime][key + '/mean']):.1f} %"

    def step_shift(regime):
        found = [
            float(row["mean"])
            for row in rows("three_regimes/moments.csv")
            if (row["regime"], row["quantity"], row["depth"]) == (regime, "mean_raw", "7") and int(row["step"]) >= 100
        ]
        return sum(found) / len(found)

    minutes = sum(float(row["seconds"]) for row in rows("three_regimes/runs.csv")) / 60 / 2
    trained = {regime: percent(regime, "train/accuracy") for regime in results}
    noisy = {name: percent("noisy_bn", f"test/accuracy/{name}") for name in ("running-off", "batch-on")}
    recalibrated = {regime: percent(regime, "test/accuracy/recalibrated-off") for regime in ("bn", "noisy_bn")}
    return [
        f"{trained['bn']} training accuracy against {trained['none']}",
        f"by {step_shift('noisy_bn'):.2f} in one step with noisy BN, by {step_shift('none'):.2f} without BN, "
        f"and by {step_shift('bn'):.4f} with BN",
        f"(Fig. 2): {trained['noisy_bn']} against {trained['none']}",
        f"trains visibly slower than BN ({trained['noisy_bn']} against {trained['bn']})",
        f"{noisy['running-off']} with running statistics and noise off",
        f"{noisy['batch-on']} as it was trained (batch statistics, noise on)",
        f"{recalibrated['noisy_bn']} with recalibrated statistics and noise off",
        f"which is BN's own {recalibrated['bn']} under the same protocol",
        f"BN itself gains from recalibration ({percent('bn', 'test/accuracy/running-off')} to {recalibrated['bn']})",
        f"{minutes:.0f} minutes on two cores",
    ]


@pytest.mark.parametrize("sentence", numbers_of_the_prose())
def test_the_numbers_in_the_prose_are_those_of_the_records(sentence):
    assert sentence in " ".join(README.split())


REFERENCE = ROOT / "results" / "reference"


COMMITTED = REFERENCE / "claims" / "claims.json"


def judged_again():
    """The verdicts on the committed values per seed, computed anew, beside what was committed; and what has changed.

    A claim that the catalogue measures otherwise by now is as the file states it.
    """
    by_id = read_claims(COMMITTED)
    found = as_committed(by_id, COMMITTED)
    verdicts = decide([(claim, findings) for claim, findings, _ in found])
    return by_id, verdicts, {claim.id: differs for claim, _, differs in found if differs}


def test_the_committed_verdicts_are_those_of_the_committed_values():
    by_id, verdicts, changed = judged_again()
    assert [*by_id] == [verdict.claim.id for verdict in verdicts]
    for verdict in verdicts:
        entry = by_id[verdict.claim.id]
        assert (verdict.verdict, verdict.n) == (entry["verdict"], entry["n"])
        assert verdict.speaks_for == entry["speaks_for"] or verdict.claim.id in changed
        for found, part in zip(entry["parts"], verdict.claim.parts, strict=True):
            bounds = [bound if math.isfinite(bound) else None for bound in (part.low, part.high)]
            assert (found["measure"], found["region"]) == (part.name, bounds)
        if entry["p"] is not None:
            assert (verdict.p, verdict.p_holm) == pytest.approx((entry["p"], entry["p_holm"]), rel=1e-9)


def test_the_claims_that_changed_since_are_those_of_the_plan():
    """results/reference/confirmation says which; new ones are in no earlier file."""
    by_id, _, changed = judged_again()
    assert changed.keys() == {"1", "5", "6", "7", "9", "10", "11", "11b", "12", "14", "15", "21", "23"}
    assert {claim.id for claim in all_claims()} - by_id.keys() == {"4b", "5b", "44"}


def test_the_numbers_beside_the_verdicts_are_those_of_the_committed_values():
    by_id = read_claims(COMMITTED)

    def mean(id, part):
        return by_id[id]["parts"][part - 1]["mean"]

    with open(REFERENCE / "claims" / "dose.csv", newline="") as file:
        dose = [row for row in csv.DictReader(file) if row["quantity"] == "train/accuracy"]
    (x0, y0), (x1, y1) = ((math.log10(float(row["x"])), 100 * float(row["mean"])) for row in dose[:2])
    claims, landscape = ((REFERENCE / name / "README.md").read_text() for name in ("claims", "landscape"))
    assert f"it is {(y1 - y0) / (x1 - x0):.1f} points per factor of ten" in " ".join(claims.split())
    assert (
        f"BN has {mean('7', 2):.2f} times the ICS, {mean('10', 2):.1f} times the width of the loss and "
        f"{mean('11', 2):.2f} times the relative change"
    ) in " ".join(landscape.split())


def test_the_table_of_verdicts_is_that_of_the_committed_values():
    by_id, verdicts, changed = judged_again()
    rows = [line for line in claims_as_markdown(verdicts).splitlines() if line.startswith("|")]
    readme = README.splitlines()
    assert len(rows) == len(verdicts) + 2
    for row in rows:
        if (id := row.split("|")[1].strip()) not in changed:
            assert row in readme
        else:  # the file lacks some of what a row of an earlier catalogue says
            (shown,) = (line for line in readme if line.startswith(f"| {id} |"))
            assert f" {by_id[id]['verdict']}" in shown and by_id[id]["statement"].split(":")[0] in shown


REFERENCES = sorted(
    path.parent for path in REFERENCE.glob("*/README.md") if path.parent.name not in ("theorems", "claims", "error")
)


def test_the_residuals_beside_the_theorems_are_those_of_their_csv():
    text = (REFERENCE / "theorems" / "README.md").read_text()
    with open(REFERENCE / "theorems" / "theorems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    stated = {
        "Fact C.1": "fact_c1",
        "Theorem 4.1, with": "theorem_4_1",
        "Theorem 4.2, first": "theorem_4_2",
        "Theorem 4.4, cor": "theorem_4_4",
        "Theorem C.1, cor": "theorem_c1",
        "weight gradient orthogonal": "orthogonality",
    }
    for begins, column in stated.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {begins}"))
        found = [float(cell) for cell in line.split("|")[2:4]]
        largest = [max(float(row[column]) for row in rows if row["network"] == n) for n in ("untrained", "trained")]
        assert found == pytest.approx(largest, rel=0.15), begins


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_the_bold_numbers_beside_the_reference_figures_are_those_of_their_tables(folder):
    text = " ".join((folder / "README.md").read_text().split())
    files = [path for path in folder.rglob("*.md") if path.name != "README.md"]
    tables = "\n".join(path.read_text() for path in [*files, REFERENCE / "claims" / "claims.md"])
    numbers = [bold for bold in re.findall(r"\*\*([^*]+)\*\*", text) if bold[0].isdigit() or bold[0] in "-+"]
    assert numbers
    assert [number for number in numbers if number not in tables] == []
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (folder / link).exists()] == []
