"""The figure of runs with clipped gradients and without: what is drawn, said, and in its rows."""

import pytest
from layout import assert_texts_apart
from planted import write

from icsbench import figures
from icsbench.analysis.groups import group_runs
from icsbench.figures.contract import Figure
from icsbench.members import member
from icsbench.record.reader import load_runs


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.4, 1.6)])
def test_every_norm_stands_at_every_rate_clipped_and_not(tmp_path, rates):
    for seed in range(3):
        for lr in rates:
            for norm, clipping, train in (("nf", None, 0.3), ("nf", 0.16, 0.5), ("bn", None, 0.6)):
                diverged = 100 if (norm, clipping, lr) == ("nf", None, 1.6) else None
                place = {"lr": lr, "clipping": clipping}
                write(tmp_path, "clipping", norm, seed, **place, train=train, test=0.4, diverged_at=diverged)
    [group] = group_runs(load_runs(tmp_path))
    clipping = member("figures", Figure, "clipping")
    assert clipping.applies(group)
    with figures.house_style():
        figure, rows = clipping.page(group)
    assert len(figure.axes) == 4
    assert_texts_apart(figure)
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts).replace("\xa0", " ")
    assert "adaptive gradient clipping" in said and "n = 3 seeds" in said
    assert ("3 of 3 runs diverged" in said) == (1.6 in rates)
    means = {
        (row["regime"], row["lr"], row["clipping"]): row["mean"] for row in rows if row["quantity"] == "train/accuracy"
    }
    assert len(means) == 3 * len(rates)
    assert means["nf", 0.1, 0.16] == pytest.approx(0.5) and means["nf", 0.1, None] == pytest.approx(0.3)
    assert means.get(("nf", 1.6, None), 0.1) == pytest.approx(0.1)


def test_it_is_not_for_studies_without_clipping(tmp_path):
    write(tmp_path, "landscape", "bn", 0)
    [group] = group_runs(load_runs(tmp_path))
    assert not member("figures", Figure, "clipping").applies(group)
