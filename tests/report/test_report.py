import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from helpers import invoke
from page import DISAGREE, EVIL, QUOTES, RATES, VALUES, Page, write_one, write_page, write_records
from planted import finish

from icsbench.analysis.claims import all_claims, claim_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import decide, judge
from icsbench.errors import IcsbenchError
from icsbench.figures import plan
from icsbench.record.reader import load_runs
from icsbench.report.dots import WIDTH, dot_plot
from icsbench.report.html import write_report
from icsbench.report.words import effect, summary_line

SECTIONS = ["regimes", "claims", "debate", "figures", "runs", "environment"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    write_records(root / "results")
    runs, verdicts, html = write_page(root / "results", root / "report.html")
    return root, runs, verdicts, html, Page(html)


def test_the_page_has_its_parts_in_order_and_landmarks(written):
    *_, page = written
    assert page.one("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "title", "h1"):
        page.one(landmark)
    ids = [attrs.get("id") for tag, attrs, _ in page.elements if tag == "section"]
    assert [id for id in ids if id in SECTIONS] == SECTIONS
    levels = [int(tag[1]) for tag, *_ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_ids_are_unique_and_every_reference_has_its_target(written):
    *_, html, page = written
    ids = Counter(attrs["id"] for _, attrs, _ in page.elements if "id" in attrs)
    assert max(ids.values()) == 1
    referred = re.findall(r"""(?:href="|url\()#([^")]+)""", html)
    named = " ".join(attrs.get("aria-labelledby", "") for _, attrs, _ in page.elements).split()
    assert len(referred) > 50 and {*referred, *named} <= ids.keys()


def test_nothing_is_loaded_from_anywhere(written):
    *_, html, page = written
    assert not re.search(r"https?://|@import|//[a-z]+\.", html)
    for tag, attrs, _ in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "#").startswith("#" if tag != "image" else ("#", "data:image/png;base64,"))
    assert set(re.findall(r"url\((.)", html)) == {"#"}


def test_the_policy_forbids_everything_but_the_script_that_is_there(written):
    *_, html, page = written
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:" and script.count("\n") < 400


def test_what_the_records_say_is_text(written):
    *_, html, page = written
    assert EVIL not in html and "<script>alert(2)" not in html
    assert {attrs.get("type") for attrs, _ in page.all("script")} == {None, "application/json"} and not page.all("img")
    assert any(text == EVIL for _, text in page.all("h3"))
    assert any(QUOTES in text for _, text in page.all("p"))
    assert any(text.startswith(EVIL) for _, text in page.all("td"))
    assert any(QUOTES in attrs["aria-label"] for attrs, _ in page.all("svg"))


def test_the_same_records_give_the_same_file_wherever_they_lie(written, tmp_path):
    root, *_, html, _ = written
    shutil.copytree(root / "results", tmp_path / "elsewhere")
    assert write_page(tmp_path / "elsewhere", tmp_path / "again.html")[2] == html
    assert str(root) not in html


def test_the_page_is_small(written):
    assert len(written[3].encode()) < 1_000_000


def test_every_experiment_has_its_figures(written):
    _, runs, _, _, page = written
    drawn = {attrs["id"] for attrs, _ in page.all("figure")}
    assert len(page.all("svg", role="img")) == len(drawn) + sum(map(len, VALUES.values())) and "regimes-figure" in drawn
    assert all(attrs["aria-label"] for attrs, _ in page.all("svg"))
    groups = {group.name: {name for name, *_ in plan(group)} for group in group_runs(runs)}
    assert {f"figure-landscape-{name}" for name in groups["landscape"]} <= drawn
    assert {"figure-lr-grid-accuracy", "figure-lr-grid-scan"} <= drawn and len(groups["lr_grid"]) > 3 * len(RATES)
    (loss,) = (id for id in drawn if id.endswith("-loss"))
    assert loss.startswith("figure-img-src-x")


def test_figures_of_many_rates_that_no_claim_points_to_are_left_out_and_said(written):
    *_, page = written
    assert not any(attrs["id"].startswith("figure-lr-grid-ridges") for attrs, _ in page.all("figure"))
    (said,) = (text for _, text in page.all("p") if text.startswith("Left out, as"))
    assert "ridges at learning rate 0.2" in said and "icsbench figures RESULTS/lr_grid" in said


def test_figures_that_cannot_be_drawn_are_said(written):
    root, _, _, _, page = written
    said = [text for _, text in page.all("p") if text.startswith("Not drawn: ")]
    assert any("ridges" in text for text in said) and not any(str(root) in text for text in said)


def test_every_kind_of_verdict_has_its_row(written):
    _, _, verdicts, _, page = written
    assert summary_line(verdicts) in page.one("p", **{"class": "summary"})[1]
    assert {verdict.verdict for verdict in verdicts} == {"supported", "contradicted", "inconclusive", "not measured"}
    rows = page.all("tbody", role="rowgroup")
    for verdict, (attrs, text) in zip(verdicts, rows, strict=True):
        assert attrs["id"] == f"claim-{verdict.claim.id}" and attrs["data-verdict"] == verdict.verdict
        assert f"{verdict.claim.id} {verdict.claim.statement} {verdict.claim.by}" in text
        assert f" {verdict.verdict}" in text and verdict.reason in text
        assert all(note in text for note in (verdict.claim.margin, *verdict.claim.fairness))
        for finding in verdict.findings:
            assert text.count(effect(finding)) >= (2 if finding.values else 0)
        assert ("⚠ tests disagree" in text) == verdict.disagree == (verdict.claim.id == "1b")


def test_a_claim_leads_to_its_figure_and_its_runs_and_back(written):
    *_, html, page = written
    of_claim = html[html.index('<tbody id="claim-3"') : html.index('<tbody id="claim-4"')]
    assert '<a href="#figure-landscape-ridges">' in of_claim and '<a href="#runs-landscape">' in of_claim
    figure = html[html.index('<figure id="figure-landscape-ridges"') :].split("</figcaption>")[0]
    assert '<a href="#claim-3">3</a>' in figure
    assert page.one("details", id="runs-landscape")


def test_a_claim_leads_to_the_row_of_each_of_its_runs(written):
    _, _, verdicts, html, page = written
    rows = {attrs["id"]: text for attrs, text in page.all("tr") if attrs.get("id", "").startswith("run-")}
    for verdict in verdicts:
        of_claim = html.split(f'<tbody id="claim-{verdict.claim.id}"')[1].split("</tbody>")[0]
        led_to = [rows[id] for id in dict.fromkeys(re.findall(r'href="#(run-\d+)"', of_claim))]
        records = ["/".join(run.path.parts[-3:]) for run in verdict.runs]
        assert len(led_to) == len(records) and all(any(record in row for row in led_to) for record in records)
        behind = {run for link in of_claim.split('class="chain"')[1:] for run in re.findall(r'href="#(run-\d+)"', link)}
        assert {rows[id] for id in behind} <= {*led_to}


def test_the_runs_behind_each_number_are_unfolded_with_commit_data_and_seal(tmp_path):
    path = write_one(tmp_path / "results", "three_regimes")
    environment = json.loads((path / "environment.json").read_text())
    environment |= {"commit": EVIL + "0" * 40, "data": environment["data"] | {"fingerprint": QUOTES}}
    (path / "environment.json").write_text(json.dumps(environment))
    finish(path, json.loads((path / "summary.json").read_text()))
    runs = load_runs(tmp_path / "results")
    [group] = group_runs(runs)
    finding = Finding(claim_of("3").parts[0], group, {0: 0.5}, {})
    html = write_report(runs, decide([(claim_of("3"), [finding])]), tmp_path / "report.html").read_text()
    [(_, text)] = Page(html).all("details", **{"class": "chain"})
    seal = hashlib.sha256((path / "seal.json").read_bytes()).hexdigest()
    row = ["0", "0.5", f"{path.parent.name}/seed-0", EVIL[:12], QUOTES[:12], seal[:12]]
    assert text == "The runs behind each seed " + " ".join([*["seedvalueruncommitdataseal"], "".join(row)])
    assert EVIL[:12] not in html


def test_a_part_says_where_its_two_tests_disagree(written):
    *_, page = written
    said = "For this part the two tests fall on two sides of 0.05."
    saying = [attrs["id"] for attrs, text in page.all("tbody", role="rowgroup") if said in text]
    assert saying == ["claim-1b"]


@pytest.mark.parametrize(
    ("values", "disagree"),
    [
        (DISAGREE, True),
        ((5.0, 5.1, 5.2, 5.3), False),  # sure by t, and at the floor of four seeds
        ((5.0, 1.0), False),  # by neither, though at the floor of two
        ((9.0, -9.0, 8.0, -8.0, 7.0, -7.0), False),
    ],
)
def test_tests_disagree_where_one_is_sure_and_the_other_could_be(values, disagree):
    assert Finding(claim_of("1b").parts[0], None, dict(enumerate(values)), {}).disagree == disagree


def test_values_seeds_left_out_and_command(tmp_path):
    write_one(tmp_path, "three_regimes")
    runs = load_runs(tmp_path)
    (group,) = group_runs(runs)
    claim = claim_of("3")
    finding = Finding(claim.parts[0], group, {0: 0.5, 4: 0.25}, {7: "not <finished>"})
    verdicts = decide([(claim, [finding])])
    page = Page(write_report(runs, verdicts, tmp_path / "report.html").read_text())
    seeds, values = (text for _, text in page.all("tr") if text.startswith(("seed0", "ratio")))
    assert (seeds, values) == ("seed04", "ratio0.50.25")
    (_, text) = page.one("tbody", id="claim-3")
    assert "Left out: seed 7 (not <finished>)" in text and verdicts[0].command in text


def test_runs_are_listed_finished_or_not(written):
    _, runs, _, html, page = written
    tables = re.findall(r'<table class="runs">(.*?)</table>', html, re.S)
    rows = [re.findall(r"<td>(.*?)</td>", row, re.S) for table in tables for row in table.split("</tr>")[1:]]
    rows = [row for row in rows if row]
    assert len(rows) == len(runs)
    bn = next(run for run in runs if run.regime == "bn" and run.setting("experiment") == "landscape")
    (row,) = (row for row in rows if row[-1] == "/".join(bn.path.parts[-3:]))
    accuracies = [f"{100 * value:.1f}" for value in bn.test_accuracy.values()]
    assert row[:9] == ["bn", "0.1", "0", "100", "0.25", "", "128", "float32", "complete"]
    assert row[11:].count("") == 0 and {*accuracies} <= {*row}
    assert sum(row[8] == "incomplete" for row in rows) == 1
    assert "1 run is not finished" in page.one("header")[1]


def test_no_measured_claim_and_no_finished_run(tmp_path):
    write_one(tmp_path / "results", "an_experiment_of_my_own")
    runs = load_runs(tmp_path / "results")
    page = Page(write_report(runs, judge(runs), tmp_path / "report.html").read_text())
    assert len(page.all("tbody", **{"data-verdict": "not measured"})) == len(all_claims())
    assert "no finished run of experiment halfspaces" in page.one("tbody", id="claim-20")[1]
    for name in ("seal.json", "summary.json"):  # as of a run that is not finished
        (runs[0].path / name).unlink()
    runs = load_runs(tmp_path / "results")
    page = Page(write_report(runs, judge(runs), tmp_path / "report.html").read_text())
    assert not page.all("figure") and not page.all("section", id="regimes")
    assert "nothing is drawn" in page.one("section", id="figures")[1]


def test_the_command(tmp_path):
    write_one(tmp_path / "results", "three_regimes")
    result = invoke("report", str(tmp_path / "results"))
    assert result.code == 0, result.err
    assert (tmp_path / "results" / "report.html").is_file() and "report.html" in result.out


def test_a_folder_that_cannot_be_written(written, tmp_path):
    _, runs, verdicts, *_ = written
    (tmp_path / "file").write_text("")
    with pytest.raises(IcsbenchError, match="cannot be written"):
        write_report(runs[:1], verdicts[:0], tmp_path / "file" / "report.html")


def test_torch_is_not_loaded():
    code = "import sys, icsbench.report.html; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("id, number", [("1", 0), ("1", 1), ("3", 0), ("15", 0)])
def test_dots_lie_in_the_region_where_the_values_do(id, number):
    part, values = claim_of(id).parts[number], VALUES[id][number]
    plot = dot_plot(Finding(part, None, dict(enumerate(values)), {}))
    assert sorted(plot.dots) == [place for _, place in sorted(zip(values, plot.dots, strict=True))]
    low, high = plot.region
    assert [low < dot < high for dot in plot.dots] == [part.low < value < part.high for value in values]
    assert plot.interval[0] < plot.mean < plot.interval[1]
    assert 2 <= len(plot.ticks) <= 6 and all(0 <= x <= WIDTH for x, _ in plot.ticks)


def test_dots_of_one_seed_and_of_equal_ones():
    part = claim_of("3").parts[0]
    assert dot_plot(Finding(part, None, {0: 1.0}, {})).interval is None
    plot = dot_plot(Finding(part, None, dict.fromkeys(range(6), 0.5), {}))
    assert set(plot.dots) == {plot.mean} and plot.interval == (plot.mean, plot.mean)
