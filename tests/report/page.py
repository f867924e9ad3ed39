"""A small report of made-up runs, with every kind of verdict and names that would be HTML; a comparison of two."""

import json
from html.parser import HTMLParser
from pathlib import Path

from planted import finish
from synthetic import CONVS, DLN, write_run, write_study

from icsbench.analysis.claims import all_claims, claim_of
from icsbench.analysis.diff import compare, side_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import Verdict, decide
from icsbench.record.reader import Run, load_runs
from icsbench.report.comparison import write_comparison
from icsbench.report.html import write_report

VOID = {"meta", "link", "img", "br", "hr", "input"}
EVIL = "<img src=x onerror=alert(1)>"
QUOTES = "\"'><script>alert(2)<&"
SHORT = {"steps": 100, "layers": [*CONVS[:3], "head.fc1"], "eval_every": 50, "probe_every": 50}
RATES = (0.1, 0.2, 0.4)
DISAGREE = (0.8, 1.2, 1.8, 5.8, 0.6, -0.2, -0.1, 2.5)
VALUES = {
    "1": ((2.0, 2.1, 2.2, 2.1, 2.0, 2.3), (5.0, 6.0, 5.5, 5.2, 5.9, 5.4)),
    "1b": (DISAGREE,),
    "3": ((0.10, 0.12, 0.11, 0.13, 0.12, 0.10),),
    "15": ((-9.0, 9.0, -8.0, 8.0, 7.0, -7.0),),
}
"""What is measured of each claim, per part; of any other claim nothing."""
STUDIES = {"1": "landscape", "1b": "lr_grid", "3": "landscape", "15": "landscape"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes, and the text below each; fails where they do not nest."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, text in self._open:
            text.append(data)

    def all(self, *tags, **attributes):
        return [
            (attrs, " ".join("".join(text).split()))
            for tag, attrs, text in self.elements
            if tag in tags and all(attrs.get(name) == value for name, value in attributes.items())
        ]

    def one(self, *tags, **attributes):
        (found,) = self.all(*tags, **attributes)
        return found


def write_records(root: Path) -> None:
    write_study(root, ("none", "bn"), 2, experiment="landscape", updates=("ics", "landscape"), label=QUOTES, **SHORT)
    for lr in RATES:
        write_study(root, ("none", "bn"), 1, experiment="lr_grid", lr=lr, **SHORT)
    write_study(root, ("none", "bn"), 1, **DLN | {"experiment": EVIL, "probes": False, "steps": 100})
    write_run(root, "noisy_bn", 3, experiment="landscape", finished=False, **SHORT)


def write_one(root: Path, experiment: str, **options) -> Path:
    """Write one sealed run without probes."""
    path = write_run(root, "bn", 0, experiment=experiment, **SHORT | {"probes": False} | options)
    return finish(path, json.loads((path / "summary.json").read_text()))


def verdicts_on(runs: list[Run]) -> list[Verdict]:
    groups = {group.name: group for group in group_runs(runs)}
    measured = []
    for claim in all_claims():
        if claim.id in VALUES:
            pairs = zip(claim.parts, VALUES[claim.id], strict=True)
            of = [Finding(part, groups[STUDIES[claim.id]], dict(enumerate(values)), {}) for part, values in pairs]
        else:
            of = [Finding(part, None, {}, {}, "no finished run of it") for part in claim.parts]
        measured.append((claim, of))
    return decide(measured)


def write_page(root: Path, out: Path) -> tuple[list[Run], list[Verdict], str]:
    """Write the report of the records below ``root``; returns its runs, its verdicts and itself."""
    runs = load_runs(root)
    verdicts = verdicts_on(runs)
    return runs, verdicts, write_report(runs, verdicts, out).read_text()


def _judgement(verdict: str, shift: float, **settings) -> dict:
    values = {str(seed): shift + 0.1 * (-1) ** seed for seed in range(6)}
    ends = {"mean": shift, "low": shift - 0.115, "high": shift + 0.115}
    part = {"measure": "gain", "what": f"gain of {EVIL}", "kind": "value", "unit": "points", "region": [0, None]}
    part |= {"study": "landscape", "left_out": {}, "values": values} | ends
    runs = [f"landscape/bn/seed-{seed}" for seed in range(6)]
    claims = [{"id": "1", "statement": EVIL, "verdict": verdict, "p_holm": 0.01, "parts": [part], "runs": runs}]
    claims.append({"id": "4", "statement": "alike", "verdict": "inconclusive", "parts": [], "runs": runs})
    made = {"settings": settings, "hardware": {"device_name": [QUOTES if shift > 0 else None]}}
    return {"claims": claims, "studies": {"landscape": {key: dict(of) for key, of in made.items()}}}


def write_two(root: Path, out: Path) -> str:
    """Write records of two sides, A and B, and the page that compares them: claim 1 flips, claim 4 agrees."""
    sides, runs = [], []
    for name, verdict, shift, steps in (("A", "contradicted", -3.0, 100), ("B", "supported", 3.0, 150)):
        write_study(root / name, seeds=2, experiment="landscape", **SHORT | {"steps": steps, "probes": False})
        runs.append(load_runs(root / name))
        sides.append(side_of(_judgement(verdict, shift, steps=[steps]), name))
    return write_comparison(compare(*sides), *runs, out).read_text()


assert all(claim_of(id).parts for id in VALUES)
