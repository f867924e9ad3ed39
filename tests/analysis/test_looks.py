"""Every verdict of every claim can come out at every look of the confirmation, and an incomplete part says nothing."""

import math

import pytest

from icsbench.analysis.claims import all_claims
from icsbench.analysis.decision import Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.verdicts import decide

CLAIMS = [claim for claim in all_claims() if claim.parts]
LOOKS = [(12, 0.03), (24, 0.02)]
every = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
at_looks = pytest.mark.parametrize(("seeds", "level"), LOOKS)


def bounds(part):
    """The ends of a region on the axis on which values are averaged; of a region without an end, far away."""
    if part.kind == "ratio":
        low = math.log(part.low) if part.low > 0 else -math.inf
        return low, math.log(part.high) if part.high < math.inf else math.inf
    return part.low, part.high


def found(part, where, seeds):
    """A part with values that lie together ``inside`` or ``outside`` of its region, or ``across`` its bound."""
    low, high = bounds(part)
    bound = low if math.isfinite(low) else high
    width = min(high - low, 1.0)
    inward = 1 if bound == low else -1
    offset = {"inside": 0.5, "outside": -0.5, "across": 0.0}[where] * inward * width
    values = {}
    for seed in range(seeds):
        value = bound + offset + 0.02 * width * (-1) ** seed * (1 + seed / 100)
        if part.kind == "count":
            ones = {"inside": inward > 0, "outside": inward < 0, "across": seed % 2}[where]
            value = float(ones)
        values[seed] = math.exp(value) if part.kind == "ratio" else value
    return Finding(part, None, values, {})


def missing(part):
    return Finding(part, None, {}, {}, missing="its study was not run")


def verdict(claim, findings, level, members=1):
    return decide([(claim, findings)], Rule(level, exact=True), members)[0]


@every
@at_looks
def test_with_every_part_inside_it_is_supported_also_among_24(claim, seeds, level):
    findings = [found(part, "inside", seeds) for part in claim.parts]
    assert verdict(claim, findings, level, members=24).verdict == "supported"


@every
@at_looks
def test_one_part_outside_contradicts_whatever_the_others_have(claim, seeds, level):
    for number, part in enumerate(claim.parts):
        for rest in (lambda one: found(one, "inside", seeds), missing):
            findings = [rest(one) for one in claim.parts]
            findings[number] = found(part, "outside", seeds)
            assert verdict(claim, findings, level).verdict == "contradicted", part.name


@every
@at_looks
def test_across_a_bound_or_with_a_part_missing_it_stays_open(claim, seeds, level):
    for number, part in enumerate(claim.parts):
        findings = [found(one, "inside", seeds) for one in claim.parts]
        if part.kind != "bound":
            findings[number] = found(part, "across", seeds)
            assert verdict(claim, findings, level).verdict == "inconclusive", part.name
        if len(claim.parts) > 1:
            findings[number] = missing(part)
            assert verdict(claim, findings, level).verdict == "inconclusive", part.name
    nothing = verdict(claim, [missing(part) for part in claim.parts], level)
    assert nothing.verdict == "not measured"


@every
def test_what_is_enough_without_correction_is_not_among_very_many(claim):
    findings = [found(part, "inside", 12) for part in claim.parts]
    if all(part.kind == "bound" for part in claim.parts):
        pytest.skip("nothing is tested")
    assert verdict(claim, findings, 0.03, members=10**9).verdict == "inconclusive"
