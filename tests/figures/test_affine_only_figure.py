"""The figure of training only some parameters: a curve for each part that is trained, of the seeds it has."""

from planted import write

from icsbench import figures
from icsbench.analysis.groups import group_runs
from icsbench.figures.affine_only import FIGURE
from icsbench.figures.style import house_style
from icsbench.record.reader import load_runs


def test_it_is_drawn_where_a_study_varies_what_is_trained(tmp_path):
    ends = {"affine": 0.3, "random": 0.2, "all": 0.6}
    for seed in range(3):
        for lr in (0.1, 1.0):
            for trains, end in ends.items():
                write(tmp_path, "affine_only", "bn", seed, lr=lr, trains=trains, train=end)
    [group] = group_runs(load_runs(tmp_path))
    assert "affine-only" in [name for name, *_ in figures.plan(group)]
    with house_style():
        page, csv = FIGURE.page(group)
    assert len(page.axes) == 2
    last = {(row["train"], row["lr"]): (round(row["mean"], 9), row["n"]) for row in csv if row["step"] == 1000}
    assert last == {(trains, lr): (end, 3) for trains, end in ends.items() for lr in (0.1, 1.0)}


def test_it_is_not_drawn_of_other_studies(tmp_path):
    write(tmp_path, "three_regimes", "bn", 0)
    [group] = group_runs(load_runs(tmp_path))
    assert "affine-only" not in [name for name, *_ in figures.plan(group)]
