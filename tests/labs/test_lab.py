"""A lab that is not the project's, through the command line: lab, sweep, study, resume, refusals."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from helpers import command, content, invoke, isolate, run_dir, run_dirs, start

from icsbench import members
from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab
from icsbench.members import member
from icsbench.options import Options, in_range
from icsbench.record.seal import broken

BASIC = "hydra/launcher=basic"


@dataclass
class WalkOptions(Options):
    length: int = 4
    stride: float = 1.0

    def __post_init__(self):
        in_range("lab.length", self.length, 1)


def _rows(options, seed):
    if options.stride == 0:
        raise IcsbenchError("lab.stride must not be 0")
    for step in range(options.length):
        yield {"step": step, "walk/place": seed + options.stride * step}


WALK = Lab("walk", "A walk of equal steps", _rows, WalkOptions)


@pytest.fixture(autouse=True)
def _walk(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    found = members._modules
    module = sys.modules[__name__]
    monkeypatch.setattr(members, "_modules", lambda room: (*found(room), *([module] if room == "labs" else [])))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_labs_are_listed():
    listed = invoke("lab")
    assert (listed.code, listed.err) == (0, "")
    assert "walk             A walk of equal steps\n" in listed.out and "theorems " in listed.out
    assert "A walk of equal steps" in invoke("lab", "walk", "--help").out


def test_a_run_is_an_ordinary_sealed_record_and_is_made_once():
    done = invoke("lab", "walk", "seed=3", "lab.stride=2")
    assert done.code == 0, done.err
    folder = run_dir()
    assert folder.parent.name.startswith("walk-") and folder.name == "seed-3"
    assert rows(folder) == [{"step": step, "walk/place": 3 + 2.0 * step} for step in range(4)]
    assert broken(folder) is None
    assert json.loads((folder / "summary.json").read_text()) == {"status": "complete", "outcome": "complete", "rows": 4}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["lab"] == {"name": "walk", "length": 4, "stride": 2.0}
    assert not {"norm", "model", "optim", "steps"} & config.keys()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["lab"] == {"label": "A walk of equal steps"}
    assert f"{os.cpu_count()} cores" in environment["machine"] and environment["device_name"]
    assert json.loads((folder / "timing.json").read_text())["seconds"] > 0
    assert done.out == f"written to {folder / 'walk.csv'}\n"
    assert (folder / "walk.csv").read_text().splitlines()[:2] == [
        "run,seed,step,walk/place",
        f"{folder.parent.name},3,0,3.0",
    ]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix != ".csv"}
    assert invoke("lab", "walk", "seed=3", "lab.stride=2").err == done.err
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix != ".csv"} == before


def test_only_the_options_of_the_lab_are_in_its_fingerprint():
    for override in ("norm=none", "steps=7", "optim.lr=0.3", "scale=cpu"):
        assert invoke("lab", "walk", override).code == 0
    assert run_dir()
    assert invoke("lab", "walk", "lab.length=5").code == 0
    assert len(run_dirs()) == 2


def test_a_sweep_over_seeds_and_an_option():
    done = invoke("sweep", "lab=walk", "seed=range(0,3)", "lab.length=2,3", BASIC)
    assert done.code == 0, done.err
    assert sorted((folder.name, len(rows(folder))) for folder in run_dirs()) == [
        (f"seed-{seed}", length) for seed in range(3) for length in (2, 3)
    ]
    assert f"walk seed 0: complete, 2 rows; record {run_dirs()[0].parent.parent}" in done.err


def test_a_study_of_a_lab_in_a_folder_of_ones_own():
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    folder.joinpath("strides.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /lab: walk\nexperiment: strides\n"
        "study:\n  factors:\n    lab.stride: []\n"
        "hydra:\n  sweeper:\n    params:\n      lab.stride: 1,2\n      seed: range(0,2)\n"
    )
    done = invoke("sweep", "--config-dir", "mine", "experiment=strides", BASIC)
    assert done.code == 0, done.err
    assert len(run_dirs()) == 4
    config = yaml.safe_load((run_dirs()[0] / "config.yaml").read_text())
    assert config["study"] == {"factors": {"lab.stride": []}}
    assert config["experiment"] == "strides"
    listed = invoke("reproduce", "--list", "strides", "--config-dir", "mine")
    assert "strides" in listed.out and "the runs of a lab are not timed" in listed.out
    assert "no study 'strides'" in invoke("reproduce", "strides").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["walk", "lab.length=0"], "configuration: lab.length must be at least 1 (got 0)"),
        (["walk", "lab.lenght=2"], "configuration: unknown key 'lab.lenght'; did you mean 'lab.length'?"),
        (["walk", "lab.length=many"], "configuration: Value 'many' of type 'str' could not be converted to Integer"),
        (["walk", "lab.stride=0"], "lab.stride must not be 0"),
        (["walk", "lab.units=2"], "configuration: 'lab.units' does not apply to the chosen lab"),
        (["walk", "lab.length=1,2"], "lab.length=1,2 names several runs; give one"),
        (["walk", "lab=theorems"], "lab=walk is the lab; leave out what chooses another"),
        (["wlak"], "no lab is called 'wlak'; did you mean walk?"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(arguments, said):
    done = invoke("lab", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"icsbench: {said}")
    assert not Path("results").exists()


@pytest.mark.parametrize("row", [{"place": 1}, {"step": 1.0}, {"step": True}, 3])
def test_a_row_without_an_integer_step_is_a_mistake_of_the_lab(monkeypatch, row):
    monkeypatch.setattr(sys.modules[__name__], "WALK", Lab("walk", "", lambda options, seed: [{"step": 0}, row]))
    with pytest.raises(TypeError, match="lab walk: a row must be a mapping with an integer 'step'"):
        invoke("lab", "walk")
    assert "TypeError" in json.loads((run_dir() / "failure.json").read_text())["error"]


def test_ctrl_c_and_again(monkeypatch):
    def broken_off(options, seed):
        yield from list(_rows(options, seed))[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "WALK", Lab("walk", WALK.label, broken_off, WalkOptions))
        stopped = invoke("lab", "walk")
    assert stopped.code == 130
    assert len(rows(run_dir())) == 2 and not (run_dir() / "summary.json").exists()
    assert invoke("lab", "walk").code == 0
    assert [row["step"] for row in rows(run_dir())] == [0, 1, 2, 3]


SLOW = """
import time
from pathlib import Path
from icsbench.labs.contract import Lab

def _rows(options, seed):
    for step in range(6):
        yield {"step": step, "square": step * step + seed}
        if step == 3 and Path("slow").exists():
            time.sleep(60)

LAB = Lab("slow", "A slow lab", _rows)
"""


def install(folder: Path, points: str, **modules: str) -> None:
    """A package as pip would leave it in a folder on the path: modules, and entry points."""
    for name, text in modules.items():
        folder.joinpath(f"{name}.py").write_text(text)
    info = folder / "other-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text(points)


def test_a_lab_of_an_installed_package_is_killed_and_goes_on(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    install(site, "[icsbench.labs]\nslow = slow_lab\n", slow_lab=SLOW)
    env = {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}
    Path("slow").touch()
    with start("lab", "slow", env=env) as process:
        while not [path for path in Path("results").glob("*/*/*/metrics.jsonl") if path.read_text().count("\n") == 4]:
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
    Path("slow").unlink()
    parts = run_dir()
    assert not (parts / "summary.json").exists()
    assert command("lab", "slow", env=env).code == 0
    assert command("lab", "slow", "results=whole", env=env).code == 0
    assert [row["square"] for row in rows(parts)] == [0, 1, 4, 9, 16, 25]
    whole, again = content(run_dir("whole")), content(parts)
    for record in (whole, again):
        del record["config.yaml"]  # names its own results folder
    assert {name: text for name, text in again.items() if name != "slow.csv"} == {
        name: text for name, text in whole.items() if name != "slow.csv"
    }


def test_the_dummy_is_found():
    assert member("labs", Lab, "walk") is WALK


@pytest.mark.parametrize("lab", ["effective_rate", "large_steps", "signal_propagation", "start_gradients"])
def test_the_noise_of_a_network_is_a_function_of_the_seed(monkeypatch, tmp_path, lab):
    isolate(monkeypatch, tmp_path)
    tiny = (
        "norm=noisy_bn",
        "model=vgg11",
        "model.width=0.0625",
        "data=digits",
        "batch_size=8",
        "steps=2",
        "log_every=1",
    )
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)  # whatever the process has drawn before
        done = invoke("lab", lab, *tiny, f"seed={seed}", f"results={name}", "wandb=disabled")
        assert done.code == 0, done.err
        found[name] = rows(run_dir(name))
    assert found["a"] == found["b"] != found["c"]
