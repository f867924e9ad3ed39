"""The depth at which accuracy falls: fits of planted curves, bounds where there is no fall, and claims 19 and 19b."""

import math

import numpy as np
import pytest
from planted_cliff import DEPTHS, LIMITS, planted, study, write_study

from icsbench.analysis.claims.cliff import BN_IS_THE_REASON, UNTRAINABLE_BEYOND_A_DEPTH, Range, of_networks
from icsbench.analysis.groups import group_runs
from icsbench.analysis.quantities.cliff import cliff, cliffs
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.analysis.verdicts import judge
from icsbench.record.reader import load_runs


@pytest.mark.parametrize(("where", "scale", "plateau"), [(17.3, 2.0, 0.97), (41.0, 6.0, 0.8), (9.0, 1.5, 1.0)])
def test_the_cliff_of_a_planted_curve_is_found(where, scale, plateau):
    found = cliff(DEPTHS[::-1], planted(DEPTHS[::-1], where, scale, plateau), 0.1)
    assert found.fit is not None and found.depth.measured and not found.why
    assert found.depth.low == pytest.approx(where, abs=1e-3)
    assert (found.fit.plateau, found.fit.scale) == pytest.approx((plateau, scale), abs=1e-3)
    assert found.fit.accuracy(np.array([where]))[0] == pytest.approx((plateau + 0.1) / 2, abs=1e-4)


def test_noise_moves_the_cliff_little():
    noise = np.random.default_rng(3).normal(0, 0.02, (20, len(DEPTHS)))
    found = [cliff(DEPTHS, np.clip(planted(DEPTHS, 30.0) + one, 0, 1), 0.1).depth.low for one in noise]
    assert np.mean(found) == pytest.approx(30, abs=0.5) and np.std(found) < 1.5


def test_a_step_is_placed_between_its_depths():
    accuracy = np.where(DEPTHS <= 24, 0.9, 0.1)
    assert 24 < cliff(DEPTHS, accuracy, 0.1).depth.low < 32


@pytest.mark.parametrize(
    ("accuracy", "depth", "why"),
    [
        (np.full(9, 0.9), (64, math.inf), "no fall within 64 layers"),
        (planted(DEPTHS, 80.0), (64, math.inf), "no fall within 64 layers"),
        (np.full(9, 0.12), (0, math.inf), "nothing learned at any depth"),
        (np.r_[0.3, np.full(8, 0.1)], (0, 4), "fallen before 4 layers"),
        (planted(DEPTHS, 1.0, 2.0), (0, 4), "fallen before 4 layers"),
    ],
)
def test_what_is_outside_the_depths_is_a_bound(accuracy, depth, why):
    found = cliff(DEPTHS, accuracy, 0.1)
    assert (found.depth, found.fit, found.why) == (depth, None, why)


def verdicts(root):
    return judge(load_runs(root), [UNTRAINABLE_BEYOND_A_DEPTH, BN_IS_THE_REASON])


def test_cliffs_come_by_network(tmp_path):
    write_study(tmp_path, study({8: 1, 32: 0.9, 128: 0.6}, 50.0))
    [group] = group_runs(load_runs(tmp_path))
    found = [*cliffs(lab_rows(group)[1])]
    assert [one[:3] for one in found[:5]] == [("bn", 8, 0), ("bn", 8, 1), ("bn", 8, 2), ("bn", 8, 3), ("bn", 32, 0)]
    assert found[0][3].depth.low == pytest.approx(LIMITS[8] * 1.005, rel=1e-3)


def test_claims_are_supported_by_cliffs_at_sixteen_scales_and_none_without_bn(tmp_path):
    write_study(tmp_path, study({8: 0.95, 32: 1.0, 128: 1.05}, 500.0))
    limit, reason = verdicts(tmp_path)
    assert (limit.verdict, limit.n, limit.of) == ("supported", 8, "networks"), limit.reason
    assert [round(finding.interval.mean, 2) for finding in limit.findings[:3]] == [0.95, 1.0, 1.05]
    for bounds in reason.findings:
        assert bounds.note == "8 of 8 values are bounds" and all(value > 1.25 for value in bounds.values.values())
    assert reason.verdict == "supported", reason.reason


def test_claims_are_contradicted_by_cliffs_elsewhere_and_the_same_without_bn(tmp_path):
    write_study(tmp_path, study({8: 0.6, 32: 1.0, 128: 1.0}, 33.0))
    limit, reason = verdicts(tmp_path)
    assert limit.verdict == "contradicted" and "part 1 below" in limit.reason
    assert reason.verdict == "contradicted" and "part 2 below, part 3 below" in reason.reason
    assert [round(finding.interval.mean, 1) for finding in reason.findings] == [2.0, 0.9, 0.8]


def test_a_cliff_beyond_all_depths_contradicts_or_is_left_out(tmp_path):
    write_study(tmp_path, study({8: 3.0, 32: 3.0, 128: 3.0}, 500.0))
    limit, reason = verdicts(tmp_path)
    assert limit.findings[3].values == dict.fromkeys(range(8), 64.0) and limit.findings[3].side == "above"
    assert [*limit.findings[0].values.values()] == pytest.approx([64 / LIMITS[8]] * 8)
    assert reason.verdict == "inconclusive" and "no fall within 64 layers (BN, batch 8)" in reason.reason


@pytest.mark.parametrize(
    ("known", "counts"),
    [
        (Range(1.0, 1.0), 1.0),
        (Range(1.5, math.inf), 1.5),
        (Range(1.0, math.inf), None),
        (Range(0.0, 0.5), 0.5),
        (Range(0.0, 0.9), None),
        (Range(0.0, math.inf), None),
    ],
)
def test_a_bound_counts_only_where_it_settles_the_side(tmp_path, known, counts):
    write_study(tmp_path, study({8: 1, 32: 1, 128: 1}, 500.0), seeds=1, networks=1)
    [group] = group_runs(load_runs(tmp_path))
    measured = of_networks(lambda found, rows: known, 0.75, 1.25)(group)
    assert measured.values == ({} if counts is None else {0: counts})
    assert bool(measured.left_out) == (counts is None)


def test_a_batch_size_that_was_not_measured_is_said(tmp_path):
    write_study(tmp_path, {("bn", 32): 38.0, ("none", 32): 60.0})
    limit, _ = verdicts(tmp_path)
    assert "no network was trained with BN at batch size 8" in limit.reason


def test_a_study_without_the_control_says_nothing_of_it(tmp_path):
    write_study(tmp_path, {("bn", batch): 38.0 for batch in (8, 32, 128)})
    _, reason = verdicts(tmp_path)
    assert "no network was trained without BN at batch size 8" in reason.reason
