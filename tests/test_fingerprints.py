"""The runs of every study keep their names, so that records of earlier versions are found."""

import json
from pathlib import Path

import pytest

from icsbench.hydra_app import _jobs, _studies

NAMES = json.loads(Path(__file__).with_name("fingerprints.json").read_text())


@pytest.mark.parametrize("study", dict.fromkeys(name.split()[0] for name in NAMES))
def test_the_runs_of_a_study_have_the_names_that_they_had(study):
    assert study in _studies()
    for scale in ("demo", "cpu", "paper"):
        jobs, _ = _jobs([f"experiment={study}", f"scale={scale}", "data.root=PATH"])
        assert sorted({config.run_name for config, _ in jobs}) == NAMES[f"{study} {scale}"]
