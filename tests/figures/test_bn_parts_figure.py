"""The figure of the parts of batch normalization: whose accuracies, and whether its texts stay apart."""

import pytest
from layout import assert_texts_apart
from planted import write

from icsbench import members
from icsbench.analysis.groups import group_runs
from icsbench.figures.contract import Figure
from icsbench.figures.style import house_style
from icsbench.record.reader import load_runs

FIGURE = members.members("figures", Figure)["bn_parts"]


def group_of(root, regimes):
    for regime in regimes:
        for lr in (0.05, 0.4):
            for seed in range(3):
                gone = {"diverged_at": 100} if (regime, lr, seed) == ("bn_mean", 0.4, 0) else {}
                write(root, "bn_parts", regime, seed, lr=lr, train=0.6 + 0.01 * seed, test=0.5, **gone)
    [group] = group_runs(load_runs(root))
    return group


def test_each_norm_has_both_accuracies_at_each_rate_and_chance_where_it_diverged(tmp_path):
    group = group_of(tmp_path, ("none", "bn", "bn_mean", "bn_last"))
    assert FIGURE.applies(group)
    with house_style():
        page, rows = FIGURE.page(group)
        assert_texts_apart(page)
    assert len(rows) == 4 * 2 * 2 * 3
    found = {(row["regime"], row["lr"], row["quantity"], row["seed"]): row["accuracy"] for row in rows}
    assert found["bn", 0.4, "train/accuracy", 2] == pytest.approx(0.62)
    assert found["none", 0.05, "test/accuracy", 0] == pytest.approx(0.5)
    assert found["bn_mean", 0.4, "test/accuracy", 0] == found["bn_mean", 0.4, "train/accuracy", 0] == 0.1
    means = {(row["regime"], row["lr"], row["quantity"]): row["mean"] for row in rows}
    assert means["bn_mean", 0.4, "train/accuracy"] == pytest.approx((0.1 + 0.61 + 0.62) / 3)


def test_it_is_of_no_study_without_the_parts(tmp_path):
    assert not FIGURE.applies(group_of(tmp_path, ("none", "bn")))
