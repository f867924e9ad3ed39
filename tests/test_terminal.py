"""Terminals, environments and folders as users have them: no traceback, nothing lost, the same files."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import yaml
from helpers import TINY, Result, command, invoke, isolate, run_dir, run_dirs
from planted import plant, write
from synthetic import write_run

from icsbench import terminal
from icsbench.analysis.claims import claim_of
from icsbench.cli import main
from icsbench.figures import draw_all
from icsbench.record.reader import load_runs

BASIC = "hydra/launcher=basic"


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    for name in ("MPLBACKEND", "MATPLOTLIBRC", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)


def content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix != ".json"}


def records(folder: str = "records", **content: Any) -> None:
    for seed in range(2):
        write_run(folder, seed=seed, steps=100, probes=False, **content)


def on_streams(monkeypatch, out: io.TextIOWrapper | None, *arguments: str) -> Result:
    """Run the command line with ``out`` as the stdout that the process was started with."""
    err = io.StringIO()
    with monkeypatch.context() as patch, out or contextlib.nullcontext():
        for name in ("stdout", "__stdout__"):
            patch.setattr(sys, name, out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "argv", ["icsbench", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    return Result(end.value.code or 0, "", err.getvalue())  # pyright: ignore[reportArgumentType]


# --- stdout and stderr -----------------------------------------------------------------------------------------------


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w", encoding="utf-8")


def unread() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


LOST = "icsbench: not all output could be written to stdout ({})\n"


@pytest.mark.parametrize(
    ("stdout", "code", "said"),
    [
        (full, 1, LOST.format(os.strerror(errno.ENOSPC))),
        (unread, 0, ""),
        (lambda: None, 1, LOST.format(os.strerror(errno.EBADF))),
    ],
)
@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["figures", "records", "--out", "out"], {"accuracy.pdf", "results.md"}),
        (["claims", "planted", "--out", "out"], {"claims.json", "claims.csv", "claims.md"}),
        (["claims", "--list"], set()),
        (["runs", "records"], set()),
        (["--help"], set()),
        (["train", "--cfg", "job"], set()),
    ],
)
def test_a_stdout_that_takes_nothing_loses_no_file(monkeypatch, stdout, code, said, arguments, files):
    records()
    write(Path("planted"), "dose", "noisy_bn", 0)
    assert on_streams(monkeypatch, stdout(), *arguments) == Result(code, "", said)
    if files:
        assert {path.name for path in Path("out").iterdir()} >= files


@pytest.mark.parametrize("stdout", [full, unread, lambda: None])
def test_a_command_that_prints_nothing_needs_no_stdout(monkeypatch, stdout):
    done = on_streams(monkeypatch, stdout(), "train", *TINY)
    assert (done.code, len(done.err.splitlines())) == (0, 1)
    assert (run_dir() / "summary.json").exists()


@pytest.mark.parametrize(
    ("streams", "code", "lines"),
    [(">/dev/full", 1, 1), (">&-", 1, 1), ("2>/dev/full", 0, 0), (">&- 2>&- <&-", 1, 0), ("| head -c 1", 0, 0)],
)
def test_streams_of_a_shell(streams, code, lines):
    shell = f'"$0" -m icsbench claims --list {streams}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell, sys.executable], capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, lines), done.stderr


def test_a_run_without_any_stream_is_complete():
    shell = '"$0" -m icsbench sweep "$@" >&- 2>&- <&-'
    assert subprocess.run(["bash", "-c", shell, sys.executable, *TINY, "seed=0,1"]).returncode == 0
    assert len([folder for folder in run_dirs() if (folder / "summary.json").exists()]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_replaced_and_files_are_utf_8(monkeypatch, encoding):
    plant(Path("réc"), claim_of("3").parts[0], [1.0, 1.02, 0.98, 1.01, 0.99, 1.0])
    records(updates=("landscape",))
    shown = {}
    for arguments in ("claims réc", "claims why 3 réc", "figures records --out réc", "claims --list"):
        with open("out", "w", encoding=encoding) as out:
            assert on_streams(monkeypatch, out, *arguments.split()) == Result(0, "", "")
        shown[arguments] = Path("out").read_text(encoding=encoding)
    sign, place = {"utf-8": ("✓", "réc"), "ascii": ("+", "r\\xe9c")}.get(encoding, ("+", "réc"))
    assert f"{sign} supported" in shown["claims réc"] and f"written to {place}: claims.json" in shown["claims réc"]
    assert f"files written in {place} (" in shown["figures records --out réc"]
    assert ("β lr / 2" if encoding == "utf-8" else "beta lr / 2") in shown["figures records --out réc"].replace(
        "ß", "β"
    )
    assert "✓ supported" in Path("réc/claims.md").read_text(encoding="utf-8")
    assert "β lr / 2" in Path("réc/optimisation.md").read_text(encoding="utf-8")


def test_a_name_that_is_no_text_is_shown_as_it_is(monkeypatch):
    folder = os.fsdecode(b"r\xe9sultats")
    records(folder)
    with open("out", "w", encoding="utf-8") as out:
        assert on_streams(monkeypatch, out, "figures", folder).code == 0
    assert b"files written in r\xe9sultats/figures (" in Path("out").read_bytes()


# --- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("module://matplotlib_inline.backend_inline", b"figure.facecolor: red\nsavefig.dpi: 20\nfont.size: 30\n"),
        ("module://nosuch.backend", b"font.family: \xff\xfe\nlines.linewidth: thick\n"),
    ],
)
def test_figures_are_the_same_whatever_matplotlib_is_told(backend, settings):
    records()
    assert invoke("figures", "records", "--out", "plain").code == 0
    Path("config/stylelib").mkdir(parents=True)
    Path("config/stylelib/mine.mplstyle").write_bytes(b"\xff")
    for path in (Path("matplotlibrc"), Path("config/matplotlibrc")):
        path.write_bytes(settings)
    env = {"MPLBACKEND": backend, "MPLCONFIGDIR": "config", "MATPLOTLIBRC": "config"}
    done = command("figures", "records", "--out", "told", env=env)
    assert (done.code, done.err) == (0, "")
    assert content("told") == content("plain")
    assert "accuracy.png" in content("told")


def test_drawing_leaves_a_notebook_its_backend_and_settings():
    records()
    draw_all(load_runs(Path("records")), Path("plain"))
    before = matplotlib.get_backend(auto_select=False)
    try:
        matplotlib.use("svg")
        with matplotlib.rc_context({"lines.linewidth": 7, "savefig.dpi": 20, "font.size": 30}):
            draw_all(load_runs(Path("records")), Path("notebook"))
            assert (matplotlib.get_backend(), matplotlib.rcParams["lines.linewidth"]) == ("svg", 7)
    finally:
        matplotlib.rcParams["backend"] = before or "agg"
    assert content("notebook") == content("plain")


NOBODY = """
import json, os, pwd, sys
def nobody(uid):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = nobody
for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
from icsbench.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["icsbench", *arguments]
    try:
        main()
    except SystemExit as end:
        print("exit", end.code, file=sys.stderr)
"""


def test_a_user_without_name_and_home():
    records()
    run = ["train", *TINY, "wandb=mirror", "wandb.mode=offline"]
    commands = [["train", "--help"], ["figures", "records"], run, [*run, "results=~/x"]]
    done = subprocess.run([sys.executable, "-c", NOBODY, json.dumps(commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith("bn lr")] == [
        *("exit 0", "exit 0", "exit 0"),
        "icsbench: results=~/x: there is no home directory here; name the folder in full",
        "exit 1",
    ]
    assert (run_dir() / "summary.json").exists()
    assert [*run_dir().glob("wandb/offline-run-*")]


def test_a_folder_that_is_gone():
    done = subprocess.run(
        ["bash", "-c", 'mkdir gone; cd gone; rmdir ../gone; "$0" -m icsbench runs ..', sys.executable],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("icsbench: the current directory cannot be used (No such file or directory)")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", ["", "abc", "0", "-1", "²", "99999999999", "1.5"])
@pytest.mark.parametrize("name", ["COLUMNS", "LINES", "TERMINAL_WIDTH", "OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"])
def test_no_number_where_a_number_belongs_counts_as_unset(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    listed = invoke("claims", "--list")
    assert (listed.code, listed.err, name in os.environ) == (0, "", False)


def test_numbers_and_what_means_something_stay(monkeypatch):
    kept = {"COLUMNS": "100", "OMP_NUM_THREADS": "4,2", "CUDA_VISIBLE_DEVICES": "", "TORCH_LOGS": "+dynamo"}
    for name, value in {**kept, "TORCH_HOME": "", "HYDRA_FULL_ERROR": ""}.items():
        monkeypatch.setenv(name, value)
    terminal.prepare()
    assert {name: os.environ.get(name) for name in kept} == kept
    assert not {"TORCH_HOME", "HYDRA_FULL_ERROR"} & os.environ.keys()


@pytest.mark.parametrize("value", ["0", "x"])
def test_errors_are_one_line_unless_they_are_asked_for_in_full(monkeypatch, value):
    monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    for _ in range(2):
        assert "did you mean 'seed'?" in invoke("train", "sede=1").err
    assert os.environ["HYDRA_FULL_ERROR"] == value


# --- folders and names -----------------------------------------------------------------------------------------------

NAMES = ["a=b", "(x) [y], {é: #1}", ' it\'s "so" ', "$HOME %Y@~\\", "1e3", "choice(a,b)"]


@pytest.mark.parametrize("name", NAMES)
def test_results_in_a_folder_of_any_name(name):
    arguments = (*TINY, f"results={name}", f"data.root={name}/data")
    first = invoke("train", *arguments)
    assert (first.code, len(first.err.splitlines())) == (0, 1), first.err
    config = yaml.safe_load((run_dir(name) / "config.yaml").read_text(encoding="utf-8"))
    assert (config["results"], config["data"]["root"]) == (name, f"{name}/data")
    before = {path: path.stat().st_mtime_ns for path in run_dir(name).iterdir()}
    assert invoke("sweep", *arguments, BASIC, "seed=0,1").code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(run_dirs(name)) == 2
    assert [path.name for path in Path(name).iterdir()] == ["single"]


@pytest.mark.parametrize("name", NAMES)
def test_claims_and_the_list_of_runs_of_a_folder_of_any_name(name):
    write(Path(name), "dose", "noisy_bn", 0)
    done = invoke("claims", name, "--out", f"{name}/{name}")
    assert done.code == 0, done.err
    assert f"written to {Path(name, name)}: claims.json, claims.csv, claims.md\n" in done.out
    assert {path.name for path in Path(name, name).iterdir()} == {"claims.json", "claims.csv", "claims.md"}
    assert invoke("runs", name).code == 0


def test_reproduce_in_a_folder_of_any_name():
    name = "été, (1) = [x]"
    done = invoke("reproduce", "noise_control", *TINY, "seed=0", f"results={name}", BASIC)
    assert done.code == 0, done.err
    assert {path.name for path in Path(name).iterdir()} >= {"noise_control", "claims.md", "report.html"}
    assert f"written to {name}/report.html" in done.out.splitlines()
    assert invoke("figures", name, "--out", f"{name}/{{#}}").code == 0
    assert Path(name, "{#}", "accuracy.png").exists()


@pytest.mark.parametrize(
    ("typed", "folder"),
    [
        ('results="quoted, (1)"', "quoted, (1)"),
        ("results='it\\'s'", "it's"),
        ("results=${scale}/é", "demo/é"),
        ('results="${scale} (x)"', "demo (x)"),
        ("results=${oc.env:HOME}/x=y", "home/x=y"),
        ("results=~/(z)", "home/(z)"),
        ("++results=a=b", "a=b"),
    ],
)
def test_quotes_interpolations_and_the_home_directory_keep_their_meaning(typed, folder):
    assert invoke("train", *TINY, typed).code == 0
    assert (run_dir(folder) / "summary.json").exists()


@pytest.mark.parametrize("name", ["my_name", "2024", "été (1)=#", "true", "single", "x.yaml"])
def test_a_name_of_ones_own_for_an_experiment(name):
    done = invoke("train", *TINY, f"experiment={name}")
    assert done.code == 0, done.err
    assert (
        done.err.splitlines()[0] == f"icsbench: no study is called {name!r}, so it only names the folder of the records"
    )
    assert run_dir().parent.parent == Path("results", name)
    assert yaml.safe_load((run_dir() / "config.yaml").read_text(encoding="utf-8"))["experiment"] == name
    assert name not in invoke("train", "--help").out.split("experiment: ")[1].splitlines()[0].split(", ")


def test_names_of_ones_own_in_a_sweep_of_the_pool():
    done = command("sweep", *TINY, "experiment=mine,yours")
    assert done.code == 0, done.err
    assert {folder.parent.parent.name for folder in run_dirs()} == {"mine", "yours"}


@pytest.mark.parametrize(
    ("name", "meant"), [("landscap", "landscape"), ("three-regimes", "three_regimes"), ("LP", "lp")]
)
def test_a_name_like_that_of_a_study_is_one_only_if_forced(name, meant):
    for sub_command in ("train", "sweep"):
        done = invoke(sub_command, *TINY, BASIC, f"experiment={name}")
        assert (done.code, len(done.err.splitlines())) == (1, 1)
        assert f"did you mean experiment={meant}?" in done.err and f" ++experiment={name} " in done.err
    assert not Path("results").exists()
    assert invoke("train", *TINY, f"++experiment={name}").code == 0
    assert run_dir().parent.parent.name == name


@pytest.mark.parametrize("typed", ["experiment=", "experiment=.x", "experiment=a/b", "experiment=???", "results=???"])
def test_what_can_be_no_folder_is_refused(typed):
    done = invoke("train", *TINY, typed)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert typed.split("=")[0] in done.err
    assert not Path("results").exists()
