"""A figure is found: one of another package is planned, drawn and drawn again when its code changes."""

import csv
import json
import sys
import textwrap

import pytest
from helpers import invoke
from synthetic import CONVS, write_lab, write_run, write_study

from icsbench import figures, members
from icsbench.analysis.files import Drawn
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.lab import lab_rows
from icsbench.errors import IcsbenchError
from icsbench.figures.contract import Figure
from icsbench.record.reader import load_runs

SHORT = {"steps": 100, "layers": CONVS[:3], "eval_every": 50, "probes": False}
THEIRS = """
    from theirs.size import HEIGHT

    from icsbench.analysis.quantities.training import accuracy_curves
    from icsbench.figures.caption import caption
    from icsbench.figures.contract import Figure
    from icsbench.figures.style import Page, regime_legend

    def draw(group, curves, text):
        page = Page(HEIGHT, text, top=0.5, bottom=0.4, left=0.5, right=0.2)
        [[axes]] = page.axes(1, 1)
        for curve in curves:
            axes.plot(curve.x, curve.mean, color=curve.regime.color)
        page.legend(*regime_legend(curves))
        return page.figure

    FIGURE = Figure(
        name="theirs",
        order=35,
        numbers=accuracy_curves,
        caption=lambda group, curves: caption(group, "Theirs."),
        draw=draw,
        applies=lambda group: group.runs[0].setting("scale") == "cpu",
    )
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """An installed package with a figure; its folder."""
    site = tmp_path / "site"
    package = site / "theirs"
    info = site / "theirs-1.0.dist-info"
    for folder in (package, info):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "size.py").write_text("HEIGHT = 2.0\n")
    (package / "figure.py").write_text(textwrap.dedent(THEIRS))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[icsbench.figures]\ntheirs = theirs.figure\n")
    monkeypatch.syspath_prepend(site)
    members._modules.cache_clear()
    yield package
    members._modules.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def group_of(root):
    (group,) = group_runs(load_runs(root))
    return group


def planned(root):
    return [name for name, *_ in figures.plan(group_of(root))]


def test_the_figures_of_training_are_in_their_order():
    found = sorted(members.members("figures", Figure).values(), key=lambda figure: (figure.order, figure.name))
    assert [figure.name for figure in found if figure.kind == "training"] == [
        *("accuracy", "loss", "scan", "ridges", "moments", "heatmap", "protocols", "percentiles"),
        *("ics", "landscape", "step-size", "matched", "clipping", "bn_parts", "warmup", "batch-sharpness"),
        *("affine-only", "budget", "least-squares"),
    ]


def test_a_figure_of_another_package_is_planned_where_it_applies(tmp_path, theirs):
    write_study(tmp_path / "cpu", ("none", "bn"), 1, **SHORT)
    write_study(tmp_path / "demo", ("bn",), 1, scale="demo", **SHORT)
    assert planned(tmp_path / "cpu") == ["accuracy", "ridges", "theirs", "moments", "heatmap", "protocols"]
    assert "theirs" not in planned(tmp_path / "demo")
    for seed in (0, 1):
        write_run(tmp_path / "cpu", "bn", seed, lr=0.5, **SHORT)
    assert [name for name in planned(tmp_path / "cpu") if "theirs" in name] == ["theirs-lr0.1", "theirs-lr0.5"]


def test_a_figure_of_another_package_is_drawn_and_drawn_again_when_its_code_changes(tmp_path, theirs):
    root, out = tmp_path / "results", tmp_path / "figures"
    write_study(root, ("none", "bn"), 2, **SHORT)
    said = invoke("figures", str(root), "--out", str(out))
    assert said.code == 0 and " written in " in said.out
    assert {path.suffix for path in out.glob("theirs.*")} == {".csv", ".pdf", ".png"}
    with open(out / "theirs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["regime"] for row in rows} == {"none", "bn"}
    again = Drawn(out, root, load_runs(root))
    assert again.read() is not None
    assert " up to date in " in invoke("figures", str(root), "--out", str(out)).out
    (theirs / "size.py").write_text("HEIGHT = 3.0\n")
    assert Drawn(out, root, load_runs(root)).read() is None


def test_its_reason_not_to_be_drawn_is_said(tmp_path, theirs):
    write_run(tmp_path / "results", "bn", 0, **SHORT)
    for path in (tmp_path / "results").rglob("metrics.jsonl"):
        path.write_text('{"step": 1, "train/loss": 1.0}\n')
    said = []
    figures.draw_all(load_runs(tmp_path / "results"), tmp_path / "figures", said.append)
    (line,) = (line for line in said if line.startswith(f"not drawn: {tmp_path / 'figures' / 'theirs'}: "))
    assert line.endswith("no run has an accuracy in its metrics.jsonl")


def test_two_figures_of_one_name_are_refused(tmp_path, theirs):
    write_run(tmp_path / "results", "bn", 0, **SHORT)
    (theirs / "figure.py").write_text(textwrap.dedent(THEIRS).replace('"theirs"', '"ridges"'))
    with pytest.raises(IcsbenchError, match="both call a member of figures 'ridges'"):
        planned(tmp_path / "results")


LAB = """
    from icsbench.analysis.quantities.lab import lab_rows
    from icsbench.figures.caption import caption
    from icsbench.figures.contract import Figure
    from icsbench.figures.style import Page

    def draw(group, runs, text):
        page = Page(2.0, text, top=0.5, bottom=0.4, left=0.5, right=0.2)
        [[axes]] = page.axes(1, 1)
        for of_run in runs:
            axes.plot(of_run["step"], of_run["walk/distance"])
        return page.figure

    FIGURE = Figure(
        name="walk",
        order=10,
        kind="lab",
        numbers=lab_rows,
        caption=lambda group, runs: caption(group, "Walked."),
        draw=draw,
        applies=lambda group: group.runs[0].regime == "walk",
    )
"""


def test_a_figure_of_a_lab_is_for_runs_of_labs_alone(tmp_path, theirs):
    (theirs / "figure.py").write_text(textwrap.dedent(LAB))
    write_study(tmp_path / "results", ("none", "bn"), 1, **SHORT)
    for seed in (0, 1):
        write_lab(tmp_path / "results", seed=seed, label="Walk")
    write_lab(tmp_path / "results", "run", experiment="runs", label="Run")
    groups = {group.name: group for group in group_runs(load_runs(tmp_path / "results"))}
    assert {name: [figure for figure, *_ in figures.plan(group)] for name, group in groups.items()} == {
        **{"walks": ["walk"], "runs": []},
        "three_regimes": ["accuracy", "ridges", "moments", "heatmap", "protocols"],
    }
    files = figures.draw_all(load_runs(tmp_path / "results"), tmp_path / "figures", lambda line: None)
    drawn = [str(file.relative_to(tmp_path / "figures")) for file in files if "walk" in file.name]
    assert drawn == ["walks/walk.pdf", "walks/walk.png", "walks/walk.csv"]
    with open(tmp_path / "figures" / "walks" / "walk.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["step"], row["walk/distance"]) for row in rows][9:11] == [
        ("0", "9", "9"),
        ("1", "0", "1"),
    ]


def test_rows_of_a_lab_are_columns(tmp_path):
    path = write_lab(tmp_path, seed=3)
    rows = [{"step": 0, "depth": 2, "name": "a"}, {"step": 1, "depth": 4.5}, {"step": 1, "sizes": [1, 2]}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = lab_rows(group_of(tmp_path))
    assert found["step"].tolist() == [0, 1, 1]
    assert found["depth"].tolist() == pytest.approx([2, 4.5, float("nan")], nan_ok=True)
    assert found["name"].tolist() == ["a", None, None] and found["sizes"].tolist() == [None, None, [1, 2]]
    assert list(found.rows()) == [{"seed": 3, **row} for row in rows]
    with pytest.raises(NotMeasured, match=r"metrics\.jsonl: no row has width"):
        found["width"]
    (path / "metrics.jsonl").write_text("")
    with pytest.raises(NotMeasured, match="no run has a row"):
        lab_rows(group_of(tmp_path))


def test_a_regime_looks_as_its_record_says(tmp_path):
    path = write_run(tmp_path, "bn", 0, **SHORT)
    environment = json.loads((path / "environment.json").read_text())
    look = {"label": "Standard + ours", "order": 7, "color": "#123456", "linestyle": [0, [1, 2]], "marker": "*"}
    (path / "environment.json").write_text(json.dumps(environment | {"regime": look}))
    with figures.house_style():
        figure, _ = members.member("figures", Figure, "accuracy").page(group_of(tmp_path))
    (entry,) = figure.legends[0].get_lines()
    assert (entry.get_label(), entry.get_color()) == ("Standard + ours", "#123456")
