"""The site: it builds without a broken link, and what it generates is the schema and the records."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import docs_catalogue  # noqa: E402
import docs_configuration  # noqa: E402

CLAIMS = {
    entry["id"]: entry
    for entry in json.loads((ROOT / "results" / "reference" / "claims" / "claims.json").read_text())["claims"]
}


class Targets(HTMLParser):
    """What a page of the site points to, its ids, and what it shows as text."""

    def __init__(self, page):
        super().__init__()
        self.targets, self.ids, self.text = [], set(), ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.targets += [found[key] for key in ("href", "src") if found.get(key)]
        self.ids |= {found["id"]} if "id" in found else set()

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material")
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_every_link_in_the_site_leads_somewhere(site):
    pages = {path: Targets(path) for path in site.rglob("*.html") if path.name not in ("404.html", "report.html")}
    assert len(pages) >= 25
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            name, _, anchor = target.partition("#")
            if ":" in name or name.startswith("//"):
                continue
            to = (path.parent / name).resolve() if name else path
            if not to.exists() or (anchor and to in pages and anchor not in pages[to].ids and anchor != "__tabbed"):
                broken.append((path.name, target))
    assert broken == []


def test_the_site_loads_nothing_from_elsewhere(site):
    for path in (site / "index.html", site / "catalogue.html"):
        page = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img)[^>]* src=\"?([^\" >]+)|<link[^>]* href=\"?([^\" >]+)", page)
        assert [one for pair in loaded for one in pair if one.startswith(("http", "//"))] == []


def test_the_made_parts_are_in_the_site(site):
    shown = Targets(site / "configuration.html").text, Targets(site / "catalogue.html").text
    assert "norm.n_sigma" in shown[0] and CLAIMS["21"]["statement"] in shown[1]
    assert "NoisyBatchNorm1d" in Targets(site / "notebook.html").text


def test_every_key_is_in_the_reference_with_its_default():
    from icsbench.config import Config, OptimConfig, _keys, probes_options

    page = docs_configuration.page()
    named = set(re.findall(r"^\| `([\w.]+)` \|", page, re.M))
    assert {key for key in _keys(Config) if not key.endswith(".name") and key != "study"} <= named
    for key, default in {
        "steps": "1000",
        "optim.lr": "0.1",
        "norm.n_sigma": "1.25",
        "probes.alpha_points": "6",
        "data.root": "null",
        "optim.wrap.agc.eps": "0.001",
        "lab.networks": "4",
    }.items():
        assert f"| `{key}` |" in page and re.search(rf"^\| `{key}` \| [^|]+ \| `{default}`", page, re.M), key
    assert len(fields(OptimConfig)) > 5 and len(fields(probes_options())) > 5
    assert "of the networks that are wide for their batch" not in page.split("### `lab=parts`")[1].split("###")[0]


def test_every_study_and_lab_is_in_the_catalogue():
    page = docs_catalogue.page()
    entries = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^###? |\Z)", page, re.M | re.S))
    configs = {path.stem for group in ("experiment", "lab") for path in (ROOT / "configs" / group).glob("*.yaml")}
    assert entries.keys() == configs
    for study, text in entries.items():
        for link in re.findall(r"\]\(([^)#:]+)", text):
            assert (ROOT / "docs" / link).exists(), (study, link)
    assert "contradicted" in CLAIMS["16b"]["verdict"] and "| 16b |" in entries["first_steps"]
    shown = {id for text in entries.values() for id in re.findall(r"^\| (\w+) \|", text, re.M)}
    assert CLAIMS.keys() <= shown


def test_the_notebook_runs_and_shows_what_it_says(capsys):
    notebook = json.loads((ROOT / "docs" / "probes.ipynb").read_text())
    assert notebook["nbformat"] == 4 and all(not cell.get("outputs") for cell in notebook["cells"])
    names: dict = {}
    for number, cell in enumerate(cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    history = names["history"]
    assert set(history) == {"none", "bn", "noisy_bn", "largest"}
    for steps in history.values():
        assert all(shift["0"].relative == 0 for _, shift, _ in steps)
        assert all(shift["6"].relative > 0 and len(landscape.losses) == 3 for _, shift, landscape in steps)
    assert history["bn"][-1][0] < history["bn"][0][0]
    assert "bn: loss" in capsys.readouterr().out
