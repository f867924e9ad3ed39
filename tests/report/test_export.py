"""An exported crate: it holds the records, says what they are, and other people's readers take it."""

import csv
import hashlib
import json
import math
import shutil
from pathlib import Path
from urllib.parse import unquote

import polars
import pytest
import yaml
from helpers import invoke
from planted import finish, plant_claim, write

from icsbench.analysis.claims import claim_of
from icsbench.record.seal import SEAL, broken, checksums
from icsbench.report.flat import Table, write_table

TABLES = ("runs", "metrics", "values", "claims")
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", "seal.json")
TERMS = {"File": "http://schema.org/MediaObject", "conformsTo": "http://purl.org/dc/terms/conformsTo"}
"""Terms of the context of RO-Crate 1.1 that are not those of schema.org by the same name."""


def write_lab_run(root, seed, experiment="walks") -> Path:
    """A sealed run of a lab, with what a training has not: texts, lists, several rows of a step, no data."""
    path = Path(root) / experiment / "walk" / f"seed-{seed}"
    path.mkdir(parents=True)
    lab = {"name": "walk", "sizes": [1, 2], "label": '=1+1, "a"\nb', "day": None}
    config = {"experiment": experiment, "scale": "cpu", "seed": seed, "lab": lab}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "environment.json").write_text(json.dumps({"numpy": "2.0", "cards": ["a", "b"]}))
    rows = [{"step": 1, "variant": v, "far": d} for v, d in (("bn", 0.1 + 0.2), ("", "Infinity"))]
    rows += [{"step": 2, "steps": [1, 2.5, "NaN"], "sure": True, "none": None, "\ud800": "\udfff,"}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return finish(path, {"status": "complete", "outcome": "complete", "rows": 3, "sure": bool(seed)})


def write_results(root) -> Path:
    """Six seeds of claims 1 and 2 (one with arrays of probes), a run that diverged, one unfinished, two of a lab."""
    plant_claim(root, claim_of("1"), [[1.9, 2.0, 2.1, 2.0, 1.9, 2.1], [5.0, 6.0, 5.5, 5.2, 5.8, 5.1]])
    plant_claim(root, claim_of("2"), [[0.5, 0.55, 0.45, 0.5, 0.48, 0.52]])
    write(root, "high_lr", "none", 0, lr=1, diverged_at=300)
    (write(root, "high_lr", "bn", 0, lr=1) / "summary.json").unlink()
    (next(Path(root).glob("high_lr/bn-*/seed-0")) / SEAL).unlink()
    write_lab_run(root, 0)
    write_lab_run(root, 1)
    return Path(root)


def export(results, out, *options):
    return invoke("export", str(results), "--out", str(out), *options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    results, out = write_results(root / "results"), root / "crate"
    said = export(results, out, "--license", "https://spdx.org/licenses/CC-BY-4.0")
    assert (said.code, said.err) == (0, "")
    assert "not exported: 1 of " in said.out
    return results, out


@pytest.fixture(scope="module")
def graph(made):
    content = json.loads((made[1] / "ro-crate-metadata.json").read_text())
    found = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(found) == len(content["@graph"])
    return found


def ids(value) -> list[str]:
    return [ref["@id"] for ref in (value if isinstance(value, list) else [value])]


def read(out, name) -> list[dict[str, str]]:
    with open(out / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_records_are_copied_and_their_seals_hold(made):
    results, out = made
    for path in sorted(results.glob("*/*/seed-*")):
        copy = out / "records" / path.relative_to(results)
        if not (path / SEAL).exists():
            assert not copy.exists()
            continue
        assert broken(copy) is None
        for name in FILES:
            assert (copy / name).read_bytes() == (path / name).read_bytes()
            assert (copy / name).stat().st_ino != (path / name).stat().st_ino
    assert not [*out.rglob("checkpoint.pt")]
    assert [*(out / "records").rglob("*.npz")]


def test_the_crate_is_judged_as_the_results_are(made, tmp_path):
    results, out = made
    for folder, name in ((results, "before"), (out, "after")):
        assert invoke("claims", str(folder), "--out", str(tmp_path / name)).code == 0
    for name in ("claims.csv", "claims.md"):
        content = (tmp_path / "before" / name).read_bytes()
        assert content == (tmp_path / "after" / name).read_bytes() == (out / name).read_bytes()
    assert (tmp_path / "after" / "claims.json").read_bytes() == (out / "claims.json").read_bytes()
    verdicts = {claim["id"]: claim["verdict"] for claim in json.loads((out / "claims.json").read_text())["claims"]}
    assert {"1": "supported", "2": "supported", "6": "not measured"}.items() <= verdicts.items()


def test_every_file_is_described_with_size_and_checksum(made, graph):
    out = made[1]
    described = {unquote(id) for id, entity in graph.items() if entity["@type"] == "File"}
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    probes = {name for name in there if "/probes/" in name}
    assert described == there - probes - {"ro-crate-metadata.json"}
    for name in described:
        content = (out / name).read_bytes()
        entity = graph[next(id for id in graph if unquote(id) == name)]
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()
        assert entity["contentSize"] == str(len(content))
    folders = {unquote(id) for id in graph if id.endswith("/probes/")}
    assert {name.split("/probes/")[0] + "/probes/" for name in probes} == folders


def test_every_reference_leads_somewhere_and_all_data_hang_on_the_root(graph):
    reached, new = set(), {"./"}
    while new:
        reached |= new
        new = {id for place in new for id in ids(graph[place].get("hasPart", []))} - reached
    assert reached == {id for id, entity in graph.items() if entity["@type"] in ("File", "Dataset")}
    outside = {"https://w3id.org/ro/crate/1.1"}
    for entity in graph.values():
        for value in entity.values():
            for item in value if isinstance(value, list) else [value]:
                assert not isinstance(item, dict) or item["@id"] in graph.keys() | outside
    assert graph["./"]["conformsTo"] == {"@id": "https://w3id.org/ro/wfrun/process/0.5"}
    assert graph["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}


def test_each_run_is_an_action_on_its_config_and_data(made, graph):
    results = made[0]
    runs = [path for path in results.glob("*/*/seed-*") if (path / SEAL).exists()]
    actions = {id: entity for id, entity in graph.items() if id.startswith("#run-")}
    assert len(actions) == len(runs)
    assert {*actions, "#export"} <= {*ids(graph["./"]["mentions"])}
    for path in runs:
        place = path.relative_to(results).as_posix()
        action = actions[f"#run-{place}"]
        inside = f"records/{place}/"
        data = [] if "walks" in place else ["#data-" + "f" * 16]
        assert (action["@type"], ids(action["object"])) == ("CreateAction", [f"{inside}config.yaml", *data])
        results_of = [f"{inside}{name}" for name in FILES[1:]]
        results_of += [f"{inside}probes/"] if (path / "probes").exists() else []
        assert ids(action["result"]) == results_of
        software = graph[action["instrument"]["@id"]]
        assert (software["@type"], software["name"]) == ("SoftwareApplication", "icsbench")
        assert software.get("identifier") == (None if "walks" in place else "0" * 40)
    assert graph["#data-" + "f" * 16]["identifier"] == "f" * 16
    assert "diverged" in next(a["description"] for id, a in actions.items() if id.startswith("#run-high_lr/"))


def test_each_verdict_names_its_runs(made, graph):
    content = json.loads((made[1] / "claims.json").read_text())
    for claim in content["claims"]:
        entity = graph[f"#claim-{claim['id']}"]
        assert entity["claimReviewed"] == claim["statement"]
        assert graph[entity["reviewRating"]["@id"]]["alternateName"] == claim["verdict"]
        assert [id.removesuffix("/") for id in ids(entity.get("isBasedOn", []))] == claim["runs"]
        assert all((made[1] / run / "metrics.jsonl").is_file() for run in claim["runs"])
    assert len(ids(graph["#claim-1"]["isBasedOn"])) == 12


def test_runs_csv_has_a_row_per_run_with_its_settings(made):
    results, out = made
    rows = read(out, "runs")
    assert [row["run"] for row in rows] == [str(number) for number in range(len(rows))]
    for row in rows:
        path = results / Path(row["path"]).relative_to("records")
        config = yaml.safe_load((path / "config.yaml").read_text())
        summary = json.loads((path / "summary.json").read_text())
        assert row["config/experiment"] == config["experiment"]
        assert int(row["config/seed"]) == config["seed"]
        if row["kind"] == "training":
            assert float(row["config/optim.lr"]) == config["optim"]["lr"]
            assert row["config/norm.name"] == config["norm"]["name"]
            assert row["config/data.fingerprint"] == "f" * 16
            assert float(row["summary/train/loss"]) == summary["train/loss"]
            for protocol, accuracy in summary["test/accuracy"].items():
                assert float(row[f"summary/test/accuracy/{protocol}"]) == accuracy
        else:
            assert (row["config/lab.label"], row["config/lab.sizes"]) == ('=1+1, "a"\nb', "[1, 2]")
            assert (row["environment/cards"], row["config/optim.lr"]) == ('["a", "b"]', "")
            assert row["summary/sure"] == ("true" if row["config/seed"] == "1" else "false")


def test_metrics_csv_has_every_number_of_every_record_in_full(made):
    results, out = made
    places = {row["run"]: results / Path(row["path"]).relative_to("records") for row in read(out, "runs")}
    again: dict[str, dict[int, dict]] = {run: {} for run in places}
    for row in read(out, "metrics"):
        line = again[row["run"]].setdefault(int(row["line"]), {"step": int(row["step"])})
        value = row["text"] if row["value"] == "" else float(row["value"])
        if row["index"]:
            line.setdefault(row["key"], []).append(value)
            assert len(line[row["key"]]) == int(row["index"]) + 1
        else:
            line[row["key"]] = value
    for run, path in places.items():
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        found = [again[run][number] for number in range(len(lines))]
        if path.parent.parent.name == "walks":
            assert found[0] == {"step": 1, "variant": "bn", "far": 0.1 + 0.2}
            assert found[1] == {"step": 1, "variant": "", "far": math.inf}
            assert [*found[2]] == ["step", "steps", "sure", "none", "\\ud800"]
            assert (found[2]["steps"][:2], math.isnan(found[2]["steps"][2])) == ([1.0, 2.5], True)
            assert (found[2]["sure"], found[2]["none"], found[2]["\\ud800"]) == ("true", "", "\\udfff,")
        else:
            assert str(found) == str([{k: v if k == "step" else _floats(v) for k, v in line.items()} for line in lines])


def _floats(value):
    return list(map(float, value)) if isinstance(value, list) else float(value)


def test_values_csv_has_the_number_of_each_seed(made):
    found = {(row["claim"], row["part"], row["seed"]): float(row["value"]) for row in read(made[1], "values")}
    wanted = {
        (claim["id"], str(number), seed): value
        for claim in json.loads((made[1] / "claims.json").read_text())["claims"]
        for number, part in enumerate(claim["parts"], 1)
        for seed, value in part["values"].items()
    }
    assert found == wanted
    assert {key[0] for key in wanted} >= {"1", "2"}


def test_a_seed_without_a_number_has_its_reason(tmp_path):
    plant_claim(tmp_path / "results", claim_of("2"), [[0.5] * 7])
    shutil.rmtree(next((tmp_path / "results").glob("percentiles/none-*")) / "seed-6")
    assert export(tmp_path / "results", tmp_path / "crate").code == 0
    (row,) = [row for row in read(tmp_path / "crate", "values") if row["left_out"]]
    assert (row["claim"], row["seed"], row["value"]) == ("2", "6", "")
    assert "none" in row["left_out"]


def test_polars_reads_every_table(made):
    out = made[1]
    for name in TABLES:
        assert polars.read_csv(out / f"{name}.csv").height == len(read(out, name))
    metrics = polars.read_csv(out / "metrics.csv", infer_schema_length=None)
    assert metrics.schema["value"] == polars.Float64
    assert metrics.schema["index"] == metrics.schema["step"] == metrics.schema["run"] == polars.Int64
    runs = polars.read_csv(out / "runs.csv", infer_schema_length=None)
    assert runs.schema["config/optim.lr"] == polars.Float64
    assert runs.schema["summary/sure"] == polars.Boolean
    far = metrics.filter(polars.col("key") == "far").join(runs, on="run")
    assert far.select("config/seed", "value").rows() == [(0, 0.1 + 0.2), (0, math.inf), (1, 0.1 + 0.2), (1, math.inf)]


def test_a_column_has_one_type_however_its_values_look(tmp_path):
    rows = [(1.0, "1", 2**60, True), *[(2.0, "2", 0, False)] * 200, (0.5, "x,\n", 1, None), (math.nan, "", None, True)]
    rows += [(-math.inf, 'say "x"', 3, True)]
    kinds = {"number": "number", "text": "text", "integer": "integer", "boolean": "boolean"}
    path = write_table(Table("t.csv", "", kinds, rows), tmp_path)
    read_back = polars.read_csv(path, infer_schema_length=None)
    assert [*read_back.schema.values()] == [polars.Float64, polars.String, polars.Int64, polars.Boolean]
    assert read_back["number"][0] == 1 and math.isnan(read_back["number"][202])
    assert read_back["number"][203] == -math.inf
    assert read_back["text"].to_list()[201:] == ["x,\n", "", 'say "x"']
    assert read_back["integer"].to_list()[:2] + read_back["integer"].to_list()[202:] == [2**60, 0, None, 3]


def test_croissant_describes_every_column(made):
    content = json.loads((made[1] / "croissant.json").read_text())
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {file["@id"]: file for file in content["distribution"]}
    for name in TABLES:
        (records,) = [records for records in content["recordSet"] if records["name"] == name]
        with open(made[1] / f"{name}.csv", newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
        assert [field["source"]["extract"]["column"] for field in records["field"]] == header
        assert {field["source"]["fileObject"]["@id"] for field in records["field"]} == {f"{name}.csv"}
        digest = hashlib.sha256((made[1] / f"{name}.csv").read_bytes()).hexdigest()
        assert files[f"{name}.csv"]["sha256"] == digest


@pytest.mark.parametrize("below", ["percentiles", "percentiles/*", "percentiles/*/seed-3"])
def test_a_folder_inside_the_results_is_exported_with_its_place(made, tmp_path, below):
    results = next(made[0].glob(below))
    assert export(results, tmp_path / "crate").code == 0
    for run in read(tmp_path / "crate", "runs"):
        assert run["path"].startswith("records/percentiles/")
        assert broken(tmp_path / "crate" / run["path"]) is None


def test_an_export_is_written_anew_and_alone(made, tmp_path):
    out = tmp_path / "crate"
    shutil.copytree(made[1], out)
    smaller = made[0] / "walks"
    assert export(smaller, out).code == 0
    assert [row["kind"] for row in read(out, "runs")] == ["lab", "lab"]
    assert not (out / "records" / "percentiles").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["crate"]
    (out / "records" / "walks" / "notes.txt").write_text("mine")
    said = export(smaller, out)
    assert said.code == 1 and "notes.txt is not of the crate" in said.err
    assert (out / "records" / "walks" / "notes.txt").read_text() == "mine"


def refused(said, *words):
    assert said.code == 1 and len(said.err.splitlines()) == 1
    assert all(word in said.err for word in words), said.err


def test_what_it_refuses(tmp_path):
    results = tmp_path / "results"
    run = write_lab_run(results, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    refused(export(results, tmp_path / "full"), "not empty")
    (tmp_path / "full" / "ro-crate-metadata.json").write_text('{"@graph": [{"@id": "./"}]}')
    refused(export(results, tmp_path / "full"), "no crate of icsbench export")
    refused(export(results, tmp_path / "full" / "a.txt"), "is a file")
    refused(export(results, results / "crate"), "inside")
    refused(export(results, tmp_path / "new", "--license", "CC BY"), "--license", "https://spdx.org")
    refused(export(results, tmp_path / "full" / "a.txt" / "new"), "a.txt")
    (run / "summary.json").unlink()
    (run / SEAL).unlink()
    refused(export(results, tmp_path / "new"), "no finished run")
    assert {path.name for path in tmp_path.iterdir()} == {"results", "full"}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_record_is_refused_and_the_earlier_export_stays(tmp_path, name):
    run = write_lab_run(tmp_path / "results", 0)
    out = tmp_path / "crate"
    assert export(tmp_path / "results", out).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if name == SEAL:
        content = (run / "summary.json").read_bytes()
        (run / SEAL).write_text(json.dumps(checksums(run, content) | {"summary.json": "0"}))
        name = "summary.json"
    else:
        (run / name).write_bytes((run / name).read_bytes() + b"\n")
    refused(export(tmp_path / "results", out), name)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore")
def test_a_validator_accepts_the_crate(made, graph, tmp_path, monkeypatch):
    """Contexts are those of schema.org by name, as in RO-Crate 1.1, so that no network is needed.

    The profile brings the rules of RO-Crate 1.1 with it.
    """
    pytest.importorskip("rocrate_validator")
    from rocrate_validator import models, services
    from rocrate_validator.utils.http import HttpRequester

    names = {name for entity in graph.values() for name in (*entity, entity["@type"]) if not name.startswith("@")}
    context = {"@context": {name: TERMS.get(name, f"http://schema.org/{name}") for name in names}}

    class Answer:
        status_code, headers, text = 200, {"Content-Type": "application/ld+json"}, json.dumps(context)

        def json(self):
            return context

    monkeypatch.setattr(HttpRequester, "get", lambda *_, **__: Answer(), raising=False)
    assert export(made[0] / "high_lr", tmp_path / "crate").code == 0
    settings = services.ValidationSettings(
        rocrate_uri=str(tmp_path / "crate"),
        profile_identifier="process-run-crate-0.5",
        requirement_severity=models.Severity.REQUIRED,
    )
    assert [issue.message for issue in services.validate(settings).get_issues()] == []


@pytest.mark.filterwarnings("ignore")
def test_mlcroissant_reads_the_tables(made):
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(str(made[1] / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    for name in ("runs", "values"):
        assert sum(1 for _ in dataset.records(name)) == len(read(made[1], name))
    first = next(iter(dataset.records("values")))
    wanted = read(made[1], "values")[0]
    assert (first["values/claim"].decode(), first["values/value"]) == (wanted["claim"], float(wanted["value"]))
