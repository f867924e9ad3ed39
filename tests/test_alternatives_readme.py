"""The numbers in the prose on stand-ins for BN are those of the committed tables; bold ones: test_readme.py."""

import csv
import json
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"
TEXT = " ".join((REFERENCE / "alternatives" / "README.md").read_text().split())
CLAIMS = {entry["id"]: entry for entry in json.loads((REFERENCE / "claims" / "claims.json").read_text())["claims"]}
FACTS = {
    line.split(": ")[0].removeprefix("- "): line
    for line in (REFERENCE / "claims" / "claims.md").read_text().splitlines()
    if line.startswith("- ")
}


def fact(study, pattern):
    """What a study's line of facts has in the place of the group of a pattern."""
    found = re.search(pattern, FACTS[study])
    assert found, (study, pattern)
    return found[1]


def runs(study, **equal):
    with open(REFERENCE / "alternatives" / study / "runs.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in equal.items())]


def steps(study):
    return fact(study, r" ([\d,]+) steps")


def setting(study, key):
    """A number of a line of facts: ``inputs 15``, ``lr 0.1``."""
    return fact(study, rf" {key} ([\d,.]*\d)")


def sentences():
    conditions = fact("halfspaces", r"conditions \[(.*?)\]").split(", ")
    rates = fact("bn_parts", r"lr ([\d.]+ and [\d.]+)")
    return [
        f"Gaussian data in {setting('halfspaces', 'inputs')} dimensions, {CLAIMS['35']['n']} of each kind",
        f"at condition {conditions[0]} and ",
        f"at {conditions[-1]}. Nesterov's method",
        f"learning rate {setting('normalizer_free', 'lr')}, {steps('normalizer_free')} steps",
        f"plain VGG11 at {steps('normalizer_free_plain')} steps",
        f"optimizer of Wu & He, {steps('family')} steps",
        f"VGG11, {steps('bn_parts')} steps, learning rates {rates}.",
        f"batches of {setting('ghost', 'batch')} in ghosts of 16, 64 or 256",
        f"after {setting('exponential_rate', 'steps')} steps, in float64",
        f"VGG11, {steps('affine_only')} steps, each at the better of two rates",
        f"A linear model behind BN, {CLAIMS['42']['n']} random problems",
    ]


@pytest.mark.parametrize("sentence", sentences())
def test_the_numbers_in_the_prose_are_those_of_the_records(sentence):
    assert sentence in TEXT


def test_what_the_prose_says_without_an_interval_holds():
    for norm in ("layer", "group", "rms"):
        assert len(runs("family", regime=norm, status="chance")) == 3
    assert {row["status"] for row in runs("family", regime="dyt")} == {"chance"}
    assert {row["status"] for row in runs("bn_parts", regime="bn_frozen", lr="0.4")} == {"diverged"}
    assert min(float(row["train/accuracy"]) for row in runs("ghost")) > 0.99
    assert {row["status"] for row in runs("normalizer_free", regime="none")} == {"chance", "diverged"}
    assert {*CLAIMS["36"]["parts"][0]["values"].values()} == {4.0}


def test_every_claim_that_the_prose_judges_has_that_verdict():
    for words, verdict in re.findall(
        r"[Cc]laims? ((?:\d+\w?(?:, | and )?)+) (?:is|are) (supported|contradicted|in\w+)", TEXT
    ):
        for id in re.findall(r"\d+\w?", words):
            assert CLAIMS[id]["verdict"] == verdict, id
    for id, verdict in re.findall(r"\((\d+\w?), (supported|contradicted|inconclusive)\b", TEXT):
        assert CLAIMS[id]["verdict"] == verdict, id
