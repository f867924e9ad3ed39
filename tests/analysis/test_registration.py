"""Locks: what was registered before its records, what was changed since, and verdicts at looks."""

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import invoke
from planted import finish, write
from scipy import stats

from icsbench.analysis import claims as catalogue
from icsbench.analysis import registration
from icsbench.analysis.claims import claim_of
from icsbench.analysis.decision import Look
from icsbench.analysis.registration import amend, judge_by, looks_with, read_lock, seeds_of, write_lock
from icsbench.errors import IcsbenchError
from icsbench.record.reader import load_runs
from icsbench.report.html import write_report

BN, NONE = "bn-x1-b128-lr0.1", "none-x1-b128-lr0.1"
FOLDERS: dict[str, str | None] = {BN: "f" * 16, NONE: "f" * 16}
MADE = {"icsbench": "0", "commit": None}


def lock(path, ids, seeds=range(6), looks=None, studies=None):
    claims = [claim_of(id) for id in ids]
    looks = looks or [Look(len(seeds), 0.05)]
    found = write_lock(path, claims, studies or {"three_regimes": FOLDERS}, seeds, looks, MADE)
    time.sleep(0.02)  # the clock of files is a few milliseconds behind
    return found


def records(root, values, study="three_regimes"):
    """Test accuracy of BN so many points above that of none, for seeds from 0 on."""
    for seed, value in enumerate(values):
        write(root, study, "bn", seed, test=0.5 + value / 100, reach=200)
        write(root, study, "none", seed, test=0.5, reach=600)


VALUES = [4.0, 5.0, 4.5, 6.0, 5.5, 4.2]


@pytest.fixture
def judged(tmp_path):
    """A lock of claim 1, and records made after it, for which it is so."""
    lock(tmp_path / "lock.json", ["1"])
    records(tmp_path / "results", VALUES)
    return tmp_path


def verdict_of(folder, id="1"):
    found = judge_by(load_runs(folder / "results"), read_lock(folder / "lock.json"))
    return next(verdict for verdict in found if verdict.claim.id == id)


def claims_of(folder, *more):
    said = invoke("claims", str(folder / "results"), "--lock", str(folder / "lock.json"), *more)
    return said, " ".join(said.out.split())


def changed(monkeypatch, id, part, **changes):
    """The catalogue with another region of one part."""
    all_claims = catalogue.all_claims()

    def other():
        return tuple(
            dataclasses.replace(
                claim, parts=tuple(dataclasses.replace(p, **changes) if p.name == part else p for p in claim.parts)
            )
            if claim.id == id
            else claim
            for claim in all_claims
        )

    monkeypatch.setattr(registration, "all_claims", other)


# --- registered, amended, exploratory --------------------------------------------------------------------------------


def test_records_made_after_the_lock_are_registered(judged):
    verdict = verdict_of(judged)
    assert (verdict.verdict, verdict.registration.status) == ("supported", "registered")
    assert "time" not in verdict.registration.why and "oldest file for 12 records" in verdict.registration.why
    assert verdict_of(judged, "12").registration.status == "exploratory"
    said, text = claims_of(judged)
    assert said.code == 0 and "registered, look at 6 seeds at level 0.05" in text and "1 registered, 0 amended" in text
    entry = json.loads((judged / "results/claims.json").read_text())["claims"][0]
    assert entry["registration"]["status"] == "registered" and entry["registration"]["look"]["seeds"] == 6
    stated = invoke("claims", "why", "1", str(judged / "results/claims.json"))
    assert stated.code == 0 and "Registration: registered, look at 6 seeds" in stated.out


def test_a_bound_that_was_edited_shows_everywhere(judged, monkeypatch):
    changed(monkeypatch, "1", "speed_up_to_90", low=1.2)
    said, text = claims_of(judged)
    what = "low of speed_up_to_90 was 1.5, is 1.2"
    assert said.code == 4 and "amended" in text and what in text
    results = judged / "results"
    entry = json.loads((results / "claims.json").read_text())["claims"][0]
    assert entry["registration"]["changes"] == [what]
    for name in ("claims.md", "claims.csv"):
        assert what in (results / name).read_text() and "amended" in (results / name).read_text()
    verdicts = judge_by(load_runs(results), read_lock(judged / "lock.json"))
    page = write_report([], verdicts, judged / "report.html").read_text()
    assert what in page and "amended, changed" in page
    why = invoke("claims", "why", "1", str(results), "--lock", str(judged / "lock.json"))
    assert why.code == 0 and "Registration: amended, look at 6 seeds at level 0.05: changed after" in why.out


def test_code_settings_and_data_that_were_changed_are_named(judged, monkeypatch):
    document = json.loads((judged / "lock.json").read_text())
    shutil.copytree(judged / "results", judged / "kept")
    assert "icsbench.analysis.quantities.protocols" in document["claims"]["1"]["parts"]["test_bn_minus_none"]["modules"]
    real = registration.checksum_of
    monkeypatch.setattr(registration, "checksum_of", lambda m: "0" * 64 if m.endswith("protocols") else real(m))
    assert verdict_of(judged).registration.changes == ("code of icsbench.analysis.quantities.protocols",)
    monkeypatch.undo()
    for path in (judged / "results").glob(f"three_regimes/{BN}/seed-*"):
        environment = json.loads((path / "environment.json").read_text())
        environment["data"]["fingerprint"] = "e" * 16
        (path / "environment.json").write_text(json.dumps(environment))
        finish(path, json.loads((path / "summary.json").read_text()))
    for path in (judged / "results").glob(f"three_regimes/{NONE}/seed-*"):
        environment = json.loads((path / "environment.json").read_text())
        environment["data"]["fingerprint"] = "e" * 16
        (path / "environment.json").write_text(json.dumps(environment))
        finish(path, json.loads((path / "summary.json").read_text()))
    assert verdict_of(judged).registration.changes == (
        f"data of three_regimes: fingerprint was {'f' * 16}, is {'e' * 16}",
    )


def test_another_setting_is_an_amendment(tmp_path):
    lock(tmp_path / "lock.json", ["1"], studies={"three_regimes": {BN: "f" * 16, "none-x1-b64-lr0.1": "f" * 16}})
    records(tmp_path / "results", VALUES)
    found = verdict_of(tmp_path)
    assert found.verdict == "supported" and found.registration.status == "amended"
    assert found.registration.changes == (f"settings of three_regimes: {NONE} was not locked",)


def test_a_record_older_than_the_lock_makes_it_exploratory(tmp_path):
    records(tmp_path / "results", VALUES)
    time.sleep(0.02)
    lock(tmp_path / "lock.json", ["1"])
    found = verdict_of(tmp_path)
    assert found.verdict == "supported" and found.registration.status == "exploratory"
    assert "12 of 12 records are older than the lock" in found.registration.why
    for path in (tmp_path / "results").rglob("seed-*"):
        (path / "timing.json").write_text('{"began": "2999-01-01T00:00:00+00:00", "seconds": 1.0}')
    assert verdict_of(tmp_path).registration == dataclasses.replace(found.registration, status="registered", why="")
    one = next((tmp_path / "results").rglob("seed-3")) / "timing.json"
    one.write_text('{"began": "2001-01-01T00:00:00+00:00", "seconds": 1.0}')
    assert "1 of 12 records are older" in verdict_of(tmp_path).registration.why
    one.write_text('{"began": "yesterday", "seconds": 1.0}')
    with pytest.raises(IcsbenchError, match="began is 'yesterday'; it would be a time"):
        verdict_of(tmp_path)


def test_a_claim_that_is_there_no_more_is_said_to_be(judged, monkeypatch):
    left = tuple(claim for claim in catalogue.all_claims() if claim.id != "1")
    monkeypatch.setattr(registration, "all_claims", lambda: left)
    found = verdict_of(judged)
    assert found.verdict == "not measured" and found.registration.changes == ("the catalogue has this claim no more",)


# --- looks -----------------------------------------------------------------------------------------------------------


def two_sided(values, low):
    """p of a mean above a bound, by Student's t and by all sign flips, whichever is larger; either verdict possible."""
    values = np.array(values) - low
    found: Any = stats.ttest_1samp(values, 0, alternative="greater")
    signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    flips = np.mean(signs @ values >= values.sum() - 1e-9)
    return 2 * max(found.pvalue, flips)


def difference_claim(id, part):
    claim = claim_of("1")
    return dataclasses.replace(claim, id=id, parts=(part,))


@pytest.fixture
def family(monkeypatch):
    """Three claims: test accuracy above 0, the same above 3 points (one member with it), and the speed."""
    speed, test = claim_of("1").parts
    found = (
        difference_claim("1", test),
        difference_claim("2", dataclasses.replace(test, low=3.0)),
        difference_claim("3", speed),
    )
    monkeypatch.setattr(registration, "all_claims", lambda: found)
    return found


def test_two_looks_with_holm_over_what_is_open(tmp_path, family):
    looks = [Look(12, 0.03), Look(24, 0.02)]
    write_lock(tmp_path / "lock.json", family, {"three_regimes": FOLDERS}, range(24), looks, MADE)
    time.sleep(0.02)
    rng = np.random.default_rng(3)
    values = [round(value, 3) for value in 4.3 + 2.2 * rng.standard_normal(24)]
    records(tmp_path / "results", values[:11])

    def found():
        verdicts = judge_by(load_runs(tmp_path / "results"), read_lock(tmp_path / "lock.json"))
        return {verdict.claim.id: verdict for verdict in verdicts}

    early = found()
    assert {v.verdict for v in early.values()} == {"not measured"}
    assert early["1"].reason.startswith("not measured yet: 11 of the 12 seeds")
    records(tmp_path / "more", values[:15])
    for seed in range(11, 15):
        for folder in (BN, NONE):
            source = tmp_path / "more/three_regimes" / folder / f"seed-{seed}"
            shutil.copytree(source, tmp_path / "results/three_regimes" / folder / f"seed-{seed}")
    first = found()
    # Fifteen seeds: judged on the first twelve. Members: test accuracy (claims 1 and 2), and the speed, whose ratio is
    # 3 for every seed: p of t is 0, that of the flips 2 / 4096, which is the smaller of the two members.
    above_0, above_3 = two_sided(values[:12], 0), two_sided(values[:12], 3)
    speed = 2 / 2**12
    smaller, larger = sorted([min(above_0, above_3), speed])
    assert 2 * speed < larger < 0.03 < above_3
    assert first["1"].n == 12 and first["1"].registration.look == Look(12, 0.03)
    assert smaller == speed and first["3"].p_holm == pytest.approx(2 * speed)
    assert first["1"].p_holm == pytest.approx(larger)  # the last of two, and above what the first has
    assert [first[id].verdict for id in "123"] == ["supported", "inconclusive", "supported"]
    assert first["2"].p == pytest.approx(above_3)
    for seed in range(15, 24):
        write(tmp_path / "results", "three_regimes", "bn", seed, test=0.5 + values[seed] / 100, reach=200)
        write(tmp_path / "results", "three_regimes", "none", seed, test=0.5, reach=600)
    second = found()
    assert second["1"].n == 12 and second["3"].registration.look == Look(12, 0.03)  # stands
    assert second["2"].n == 24 and second["2"].registration.look == Look(24, 0.02)
    above_3 = two_sided(values, 3)
    assert second["2"].p == second["2"].p_holm == pytest.approx(above_3)  # the only one that was open
    assert second["2"].verdict == ("supported" if above_3 <= 0.02 else "inconclusive")


def test_claims_without_records_count_in_the_family(tmp_path, family):
    """Three members, of which two are measured."""
    drift = dataclasses.replace(claim_of("3"), id="4")
    studies = {"three_regimes": FOLDERS, "landscape": FOLDERS}
    parts = tuple(dataclasses.replace(part, studies=("landscape",)) for part in drift.parts)
    write_lock(
        tmp_path / "lock.json", [*family, dataclasses.replace(drift, parts=parts)], studies, range(8), [Look(8, 0.05)],
        MADE,
    )  # fmt: skip
    records(tmp_path / "results", [4, 5, 4.5, 6, 5.5, 4.2, 5, 4.4])
    found = judge_by(load_runs(tmp_path / "results"), read_lock(tmp_path / "lock.json"))
    assert found[0].p_holm == pytest.approx(3 * 2 / 2**8) and "over 3 claims" in found[0].reason


def test_an_incomplete_study_is_not_judged(judged):
    shutil.rmtree(next((judged / "results").rglob(f"{NONE}/seed-5")))
    found = verdict_of(judged)
    assert found.verdict == "not measured" and "5 of the 6 seeds" in found.reason


def test_the_opposite_comes_out_at_a_look(tmp_path):
    lock(tmp_path / "lock.json", ["1"], range(8))
    records(tmp_path / "results", [-value for value in [*VALUES, 5.0, 4.4]])
    found = verdict_of(tmp_path)
    assert (found.verdict, found.registration.status) == ("contradicted", "registered")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"low": 1.5', '"low": 1.2', "the lock was edited"),
        ('"level": 0.05', '"level": 0.2', "the lock was edited"),
        ("better code", "other code", "amendment 1 was edited"),
        ('"seal"', '"seel"', "not a lock"),
        ("{", "", "not JSON"),
    ],
)
def test_an_edited_lock_is_refused(tmp_path, old, new, what):
    path = tmp_path / "lock.json"
    lock(path, ["1"])
    amend(path, "better code", ["1"])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(IcsbenchError, match=what) as error:
        read_lock(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_seal_of_nonsense_is_refused(tmp_path):
    body = {"claims": []}
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (tmp_path / "lock.json").write_text(json.dumps({**body, "seal": seal, "amendments": []}))
    with pytest.raises(IcsbenchError, match="not a lock"):
        read_lock(tmp_path / "lock.json")


def test_an_amendment_is_dated_and_said(judged):
    said = invoke("claims", "amend", str(judged / "lock.json"), "the window is \x1b[31mshorter | now", "1")
    assert said.code == 0 and "amendment 1" in said.out
    said, text = claims_of(judged)
    assert said.code == 4 and "amendment 1 of 20" in text and "\x1b" not in said.out
    markdown = (judged / "results/claims.md").read_text()
    assert "\x1b" not in markdown and "shorter \\| now" in markdown
    assert invoke("claims", "amend", str(judged / "lock.json"), "x", "99").code == 1


@pytest.mark.parametrize(
    ("texts", "seeds", "what"),
    [
        (["6"], 6, "--look 6: give seeds and a level"),
        (["a:0.05"], 6, "give seeds and a level"),
        (["6:0.03", "6:0.02"], 6, "two looks with the same number"),
        (["5:0.05"], 5, "6 are the fewest"),
        (["6:0.03", "12:0.03"], 12, "add up to 0.06"),
        (["6:0", "12:0.03"], 12, "above 0"),
        (["6:nan"], 6, "above 0"),
        (["12:0.05"], 6, "--seeds names 6"),
        (["41:0.05"], 41, "40 are the most"),
    ],
)
def test_looks_that_are_refused(texts, seeds, what):
    with pytest.raises(IcsbenchError, match=what):
        looks_with(range(seeds), texts)


def test_seeds_as_they_are_typed():
    assert seeds_of("6-8,1") == (6, 7, 8, 1)
    for text in ("", "6-", "8-6", "1,1", "a", "0-99999999"):
        with pytest.raises(IcsbenchError, match="--seeds"):
            seeds_of(text)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_what_a_sweep_would_run(tmp_path):
    path = tmp_path / "claims.lock.json"
    arguments = ("--seeds", "6-29", "--look", "12:0.03", "--look", "24:0.02", "scale=cpu", "results=here", "threads=1")
    said = invoke("claims", "lock", str(path), "8", *arguments, "--study", "dln norm=none,bn wandb=disabled")
    assert said.code == 0, said.err
    assert "look at 12 seeds (6, 7, 8" in said.out and read_lock(path).seal in said.out
    document = json.loads(path.read_text())
    assert document["seeds"] == [*range(6, 30)]
    assert document["overrides"] == {"dln": ["scale=cpu", "norm=none,bn"]}  # not where it was composed
    folders = document["studies"]["dln"]
    known = json.loads((Path(__file__).parents[1] / "fingerprints.json").read_text())["dln cpu"]
    assert {folder for folder in folders if "-lr1e-06-" in folder} == {
        folder for folder in known if folder.split("-")[0] in ("none", "bn")
    }
    assert len(folders) == 4 and all(len(fingerprint) == 16 for fingerprint in folders.values())
    again = invoke("claims", "lock", str(path), "8", *arguments)
    assert again.code == 1 and "not written over" in again.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("1bb", "--seeds", "6-11"), "did you mean 1b?"),
        (("8", "--seeds", "6-9"), "fewest"),
        (("8", "--seeds", "6-11", "scale=large"), "study dln"),
        (("8", "--seeds", "6-11", "seed=3"), "given by --seeds"),
        (("8", "--seeds", "6-11", "--study", "lp"), "measures none of these claims"),
        (("8", "--seeds", "6-11", "--study", "dnl"), "no study 'dnl'"),
    ],
)
def test_commands_that_are_refused(tmp_path, arguments, what):
    said = invoke("claims", "lock", str(tmp_path / "lock.json"), *arguments)
    assert said.code == 1 and what in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "lock.json").exists()
