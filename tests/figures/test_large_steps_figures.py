"""The figures of the lab of large steps: what is drawn, said, and in their rows."""

import math

import pytest
from planted_steps import study

from icsbench import figures
from icsbench.analysis.groups import group_runs
from icsbench.figures.contract import Figure
from icsbench.members import member
from icsbench.record.reader import load_runs


def page(root, name, **planted):
    study(root, **planted)
    [group] = [group for group in group_runs(load_runs(root)) if group.name == "large_steps"]
    with figures.house_style():
        figure, rows = member("figures", Figure, name).page(group)
    return figure, rows, " ".join(text.get_text().replace("\n", " ") for text in figure.texts).replace("\xa0", " ")


def test_relative_losses_marks_and_shares(tmp_path):
    figure, rows, said = page(tmp_path, "large-steps", bn={"divergence": math.inf})
    assert len(figure.axes) == 2
    steps = [row for row in rows if row["quantity"] == "divergence step"]
    assert len(steps) == 24 and sum(math.isinf(row["mean"]) for row in steps) == 6
    losses = [row for row in rows if row["quantity"] == "relative loss"]
    none = {row["alpha"]: row["mean"] for row in losses if row["regime"] == "none"}
    assert none[1e-4] == pytest.approx(1) and none[1e-2] == pytest.approx(2001)
    shares = [row for row in rows if row["quantity"] == "share of the commoner sign"]
    assert {round(row["mean"], 4) for row in shares if row["regime"] == "none"} == {0.9725}
    assert "No α of the grid does so for 6 of 6 with Standard + BatchNorm, Planted network (seeds)." in said
    assert "On logarithmic axes the mean is geometric" in said
    assert "the first 2 batches of 64" in said and "n = 6 seeds" in said and "Planted images" in said


def test_channels_by_depth(tmp_path):
    figure, rows, said = page(tmp_path, "channels", seeds=2)
    assert len(figure.axes) == 2
    found = [row for row in rows if row["regime"] == "none" and row["quantity"] == "channel_std"]
    assert [row["depth"] for row in found] == [*range(1, 21)]
    assert found[9]["mean"] == pytest.approx(2 * 10 ** (0.05005 * 10), rel=1e-6)
    assert "ahead of its norm" in said
