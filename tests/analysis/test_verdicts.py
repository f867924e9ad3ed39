"""Every claim can be supported, contradicted, left open and not measured, by records in which it is so."""

import json
import math
import shutil

import numpy as np
import pytest
import yaml
from helpers import invoke
from planted import MEASURED, PLANT, explain, finish, plant, plant_claim, write
from scipy import stats

from icsbench.analysis.claims import all_claims, claim_of, serves
from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.decision import Rule
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import decide, judge
from icsbench.errors import IcsbenchError
from icsbench.record.reader import load_runs
from icsbench.report.files import write_claims
from icsbench.report.markdown import claims_as_markdown
from icsbench.report.words import region

CLAIMS = all_claims()
PARTS = {part.name: part for claim in CLAIMS for part in claim.parts if part.of == "seeds"}
"""Those of random networks are planted in the tests of their labs."""

# A value in the region, one beyond it, and where there is no effect at all; what a seed adds or multiplies by.
_RATIO = {"spread": 1.05, "wild": 30.0}
_POINTS = {"spread": 0.4, "wild": 60.0}
_SHARE = {"spread": 0.05, "wild": 0.7}
CASES = {
    "speed_up_to_90": {"inside": 2.0, "outside": 1.0, "none": 1.0, **_RATIO, "wild": 3.0},
    "drift_vgg": {"inside": 1.0, "outside": 0.3, "none": 1.0, **_RATIO},
    "dln_cosine_none": {"inside": 0.996, "outside": 0.4, "none": 1.0, "spread": 0.001, "wild": 0.9},
    "dln_cosine_bn": {"inside": -0.2, "outside": 0.97, "none": 1.0, "spread": 0.01, "wild": 4.0},
    "dln_edge_bn": {"inside": 1.0, "outside": 3.0, "none": 1.0, **_RATIO},
    "dln_cosine_short_steps": {"inside": 0.96, "outside": 0.3, "none": 1.0, "spread": 0.01, "wild": 0.9},
    "dln_correlation_within_rates": {"inside": -1.0, "outside": 1.0, "none": 0.0, "spread": 0.0, "wild": None},
    "beta_slope_bn": {"inside": 1.0, "outside": 0.2, "none": 0.0, "spread": 0.02, "wild": 2.0},
    "beta_slope_none": {"inside": 1.0, "outside": 0.2, "none": 0.0, "spread": 0.02, "wild": 2.0},
    "beta_level_bn": {"inside": 1.0, "outside": 0.3, "none": 1.0, **_RATIO},
    "beta_level_none": {"inside": 1.0, "outside": 0.3, "none": 1.0, **_RATIO},
    "last_share": {"inside": 0.7, "outside": 0.2, "none": 0.0, **_SHARE},
    "variance_share": {"inside": 0.7, "outside": 0.2, "none": 0.0, **_SHARE},
    "mean_share": {"inside": 0.2, "outside": 0.8, "none": 0.0, **_SHARE},
    "affine_share": {"inside": 0.2, "outside": 0.8, "none": 0.0, **_SHARE},
    **{
        f"largest_lr_warmed_{network}_over_{other}": {
            **{"inside": 8.0, "outside": 0.25 if other == "bn" else 1.0, "none": 0.5 if other == "bn" else 1.0},
            **{"spread": None, "wild": 16.0},
        }
        for network in ("residual", "plain")
        for other in ("bn", "none")
    },
    "sharpness_slope_bn": {"inside": 1.0, "outside": 0.2, "none": 0.0, "spread": 0.02, "wild": 2.0},
    "sharpness_slope_none": {"inside": 1.0, "outside": 0.2, "none": 0.0, "spread": 0.02, "wild": 2.0},
    "sharpness_level_bn": {"inside": 1.0, "outside": 0.3, "none": 1.0, **_RATIO},
    "sharpness_level_none": {"inside": 1.0, "outside": 0.3, "none": 1.0, **_RATIO},
    "largest_lr_nf_agc": {"inside": 8.0, "outside": 1.0, "none": 1.0, "spread": None, "wild": 16.0},
    "mean_train_noisy_minus_none": {"inside": 10.0, "outside": -10.0, "none": 0.0, "spread": 1.0, "wild": 30.0},
}


COUNTS = {"inside": (1,), "outside": (0,), "none": (1, 0), "wild": (1, 1, 0)}
EXACT = ("9", "39", "39d")
"""Claims of several parts whose values cannot scatter here: it takes eight seeds for the floor of the sign flips."""


def case(part: Part) -> dict:
    """The values of a part, by its region where no case names them."""
    if part.name in CASES:
        return CASES[part.name]
    if part.kind == "count":
        return {"none": 0.5}
    if part.kind == "ratio":
        if math.isinf(part.high):
            return {"inside": part.low * 2, "outside": part.low / 2, "none": 1.0, **_RATIO}
        return {"inside": part.high / 2, "outside": part.high * 2, "none": 1.0, **_RATIO}
    middle = 0.0 if math.isfinite(part.low + part.high) else part.low + 4 if math.isinf(part.high) else part.high - 4
    beyond = part.low - 4 if math.isfinite(part.low) else part.high + 4
    return {"inside": middle, "outside": beyond, "none": 0.0, **_POINTS}


def values_of(part: Part, what: str, n: int = 6) -> list[float]:
    """One value per seed around that of a case; ``wild``: around the inside one, as far as can be."""
    if part.kind == "count":
        return [float(value) for value in np.resize(COUNTS[what], n)]
    numbers = case(part)
    centre, spread = numbers["inside" if what == "wild" else what], numbers["wild" if what == "wild" else "spread"]
    if spread is None or spread == 0.0:
        spread = 1.0 if part.kind == "ratio" else 0.0
    signs = np.resize([1, -1, 0.5, -0.5, 0.2, -0.2], n)
    if part.name == "dln_correlation_within_rates":
        return [centre] * n if what != "wild" else list(np.resize([-1.0, 1.0, -1.0, 0.0, 1.0, -1.0], n))
    if part.name.startswith("largest_lr"):
        return [centre] * n if what != "wild" else list(np.resize([32.0, 1 / 16, 16.0, 1 / 16, 32.0, 1 / 16], n))
    if part.kind == "ratio":
        return [centre * spread**sign for sign in signs]
    return [centre + spread * sign for sign in signs]


def verdict_of(tmp_path, claim: Claim, *what: str, n: int = 6):
    plant_claim(tmp_path, claim, [values_of(part, one, n) for part, one in zip(claim.parts, what, strict=True)])
    return judge(load_runs(tmp_path), [claim])[0]


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_the_catalogue_is_complete_and_consistent():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert {str(number) for number in range(1, 24)} <= set(ids)
    for claim in CLAIMS:
        assert claim.statement.endswith(".") and claim.by and claim.where
        assert claim.parts and not claim.needs
        assert claim.margin and claim.fairness and claim.figures
        for part in claim.parts:
            assert part.low < part.high
            assert math.isfinite(part.low) or math.isfinite(part.high)


def test_every_measure_is_used_and_every_study_is_an_experiment():
    from icsbench.app.folders import CONFIG_DIR

    assert PARTS.keys() == PLANT.keys()
    experiments = {path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")}
    assert {study for claim in CLAIMS for study in claim.studies} <= experiments


def test_a_claim_by_its_id_and_what_a_study_serves():
    assert claim_of("11b").id == "11b"
    assert serves("dln") == ["8", "9"]
    with pytest.raises(IcsbenchError, match="no claim '99'; the ids are 1, 1b"):
        claim_of("99")


# --- measures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", PARTS)
@pytest.mark.parametrize("what", ["inside", "outside"])
def test_a_measure_is_what_was_planted(tmp_path, measure, what):
    part = PARTS[measure]
    planted = values_of(part, what, 2)
    plant(tmp_path, part, planted)
    (group,) = group_runs(load_runs(tmp_path))
    found = PARTS[measure].measure(group)
    assert found.left_out == {}
    tolerance = {"speed_up_to_90": 0.05, "mean_train_noisy_minus_none": 0.6}
    expected = planted
    if measure == "mean_train_noisy_minus_none":  # whole rows of ten steps
        expected = [round(value) for value in planted]
    assert list(found.values.values()) == pytest.approx(expected, abs=tolerance.get(measure, 1e-6), rel=1e-3)


@pytest.mark.parametrize("measure", ["loss_width_in_window", "loss_width_matched_in_window"])
def test_a_landscape_at_chance_does_not_count(tmp_path, measure):
    """Without BN the landscape is flat until the run leaves chance at step 400, which would turn the ratio around."""
    for seed in range(2):
        write(tmp_path, "landscape", "bn", seed, reach=200)
        write(tmp_path, "landscape", "none", seed, reach=400, width=[1e-4] * 16 + [0.6] * 24)
    (group,) = group_runs(load_runs(tmp_path))
    assert list(PARTS[measure].measure(group).values.values()) == pytest.approx([0.5, 0.5])


def test_a_landscape_of_a_run_that_stays_at_chance_has_no_ratio(tmp_path):
    write(tmp_path, "landscape", "bn", 0)
    write(tmp_path, "landscape", "none", 0, train=0.1)
    (group,) = group_runs(load_runs(tmp_path))
    found = PARTS["loss_width_in_window"].measure(group)
    assert found.values == {} and found.left_out == {0: "none never left chance"}


def test_of_several_rates_that_of_the_paper_counts(tmp_path):
    for lr, beta in ((0.01, 40.0), (0.1, 5.0), (1.0, 80.0)):
        write(tmp_path, "landscape", "bn", 0, lr=lr, beta=beta)
        write(tmp_path, "landscape", "none", 0, lr=lr)
    (group,) = group_runs(load_runs(tmp_path))
    assert PARTS["beta_in_window"].measure(group).values == pytest.approx({0: 0.5})


def test_the_test_accuracy_with_bn_is_on_recomputed_statistics(tmp_path):
    path = write(tmp_path, "long", "bn", 0)
    summary = json.loads((path / "summary.json").read_text())
    finish(path, summary | {"test/accuracy": {"running-off": 0.1, "recalibrated-off": 0.8, "batch-off": 0.2}})
    write(tmp_path, "long", "none", 0, test=0.5)
    (group,) = group_runs(load_runs(tmp_path))
    assert PARTS["test_bn_minus_none"].measure(group).values == pytest.approx({0: 30.0})


# --- every verdict can come out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.id)
def test_where_the_effect_is_there_the_claim_is_supported(tmp_path, claim):
    verdict = verdict_of(tmp_path, claim, *["inside"] * len(claim.parts))
    assert (verdict.verdict, verdict.n) == ("supported", 6)
    assert verdict.speaks_for == claim.by
    assert verdict.p_holm <= 0.05 and verdict.scale == "cpu"
    assert all(finding.side == "inside" for finding in verdict.findings)


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.id)
def test_where_it_is_reversed_the_claim_is_contradicted(tmp_path, claim):
    verdict = verdict_of(tmp_path, claim, *["outside"] * len(claim.parts), n=8 if claim.id in EXACT else 6)
    assert verdict.verdict == "contradicted"
    assert verdict.speaks_for in ("", *(side for part in claim.parts for side in (part.below, part.above)))
    if any(part.below for part in claim.parts) and claim.id != "12":
        assert verdict.speaks_for


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.id)
def test_where_there_is_no_effect_the_verdict_is_that_of_the_region(tmp_path, claim):
    verdict = verdict_of(tmp_path, claim, *["none"] * len(claim.parts), n=8 if claim.id in EXACT else 6)
    neutral = [case(part)["none"] for part in claim.parts]
    at_bound = any(value in (part.low, part.high) for part, value in zip(claim.parts, neutral, strict=True))
    within = all(part.low < value < part.high for part, value in zip(claim.parts, neutral, strict=True))
    beyond = any(not part.low <= value <= part.high for part, value in zip(claim.parts, neutral, strict=True))
    expected = "contradicted" if beyond else "inconclusive" if at_bound else "supported"
    assert within == (expected == "supported")
    assert verdict.verdict == expected


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.id)
def test_where_seeds_scatter_too_much_it_stays_open_and_says_how_many_would_do(tmp_path, claim):
    verdict = verdict_of(tmp_path, claim, *["wild"] * len(claim.parts))
    assert verdict.verdict == "inconclusive"
    assert verdict.n == 6 and verdict.p_holm > 0.05
    assert "settle it" in verdict.reason
    assert verdict.seeds_needed is None or verdict.seeds_needed > 6


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.id)
def test_five_seeds_are_too_few_and_none_are_not_measured(tmp_path, claim):
    verdict = verdict_of(tmp_path, claim, *["inside"] * len(claim.parts), n=5)
    assert (verdict.verdict, verdict.seeds_needed) == ("inconclusive", 6)
    assert math.isnan(verdict.p)
    (nothing,) = judge([], [claim])
    assert nothing.verdict == "not measured" and "no finished run of experiment" in nothing.reason


@pytest.mark.parametrize("claim_id", ["1", "4", "5", "7", "10", "11", "11b", "12", "2", "13b", "14"])
def test_swapping_the_labels_of_two_regimes_flips_the_verdict(tmp_path, claim_id):
    claim = claim_of(claim_id)
    verdict = verdict_of(tmp_path / "a", claim, *["inside"] * len(claim.parts))
    pair = {"4": ("noisy_bn", "none"), "5": ("noisy_bn", "none"), "13b": ("l1", "bn")}.get(claim_id, ("bn", "none"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    swap = dict([pair, pair[::-1]])
    moved = []
    for path in sorted((tmp_path / "b").glob("*/*/seed-*")):
        config = yaml.safe_load((path / "config.yaml").read_text())
        regime = config["norm"]["name"]
        if regime in swap:
            config["norm"]["name"] = swap[regime]
            (path / "config.yaml").write_text(yaml.safe_dump(config))
            moved.append((path, path.parent.parent / ("swapped-" + path.parent.name) / path.name))
    for path, to in moved:
        to.parent.mkdir(exist_ok=True)
        path.rename(to)
        summary = json.loads((to / "summary.json").read_text())
        value = next(iter(summary["test/accuracy"].values()), None)
        if value is not None:
            for split in ("test", "val"):
                summary[f"{split}/accuracy"] = dict.fromkeys(("running-off", "recalibrated-off"), value)
        finish(to, summary)
    (flipped,) = judge(load_runs(tmp_path / "b"), [claim])
    assert (verdict.verdict, flipped.verdict) == ("supported", "contradicted")
    if claim_id == "7":
        assert flipped.speaks_for == claim.disputed_by


def test_two_sides_share_one_measurement_and_the_verdict_names_them(tmp_path):
    claim = claim_of("7")
    assert verdict_of(tmp_path / "a", claim, "inside", "inside").speaks_for == "Santurkar et al. 2018"
    other = verdict_of(tmp_path / "b", claim, "outside", "outside")
    assert other.speaks_for == "Ioffe & Szegedy 2015; Awais et al. 2020"
    assert "for Ioffe & Szegedy 2015; Awais et al. 2020 and against Santurkar et al. 2018" in explain(other)


def test_parts_that_pull_apart_contradict_the_claim_as_a_whole(tmp_path):
    verdict = verdict_of(tmp_path, claim_of("7"), "inside", "inside")
    assert verdict.verdict == "supported"
    claim = claim_of("8")
    verdict = verdict_of(tmp_path / "8", claim, "inside", "inside", "outside")
    assert verdict.verdict == "contradicted" and "part 3 above" in verdict.reason


# --- Holm over a report ----------------------------------------------------------------------------------------------


def finding(values, low=0.0, high=math.inf, kind="value", **options):
    part = Part("number", lambda group: Measured({}, {}), "what", ("study",), kind=kind, low=low, high=high, **options)
    return Finding(part, None, dict(enumerate(values)), {})


def claim(id="x"):
    return Claim(id, "A statement.", "Somebody", "somewhere")


def test_a_verdict_that_stands_alone_may_not_stand_among_many():
    weak = [0.1, 1.9, 0.3, 1.5, 0.2, 1.4]
    alone = decide([(claim(), [finding(weak)])])[0]
    assert alone.verdict == "supported" and 0.005 < alone.p < 0.05
    others = [(claim(str(i)), [finding([value + i / 1e9 for value in weak])]) for i in range(12)]
    among = decide(others)
    assert {verdict.verdict for verdict in among} == {"inconclusive"}
    assert among[0].p == alone.p and among[0].p_holm == pytest.approx(min(1, 12 * alone.p))
    assert "after Holm over 12 claims" in among[0].reason


def test_claims_on_the_same_measurement_are_one_member():
    weak = [0.1, 1.9, 0.3, 1.5, 0.2, 1.4]
    alone = decide([(claim(), [finding(weak)])])[0]
    shared = decide([(claim(str(i)), [finding(weak, low=-i)]) for i in range(12)])
    assert shared[0].verdict == "supported" and shared[0].p_holm == pytest.approx(alone.p)


def test_one_part_outside_is_enough_whatever_the_others_have():
    outside, open_, few = finding([-5.0, -5.2, -4.9, -5.1, -5.0, -4.8]), finding([3.0, -3.0] * 3), finding([1.0] * 2)
    missing = Finding(outside.part, None, {}, {}, missing="no runs")
    for other in (open_, few, missing):
        verdict = decide([(claim(), [outside, other])])[0]
        assert verdict.verdict == "contradicted" and "part 1 below" in verdict.reason
    inside = finding([5.0, 5.2, 4.9, 5.1, 5.0, 4.8])
    assert decide([(claim(), [inside, missing])])[0].verdict == "inconclusive"
    assert decide([(claim(), [inside, few])])[0].verdict == "inconclusive"


def test_a_count_is_judged_by_the_exact_binomial_test():
    twelve = finding([1.0] * 11 + [0.0], low=0.5, kind="count")
    verdict = decide([(claim(), [twelve])])[0]
    assert verdict.verdict == "supported"
    assert verdict.p == pytest.approx(2 * stats.binomtest(11, 12, 0.5, alternative="greater").pvalue)
    interval = verdict.findings[0].interval
    assert interval[:3] == pytest.approx((11 / 12, *stats.binomtest(11, 12).proportion_ci(0.95)))
    assert decide([(claim(), [finding([1.0, 0.0] * 6, low=0.5, kind="count")])])[0].verdict == "inconclusive"


def test_an_exact_rule_wants_the_sign_flips_too():
    """Six equal signs have 2 / 64 at the smallest, whatever Student's t says."""
    sure = finding([5.0, 5.2, 4.9, 5.1, 5.0, 4.8])
    assert decide([(claim(), [sure])], Rule(level=0.03))[0].verdict == "supported"
    assert decide([(claim(), [sure])], Rule(level=0.03, exact=True))[0].verdict == "inconclusive"
    twelve = finding([5.0, 5.2, 4.9, 5.1, 5.0, 4.8] * 2)
    assert decide([(claim(), [twelve])], Rule(level=0.03, exact=True))[0].verdict == "supported"


def test_members_that_are_not_measured_yet_count():
    values = finding([1.0, 1.4, 0.8, 1.2, 1.1, 0.9])
    alone, among = (decide([(claim(), [values])], members=n)[0] for n in (None, 30))
    assert among.p_holm == pytest.approx(30 * alone.p) and "over 30 claims" in among.reason


def test_claims_of_too_few_seeds_do_not_tighten_the_others():
    weak = [0.1, 1.9, 0.3, 1.5, 0.2, 1.4]
    few = [(claim(str(i)), [finding(weak[:5])]) for i in range(12)]
    assert decide([(claim(), [finding(weak)]), *few])[0].verdict == "supported"


def test_the_false_verdicts_of_a_report_without_effects_are_rare():
    """Twelve claims whose means lie at their bounds: any verdict is false, and comes in 5 % of reports at most."""
    rng = np.random.default_rng(5)
    false = [
        any(
            verdict.verdict != "inconclusive"
            for verdict in decide([(claim(str(i)), [finding(rng.normal(size=6))]) for i in range(12)])
        )
        for _ in range(300)
    ]
    assert np.mean(false) <= 0.05 + 0.03


def test_t_and_sign_flips_that_disagree_are_flagged():
    skewed = [5.0, 0.05, 0.04, 0.06, 0.05, 0.03]  # every sign alike, one value far out
    verdict = decide([(claim(), [finding(skewed)])])[0]
    assert verdict.p > 0.05 >= verdict.p_sign_flip and verdict.disagree
    assert "disagree" in explain(verdict) and "disagree" in claims_as_markdown([verdict])


def test_flips_at_their_floor_do_not_disagree():
    part = finding([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0])
    verdict = decide([(claim(), [part, part])])[0]
    assert verdict.verdict == "contradicted" and verdict.p_sign_flip == 4 * 2**-6 > 0.05
    assert not verdict.disagree


# --- runs that went wrong --------------------------------------------------------------------------------------------


def test_a_diverged_run_counts_as_chance_where_it_has_an_accuracy(tmp_path):
    claim = claim_of("15")
    plant_claim(tmp_path, claim, [[0.0] * 6])
    shutil.rmtree(next((tmp_path / "long").glob("bn-*")))
    for seed in range(6):
        write(tmp_path, "long", "bn", seed, train=0.6, test=0.6, diverged_at=500 if seed == 3 else None)
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert verdict.findings[0].values[3] == pytest.approx(100 * (0.1 - 0.6))
    assert verdict.n == 6


def test_a_diverged_run_leaves_its_seed_out_where_it_has_nothing_and_that_is_said(tmp_path):
    claim = claim_of("8")
    plant_claim(tmp_path, claim, [values_of(part, "inside") for part in claim.parts])
    shutil.rmtree(next((tmp_path / "dln").glob("none-*")) / "seed-2")
    write(tmp_path, "dln", "none", 2, lr=1e-7, diverged_at=500)
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert verdict.verdict == "inconclusive" and verdict.n == 5
    assert "seed 2 (none diverged at step 500)" in verdict.reason
    assert "left out: seed 2 (none diverged at step 500)" in explain(verdict)


def test_a_diverged_run_is_left_out_of_every_measure_of_updates_and_named(tmp_path):
    for seed in range(8):
        write(tmp_path, "landscape", "bn", seed)
        write(tmp_path, "landscape", "none", seed, diverged_at=600 if seed == 7 else None)
        for lr in (1e-7, 1e-8, 1e-9):
            write(tmp_path, "dln_lr", "bn", seed, lr=lr, diverged_at=500 if (seed, lr) == (7, 1e-8) else None)
    for verdict in judge(load_runs(tmp_path), [claim_of(id) for id in ("7", "9", "10", "11", "12")]):
        for finding in verdict.findings:
            if finding.part.name in ("dln_edge_bn", "dln_edge_none"):
                continue
            assert finding.left_out.keys() == {7} or finding.part.name.startswith("dln")
            assert "diverged at step" in finding.left_out[7]
        if verdict.n >= 6:
            assert "left out: seed 7" in verdict.reason


@pytest.mark.parametrize("measure", ["shift_mean_noisy_to_none_off_chance", "shift_variance_noisy_to_none_in_units"])
def test_the_shift_of_a_diverged_run_is_none(tmp_path, measure):
    """Also of one that diverged so late that nearly all of its probes are there."""
    for seed in range(3):
        late = 950 if seed == 2 else None
        write(tmp_path, "long", "noisy_bn", seed, mean=0.4, variance_in_units=0.4, diverged_at=late)
        write(tmp_path, "long", "none", seed, mean=0.1)
    (group,) = group_runs(load_runs(tmp_path))
    found = PARTS[measure].measure(group)
    assert found.values == pytest.approx({0: 4.0, 1: 4.0})
    assert "diverged at step 950" in found.left_out[2]


def test_where_every_run_diverged_nothing_breaks(tmp_path):
    for seed in range(6):
        for study in ("percentiles", "three_regimes"):
            write(tmp_path, study, "bn", seed)
            write(tmp_path, study, "none", seed, diverged_at=300)
        for lr in (1e-7, 1e-8, 1e-9):
            write(tmp_path, "dln_lr", "bn", seed, lr=lr, diverged_at=500)
    for verdict in judge(load_runs(tmp_path), [claim_of(id) for id in ("2", "3", "9")]):
        assert (verdict.verdict, verdict.n) == ("inconclusive", 0)


def test_a_part_that_was_not_measured_leaves_the_claim_open(tmp_path):
    claim = claim_of("1")
    plant_claim(tmp_path, claim, [values_of(part, "inside") for part in claim.parts], "three_regimes")
    for path in tmp_path.glob("three_regimes/bn-*/seed-*"):
        summary = json.loads((path / "summary.json").read_text())
        summary["test/accuracy"] = {}
        finish(path, summary)
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert verdict.verdict == "inconclusive" and "no test accuracy" in verdict.reason


def test_the_second_study_serves_where_the_first_was_not_run(tmp_path):
    claim = claim_of("3")
    plant_claim(tmp_path, claim, [values_of(claim.parts[0], "inside")], "landscape")
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert verdict.verdict == "supported"
    assert verdict.command == "icsbench sweep experiment=landscape scale=cpu model.width=0.25 optim.lr=0.1 steps=1000"


def test_the_command_names_those_options_of_the_network_that_its_scales_set_differently(tmp_path):
    claim = claim_of("2")
    plant_claim(tmp_path / "mlp", claim, [values_of(claim.parts[0], "inside")])
    (verdict,) = judge(load_runs(tmp_path / "mlp"), [claim])
    assert verdict.command == "icsbench sweep experiment=percentiles scale=cpu optim.lr=0.1 steps=1000"
    plant_claim(tmp_path / "new", claim, [values_of(claim.parts[0], "inside")])
    scales = {"demo": {"model.width": 0.125, "model.bias": True}, "cpu": {"model.width": 0.25, "steps": 1000}}
    for path in (tmp_path / "new").rglob("seed-*"):
        environment = json.loads((path / "environment.json").read_text())
        environment["model"] = {"label": "new network", "units": False, "scales": scales}
        (path / "environment.json").write_text(json.dumps(environment))
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["model"]["name"] = "new"
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        finish(path, json.loads((path / "summary.json").read_text()))
    (verdict,) = judge(load_runs(tmp_path / "new"), [claim])
    assert verdict.command == "icsbench sweep experiment=percentiles scale=cpu model.width=0.25 optim.lr=0.1 steps=1000"


def test_a_verdict_names_the_runs_that_it_is_of_and_no_other(tmp_path):
    for seed in range(6):
        for regime in ("none", "bn", "noisy_bn"):
            for lr in (0.01, 0.1):
                write(tmp_path, "landscape", regime, seed, lr=lr)
    (verdict,) = judge(load_runs(tmp_path), [claim_of("12")])
    assert {(run.regime, run.lr) for run in verdict.runs} == {("none", 0.1), ("bn", 0.1)} and len(verdict.runs) == 12
    assert "lr 0.1," in verdict.facts and "0.01" not in verdict.facts
    assert "optim.lr=0.1 " in verdict.command


def test_the_rates_that_were_chosen_are_named(tmp_path):
    claim = claim_of("1b")
    plant_claim(tmp_path, claim, [[4.0] * 6])
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert (
        verdict.findings[0].note == "bn at 0.8 (6 of 6 seeds end off chance); none at 0.1 (6 of 6 seeds end off chance)"
    )
    assert f"found: {verdict.findings[0].note}" in explain(verdict)
    for path in (tmp_path / "lr_grid").glob("none-*-lr0.05/seed-*"):
        summary = json.loads((path / "summary.json").read_text())
        finish(path, summary | {"val/accuracy": {"running-off": 0.9}})
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert verdict.verdict == "not measured"
    assert "the best rate of none, 0.05, is the edge of the grid" in verdict.reason


def test_noise_is_judged_only_where_the_network_trains_without_it(tmp_path):
    for seed in range(6):
        write(tmp_path, "noise_control", "noise", seed, train=0.1)
        write(tmp_path, "noise_control", "none", seed, train=0.1 if seed < 2 else 0.6)
    (verdict,) = judge(load_runs(tmp_path), [claim_of("6")])
    assert (verdict.verdict, verdict.n) == ("inconclusive", 4)
    assert [*verdict.findings[0].values.items()] == [(seed, 1.0) for seed in range(2, 6)]
    assert "seed 0 (does not train without noise)" in verdict.reason


def test_seeds_that_are_left_out_are_not_made_up_for_by_more(tmp_path):
    claim = claim_of("14")
    for seed in range(6):
        for lr in (0.05, 0.1, 0.2, 0.4):
            write(tmp_path, "lr_grid", "bn", seed, lr=lr, train=0.1 if lr == 0.4 else 0.7)
            write(tmp_path, "lr_grid", "none", seed, lr=lr, train=0.1 if seed == 2 or lr > 0.05 else 0.7)
    (verdict,) = judge(load_runs(tmp_path), [claim])
    assert (verdict.verdict, verdict.n, verdict.seeds_needed) == ("inconclusive", 5, None)
    assert "seed 2 (none trains at no rate of the grid)" in verdict.reason


# --- records that are refused ----------------------------------------------------------------------------------------


DRIFTS = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0]


@pytest.fixture
def records(tmp_path):
    plant(tmp_path, PARTS["drift_vgg"], DRIFTS)
    return tmp_path


def refusal(root):
    with pytest.raises(IcsbenchError) as error:
        judge(load_runs(root))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["metrics.jsonl", "environment.json", "summary.json", "config.yaml"])
def test_an_edited_file_is_refused(records, name):
    path = next(records.rglob("seed-3")) / name
    text = path.read_text()
    path.write_text(text.replace('"step": 500', '"step": 501').replace("0.6", "0.61").replace("0000", "0001"))
    if path.read_text() == text:
        path.write_text(text.replace("planted", "plamted").replace("lr: 0.1", "lr: 0.2"))
    assert path.read_text() != text
    assert f"{name}: not what it was when the run was finished" in refusal(records)


def test_a_truncated_file_is_refused(records):
    path = next(records.rglob("seed-0")) / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-200])
    assert "metrics.jsonl: not what it was" in refusal(records)


def test_a_missing_or_changed_probe_is_refused(records):
    next(records.rglob("step-00000300.npz")).unlink()
    assert "probes: not what it was" in refusal(records)


def test_a_record_without_its_seal_is_refused(records):
    next(records.rglob("seal.json")).unlink()
    assert "seal.json is missing" in refusal(records)


def test_a_record_in_the_folder_of_another_config_is_refused(records):
    bn, none = (next((records / "long").glob(f"{regime}-*")) for regime in ("bn", "none"))
    shutil.rmtree(bn / "seed-4")
    shutil.copytree(none / "seed-4", bn / "seed-4")
    assert "the record was made in another folder" in refusal(records)


def test_a_record_that_poses_as_another_seed_is_refused(records):
    folder = next((records / "long").glob("bn-*"))
    shutil.copytree(folder / "seed-0", folder / "seed-9")
    assert "the record was made in another folder" in refusal(records)


def test_a_copy_of_a_study_is_refused(records):
    shutil.copytree(records / "long", records / "copy_of_it")
    assert "the same run twice; delete one" in refusal(records)


@pytest.mark.parametrize("change", ["experiment", "scale", "emptied", "no summary", "no config"])
def test_a_change_does_not_take_a_record_out_of_the_count(records, change):
    path = next(records.rglob("seed-3"))
    config = yaml.safe_load((path / "config.yaml").read_text())
    if change in ("experiment", "scale"):
        (path / "config.yaml").write_text(yaml.safe_dump(config | {change: "demo"}))
    elif change == "emptied":
        (path / "summary.json").write_text("{}")
    else:
        (path / {"no summary": "summary.json", "no config": "config.yaml"}[change]).unlink()
    assert str(path) in refusal(records)
    assert invoke("claims", str(records), "--scale", "cpu").code == 1


def test_mixed_scales_are_refused(records):
    write(records, "dose", "noisy_bn", 0, scale="demo")
    assert "the records are of scales cpu and demo" in refusal(records)


def test_two_settings_of_one_study_are_refused(records):
    path = write(records, "long", "bn", 7)
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(config | {"steps": 1010}))
    finish(path, json.loads((path / "summary.json").read_text()))
    assert "must not be pooled" in refusal(records)


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_json_holds_what_the_verdicts_were_computed_from(records):
    verdicts = judge(load_runs(records))
    files = write_claims(verdicts, records / "out", records)
    assert [path.name for path in files] == ["claims.json", "claims.csv", "claims.md"]
    content = json.loads(files[0].read_text(), parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))
    by_id = {entry["id"]: entry for entry in content["claims"]}
    assert [*by_id] == [claim.id for claim in CLAIMS]
    assert by_id["3"]["parts"][0]["values"] == pytest.approx({str(n): drift for n, drift in enumerate(DRIFTS)})
    assert len(by_id["3"]["runs"]) == 12
    assert by_id["3"]["verdict"] == "supported" and by_id["16"]["verdict"] == "not measured"
    assert files[0].read_bytes() == write_claims(verdicts, records / "out", records)[0].read_bytes()


def test_explain_shows_the_arithmetic(records):
    text = explain(judge(load_runs(records), [claim_of("3")])[0])
    for said in (
        "Claim 3",
        "disputed by Ioffe",
        "between ×0.8 and ×1.25",
        "per seed: 0: 1,",
        "exact sign flips",
        "Holm",
    ):
        assert said in text


def test_a_region_in_words():
    assert region(PARTS["speed_up_to_90"]) == "above ×1.5"
    assert region(PARTS["beta_in_window"]) == "below ×0.8"
    assert region(PARTS["train_l1_minus_bn"]) == "between -2 and 2 points"
