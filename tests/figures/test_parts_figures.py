"""The figures of the labs on the parts of BN, from rows of small runs."""

import json

import pytest
from synthetic import write_lab

from icsbench import figures
from icsbench.analysis.groups import group_runs
from icsbench.figures.contract import Figure
from icsbench.labs.fisher import LAB as FISHER
from icsbench.labs.margin import LAB as MARGIN
from icsbench.labs.parts import LAB as PARTS
from icsbench.members import members
from icsbench.record.reader import load_runs

CASES = [
    (PARTS, {"widths": [24, 16], "batch": 6, "depth": 12, "networks": 2}, "theory for infinite width", 8),
    (FISHER, {"widths": [8, 16], "samples": 6, "networks": 2}, "where there is no outlier", 2),
    (MARGIN, {"samples": 4, "inputs": 6, "steps": 20, "networks": 2}, "the classifier of largest margin", 3),
]


@pytest.mark.parametrize(("lab", "options", "says", "panels"), CASES, ids=[case[0].name for case in CASES])
def test_a_figure_is_drawn_with_theory_and_n(tmp_path, lab, options, says, panels):
    for seed in range(2):
        path = write_lab(tmp_path, lab.name, seed, experiment=lab.name, label=lab.label, **options)
        rows = lab.rows(lab.options(lab.name, **options), seed)
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [group] = group_runs(load_runs(tmp_path))
    assert [name for name, *_ in figures.plan(group)] == [lab.name]
    figure = members("figures", Figure)[lab.name]
    numbers = figure.numbers(group)
    text = figure.caption(group, numbers)
    assert says in text and "n\N{NO-BREAK SPACE}= 4 random" in text
    page, rows = figure.page(group)
    assert len(page.axes) == panels and any("theory" in row for row in rows)
    assert {row["n"] for row in rows} == {4}
