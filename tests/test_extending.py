"""The guide to extensions: its package is built, installed as a user would, and run; no file of the project changes."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def files_of(page: str) -> dict[str, str]:
    """The files of the page: a path in backquotes at the start of a line, then a block."""
    return dict(re.findall(r"^`([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)^```$", page, re.M | re.S))


def state_of_the_project() -> dict[str, str]:
    """A digest of every file of the package and its configurations."""
    paths = [path for folder in ("icsbench", "configs") for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a user who has installed the package of the page, and a folder to work in."""
    work = tmp_path_factory.mktemp("extending")
    for name, text in files_of(PAGE).items():
        path = work / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (work / "package" / "halving" / "__init__.py").touch()
    site = work / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", site, work / "package"], check=True, capture_output=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HYDRA_"))}
    added = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "WANDB_MODE": "disabled", "COLUMNS": "120"}
    return {**kept, **added, "OMP_NUM_THREADS": "1"}, work


def test_the_page_holds_every_file_and_command():
    assert {path.split("/")[-1] for path in files_of(PAGE)} == {
        *("pyproject.toml", "networks.py", "study.py"),
        *("weight_norm.yaml", "one_hidden.yaml", "length.yaml", "halving.yaml"),
    }
    assert len(PAGE.splitlines()) < 210


def test_the_package_of_the_page_does_what_the_page_says(installed):
    environment, work = installed
    before = state_of_the_project()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    said = {}
    for line in block.splitlines():
        command, *arguments = line.split()
        assert command == "icsbench"
        if arguments[0] == "sweep":
            arguments += ["steps=20", "hydra/launcher=basic"]
        done = subprocess.run(
            [sys.executable, "-m", "icsbench", *arguments], env=environment, cwd=work, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said[arguments[0]] = done.stdout
    results = work / "results"

    lengths = [
        [json.loads(line) for line in path.read_text().splitlines() if '"length"' in line]
        for path in results.glob("single/weight_norm-one_hidden*/seed-*/metrics.jsonl")
    ]
    assert [[row["step"] for row in rows] for rows in lengths] == [[0, 10, 20]] * 2
    assert len([*results.glob("halving/halving-*/seed-*/summary.json")]) == 12
    assert (results / "halving" / "figures" / "halving.png").exists()
    assert "Standard + weight norm" in (results / "report.html").read_text()
    assert "Verdict: supported at scale demo, which speaks for He et al. 2015." in said["claims"]
    assert "Without normalization a ReLU network" in (results / "report.html").read_text()
    assert state_of_the_project() == before
