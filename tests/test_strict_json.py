"""What is not finite is written so that every parser reads it, and is read back as what it was."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, invoke, isolate, run_dirs

from icsbench.record.reader import load_runs
from icsbench.record.seal import SEAL, checksums
from icsbench.record.strict_json import dumps, loads


def strict(text):
    return json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


def test_what_is_not_finite_is_text_that_float_reads():
    content = {
        "a": [1.5, math.nan, (math.inf, -math.inf)],
        "b": {"c": math.nan, "d": "NaN of text", "e": None, "f": True},
    }
    text = dumps(content)
    assert strict(text) == {
        "a": [1.5, "NaN", ["Infinity", "-Infinity"]],
        "b": {"c": "NaN", "d": "NaN of text", "e": None, "f": True},
    }
    again = loads(text)
    assert again["a"][2] == [math.inf, -math.inf] and math.isnan(again["a"][1]) and math.isnan(again["b"]["c"])
    assert [float(text) for text in ("Infinity", "-Infinity")] == [math.inf, -math.inf] and math.isnan(float("NaN"))
    assert again["b"] | {"c": None} == content["b"] | {"c": None}


def test_the_bare_tokens_of_earlier_versions_are_read():
    a, b, c = loads("[NaN, Infinity, -Infinity]")
    assert math.isnan(a) and (b, c) == (math.inf, -math.inf)


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"indent": 1, "ensure_ascii": False}])
def test_what_is_finite_is_written_as_ever(options):
    content = {"é": [1, 2.5e-300, -0.0, 1e22, "NaN "], "n": None}
    assert dumps(content, **options) == json.dumps(content, **options)
    assert loads(dumps(content)) == content


def test_what_is_no_json_is_a_value_error():
    with pytest.raises(ValueError):
        loads('{"a": "NaN"')


def bare(text):
    """As earlier versions wrote it."""
    return re.sub(r'"(NaN|-?Infinity)"', r"\1", text)


PROBES = ("probes=all", "probes.every=2", "probes.batch_size=16", "probes.samples=64")
RUN = (*TINY[:-2], "wandb=disabled", *PROBES, "probes.update_every=1", "probes.alpha_points=2", "experiment=landscape")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Diverged, chance and trained runs by the command line, and the same records with bare tokens."""
    folder = tmp_path_factory.mktemp("strict")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        made = invoke("sweep", *RUN, "seed=0,1", "norm=none,bn", "optim.lr=0.1,1e6", "hydra/launcher=basic")
        assert made.code == 0, made.err
        shutil.copytree("results", "old")
        for run in run_dirs("old"):
            for name in ("metrics.jsonl", "summary.json"):
                (run / name).write_text(bare((run / name).read_text()))
            sums = checksums(run, (run / "summary.json").read_bytes())
            (run / SEAL).write_text(json.dumps(sums))
    return folder


def test_every_json_file_of_a_diverged_run_is_strict(studies):
    files = [path for path in (studies / "results").rglob("*.json*") if path.is_file()]
    assert {"metrics.jsonl", "summary.json", "environment.json", "timing.json", SEAL, "layers.json"} <= {
        path.name for path in files
    }
    for path in files:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            strict(text)
    said = "".join(path.read_text() for path in files)
    assert '"NaN"' in said
    assert "NaN" in "".join(path.read_text() for path in (studies / "old").rglob("summary.json")).replace('"NaN"', "")


def test_columns_of_diverged_runs_are_numbers(studies):
    runs = [run for run in load_runs(studies / "results") if run.status == "diverged"]
    assert runs
    for run, old in zip(runs, (run for run in load_runs(studies / "old") if run.status == "diverged"), strict=True):
        keys = sorted({key for row in run.metrics.rows for key in row if key.startswith(("train/", "test/", "shift/"))})
        for key in keys:
            for new, other in zip(run.metrics.series(key), old.metrics.series(key), strict=True):
                assert new.dtype.kind in "if"
                np.testing.assert_array_equal(new, other)
        assert math.isnan(run.summary["train/loss"]) or math.isinf(run.summary["train/loss"])
        assert run.summary.keys() == old.summary.keys()


def _alike(content: bytes) -> bytes:
    """Without the name of the folder, and the checksums of the seals that the page shows: the bytes do differ."""
    return re.sub(rb"\b[0-9a-f]{12}\b", b"SEAL", re.sub(rb"\b(results|old)/", b"", content))


@pytest.mark.parametrize("command", [pytest.param("figures", marks=pytest.mark.slow), "claims", "runs", "report"])
def test_commands_say_the_same_of_records_with_bare_tokens(studies, monkeypatch, command):
    isolate(monkeypatch, studies)
    found = {}
    for folder in ("results", "old"):
        told = invoke(command, folder)
        assert told.code == 0, told.err
        written = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.suffix in (".csv", ".md", ".html") or path.name == "claims.json"
        }
        found[folder] = (
            re.sub(rf"\b{folder}\b", "FOLDER", told.out),
            {name: _alike(content) for name, content in written.items()},
        )
    assert found["results"][0].split() == found["old"][0].split()
    assert found["results"][1] == found["old"][1]
    if command == "claims":
        strict((studies / "results" / "claims.json").read_text())


def test_a_diverged_run_is_complete_and_returned_as_it_was(studies, monkeypatch):
    isolate(monkeypatch, studies)
    again = invoke("train", *RUN, "norm=none", "optim.lr=1e6", "seed=0")
    assert again.code == 0 and "diverged at step" in again.err
