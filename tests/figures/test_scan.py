import csv
import math

import numpy as np
import pytest
import yaml
from layout import assert_texts_apart
from planted import PLAIN, RATES, SIZES, STRENGTHS, write
from synthetic import write_run

from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.figures import scan
from icsbench.figures.style import house_style, save
from icsbench.record.reader import load_runs
from icsbench.record.schema import TEST_ACCURACY, TRAIN_ACCURACY


def lr_grid(root):
    for lr in RATES:
        for seed in range(3):
            write(root, "lr_grid", "bn", seed, lr=lr)
            write(root, "lr_grid", "none", seed, lr=lr, diverged_at=300 if lr > 0.5 else None)


def dose(root):
    for strength, shift in STRENGTHS.items():
        write(root, "dose", "noisy_bn", 0, strength=strength, mean=shift)


def batch_size(root):
    for size in SIZES:
        write(root, "batch_size", "bn", 0, batch_size=size)


@pytest.mark.parametrize(
    ("records", "panels", "said"),
    [
        (lr_grid, ["training accuracy (%)", "test accuracy (%)", "effective β"], "numbers are in the CSV file|n = 3"),
        (dose, ["training accuracy (%)", "test accuracy (%)"], "placed by the shift"),
        (
            batch_size,
            ["training accuracy (%)", "test accuracy (%)", "training − test (points)"],
            "batch 16, 64 and 256",
        ),
    ],
)
def test_a_scan_is_drawn_with_its_numbers(tmp_path, records, panels, said):
    records(tmp_path)
    (group,) = group_runs(load_runs(tmp_path))
    with house_style():
        figure, rows = scan.FIGURE.page(group)
        files = save(figure, rows, tmp_path / "scan")
    texts = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert all(title in texts for title in panels)
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert any(words in caption.replace("\N{NO-BREAK SPACE}", " ") for words in said.split("|"))
    with open(files[2], newline="") as file:
        written = list(csv.DictReader(file))
    assert len({row["quantity"] for row in written}) == len(panels)
    assert any(line.get_ydata().max() == pytest.approx(100 * PLAIN["train"]) for line in figure.axes[0].lines[:2])


def group_of(root):
    (group,) = group_runs(load_runs(root))
    return group


def of(found, quantity, regime):
    (one,) = (one for one in found if (one.quantity, one.regime) == (quantity, regime))
    return one


def test_over_learning_rates_by_hand(tmp_path):
    for lr in RATES[:4]:
        for seed in range(3):
            write(tmp_path, "lr_grid", "bn", seed, lr=lr, train=0.5 + 0.1 * seed, test=0.4, beta=2 / lr * 2.0**seed)
            diverged = 300 if lr == 0.4 and seed == 1 else None
            write(tmp_path, "lr_grid", "none", seed, lr=lr, train=0.3, test=0.2, diverged_at=diverged)
    found = scan.scans(group_of(tmp_path))
    assert {one.setting for one in found} == {scan.LEARNING_RATE}
    train = of(found, TRAIN_ACCURACY, "bn")
    assert train.x.tolist() == list(RATES[:4]) and train.labels == ("0.05", "0.1", "0.2", "0.4")
    assert [interval.mean for interval in train.intervals] == pytest.approx([0.6] * 4)
    assert train.intervals[0].half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert of(found, TEST_ACCURACY, "none").intervals[-1].mean == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    beta = of(found, scan.BETA, "bn")
    assert [interval.mean for interval in beta.intervals] == pytest.approx([2 / lr * 2 for lr in RATES[:4]])
    assert of(found, scan.BETA, "none").intervals[-1].n == 2
    assert next(iter(train.rows())) == {
        **{"setting": "learning rate", "quantity": "train/accuracy", "regime": "bn", "x": 0.05, "label": "0.05"},
        **{"mean": pytest.approx(0.6), "low": train.intervals[0].low, "high": train.intervals[0].high, "n": 3},
    }


def test_noise_is_placed_by_the_shift_that_it_makes(tmp_path):
    for strength, shift in STRENGTHS.items():
        for seed in range(2):
            write(tmp_path, "dose", "noisy_bn", seed, strength=strength, mean=shift * 2.0 ** (2 * seed - 1))
    found = of(scan.scans(group_of(tmp_path)), TRAIN_ACCURACY, "noisy_bn")
    assert found.setting == scan.MEAN_SHIFT
    assert found.x == pytest.approx(np.array([*STRENGTHS.values()]))
    assert found.labels == ("noise × 0", "noise × 1", "noise × 2", "noise × 4")


def test_noise_whose_shift_was_not_measured_has_no_place(tmp_path):
    for strength in STRENGTHS:
        write(tmp_path, "dose", "noisy_bn", 0, strength=strength, mean=math.nan)
    (group,) = group_runs(load_runs(tmp_path))
    assert scan.swept(group) == "norm.strength"
    with pytest.raises(NotMeasured, match="no run has a finite change of the mean in one step"):
        scan.FIGURE.page(group)


def test_batch_sizes_are_one_group_and_have_a_gap(tmp_path):
    for size in SIZES:
        write(tmp_path, "batch_size", "bn", 0, batch_size=size, train=0.9, test=0.9 - 0.001 * size)
    group = group_of(tmp_path)
    gap = of(scan.scans(group), scan.GAP, "bn")
    assert gap.x.tolist() == list(SIZES)
    assert [interval.mean for interval in gap.intervals] == pytest.approx([0.001 * size for size in SIZES])
    assert "batch 16, 64 and 256" in group.facts


def test_two_values_or_a_regression_are_no_scan(tmp_path):
    for lr in RATES[:2]:
        write(tmp_path / "two", "lr_grid", "bn", 0, lr=lr)
    group = group_of(tmp_path / "two")
    assert scan.swept(group) is None
    with pytest.raises(NotMeasured, match="three values"):
        scan.scans(group)
    for lr in (1e-6, 1e-7, 1e-8):
        write(tmp_path / "dln", "dln_lr", "bn", 0, lr=lr)
    assert not scan.FIGURE.applies(group_of(tmp_path / "dln"))


def test_batch_sizes_of_another_experiment_stay_apart(tmp_path):
    for size in SIZES:
        write(tmp_path, "mine", "bn", 0, batch_size=size)
    assert len(group_runs(load_runs(tmp_path))) == 3


def depths(root, *sizes, regimes=("none", "bn"), **options):
    """A study of the depth of a network that this package does not have."""
    for depth in sizes:
        model = {"name": "ours", "depth": depth, "init": "glorot"}
        options |= {"experiment": "depths", "model": model, "width": depth, "factors": {"model.depth": []}}
        for regime in regimes:
            write_run(root, regime, 0, steps=100, probes=False, **options)


def test_a_factor_that_nobody_names_is_swept_by_its_key(tmp_path):
    depths(tmp_path, 2, 8, 32)
    group = group_of(tmp_path)
    assert scan.swept(group) == "model.depth" and scan.FIGURE.applies(group)
    found = of(scan.scans(group), TEST_ACCURACY, "bn")
    assert (found.setting, found.x.tolist(), found.labels) == ("model.depth", [2, 8, 32], ("2", "8", "32"))
    with house_style():
        figure, rows = scan.FIGURE.page(group)
        assert_texts_apart(figure)
    assert {row["setting"] for row in rows} == {"model.depth"} and len(rows) == 2 * 2 * 3
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]


def test_a_factor_with_zero_has_a_linear_axis(tmp_path):
    depths(tmp_path, 0, 1, 2)
    with house_style():
        figure, _ = scan.FIGURE.page(group_of(tmp_path))
        figure.draw_without_rendering()
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear"]
    assert figure.axes[0].get_xlim()[0] < 0


def test_factors_of_the_study_come_before_the_learning_rate(tmp_path):
    depths(tmp_path, 2, 8, 32)
    for lr in (0.2, 0.4):
        write_run(
            tmp_path,
            "l1",
            0,
            steps=100,
            probes=False,
            experiment="depths",
            lr=lr,
            model={"name": "ours", "depth": 2, "init": "glorot"},
            factors={"model.depth": []},
        )
    group = group_of(tmp_path)
    assert len(group.lrs) == 3 and scan.swept(group) == "model.depth"
    with pytest.raises(NotMeasured, match=r"a second setting of l1 at model\.depth 2"):
        scan.scans(group)


def test_a_regime_without_the_setting_is_not_called_after_it(tmp_path):
    for strength, shift in STRENGTHS.items():
        write(tmp_path, "dose", "noisy_bn", 0, strength=strength, mean=shift)
    path = write(tmp_path, "dose", "none", 0)
    config = yaml.safe_load((path / "config.yaml").read_text())
    del config["norm"]["strength"]
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    found = scan.scans(group_of(tmp_path))
    assert of(found, TRAIN_ACCURACY, "none").labels == ("",)
    assert of(found, TRAIN_ACCURACY, "none").x == pytest.approx([PLAIN["mean"]])
    assert of(found, TRAIN_ACCURACY, "noisy_bn").labels == ("noise × 0", "noise × 1", "noise × 2", "noise × 4")
