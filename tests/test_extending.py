"""The guide to extensions: its members work as a package that a user installs, and as files added to the project."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def files_of(page: str) -> dict[str, str]:
    """The files of the page: a path in backquotes at the start of a line, then a block."""
    return dict(re.findall(r"^`([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)^```$", page, re.M | re.S))


def state_of_the_project() -> dict[str, str]:
    """A digest of every file of the package and its configurations."""
    paths = [path for folder in ("icsbench", "configs") for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.suffix != ".pyc"}


ROOMS = {
    "networks.py": ("norms", "models", "probes"),
    "study.py": ("labs", "analysis/claims", "figures"),
}
ADAM = """
import torch

from icsbench.training.optimizers.contract import Optimizer

ADAM = Optimizer("adam", lambda parameters, options: torch.optim.Adam(parameters, lr=options.lr))
"""
COMMANDS = [line.split() for line in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)[0].splitlines()]


def environment(*paths: Path) -> dict[str, str]:
    """What the commands see: these folders to import from, and no account anywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HYDRA_"))}
    added = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "WANDB_MODE": "disabled", "COLUMNS": "120"}
    return {**kept, **added, "OMP_NUM_THREADS": "1"}


def run(work: Path, env: dict[str, str], *arguments: str) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "icsbench", *arguments], env=env, cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def do_what_the_page_says(work: Path, env: dict[str, str], commands: list[list[str]]) -> dict[str, str]:
    """Run commands of the page, the first three at least, and check what they leave; what each of them said."""
    said = {}
    for command, *arguments in commands:
        assert command == "icsbench"
        if arguments[0] == "sweep":
            arguments += ["steps=20", "hydra/launcher=basic"]
        said[arguments[0]] = run(work, env, *arguments)
    results = work / "results"
    lengths = [
        [json.loads(line) for line in path.read_text().splitlines() if '"length"' in line]
        for path in results.glob("single/spectral_norm-one_hidden*/seed-*/metrics.jsonl")
    ]
    assert [[row["step"] for row in rows] for rows in lengths] == [[0, 10, 20]] * 2
    assert len([*results.glob("halving/halving-*/seed-*/summary.json")]) == 12
    assert (results / "halving" / "figures" / "halving.png").exists()
    page = (results / "report.html").read_text()
    assert "Standard + spectral norm" in page and "Without normalization a ReLU network" in page
    judged = json.loads((results / "claims.json").read_text())["claims"]
    assert ["supported", "He et al. 2015"] in [[claim["verdict"], claim["speaks_for"]] for claim in judged]
    return said


def test_the_page_holds_every_file():
    assert {path.split("/")[-1] for path in files_of(PAGE)} == {
        *("pyproject.toml", *ROOMS, "spectral_norm.yaml", "one_hidden.yaml", "length.yaml", "halving.yaml")
    }
    assert len(PAGE.splitlines()) < 240


def test_a_package_that_is_installed(tmp_path):
    for name, text in files_of(PAGE).items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "package" / "halving" / "__init__.py").touch()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", tmp_path / "site", tmp_path / "package"], check=True, capture_output=True)
    before = state_of_the_project()
    said = do_what_the_page_says(tmp_path, environment(ROOT, tmp_path / "site"), COMMANDS)
    assert "Verdict: supported at scale demo, which speaks for He et al. 2015." in said["claims"]
    assert state_of_the_project() == before


def test_files_that_are_added_to_the_project(tmp_path):
    for folder in ("icsbench", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / "tree" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files_of(PAGE).items():
        path = Path(name)
        places = [Path("icsbench") / room / "halving.py" for room in ROOMS.get(path.name, ())]
        places += [path.relative_to("halving")] if path.suffix == ".yaml" else []
        for place in places:
            assert not (tmp_path / "tree" / place).exists()
            (tmp_path / "tree" / place).write_text(text)
    (tmp_path / "tree" / "icsbench" / "training" / "optimizers" / "adam.py").write_text(ADAM)
    (tmp_path / "tree" / "configs" / "optim" / "adam.yaml").write_text("name: adam\nlr: 0.01\nschedule: constant\n")
    env = environment(tmp_path / "tree")
    do_what_the_page_says(tmp_path, env, COMMANDS[:3])  # the third draws, judges and reports
    run(tmp_path, env, "train", "optim=adam", "model=one_hidden", "norm=none", "steps=10")
    assert len([*(tmp_path / "results" / "single").glob("none-one_hidden*")]) == 2
