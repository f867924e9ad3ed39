from pathlib import Path

import pytest
from helpers import invoke, isolate
from page import EVIL, QUOTES, Page, write_two
from planted import write
from synthetic import write_study

from icsbench.analysis.diff import compare, side_of
from icsbench.record.reader import load_runs
from icsbench.report.comparison import names_of, write_comparison


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    html = write_two(root / "of", root / "comparison.html")
    return root, html, Page(html)


def test_verdicts_and_effects_stand_side_by_side(written):
    *_, page = written
    first, second = (text for _, text in page.all("tbody", role="rowgroup"))
    assert first == (
        f"1 {EVIL} ✗ contradicted, p 0.01 ✓ supported, p 0.01 ✗ contradicts "
        f"gain of {EVIL}, points -3.0 [-3.1, -2.9], n 6 +3.0 [+2.9, +3.1], n 6 "
        "+6.0 [+6.0, +6.0], 6 seeds; intervals do not overlap"
    )
    assert second == "4 alike ? inconclusive ? inconclusive ✓ agrees"
    relations = [attrs["data-relation"] for attrs, _ in page.all("tbody", role="rowgroup")]
    assert relations == ["contradicts", "agrees"]
    assert page.one("p", **{"class": "summary"})[1].startswith("2 claims: 1 contradict, 0 drift, 1 agree")


def test_what_differs_is_listed(written):
    *_, page = written
    table = next(text for attrs, text in page.all("table") if attrs.get("class") == "differences")
    assert "settingssteps100150landscape" in table
    assert f"hardwaredevice_namenot set{QUOTES}landscape" in table


def test_each_side_opens_with_its_regimes(written):
    _, html, page = written
    for side, steps in (("a", 100), ("b", 150)):
        _, text = page.one("section", id=f"regimes-{side}")
        assert "With BN the network ends at" in text
        svg = html.split(f'<figure id="regimes-{side}-figure">')[1].split("</figure>")[0]
        assert f"{steps}\N{NO-BREAK SPACE}steps" in svg
    assert [text for _, text in page.all("h2")][:2] == [
        "What the regimes show in A: A",
        "What the regimes show in B: B",
    ]


def test_names_and_texts_are_text_and_no_path_of_the_machine_is_told(written, tmp_path):
    root, html, page = written
    assert EVIL not in html and str(root) not in html and "<script>alert(2)" not in html
    assert write_two(tmp_path / "again", tmp_path / "again.html") == html
    assert page.one("title")[1] == "A and B compared by icsbench"


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("runs/today", "runs/old", ("today", "old")),
        ("today/results", "old/results", ("today/results", "old/results")),
        ("x/results", "x/results", ("results", "results")),
        ("a/x/results", "b/x/results", ("a/x/results", "b/x/results")),
        ("x/claims.json", "y/claims.json", ("x/claims.json", "y/claims.json")),
    ],
)
def test_names_are_those_of_the_folders_and_tell_the_two_apart(a, b, names):
    assert names_of(Path(a), Path(b)) == names


def test_two_sides_without_a_claim_in_common(tmp_path):
    write_study(tmp_path / "runs", ("none", "bn"), 1, steps=100, eval_every=50, probes=False)
    nothing = side_of({"claims": [], "studies": {}}, "A")
    html = write_comparison(
        compare(nothing, nothing), load_runs(tmp_path / "runs"), [], tmp_path / "page.html"
    ).read_text()
    page = Page(html)
    assert "No claim is measured in both." in page.one("section", id="claims")[1]
    assert "Nothing is known to differ" in page.one("section", id="differences")[1]
    assert page.all("figure") and not page.all("section", id="regimes-b") and not page.all("table")


# --- the command -----------------------------------------------------------------------------------------------------


def drifting(root, share, **settings):
    """Records of claim 3, in which the drift with BN is this share of the drift without."""
    for seed in range(6):
        write(root, "three_regimes", "bn", seed, drift=0.2 * share * 1.02 ** (-1) ** seed, **settings)
        write(root, "three_regimes", "none", seed, drift=0.2, **settings)
    return str(root)


def test_the_command_compares_two_folders(tmp_path):
    alike = drifting(tmp_path / "alike", 1.0)
    far = drifting(tmp_path / "far", 0.3, batch_size=64)
    result = invoke("report", alike, far)
    assert result.code == 0, result.err
    html = (tmp_path / "alike" / "comparison.html").read_text()
    page = Page(html)
    [claim] = [text for attrs, text in page.all("tbody", role="rowgroup") if attrs["id"] == "claim-3"]
    assert "supported" in claim and "contradicted" in claim and "×0.3 [0.3, 0.3], 6 seeds" in claim
    assert "settingsbatch_size12864three_regimes" in page.one("section", id="differences")[1]
    assert str(tmp_path) not in html and "alike" in page.one("header")[1]
    assert invoke("claims", far, "--out", "judged").code == 0
    result = invoke("report", alike, "judged/claims.json", "--out", "page.html")
    assert result.code == 0, result.err
    assert "claims.json" in Page(Path("page.html").read_text()).one("header")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at-step", "50"), "--at-step and --lock go with one folder"),
        (("--lock", "a.lock.json"), "--at-step and --lock go with one folder"),
        ((), "nowhere"),
    ],
)
def test_what_does_not_go_with_two_folders_is_one_clear_line(tmp_path, arguments, said):
    root = drifting(tmp_path / "alike", 1.0)
    result = invoke("report", root, "nowhere", *arguments)
    assert result.code == 1 and said in result.err and result.err.count("\n") == 1
