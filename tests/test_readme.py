import csv
import json
import math
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from icsbench.analysis.claims import all_claims
from icsbench.analysis.committed import as_committed, read_claims
from icsbench.analysis.verdicts import decide
from icsbench.app.reproduce import _afforded
from icsbench.report.markdown import claims_as_markdown

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import readme_tables  # noqa: E402

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in readme_tables.pages()}
README = PAGES["README.md"]
MAIN = "1 3 4 5 6 7 8 10 11 12 13 14 15 16 18 22".split()


def test_the_tables_are_those_of_the_committed_results():
    subprocess.run([sys.executable, ROOT / "scripts" / "readme_tables.py", "--check"], check=True)
    assert len(re.findall(r"<!-- (?:from|verdicts) [^>]+ -->", "".join(PAGES.values()))) >= 7


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_to_is_there(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page])
    assert links or page != "README.md"
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_every_file_and_claim_beside_the_verdicts_is_there():
    text = (ROOT / "results" / "reference" / "claims" / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / "results" / "reference" / "claims" / link).exists()] == []
    served = {row.split(" | ")[1].rstrip(" |") for row in text.splitlines() if row.startswith("| `icsbench")}
    listed = {id for ids in served for id in ids.split(", ")}
    committed = json.loads((ROOT / "results" / "reference" / "claims" / "claims.json").read_text())["claims"]
    assert listed == {entry["id"] for entry in committed if entry["n"]}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/extending.md"])
def test_every_option_that_a_page_names_exists(page):
    """But for the guide to extensions, which adds its own, and has a test of its own."""
    from icsbench.app.folders import CONFIG_DIR

    named = set(re.findall(r"(?<![.\w])(scale|norm|experiment|model|probes|wandb|data)=([a-z]\w*)\b", PAGES[page]))
    assert named or page != "README.md"
    assert [
        f"{group}={option}" for group, option in named if not (CONFIG_DIR / group / f"{option}.yaml").exists()
    ] == []


def test_every_command_that_a_page_names_exists():
    import typer

    from icsbench.cli import app

    commands: dict = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", "\n".join(PAGES.values()), re.M | re.S))
    named = set(re.findall(r"^icsbench ([a-z]+)", shell, re.M))
    assert {"train", "sweep", "claims", "report"} <= named <= {*commands}


def test_the_code_in_the_readme_and_beside_the_probes_runs_and_gives_what_it_says():
    blocks = [re.findall(r"```python\n(.*?)```", PAGES[page], re.S) for page in ("README.md", "docs/probes.md")]
    (probes,), (norms,) = ([run_code(block) for block in of_page] for of_page in blocks)
    layer = probes["shift"]["layer1.0.conv1"]
    assert layer.l2 > 0 and -1 <= layer.cosine < 1 and layer.relative > 0
    assert len(probes["landscape"].losses) == 4 and probes["landscape"].beta > 0
    assert norms["largest"].p == math.inf and norms["largest"].weight.shape == (64,)
    assert norms["noisy"].num_features == 64


def run_code(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


REFERENCE = ROOT / "results" / "reference"


def rows_of(name):
    with open(REFERENCE / name, newline="") as file:
        return list(csv.DictReader(file))


def numbers_of_the_three_regimes():
    """The numbers that sentences of README and docs/results.md quote, from the committed CSV files."""
    results = {row["regime"]: row for row in rows_of("three_regimes/results.csv")}

    def percent(regime, key):
        return f"{100 * float(results[regime][key + '/mean']):.1f} %"

    def step_shift(regime):
        found = [
            float(row["mean"])
            for row in rows_of("three_regimes/moments.csv")
            if (row["regime"], row["quantity"], row["depth"]) == (regime, "mean_raw", "7") and int(row["step"]) >= 100
        ]
        return sum(found) / len(found)

    minutes = sum(float(row["seconds"]) for row in rows_of("three_regimes/runs.csv")) / 60 / 2
    trained = {regime: percent(regime, "train/accuracy") for regime in results}
    noisy = {name: percent("noisy_bn", f"test/accuracy/{name}") for name in ("running-off", "batch-on")}
    recalibrated = {regime: percent(regime, "test/accuracy/recalibrated-off") for regime in ("bn", "noisy_bn")}
    readme = [
        f"reaches {trained['bn']} training accuracy, and without BN {trained['none']}.",
        f"by {step_shift('noisy_bn'):.2f} in one step, against {step_shift('none'):.2f}), and it still reaches "
        f"{trained['noisy_bn']}.",
    ]
    page = [
        f"it has {trained['bn']} training accuracy against {trained['none']}.",
        f"by {step_shift('noisy_bn'):.2f} in one step with noisy BN, by {step_shift('none'):.2f} without BN, "
        f"and by {step_shift('bn'):.4f} with BN",
        f"(Fig. 2): {trained['noisy_bn']} against {trained['none']}",
        f"trains visibly slower than BN ({trained['noisy_bn']} against {trained['bn']})",
        f"{noisy['running-off']} with running statistics and noise off",
        f"{noisy['batch-on']} as it was trained (batch statistics, noise on)",
        f"{recalibrated['noisy_bn']} with recalibrated statistics and noise off",
        f"which is BN's own {recalibrated['bn']} under the same protocol",
        f"BN itself gains from recalibration ({percent('bn', 'test/accuracy/running-off')} to {recalibrated['bn']})",
        f"{minutes:.0f} minutes on two cores",
    ]
    return readme, page


def numbers_of_the_verdicts():
    """Of docs/verdicts.md: claim 1's bound, the level, and the simulated chances of any false verdict."""
    committed = json.loads((REFERENCE / "claims" / "claims.json").read_text())
    low = committed["claims"][0]["parts"][0]["region"][0]
    skewed = {
        (row["procedure"], int(row["members"])): f"{100 * float(row['error']):.0f} %"
        for row in rows_of("error/error.csv")
        if row["world"] == "skewed"
    }
    level = f"{100 * committed['level']:.0f} %"
    return [
        f"the region is above {low:g}",
        f"The aim is at most {level}",
        f"It keeps to {level} where values are normal",
        f"for 40 claims on exponential values the chance is {skewed['exploratory', 40]}",
        f"It keeps to {level} wherever values are symmetric",
        f"the chance is {skewed['two looks', 1]} for one claim on exponential values, and "
        f"{skewed['two looks', 40]} for 40",
    ]


def numbers_of_the_paper_scale():
    """Of docs/clusters.md: the operations of VGG16 at full width, counted by PyTorch on the meta device."""
    import torch
    import torchvision
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        features = torchvision.models.vgg16().features
        with FlopCounterMode(display=False) as counter:
            torch.nn.Linear(512, 10)(features(torch.empty(1, 3, 32, 32)).flatten(1))
    image = counter.get_total_flops()
    run = 3 * image * 128 * 15_000
    assert run / 10e12 / 60 == pytest.approx(6, abs=0.1) and 18 * run / 10e12 < 2 * 3600  # "six minutes", "two hours"
    return [
        f"takes {image / 1e9:.3f} GFLOP",
        f"x 3 x {image / 1e9:.3f} GFLOP = {run / 1e15:.1f} PFLOP",
        f"Eighteen runs are {18 * run / 1e15:.0f} PFLOP",
    ]


SENTENCES = {
    "README.md": numbers_of_the_three_regimes()[0],
    "docs/results.md": numbers_of_the_three_regimes()[1],
    "docs/verdicts.md": numbers_of_the_verdicts(),
    "docs/clusters.md": numbers_of_the_paper_scale(),
}
# Numbers that are no results: names, versions, learning rates, the level of intervals.
NAMES = re.compile(
    r"(Definition|Theorem|Python) \d+\.\d+( to \d+\.\d+)?|arXiv:[\d.]+|95 % interval"
    r"|([Rr]ate|[Rr]ate of|[Aa]t) 0\.0?[15]\b"
)


@pytest.mark.parametrize(("page", "sentence"), [(page, one) for page, found in SENTENCES.items() for one in found])
def test_the_numbers_in_the_prose_are_those_of_the_records(page, sentence):
    assert sentence in " ".join(PAGES[page].split())


@pytest.mark.parametrize("page", PAGES)
def test_no_page_quotes_another_number(page):
    """Decimals and percentages stand in a sentence that is checked, or in a block that is copied."""
    text = re.sub(r"<!-- (?:from|verdicts) .*?<!-- end -->|```.*?```|`[^`]*`|\]\([^)]*\)", "", PAGES[page], flags=re.S)
    text = " ".join(text.split())
    for sentence in SENTENCES.get(page, []):
        text = text.replace(sentence, "")
    assert re.findall(r".{0,20}(?:\d+\.\d+|\d %).{0,20}", NAMES.sub("", text)) == []


def test_the_demo_measures_as_many_claims_as_the_docs_say():
    """Those all of whose parts one of its studies measures, but for 1b and 3: its grid is too short, VGG11 too."""
    demo, claims = {*_afforded("demo")}, all_claims()
    served = {claim.id for claim in claims if all(demo.intersection(part.studies) for part in claim.parts)}
    said = f"measures {len(served - {'1b', '3'})} of the {len(claims)} claims at the demo scale"
    assert said in " ".join(PAGES["docs/commands.md"].split())


def test_what_the_results_say_without_a_number_holds():
    parts = {entry["id"]: entry["parts"] for entry in json.loads(COMMITTED.read_text())["claims"]}
    assert 1 - parts["7"][0]["mean"] == pytest.approx(1 / 6, abs=0.02)  # "lowers this ICS by a sixth"
    assert 1 - parts["7"][1]["mean"] < 0.1  # "hardly"
    facts = (REFERENCE / "three_regimes" / "results.md").read_text()
    for words, said in {
        "width 1/4": "a quarter of its width",
        " 2,000 steps": "2,000 steps",
        "0, 1, 2, 3, 4, 5": "six seeds",
    }.items():
        assert words in facts and said in " ".join(README.split())
    dln = {row["regime"]: row for row in rows_of("high_lr/results.csv")}
    assert float(dln["none"]["train/accuracy/mean"]) < 0.12 < 0.6 < float(dln["bn"]["train/accuracy/mean"])


COMMITTED = REFERENCE / "claims" / "claims.json"


@cache
def judged_again():
    """The verdicts on the committed values per seed, computed anew, beside what was committed; and what has changed.

    A claim that the catalogue measures otherwise by now is as the file states it.
    """
    by_id = read_claims(COMMITTED)
    found = as_committed(by_id, COMMITTED)
    verdicts = decide([(claim, findings) for claim, findings, _ in found])
    return by_id, verdicts, {claim.id: differs for claim, _, differs in found if differs}


def test_the_committed_verdicts_are_those_of_the_committed_values():
    by_id, verdicts, changed = judged_again()
    assert [*by_id] == [verdict.claim.id for verdict in verdicts]
    for verdict in verdicts:
        entry = by_id[verdict.claim.id]
        assert (verdict.verdict, verdict.n) == (entry["verdict"], entry["n"])
        assert verdict.speaks_for == entry["speaks_for"] or verdict.claim.id in changed
        for found, part in zip(entry["parts"], verdict.claim.parts, strict=True):
            bounds = [bound if math.isfinite(bound) else None for bound in (part.low, part.high)]
            assert (found["measure"], found["region"]) == (part.name, bounds)
        if entry["p"] is not None:
            assert (verdict.p, verdict.p_holm) == pytest.approx((entry["p"], entry["p_holm"]), rel=1e-9)


def test_the_claims_that_changed_since_are_those_of_the_plan():
    """results/reference/confirmation says which; new ones are in no earlier file."""
    by_id, _, changed = judged_again()
    assert changed.keys() == {"1", "5", "6", "7", "9", "10", "11", "11b", "12", "14", "15", "21", "23"}
    assert {claim.id for claim in all_claims()} - by_id.keys() == {"4b", "5b", "44"}


def test_the_numbers_beside_the_verdicts_are_those_of_the_committed_values():
    by_id = read_claims(COMMITTED)

    def mean(id, part):
        return by_id[id]["parts"][part - 1]["mean"]

    with open(REFERENCE / "claims" / "dose.csv", newline="") as file:
        dose = [row for row in csv.DictReader(file) if row["quantity"] == "train/accuracy"]
    (x0, y0), (x1, y1) = ((math.log10(float(row["x"])), 100 * float(row["mean"])) for row in dose[:2])
    claims, landscape = ((REFERENCE / name / "README.md").read_text() for name in ("claims", "landscape"))
    assert f"it is {(y1 - y0) / (x1 - x0):.1f} points per factor of ten" in " ".join(claims.split())
    assert (
        f"BN has {mean('7', 2):.2f} times the ICS, {mean('10', 2):.1f} times the width of the loss and "
        f"{mean('11', 2):.2f} times the relative change"
    ) in " ".join(landscape.split())


def test_the_table_of_verdicts_is_that_of_the_committed_values():
    by_id, verdicts, changed = judged_again()
    rows = [line for line in claims_as_markdown(verdicts).splitlines() if line.startswith("|")]
    table = (REFERENCE / "claims" / "claims.md").read_text().splitlines()
    assert len(rows) == len(verdicts) + 2
    for row in rows:
        if (id := row.split("|")[1].strip()) not in changed:
            assert row in table
        else:  # the file lacks some of what a row of an earlier catalogue says
            (shown,) = (line for line in table if line.startswith(f"| {id} |"))
            assert f" {by_id[id]['verdict']}" in shown and by_id[id]["statement"].split(":")[0] in shown


def test_the_table_in_the_readme_is_an_extract_of_the_whole_one():
    """Column by column, from the file that the judging command wrote beside claims.json."""
    table = {
        row.split(" | ")[0].removeprefix("| "): row.split(" | ")
        for row in (REFERENCE / "claims" / "claims.md").read_text().splitlines()
        if row.startswith("| ")
    }
    shown = [line.split(" | ") for line in README.splitlines() if re.match(r"\| \d", line)]
    assert [row[0].removeprefix("| ") for row in shown] == MAIN
    for id, claim, verdict, effect, n in shown:
        whole = table[id.removeprefix("| ")]
        assert [claim, effect, n.removesuffix(" |")] == [whole[1], whole[5], whole[6]]
        assert whole[3].startswith(verdict)
    by_verdict = [row[3].split()[1].rstrip(";") for id, row in table.items() if re.match(r"\d", id)]
    count = {verdict: by_verdict.count(verdict) for verdict in ("supported", "contradicted", "inconclusive")}
    assert (
        f"Of {len(by_verdict)} claims {count['supported']} are supported, {count['contradicted']} contradicted and "
        f"{count['inconclusive']} inconclusive."
    ) in README


REFERENCES = sorted(
    path.parent for path in REFERENCE.glob("*/README.md") if path.parent.name not in ("theorems", "claims", "error")
)


def test_the_residuals_beside_the_theorems_are_those_of_their_csv():
    text = (REFERENCE / "theorems" / "README.md").read_text()
    with open(REFERENCE / "theorems" / "theorems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    stated = {
        "Fact C.1": "fact_c1",
        "Theorem 4.1, with": "theorem_4_1",
        "Theorem 4.2, first": "theorem_4_2",
        "Theorem 4.4, cor": "theorem_4_4",
        "Theorem C.1, cor": "theorem_c1",
        "weight gradient orthogonal": "orthogonality",
    }
    for begins, column in stated.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {begins}"))
        found = [float(cell) for cell in line.split("|")[2:4]]
        largest = [max(float(row[column]) for row in rows if row["network"] == n) for n in ("untrained", "trained")]
        assert found == pytest.approx(largest, rel=0.15), begins


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_the_bold_numbers_beside_the_reference_figures_are_those_of_their_tables(folder):
    text = " ".join((folder / "README.md").read_text().split())
    files = [path for path in folder.rglob("*.md") if path.name != "README.md"]
    tables = "\n".join(path.read_text() for path in [*files, REFERENCE / "claims" / "claims.md"])
    numbers = [bold for bold in re.findall(r"\*\*([^*]+)\*\*", text) if bold[0].isdigit() or bold[0] in "-+"]
    assert numbers
    assert [number for number in numbers if number not in tables] == []
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (folder / link).exists()] == []
