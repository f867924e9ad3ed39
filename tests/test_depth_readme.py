"""The numbers in the prose on depth are those of the committed tables, or of theory; bold ones: test_readme.py."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from icsbench.analysis.claims.residual import EXPONENT
from icsbench.theory.mean_field import forward_eigenvalues, plain_layer, rate

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"
TEXT = " ".join((REFERENCE / "depth" / "README.md").read_text().split())
CLAIMS = {entry["id"]: entry for entry in json.loads((REFERENCE / "claims" / "claims.json").read_text())["claims"]}
FACTS = (REFERENCE / "claims" / "claims.md").read_text()
WORDS = {2: "two", 6: "six", 7: "seven", 8: "eight"}
BATCHES = (8, 16, 32, 64, 128)


def table(name, **equal):
    with open(REFERENCE / "depth" / name, newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in equal.items())]


def column(rows, key="mean"):
    return np.array([float(row[key]) for row in rows])


def setting(study, key):
    """A setting of a study as its line of facts has it: a number, or the members of a list."""
    [line] = (line for line in FACTS.splitlines() if line.startswith(f"- {study}: "))
    found = re.search(rf"[ ,]{key} (?:\[(.*?)\]|([\d,.e-]*\d))", line)
    assert found, (study, key)
    return found[1].split(", ") if found[1] else found[2]


def below_theory():
    """By how many per cent the rates lie below lambda at a batch of 4: the least and the most."""
    rows = table("explosion/explosion.csv", batch="4")
    short = 100 * (1 - column(rows) / column(rows, "theory"))
    return f"{short.min():.0f} to {short.max():.0f} %"


def leaves_from(activation):
    """The first batch of the study at which the fixed point is not stable."""
    return next(batch for batch in BATCHES if max(forward_eigenvalues(activation, batch)) > 1)


def per_block(quantity, key="mean"):
    rows = table("residual/residual_variance.csv", kind="residual_bn", quantity=quantity)
    fitted = column(rows, "step") >= 10
    return np.polyfit(column(rows, "step")[fitted], column(rows, key)[fitted], 1)[0]


def halves():
    """The factor per layer of the correlation in plain networks with BN, to depth 8."""
    rows = [r for r in table("shattered/shattered.csv", condition="plain_bn_held") if int(r["step"]) <= 8]
    return math.exp(np.polyfit(column(rows, "step"), np.log(column(rows)), 1)[0])


def sentences():
    batches, depths = setting("explosion", "batches"), setting("cliff", "depths")
    rates, starts = setting("first_steps", "lrs"), setting("orthogonal_start", "depths")
    gradient_depths = setting("rank", "gradient_depths")
    distance = re.search(r"relative to the weights x([\d.]+)", CLAIMS["31"]["parts"][0]["note"])
    assert distance
    return [
        f"of width {setting('explosion', 'width')} and {setting('explosion', 'depth')} layers, "
        f"{WORDS[len(setting('explosion', 'activations'))]} activations, batches of {batches[0]} to {batches[-1]}, "
        f"{CLAIMS['16']['n']} networks.",
        f"explodes at {plain_layer('tanh', 'signals').rate:.3f}, its own lambda for large batches",
        f"(silu from a batch of {leaves_from('silu')} on, gelu from {leaves_from('gelu')})",
        f"At a batch of 4 all rates are {below_theory()} below lambda",
        f"{max(map(int, setting('first_steps', 'depths')))} layers, digits. After one step at learning rate "
        f"{rates[-1]} the squared weights of the second layer",
        f"ReLU networks of width {setting('cliff', 'width')} on digits, {depths[0]} to {depths[-1]} layers, "
        f"{WORDS[CLAIMS['19']['n']]} networks each.",
        f"two directions of every feature exactly, 2 of {setting('jacobians', 'batches')[-1]} here",
        f"{setting('residual', 'depth')} blocks, {CLAIMS['18']['n']} networks.",
        f"pi / (pi - 1) = {EXPONENT:.3f} for great depths",
        f"The second moment grows by {per_block('second_moment'):.2f} per block and the variance over the batch, by "
        f"which BN divides, by {per_block('batch_variance'):.2f} (theory: {per_block('batch_variance', 'theory'):.2f})",
        f"from depth {gradient_depths[0]} to {gradient_depths[-1]})",
        f"ReLU networks of {setting('orthogonal_start', 'width')} units, digits. At {starts[-1]} hidden layers",
        f"while at {starts[-3]} and {starts[-2]} layers it is far behind",
        f"ReLU networks of up to {setting('parts', 'depth')} layers",
        f"{setting('margin', 'samples')} samples in {setting('margin', 'inputs')} dimensions.",
        f"after {setting('margin', 'steps')}, and with weight normalization",
        f"{WORDS[CLAIMS['31']['n']]} seeds. BN bears every step of the grid",
        f"BN's ratio is known to be {distance[1]} at least",
    ]


@pytest.mark.parametrize("sentence", sentences())
def test_the_numbers_in_the_prose_are_those_of_the_records(sentence):
    assert sentence in TEXT


def test_what_the_prose_says_without_a_number_holds():
    assert plain_layer("tanh", "signals").rate == pytest.approx(rate("tanh", math.inf))
    for activation in ("gelu", "silu"):
        for row in table("explosion/explosion.csv", activation=activation):
            if int(row["batch"]) >= leaves_from(activation):
                assert float(row["low"]) > float(row["theory"])
    kept = {}
    for lr in setting("first_steps", "lrs"):
        spans = [
            np.ptp(column(table("first_steps/first-steps.csv", norm="bn", lr=lr, step=step, quantity="log_gradients")))
            for step in ("0", "1")
        ]
        kept[float(lr)] = spans[1] / spans[0]
    assert kept[0.00128] > kept[0.01] > kept[0.1]
    for kind in ("second_moment", "batch_variance"):
        rows = table("residual/residual_variance.csv", kind="residual", quantity=kind)
        later = column(rows, "step") >= 10
        growth = np.polyfit(column(rows, "step")[later], np.log(column(rows)[later]), 1)[0]
        assert math.exp(growth) == pytest.approx(2, rel=0.03)
    assert halves() == pytest.approx(0.5, abs=0.02)
    accuracy = {
        (row["start"], row["step"]): float(row["mean"])
        for row in table("orthogonal_start/orthogonal_start.csv", quantity="accuracy")
    }
    for depth in ("30", "45"):
        assert accuracy["orthogonal", depth] - accuracy["scaled", depth] > 0.2
    assert "bn: 6 of 6 beyond the grid" in CLAIMS["31"]["parts"][0]["note"]
    assert "fixup: 6 of 6 beyond the grid" in CLAIMS["31b"]["parts"][1]["note"]


def test_relu_meets_the_rate_to_a_per_cent():
    rows = [row for row in table("explosion/explosion.csv", activation="relu") if int(row["batch"]) >= 8]
    assert column(rows) / column(rows, "theory") == pytest.approx(1, rel=0.01)
