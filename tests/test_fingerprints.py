"""The runs of every study keep their names, so that records of earlier versions are found."""

import json
from pathlib import Path

import pytest

from icsbench.app.compose import jobs
from icsbench.app.folders import options

NAMES = json.loads(Path(__file__).with_name("fingerprints.json").read_text())


@pytest.mark.parametrize("study", dict.fromkeys(name.split()[0] for name in NAMES))
def test_the_runs_of_a_study_have_the_names_that_they_had(study):
    assert study in options("experiment")
    for scale in ("demo", "cpu", "paper"):
        runs, _ = jobs([f"experiment={study}", f"scale={scale}", "data.root=PATH"])
        assert sorted({config.run_name for config, _ in runs}) == NAMES[f"{study} {scale}"]
