import math

import numpy as np
import pytest
from planted import RATES, SIZES, STRENGTHS, write

from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities import scans
from icsbench.record.reader import load_runs


def group_of(root):
    (group,) = group_runs(load_runs(root))
    return group


def of(found, quantity, regime):
    (scan,) = (scan for scan in found if (scan.quantity, scan.regime) == (quantity, regime))
    return scan


def test_over_learning_rates_by_hand(tmp_path):
    for lr in RATES[:4]:
        for seed in range(3):
            write(tmp_path, "lr_grid", "bn", seed, lr=lr, train=0.5 + 0.1 * seed, test=0.4, beta=2 / lr * 2.0**seed)
            diverged = 300 if lr == 0.4 and seed == 1 else None
            write(tmp_path, "lr_grid", "none", seed, lr=lr, train=0.3, test=0.2, diverged_at=diverged)
    found = scans.scans(group_of(tmp_path))
    assert {scan.setting for scan in found} == {scans.LEARNING_RATE}
    train = of(found, scans.TRAIN, "bn")
    assert train.x.tolist() == list(RATES[:4]) and train.labels == ("0.05", "0.1", "0.2", "0.4")
    assert [interval.mean for interval in train.intervals] == pytest.approx([0.6] * 4)
    assert train.intervals[0].half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert of(found, scans.TEST, "none").intervals[-1].mean == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    beta = of(found, scans.BETA, "bn")
    assert [interval.mean for interval in beta.intervals] == pytest.approx([2 / lr * 2 for lr in RATES[:4]])
    assert of(found, scans.BETA, "none").intervals[-1].n == 2
    assert next(iter(train.rows())) == {
        **{"setting": "learning rate", "quantity": "train/accuracy", "regime": "bn", "x": 0.05, "label": "0.05"},
        **{"mean": pytest.approx(0.6), "low": train.intervals[0].low, "high": train.intervals[0].high, "n": 3},
    }


def test_noise_is_placed_by_the_shift_that_it_makes(tmp_path):
    for strength, shift in STRENGTHS.items():
        for seed in range(2):
            write(tmp_path, "dose", "noisy_bn", seed, strength=strength, mean=shift * 2.0 ** (2 * seed - 1))
    scan = of(scans.scans(group_of(tmp_path)), scans.TRAIN, "noisy_bn")
    assert scan.setting == scans.SHIFT
    assert scan.x == pytest.approx(np.array([*STRENGTHS.values()]))
    assert scan.labels == ("noise × 0", "noise × 1", "noise × 2", "noise × 4")


def test_batch_sizes_are_one_group_and_have_a_gap(tmp_path):
    for size in SIZES:
        write(tmp_path, "batch_size", "bn", 0, batch_size=size, train=0.9, test=0.9 - 0.001 * size)
    group = group_of(tmp_path)
    gap = of(scans.scans(group), scans.GAP, "bn")
    assert gap.x.tolist() == list(SIZES)
    assert [interval.mean for interval in gap.intervals] == pytest.approx([0.001 * size for size in SIZES])
    assert "batch 16, 64 and 256" in group.facts


def test_two_values_or_a_regression_are_no_scan(tmp_path):
    for lr in RATES[:2]:
        write(tmp_path / "two", "lr_grid", "bn", 0, lr=lr)
    group = group_of(tmp_path / "two")
    assert not scans.sweeps(group)
    with pytest.raises(NotMeasured, match="three values"):
        scans.scans(group)
    for lr in (1e-6, 1e-7, 1e-8):
        write(tmp_path / "dln", "dln_lr", "bn", 0, lr=lr)
    assert not scans.sweeps(group_of(tmp_path / "dln"))


def test_batch_sizes_of_another_experiment_stay_apart(tmp_path):
    for size in SIZES:
        write(tmp_path, "mine", "bn", 0, batch_size=size)
    assert len(group_runs(load_runs(tmp_path))) == 3
