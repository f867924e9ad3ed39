"""Several studies in one pool of processes."""

import shutil
from pathlib import Path

import pytest
from helpers import invoke, isolate

from icsbench.app.batch import Task, run_studies
from icsbench.app.compose import cells_of, jobs, local_pool
from icsbench.config import resolve
from icsbench.errors import IcsbenchError

SMALL = ("scale=demo", "wandb=disabled", "seed=0,1", "results=records")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def records(study):
    return sorted(path.parent.name for path in Path("records", study).rglob("summary.json"))


def test_a_configuration_is_composed_once_for_all_its_seeds():
    overrides = ["experiment=dose", "scale=demo"]
    cells = cells_of(overrides)
    assert cells.seeds == (0, 1, 2, 3, 4, 5)
    names = [resolve(composed).run_name for composed in cells.composed]
    assert len(names) == 4 and {*names} == {config.run_name for config, _ in jobs(overrides)[0]}
    assert cells_of([*overrides, "seed=7"]).seeds == (7,)


@pytest.mark.parametrize(
    ("overrides", "processes"),
    [
        (["hydra.launcher.n_jobs=3"], 3),
        (["hydra/launcher=basic"], None),
    ],
)
def test_only_the_local_pool_is_shared(overrides, processes):
    assert local_pool(overrides) == processes


def test_a_study_that_cannot_be_composed_stops_no_other():
    def tasks_of(study):
        if study == "wrong":
            raise IcsbenchError("no such thing")
        cells = cells_of([f"experiment={study}", "scale=demo", "seed=0", "results=records", "wandb=disabled"])
        return [Task(study, composed, cells.seeds) for composed in cells.composed]

    ended = []
    run_studies(
        {"parts": 1, "wrong": None, "margin": None}, tasks_of, 2, lambda study, lines: ended.append((study, lines))
    )
    assert sorted(ended) == [("margin", []), ("parts", []), ("wrong", ["no such thing"])]
    assert records("margin") == records("parts") == ["seed-0"]


def test_two_studies_and_once_more():
    done = invoke("reproduce", "parts", "fisher", *SMALL)
    assert done.code == 0, done.err
    assert records("parts") == records("fisher") == ["seed-0", "seed-1"]
    assert all(list(Path("records", study, "figures").glob("*.png")) for study in ("parts", "fisher"))
    before = {path: path.stat().st_mtime_ns for path in Path("records").rglob("summary.json")}
    assert invoke("reproduce", "parts", "fisher", *SMALL).code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("records").rglob("summary.json")} == before


def test_a_run_that_fails_is_named_and_the_others_are_made():
    assert invoke("sweep", "experiment=parts", *SMALL).code == 0
    first = next(Path("records/parts").rglob("seed-0"))
    shutil.rmtree(first)
    first.write_text("a file where the record's folder has to be")
    done = invoke("reproduce", "parts", "fisher", *SMALL)
    assert done.code == 1 and "Traceback" not in done.err
    assert "icsbench: parts: parts seed 0: " in done.err
    (reason,) = [line for line in done.err.splitlines() if line.startswith("icsbench: parts: ")]
    assert done.err.splitlines()[-1] == (
        f"icsbench: not finished: parts, for the reasons above; the first: {reason.removeprefix('icsbench: ')}; the "
        "same command goes on there"
    )
    assert records("fisher") == ["seed-0", "seed-1"]
