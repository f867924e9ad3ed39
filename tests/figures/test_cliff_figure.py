"""The figure of the trainability cliff: its numbers, its words, and that it is drawn."""

import numpy as np
import pytest
from planted_cliff import DEPTHS, LIMITS, planted, study, write_study

from icsbench.analysis.groups import group_runs
from icsbench.figures.cliff import FIGURE
from icsbench.figures.style import house_style
from icsbench.record.reader import load_runs

SETTINGS = {"width": 48, "epochs": 10, "lr_per_sample": 4e-4}


def group_of(root, cliffs_of, **size):
    write_study(root, cliffs_of, **size, **SETTINGS)
    [group] = group_runs(load_runs(root))
    return group


def test_numbers_are_means_over_networks_and_their_cliffs(tmp_path):
    numbers = FIGURE.numbers(group_of(tmp_path, study({8: 0.7, 32: 1.0, 128: 1.0}, 500.0)))
    assert [(one.norm, one.batch) for one in numbers] == [(norm, b) for norm in ("bn", "none") for b in LIMITS]
    first = numbers[0]
    assert first.limit == LIMITS[8] and first.outside == 0 and first.measured is not None and first.fit is not None
    assert first.measured.mean == pytest.approx(0.7 * LIMITS[8], rel=1e-3) and first.measured.n == 8
    assert first.fit.cliff == pytest.approx(0.7 * LIMITS[8], rel=0.01)
    moved = [planted(4, 0.7 * LIMITS[8] * (1 + 0.01 * (number - 3.5))) for number in range(8)]
    assert first.accuracy.mean[0] == pytest.approx(np.mean(moved))
    none = numbers[3]
    assert (none.measured, none.outside, none.fit, none.limit) == (None, 8, None, None)
    rows = [row for one in numbers for row in one.rows()]
    assert len(rows) == 6 * (len(DEPTHS) + 1)
    assert rows[-1] == {"norm": "none", "batch": 128, "quantity": "cliff", "outside": 8}


@pytest.mark.parametrize("size", [{}, {"seeds": 1, "networks": 1}])
def test_it_is_drawn_and_says_what_it_shows(tmp_path, size):
    group = group_of(tmp_path, study({8: 0.7, 32: 1.0, 128: 1.0}, 500.0), **size)
    assert FIGURE.applies(group)
    with house_style():
        page, rows = FIGURE.page(group)
        page.canvas.draw()
    text = FIGURE.caption(group, FIGURE.numbers(group))
    n = 1 if size else 8
    assert f"n\N{NO-BREAK SPACE}= {n} networks" in text and "of width 48 after 10 epochs" in text
    assert f"No cliff within the depths: without BN at batch 8: {n} of {n}" in text
    assert ("t-interval" in text) == (not size)
    assert len(page.axes) == 5 and rows
