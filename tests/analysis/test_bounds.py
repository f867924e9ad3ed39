"""A part that is a bound of theory: each value is held to it, and chance has no part in it."""

import json
import math

import pytest
from planted import explain
from scipy import stats

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.decision import Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.sensitivity import sensitivities
from icsbench.analysis.verdicts import decide
from icsbench.report.files import write_claims
from icsbench.report.markdown import claims_as_markdown
from icsbench.report.words import agreement, effect, region

KEPT = [0.2, 0.9, 1.0, 0.5, 0.7, 0.3]
ABOVE_0 = [1.0, 1.4, 0.7, 1.2, 0.9, 1.1]


def finding(values, kind="value", left_out=None, **region):
    part = Part("m", lambda group: Measured({}, {}), "what is measured", ("study",), kind=kind, **region)
    return Finding(part, None, dict(enumerate(values)), left_out or {})


def bound(values, left_out=None, **more):
    return finding(values, "bound", left_out, **{"high": 1.0, "above": "Doubters"} | more)


def claim_of(*findings):
    return Claim("900", "S.", "Theorists", "w", parts=tuple(one.part for one in findings)), list(findings)


def verdict_on(*findings, **more):
    return decide([claim_of(*findings)], **more)[0]


def p_above_0(values):
    return stats.ttest_1samp(values, 0, alternative="greater").pvalue


def test_all_values_inside_support_it_and_there_is_no_p():
    verdict = verdict_on(bound(KEPT))
    assert (verdict.verdict, verdict.speaks_for) == ("supported", "Theorists")
    assert math.isnan(verdict.p) and math.isnan(verdict.p_holm) and math.isnan(verdict.p_sign_flip)
    assert "all 6 seeds; not a test" in verdict.reason and not verdict.disagree and verdict.seeds_needed is None


def test_the_ends_of_the_region_belong_to_it():
    assert verdict_on(bound([1.0] * 6)).verdict == "supported"
    assert verdict_on(bound([0.0] * 6, low=0.0)).verdict == "supported"
    assert verdict_on(bound([1.0] * 5 + [math.nextafter(1, 2)])).verdict == "contradicted"


@pytest.mark.parametrize(("sign", "side"), [(1, "above"), (-1, "below")])
def test_one_value_outside_refutes_it(sign, side):
    values = [sign * value for value in [*KEPT[:4], 1.5, 0.3]]
    region = {"low": -math.inf, "high": 1.0} if sign == 1 else {"low": -1.0, "high": math.inf, "below": "Doubters"}
    one = bound(values, **region)
    verdict = verdict_on(one)
    assert (verdict.verdict, verdict.speaks_for, one.side) == ("contradicted", "Doubters", side)
    assert f"1 of 6 seeds (seed 4: {sign * 1.5:g})" in verdict.reason and math.isnan(verdict.p_holm)


def test_too_few_values_or_one_that_is_missing_leave_it_open():
    few = verdict_on(bound(KEPT[:5]))
    assert (few.verdict, few.seeds_needed) == ("inconclusive", 6)
    missing = verdict_on(bound(KEPT, {6: "did not end"}))
    assert missing.verdict == "inconclusive" and "seed 6 (did not end)" in missing.reason
    assert verdict_on(bound([*KEPT, 2.0], {7: "did not end"})).verdict == "contradicted"
    assert verdict_on(bound(KEPT), rule=Rule(least=12)).verdict == "inconclusive"


def test_it_has_no_place_in_the_family():
    alone, _ = decide([claim_of(finding(ABOVE_0, low=0)), claim_of(bound(KEPT))])
    assert alone.p_holm == alone.p == pytest.approx(2 * p_above_0(ABOVE_0))
    assert "Holm over 1 claims" in alone.reason


def test_beside_parts_that_are_tested_only_these_have_a_p():
    both = verdict_on(finding(ABOVE_0, low=0), bound(KEPT))
    assert both.verdict == "supported" and "which is not a test" in both.reason
    assert both.p == pytest.approx(2 * p_above_0(ABOVE_0)) and both.p_sign_flip == 2 / 2**6
    below = verdict_on(bound(KEPT), finding([-value for value in ABOVE_0], low=0))
    assert below.verdict == "contradicted" and "part 2 below" in below.reason
    assert below.p == pytest.approx(2 * p_above_0(ABOVE_0))  # one part is tested: no factor of two
    refuted = verdict_on(finding(ABOVE_0, low=0), bound([*KEPT[:5], 2.0]))
    assert refuted.verdict == "contradicted" and "part 2, 1 of 6 seeds" in refuted.reason and refuted.p == 1
    unsettled = verdict_on(finding([1.0, -1.2, 0.8, -0.9, 1.1, -1.0], low=0), bound(KEPT))
    assert unsettled.verdict == "inconclusive"
    unmeasured = verdict_on(finding(ABOVE_0, low=0), bound(KEPT[:3]))
    assert unmeasured.verdict == "inconclusive" and unmeasured.p == 1


def test_what_is_written_says_that_it_is_no_test(tmp_path):
    one = bound(KEPT)
    assert (effect(one), region(one.part)) == ("0.2 to 1", "every value at most 1")
    assert region(bound(KEPT, low=0.0).part) == "every value at least 0 and at most 1"
    verdicts = [verdict_on(bound([*KEPT, 0.4]))]
    assert "no p-value" in explain(verdicts[0]) and "one-sided p" not in explain(verdicts[0])
    files = write_claims(verdicts, tmp_path, tmp_path)
    (entry,) = json.loads(files[0].read_text())["claims"]
    (part,) = entry["parts"]
    assert (entry["p_holm"], part["kind"], part["p"], part["low"], part["high"]) == (None, "bound", None, 0.2, 1.0)
    assert entry["sensitivity"]["agree"] == entry["sensitivity"]["of"] == 8
    assert entry["sensitivity"]["by_itself"] == "supported" and entry["sensitivity"]["flipped_by"] is None
    assert "| 0.2 to 1 | 7 |  | 8 of 8 (100 %) |" in files[2].read_text()
    assert "| 0.2 to 1 | 7 |  |\n" in claims_as_markdown(verdicts)


def test_a_seed_that_refutes_it_is_found_by_leaving_it_out():
    (found,) = sensitivities([verdict_on(bound([*KEPT, 1.5]))])
    assert found.flipped_by.name == "without seed 6"
    # Seven with one left out, and the first six: all but two of these eight still have the seed.
    assert agreement(found) == "6 of 8 (75 %); flipped by: without seed 6"


def test_only_parts_with_a_theorem_are_bounds():
    bounds = {(claim.id, part.name) for claim in all_claims() for part in claim.parts if part.kind == "bound"}
    assert bounds == {("20", "square_over_bound"), ("39c", "difference_bn")}
