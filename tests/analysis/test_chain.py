"""What a verdict rests on is shown link by link, and what was changed is named."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from helpers import invoke
from planted import finish, plant, write
from synthetic import write_lab

from icsbench.analysis.chain import chain_of, runs_behind
from icsbench.analysis.claims import claim_of
from icsbench.analysis.claims.networks import per_network
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import group_runs
from icsbench.analysis.verdicts import judge
from icsbench.errors import IcsbenchError
from icsbench.record.reader import load_runs
from icsbench.report.chain import chain_in_words

DRIFTS = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0]
CLAIM = claim_of("3")
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    plant(root, CLAIM.parts[0], DRIFTS)
    return root


@pytest.fixture
def records(planted, tmp_path):
    shutil.copytree(planted, tmp_path / "results")
    return tmp_path / "results"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def seed_3(records, regime="bn"):
    return next(records.glob(f"long/{regime}-*/seed-3"))


def why(*arguments):
    """Exit code, the chain in words and as strict JSON."""
    code, text, err = invoke("claims", "why", *map(str, arguments))
    again = invoke("claims", "why", *map(str, arguments), "--json")
    assert (err, again.code, again.err) == ("", code, "")
    return code, text, json.loads(again.out, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


# --- of records ------------------------------------------------------------------------------------------------------


def test_a_chain_goes_from_the_verdict_to_the_files(planted):
    chain = chain_of(CLAIM, planted)
    [judged] = judge(load_runs(planted), [CLAIM])
    assert (chain.verdict.verdict, chain.broken, chain.reason, chain.changed) == (judged.verdict, (), "", ())
    (links,) = chain.links
    assert [link.keys for link in links] == [[seed] for seed in range(6)]
    for seed, link in enumerate(links):
        assert link.values == pytest.approx({seed: DRIFTS[seed]}) and link.left_out == {}
        folders = sorted(planted.glob(f"*/*/seed-{seed}"))
        assert sorted(record.name for record in link.records) == [f"{f.relative_to(planted)}" for f in folders]
        assert len(folders) == 2
    for record in chain.records:
        folder = planted / record.name
        origin = record.origin
        assert (origin.commit, origin.data, origin.fingerprint) == ("0" * 40, "planted", "f" * 16)
        assert origin.seal == sha256(folder / "seal.json") and record.status == "complete"
        assert [*record.checks] == ["run", "config.yaml", "environment.json", "metrics.jsonl", "probes", "summary.json"]
        assert all(check.holds for check in record.checks.values())
        assert {name: record.checks[name].now for name in FILES} == {name: sha256(folder / name) for name in FILES}
    assert len(chain.records) == 12


def test_the_command_shows_it_in_words_and_as_json(planted):
    code, text, entry = why("3", planted)
    assert code == 0 and "Verdict: supported at scale cpu" in text and "12 records are what they were" in text
    folder = seed_3(planted)
    name = folder.relative_to(planted).as_posix()
    assert f"seed 3: 1.01\n    <- {name}\n" in text
    assert (
        f"{name}: complete, commit {'0' * 12}, data planted {'f' * 12}, seal {sha256(folder / 'seal.json')[:12]}\n"
        in text
    )
    assert f"metrics.jsonl {sha256(folder / 'metrics.jsonl')[:12]}," in text and "BROKEN" not in text
    assert (entry["verdict"], entry["broken"], entry["file"], entry["n"]) == ("supported", [], None, 6)
    (link,) = (link for link in entry["parts"][0]["chain"] if link["keys"] == [3])
    assert link["values"] == pytest.approx([1.01]) and name in link["runs"]
    (record,) = (record for record in entry["runs"] if record["run"] == name)
    whole = sha256(folder / "metrics.jsonl")
    assert record["checks"]["metrics.jsonl"] == {"sealed": whole, "now": whole, "holds": True}


@pytest.mark.parametrize("name", [*FILES, "probes"])
def test_the_file_that_was_changed_is_named_and_the_rest_of_the_chain_is_there(records, name):
    folder = seed_3(records)
    place = f"{folder.relative_to(records)}"
    before = chain_of(CLAIM, records)
    path = folder / ("probes/shift/layers.json" if name == "probes" else name)
    path.write_bytes(path.read_bytes() + b"\n")
    code, text, entry = why("3", records)
    said = f"{name} of {place}: not what it was when the run was finished"
    assert code == 1 and entry["broken"] == [said]
    assert f"\n  {said}" in text and f"<- {place} BROKEN\n" in text and text.count("BROKEN") == 2
    assert "\nVerdict: not valid: a record was changed.\n" in text and "Holm" not in text
    assert (entry["verdict"], entry["p"], entry["p_holm"]) == ("not valid", None, None)
    assert len(entry["runs"]) == 12 and [link["keys"] for link in entry["parts"][0]["chain"]] == [[n] for n in range(6)]
    changed = {run["run"]: {n for n, check in run["checks"].items() if not check["holds"]} for run in entry["runs"]}
    assert {run for run, names in changed.items() if names} == {place} and changed[place] == {name}
    (record,) = (run for run in entry["runs"] if run["run"] == place)
    (sealed,) = (found.checks[name].now for found in before.records if found.name == place)
    assert record["checks"][name]["sealed"] == sealed != record["checks"][name]["now"]
    assert invoke("claims", str(records)).code == 1


def test_every_change_is_named_and_not_the_first_alone(records):
    for name in ("metrics.jsonl", "environment.json"):
        path = seed_3(records) / name
        path.write_text(path.read_text() + "\n")
    next(records.rglob("none-*/seed-0/seal.json")).unlink()
    broken = chain_of(CLAIM, records).broken
    assert len(broken) == 3 and sum("seed-3" in line for line in broken) == 2
    assert sum(line.startswith("seal.json of ") and "missing" in line for line in broken) == 1


@pytest.mark.parametrize("text", ["[]", "no json", "{}", '{"run": 3, "probes": null}'])
def test_a_seal_that_is_none(records, text):
    (seed_3(records) / "seal.json").write_text(text)
    code, said, entry = why("3", records)
    assert code == 1 and entry["broken"] and all("seed-3" in line for line in entry["broken"])
    assert "Verdict: not valid" in said


def test_a_record_in_the_folder_of_another(records):
    shutil.rmtree(seed_3(records))
    shutil.copytree(seed_3(records, "none"), seed_3_of_bn := next(records.glob("long/bn-*")) / "seed-3")
    code, text, entry = why("3", records)
    assert code == 1 and len(entry["broken"]) == 1
    place = f"{seed_3_of_bn.relative_to(records)}"
    assert entry["broken"][0].startswith(f"the record in {place}: made in another folder, none-")
    assert f"BROKEN run: now {seed_3_of_bn.parent.name}/seed-3, sealed none-" in text


def test_a_record_that_cannot_be_measured_leaves_the_part_without_numbers(records):
    place = seed_3(records).relative_to(records)
    next(seed_3(records).rglob("step-00000300.npz")).write_bytes(b"damaged")
    code, text, entry = why("3", records)
    assert code == 1
    assert entry["broken"] == [f"probes of {place}: not what it was when the run was finished"]
    assert "  not measured: " in text and "step-00000300.npz: damaged" in text
    assert entry["parts"][0]["chain"] == [] and [run["run"] for run in entry["runs"]] == [f"{place}"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named_though_its_run_no_longer_counts(records, name):
    (seed_3(records) / name).unlink()
    code, _, entry = why("3", records)
    place = seed_3(records).relative_to(records)
    assert code == 1 and f"{name} of {place}: missing" in entry["broken"]


def test_a_config_that_cannot_be_read_is_named(records):
    (seed_3(records) / "config.yaml").write_text(": x")
    code, text, entry = why("3", records)
    assert code == 1 and any("not a YAML mapping" in line for line in entry["broken"])
    assert f"{seed_3(records).relative_to(records)}: unreadable" in text


def test_a_record_that_is_whole_and_cannot_be_read_was_not_changed(records):
    folder = seed_3(records)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"norm": None}))
    finish(folder, json.loads((folder / "summary.json").read_text()))
    code, text, entry = why("3", records)
    assert code == 1 and "Verdict: not valid: a record cannot be read." in text
    assert len(entry["broken"]) == 1 and "no norm.name" in entry["broken"][0]


def test_a_record_that_was_moved_out_of_the_claim_by_its_config_breaks_the_chain(records):
    folder = seed_3(records)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"experiment": "another"}))
    chain = chain_of(CLAIM, records)
    assert [record.name for record in chain.changed] == [f"{folder.relative_to(records)}"]
    assert chain.links[0][3].left_out == {3: "no finished run of bn"}
    assert "left out (no finished run of bn)" in chain_in_words(chain)


def test_a_record_of_another_claim_breaks_the_correction_over_all(records):
    path = write(records, "dose", "noisy_bn", 0, scale="cpu")
    assert chain_of(CLAIM, records).broken == ()
    (path / "metrics.jsonl").write_text("")
    chain = chain_of(CLAIM, records)
    assert [record.name for record in chain.changed] == [f"{path.relative_to(records)}"] and len(chain.broken) == 1


def test_one_of_another_scale_too_and_none_of_a_scale_is_refused(records):
    path = write(records, "dose", "noisy_bn", 0, scale="demo")
    assert chain_of(CLAIM, records, "cpu").broken == ()
    with pytest.raises(IcsbenchError, match="no run of scale paper; there are cpu, demo"):
        chain_of(CLAIM, records, "paper")
    with pytest.raises(IcsbenchError, match="the records are of scales cpu and demo"):
        chain_of(CLAIM, records)
    (path / "summary.json").write_text("{}")
    assert len(chain_of(CLAIM, records, "cpu").broken) == 1


def test_no_records():
    with pytest.raises(IcsbenchError, match="no such folder"):
        chain_of(CLAIM, Path("nowhere"))


def test_what_a_record_says_is_no_command_to_a_terminal(records):
    for folder in records.glob("*/*/seed-*"):
        environment = json.loads((folder / "environment.json").read_text())
        environment["commit"] = "\x1b[2J\nVerdict: mine"
        environment["data"]["name"] = "\x9b31m\u202e"
        environment["data"]["label"] = "\x1b]0;title\x07"
        (folder / "environment.json").write_text(json.dumps(environment))
        finish(folder, json.loads((folder / "summary.json").read_text()))
    code, text, entry = why("3", records)
    assert code == 0 and entry["runs"][0]["commit"] == "\x1b[2J\nVerdict: mine"
    assert all(character.isprintable() or character == "\n" for character in text)
    assert sum(line.startswith("Verdict: ") for line in text.splitlines()) == 1


def test_numbers_of_networks_rest_on_the_run_that_drew_them(tmp_path):
    for seed in range(2):
        path = write_lab(tmp_path, seed=seed)
        rows = [{"step": 1, "network": network, "size": 10 * seed + network} for network in range(3)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [group] = group_runs(load_runs(tmp_path))
    found = per_network(lambda rows: math.inf if rows["size"][0] == 11 else float(rows["size"][0]))(group)
    finding = Finding(CLAIM.parts[0], group, found.values, found.left_out, behind=found.behind)
    assert [(keys, [run.seed for run in runs]) for keys, runs in runs_behind(finding)] == [
        ([0, 1, 2], [0]),
        ([3, 4, 5], [1]),
    ]
    assert found.values == {0: 0, 1: 1, 2: 2, 3: 10, 5: 12} and found.left_out.keys() == {4}


# --- of a claims.json ------------------------------------------------------------------------------------------------


@pytest.fixture
def file(records):
    assert invoke("claims", str(records)).code == 0
    return records / "claims.json"


def edited(file, change):
    content = json.loads(file.read_text())
    (entry,) = (entry for entry in content["claims"] if entry["id"] == "3")
    change(entry)
    file.write_text(json.dumps(content))
    return file


def test_a_chain_of_a_file_ends_there(file):
    code, text, entry = why("3", file)
    assert code == 0 and "Verdict: supported at scale cpu" in text and entry["verdict"] == "supported"
    assert entry["file"] == {"path": str(file), "sha256": sha256(file)}
    assert f"The chain ends in {file}, SHA-256 {sha256(file)[:12]}" in text
    assert text.count("(not here)") == 12 and "Every link holds" not in text
    (link,) = (link for link in entry["parts"][0]["chain"] if link["keys"] == [3])
    assert link["values"] == pytest.approx([1.01]) and {run.rpartition("/")[2] for run in link["runs"]} == {"seed-3"}
    assert len(link["runs"]) == 2 and all(run["status"] == "not here" and not run["checks"] for run in entry["runs"])


def test_a_value_that_was_edited_shows_in_what_follows_from_it(file):
    code, text, entry = why("3", edited(file, lambda entry: entry["parts"][0]["values"].update({"3": 5.0})))
    assert code == 1 and "Verdict: not valid: the file was changed." in text
    stated = json.loads(file.read_text())["claims"]
    (mean,) = (found["parts"][0]["mean"] for found in stated if found["id"] == "3")
    computed = math.prod([1.0, 1.02, 0.98, 5.0, 0.99, 1.0]) ** (1 / 6)  # the geometric mean
    assert f"mean of drift_vgg, {mean}: its values give {computed:.6g}" in entry["broken"]


def test_a_verdict_that_was_edited_is_named(file):
    code, _, entry = why("3", edited(file, lambda entry: entry.update(verdict="contradicted")))
    assert (code, entry["broken"]) == (1, ["verdict contradicted: its values give supported"])


def test_a_region_that_is_not_that_of_the_catalogue_is_named(file):
    code, text, entry = why("3", edited(file, lambda entry: entry["parts"][0].update(region=[0.5, 2.0])))
    assert code == 1 and "not valid: the claim was changed since" in text
    assert any("drift_vgg is not what is committed" in line for line in entry["broken"])
    assert entry["parts"][0]["region"] == [0.5, 2.0]
    assert why("1", file)[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("parts"),
        lambda entry: entry["parts"][0]["values"].update({"3": 0.0}),
        lambda entry: entry["parts"][0]["values"].update({"3": "NaN"}),
        lambda entry: entry["parts"][0]["values"].update({"three": 1.0}),
        lambda entry: entry["parts"].__setitem__(0, 7),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused_in_a_line(file, change):
    result = invoke("claims", "why", "3", str(edited(file, change)))
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert f"{file}: claim 3 is not as icsbench claims writes it" in result.err


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"claims": []}', b'{"claims": [{"id": 3}]}'])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "claims.json").write_bytes(content)
    with pytest.raises(IcsbenchError, match=r"claims.json: (holds no claims|not JSON); give a "):
        chain_of(CLAIM, tmp_path / "claims.json")


def test_a_file_without_the_claim(file):
    content = json.loads(file.read_text())
    content["claims"] = [entry for entry in content["claims"] if entry["id"] != "3"]
    file.write_text(json.dumps(content))
    with pytest.raises(IcsbenchError, match="has no claim 3; it has 1, 1b, 2, 4"):
        chain_of(CLAIM, file)
