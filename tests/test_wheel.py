"""What is built and released: the wheel's content, its metadata, and its commands in a clean environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import icsbench

ROOT = Path(__file__).resolve().parents[1]
VERSION = icsbench.__version__


def build(source: Path, kind: str, folder: Path) -> Path:
    """Build the wheel or sdist of ``source`` into ``folder``."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def files_of_the_package(root: Path) -> set[str]:
    """What a wheel should hold of the source tree: all of the package, and the configurations in it."""
    kept = {
        f"{prefix}{path.relative_to(root / folder).as_posix()}"
        for folder, prefix in (("icsbench", "icsbench/"), ("configs", "icsbench/configs/"))
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(kept) > 300 and {"icsbench/py.typed", "icsbench/configs/train.yaml"} <= kept
    return kept


def test_the_wheel_holds_the_package_and_its_configurations_and_nothing_else(wheel):
    assert wheel.name == f"icsbench-{VERSION}-py3-none-any.whl"
    info = f"icsbench-{VERSION}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(f"{info}METADATA").decode())
        scripts = archive.read(f"{info}entry_points.txt").decode()
    of_package = {name for name in names if not name.startswith(info)}
    assert of_package == files_of_the_package(ROOT)
    assert f"{info}licenses/LICENSE" in names
    assert (metadata["Version"], metadata["License-Expression"]) == (VERSION, "MIT")
    assert "icsbench = icsbench.cli:main" in scripts


def test_the_wheel_of_the_sdist_is_the_same(wheel, tmp_path):
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    tree = tmp_path / f"icsbench-{VERSION}"
    for name in ("CITATION.cff", "CHANGELOG.md", "Makefile", "docs/extending.md", "tests/helpers.py"):
        assert (tree / name).read_bytes() == (ROOT / name).read_bytes()
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(build(tree, "wheel", tmp_path / "again")) as other:
        assert {name: one.read(name) for name in one.namelist()} == {n: other.read(n) for n in other.namelist()}


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## \[(\d.*?)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert project["version"] == str(citation["version"]) == released[0][0] == VERSION
    assert str(citation["date-released"]) == released[0][1]
    assert citation["license"] == project["license"]


def test_the_citation_is_valid():
    """By the schema 1.2.0 of the Citation File Format: keys that must be there, and that may."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert str(citation["cff-version"]) == "1.2.0" and citation["type"] in ("software", "dataset")
    assert citation.keys() <= {
        *("cff-version", "message", "title", "authors", "type", "version", "date-released", "license", "references"),
        *("abstract", "keywords", "url", "repository-code", "doi", "commit", "contact", "preferred-citation"),
    }
    assert len(citation["references"]) >= 2
    for reference in citation["references"]:
        assert {"authors", "title", "type"} <= reference.keys()
        assert reference["type"] == "conference-paper" and isinstance(reference["year"], int)
    for author in [*citation["authors"], *(a for reference in citation["references"] for a in reference["authors"])]:
        assert author.keys() in ({"name"}, {"family-names", "given-names"})
        assert all(isinstance(text, str) and text for text in author.values())


def interpreter(version: str) -> str:
    """A Python of this version that has what icsbench depends on; the test is skipped where there is none."""
    if version == f"3.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    needs = "import torch, torchvision, hydra, typer, polars, sklearn, matplotlib, wandb"
    if found is None or subprocess.run([found, "-c", needs], capture_output=True).returncode:
        pytest.skip(f"no python{version} with torch on the PATH")
    return found


def environment(python: str, wheel: Path, folder: Path) -> Path:
    """The scripts of a new environment with the wheel; only what the wheel depends on is that of ``python``."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    paths = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs = subprocess.run([python, "-c", paths], capture_output=True, text=True, check=True).stdout
    inside = folder / "bin" / "python"
    ours = subprocess.run([inside, "-c", paths], capture_output=True, text=True, check=True).stdout.strip()
    pip = [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    Path(ours, "dependencies.pth").write_text(theirs)
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_command_works_from_the_wheel_alone(version, wheel, tmp_path):
    scripts = environment(interpreter(version), wheel, tmp_path / "clean")
    work = tmp_path / "work"
    work.mkdir()
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "WANDB_", "HYDRA_", "COV_"))}
    env = {**kept, "HOME": str(tmp_path), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [scripts / "icsbench", *arguments], cwd=work, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr and str(ROOT) not in done.stdout + done.stderr
        return done.stdout

    where = [scripts / "python", "-c", "import icsbench; print(icsbench.__file__)"]
    at = subprocess.run(where, cwd=work, env=env, capture_output=True, text=True, check=True).stdout
    assert at.startswith(str(tmp_path / "clean"))
    assert run("--version") == f"icsbench {VERSION}\n"
    assert "norm" in run("train", "--help")
    tiny = ("model=vgg11", "model.width=0.0625", "steps=6", "eval_every=3", "probes.every=3", "recalibration_batches=2")
    for norm in ("none", "bn", "noisy_bn"):
        run("train", f"norm={norm}", *tiny)
    run("sweep", "norm=none,bn", "seed=1,2", *tiny)  # in the pool, whose processes import the package anew
    written = json.loads(next((work / "results").glob("*/*/seed-0/environment.json")).read_text())
    assert (written["icsbench"], written["commit"]) == (VERSION, None)
    run("lab", "margin", "lab.steps=100", "lab.networks=2")
    run("figures", "results/single")
    assert [*(work / "results" / "single" / "figures").rglob("*.pdf")]
    assert "not measured" in run("claims", "results")
    run("claims", "why", "1", "results")
    run("report", "results")
    assert f"icsbench {VERSION}" in (work / "results" / "report.html").read_text()
    run("runs", "results")
    run("export", "results", "--out", "crate")
    assert "three_regimes" in run("reproduce", "--list", "three_regimes", *tiny)
    assert "runs can be made" in run("doctor")
