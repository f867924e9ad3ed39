import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from helpers import PROBED, TINY, Result, command, content, invoke, isolate, rows, run_dir, run_dirs
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from planted import plant, write
from synthetic import write_run

from icsbench import __version__
from icsbench.analysis.claims import all_claims, claim_of
from icsbench.app.folders import CONFIG_DIR, is_group
from icsbench.app.launch import launch
from icsbench.config import Config, options_of, resolve
from icsbench.training import trainer

GRID = ("norm=none,bn", "seed=0,1")
COMMANDS = (
    "train",
    "sweep",
    "reproduce",
    "claims",
    "diff",
    "export",
    "plan",
    "report",
    "figures",
    "runs",
    "lab",
    "doctor",
    "wandb",
)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def composed(*overrides: str, **options: bool) -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose("train", [*overrides], **options)


def resolved(*overrides: str) -> Config:
    return resolve(composed(*overrides))


# --- help, version, usage errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(flag):
    result = invoke(flag)
    assert (result.code, result.err) == (0, "")
    for name in COMMANDS:
        assert f" {name} " in result.out


def test_version():
    assert invoke("--version") == Result(0, f"icsbench {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["--bogus"], "No such option"),
        (["figures"], "RESULTS"),
        (["runs"], "RESULTS"),
        (["figures", "results", "--bogus"], "No such option"),
        (["train", "--bogus"], "unrecognized arguments: --bogus"),
        (["sweep", "--cfg", "bogus"], "invalid choice: 'bogus'"),
    ],
)
def test_usage_errors_exit_with_2(arguments, said):
    result = invoke(*arguments)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err


def test_no_arguments_show_the_help():
    assert "reproduce" in "".join(invoke()[1:])


@pytest.mark.parametrize("name", ["sweep", "reproduce"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_several_runs_is_about_them(name, flag):
    result = invoke(name, flag)
    assert (result.code, result.err) == (0, "")
    assert f"icsbench {name}" in result.out
    assert "icsbench train --help shows the whole configuration" in " ".join(result.out.split())
    assert not Path("results").exists()


def test_help_of_training_shows_every_group_and_the_configuration():
    result = invoke("train", "--help")
    assert (result.code, result.err) == (0, "")
    for group in ("data", "experiment", "model", "norm", "optim", "probes", "scale", "tracker", "wandb"):
        assert f"{group}: {', '.join(options(group))}\n" in result.out
    for line in ("  width: ${icsbench.by_scale:", "seed: 0", "icsbench train norm=noisy_bn seed=3"):
        assert line in result.out
    assert not Path("results").exists()


@pytest.mark.parametrize("name", ["train", "sweep"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["norm=none", "--cfg", "job"],
        ["--cfg", "job", "norm=none"],
        ["norm=none", "--cfg=job"],
        ["-c", "job", "norm=none"],
    ],
)
def test_cfg_shows_the_configuration_and_runs_nothing(name, arguments):
    result = invoke(name, *arguments)
    assert (result.code, result.err) == (0, "")
    assert "norm:\n  name: none\n" in result.out
    assert "hydra" not in result.out
    assert not Path("results").exists()


SNIPPET = """
import json, sys
from icsbench.cli import main
sys.argv = ["icsbench", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as end:
    code = end.code or 0
else:
    code = 0
heavy = sorted({"torch", "torchvision", "sklearn", "wandb"} & sys.modules.keys())
print(json.dumps([code, heavy]))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["figures", "results"], 0),
        (["runs", "results"], 0),
        (["train", "--help"], 0),
        (["train", "--cfg", "job"], 0),
        (["train", "sede=1"], 1),
    ],
)
def test_only_training_imports_torch(arguments, code):
    if arguments[1:] == ["results"]:
        for seed in range(2):
            write_run("results", seed=seed, steps=200)
    snippet = [sys.executable, "-c", SNIPPET, json.dumps(arguments)]
    done = subprocess.run(snippet, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [code, []]


def test_python_m_icsbench():
    assert command("--version") == Result(0, f"icsbench {__version__}\n", "")


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("norm=", {f"norm={name}" for name in options("norm")}),
        ("norm=no", {"norm=noise", "norm=noisy_bn", "norm=none"}),
        ("optim.", {f"optim.{key}=" for key in vars(options_of("optim"))}),
        ("scale=", {f"scale={name}" for name in options("scale")}),
        ("experiment=", {f"experiment={name}" for name in options("experiment")}),
        ("see", {"seed="}),
        ("nosuch", set()),
    ],
)
def test_completion_of_overrides_in_bash(word, expected):
    env = {"_ICSBENCH_COMPLETE": "complete_bash", "COMP_WORDS": f"icsbench train {word}", "COMP_CWORD": "2"}
    done = subprocess.run([Path(sys.executable).with_name("icsbench")], env={**os.environ, **env}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(done.stdout.decode().split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_in_other_shells(shell):
    env = {
        "_ICSBENCH_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "icsbench sweep seed=1 model=",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "model=",
    }
    done = subprocess.run([Path(sys.executable).with_name("icsbench")], env={**os.environ, **env}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    for name in options("model"):
        assert f"model={name}".encode() in done.stdout


def test_completion_of_commands():
    env = {"_ICSBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "icsbench ", "COMP_CWORD": "1"}
    done = subprocess.run([Path(sys.executable).with_name("icsbench")], env={**os.environ, **env}, capture_output=True)
    assert set(done.stdout.decode().split()) == set(COMMANDS)


# --- the tree of configurations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", options("scale"))
@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_at_every_scale(experiment, scale):
    """Every combination of options of groups, and each value of another key beside the first ones of the rest."""
    overrides = (f"experiment={experiment}", f"scale={scale}")
    parameters = composed(*overrides, return_hydra_config=True).hydra.sweeper.params
    swept = {
        key: [f"{key}={value}" for value in parsed.sweep_string_iterator()]
        if parsed.is_sweep_override()
        else [parsed.input_line]
        for key, values in parameters.items()
        for parsed in [OverridesParser.create().parse_override(f"{key}={values}")]
    }
    first = tuple(values[0] for values in swept.values())
    groups = itertools.product(*(values if is_group(key) else values[:1] for key, values in swept.items()))
    alone = [
        (*first[:place], value, *first[place + 1 :])
        for place, (key, values) in enumerate(swept.items())
        for value in values[: 2 if key == "seed" else None]
    ]
    jobs = dict.fromkeys([*groups, *alone])
    configs = [resolved(*overrides, *job) for job in jobs]
    assert len({config.run_dir for config in configs}) == len(configs) > 1
    assert {(config.experiment, config.scale) for config in configs} == {(experiment, scale)}


def test_the_paper_scale_is_the_papers():
    config = resolved("scale=paper", "norm=noisy_bn")
    assert (config.model.name, config.model.width, config.model.init) == ("vgg16", 1.0, "glorot")
    assert (config.batch_size, config.steps, config.optim.lr, config.optim.momentum) == (128, 15000, 0.1, 0.0)
    assert (config.data.name, config.data.flip, config.data.crop, config.optim.weight_decay) == ("cifar10", 0, 0, 0.0)


@pytest.mark.parametrize("group", ["norm", "model", "data"])
def test_every_option_of_a_group_composes_and_is_what_it_is_called(group):
    fitting = {"digits8": ["model=mlp"], "mnist": ["model=mlp"], "gaussian": ["model=dln"], "dln": ["data=gaussian"]}
    fitting |= {key: ["model=resnet20"] for key in ("skipinit", "fixup")}
    for name in options(group):
        assert getattr(resolved(f"{group}={name}", *fitting.get(name, [])), group).name == name


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("probes=none", "shift", False),
        ("probes=shift", "shift", True),
        ("probes=all", "shift", True),
        ("wandb=disabled", "mode", "disabled"),
        ("wandb=mirror", "mode", "auto"),
    ],
)
def test_every_option_of_probes_and_wandb_composes(override, key, value):
    group = override.split("=")[0]
    assert getattr(getattr(resolved(override), group), key) == value
    assert {"all", "none", "shift"} <= {*options("probes")}
    assert options("wandb") == ["disabled", "mirror"]
    assert options("tracker") == ["tensorboard", "wandb"]


# --- train -----------------------------------------------------------------------------------------------------------


def test_train_leaves_a_complete_record_and_the_second_time_does_nothing():
    first = invoke("train", *TINY, *PROBED)
    assert first.code == 0
    assert first.out == ""
    assert str(run_dir()) in first.err
    assert json.loads((run_dir() / "summary.json").read_text())["status"] == "complete"
    assert {row["step"] for row in rows(run_dir()) if "train/loss" in row} == {2, 4, 6}
    files = [path for path in Path("results").rglob("*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    second = invoke("train", *TINY, *PROBED)
    assert second == first
    files = [path for path in Path("results").rglob("*") if path.is_file()]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
    assert len(before) == len([*run_dir().rglob("*.npz")]) + 9  # probes; seven files of the record, layers and the lock


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
@pytest.mark.parametrize("norm", ["none", "noisy_bn"])
def test_an_interrupted_run_goes_on_bit_identically(monkeypatch, stop, norm):
    arguments = ("train", *TINY, *PROBED, f"norm={norm}", "log_every=4", "checkpoint_every=2")
    assert invoke(*arguments, "results=whole").code == 0
    rate, signals = trainer.learning_rate, []

    def interrupt(config: Config, step: int) -> float:
        if step == stop and not signals:
            signals.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return rate(config, step)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learning_rate", interrupt)
        stopped = invoke(*arguments, "results=parts")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "icsbench: interrupted; the same command goes on where it stopped\n"
    assert {path.name for path in run_dir("parts").iterdir()} >= {"checkpoint.pt", "metrics.jsonl"}
    assert not (run_dir("parts") / "summary.json").exists()

    steps = set()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learning_rate", lambda config, step: steps.add(step) or rate(config, step))
        assert invoke(*arguments, "results=parts").code == 0
    assert steps == {*range(stop + 1, 6)}
    whole, parts = content(run_dir("whole")), content(run_dir("parts"))
    for record in (whole, parts):
        del record["config.yaml"]  # names its own results folder
    assert parts == whole


def test_exceptions_of_the_program_itself_are_not_dressed_up(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(trainer, "learning_rate", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch(["hydra.mode=RUN", *TINY])
    assert "a bug" in json.loads((run_dir() / "failure.json").read_text())["error"]


# --- sweep -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> tuple[Path, Result]:
    """A sweep through the default launcher, half of whose jobs fail, without a number of threads."""
    folder = tmp_path_factory.mktemp("pool")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        return folder / "results", command("sweep", *TINY, "threads=null", *GRID, "batch_size=32,100000")


def curves(results: Path | str) -> dict[Path, bytes]:
    return {
        folder.relative_to(results): (folder / "metrics.jsonl").read_bytes()
        for folder in run_dirs(results)
        if (folder / "summary.json").exists()
    }


def test_the_pool_finishes_what_it_can_and_names_every_failed_job_once(pool):
    results, done = pool
    assert done.code == 1
    assert len(curves(results)) == 4
    for norm, seed in itertools.product(("none", "bn"), (0, 1)):
        job = {f"norm={norm}", f"seed={seed}"}
        lines = [line for line in done.err.splitlines() if line.startswith("icsbench: ")]
        (line,) = [line for line in lines if job < {*line.split(": ")[1].split()}]
        assert ": batch_size=100000 does not fit the training set of 1280 images " in line
    *single, counted = [line for line in done.err.splitlines() if line.startswith("icsbench: ")]
    assert counted == f"icsbench: 4 runs failed; the first: {single[0].removeprefix('icsbench: ')}"
    logs = [Path(line.rpartition(" (log: ")[2].removesuffix(")")) for line in single]
    assert len(logs) == 4 and all("100000" in json.loads((results.parent / log).read_text())["error"] for log in logs)
    assert "Traceback" not in done.err


def test_the_jobs_of_a_pool_have_one_thread_each(pool):
    environments = [json.loads((folder / "environment.json").read_text()) for folder in run_dirs(pool[0])]
    assert [environment["threads"] for environment in environments] == [1] * len(environments)
    assert len(environments) >= 4


def test_a_sweep_one_by_one_gives_the_same_curves(pool):
    done = invoke("sweep", *TINY, *GRID, "hydra/launcher=basic")
    assert done.code == 0, done.err
    assert curves("results") == curves(pool[0])


def test_a_single_run_gives_the_same_curve(pool):
    assert invoke("train", *TINY, "norm=bn", "seed=1").code == 0
    ((path, curve),) = curves("results").items()
    assert curve == curves(pool[0])[path]


@pytest.mark.slow
def test_a_sweep_of_submitit_jobs_gives_the_same_curves(pool):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = command("sweep", *TINY, *GRID, "hydra/launcher=submitit_local")
    assert done.code == 0, done.err
    assert curves("results") == curves(pool[0])


def test_a_failed_job_of_a_sweep_one_by_one():
    done = invoke("sweep", *TINY, "batch_size=100000,32", "hydra/launcher=basic")
    assert done.code == 1
    assert len(curves("results")) == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("icsbench: ")]
    assert "batch_size=100000" in line.split(": ")[1]
    assert "batch_size=100000 does not fit the training set of 1280 images" in line
    again = invoke("sweep", *TINY, "batch_size=32,64", "hydra/launcher=basic")
    assert (again.code, "icsbench: " in again.err) == (0, False)


def test_a_finished_sweep_does_nothing_again():
    arguments = ("sweep", *TINY, "seed=0,1", "hydra/launcher=basic")
    assert invoke(*arguments).code == 0
    before = {path: path.stat().st_mtime_ns for folder in run_dirs() for path in folder.iterdir()}
    assert invoke(*arguments).code == 0
    assert {path: path.stat().st_mtime_ns for folder in run_dirs() for path in folder.iterdir()} == before


# --- reproduce, figures, runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["experiment=high_lr"], "reproduce takes the names of studies as they are: icsbench reproduce high_lr"),
        (["landscap"], "no study 'landscap'; did you mean landscape?"),
        (["three-regimes"], "no study 'three-regimes'; did you mean three_regimes?"),
        (["xyz"], "no study 'xyz'; there are affine_only, amp, "),
        (["--multirun"], "--multirun goes with icsbench sweep"),
        (["scale=demo,cpu"], "scale=demo,cpu names several"),
        (["dln", "data=digits"], "study dln: configuration: data digits does not fit model dln"),
    ],
)
def test_reproduce_refuses_in_one_line(arguments, said):
    result = invoke("reproduce", *arguments)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert said in result.err
    assert not Path("results").exists()


def test_reproduce_trains_the_three_regimes_and_draws():
    arguments = ("reproduce", "three_regimes", *TINY, *PROBED, "steps=8", "seed=range(0,2)", "results=records")
    done = invoke(*arguments, "hydra/launcher=basic")
    assert done.code == 0, done.err
    drawn = Path("records/three_regimes/figures")
    assert {json.loads((folder / "environment.json").read_text())["threads"] for folder in run_dirs("records")} == {1}
    assert len(run_dirs("records")) == 6
    assert "Digits" in done.out
    assert f"files written in {drawn} (" in done.out
    for name in ("accuracy", "moments", "heatmap", "ridges", "protocols"):
        for suffix in ("pdf", "png", "csv"):
            assert (drawn / f"{name}.{suffix}").stat().st_size > 0
    before = {path.name: path.read_bytes() for path in drawn.glob("[!.]*")}
    assert f"\n{len(before)} files" in done.out

    assert (
        f"{len(all_claims())} claims: 0 supported, 0 contradicted, " in done.out
        and "not measured; at scale demo" in done.out
    )
    assert {path.name for path in Path("records").glob("claims.*")} == {"claims.json", "claims.csv", "claims.md"}
    assert Path("records/report.html").stat().st_size > 0

    redrawn = invoke("figures", "records", "--out", "elsewhere")
    assert redrawn.code == 0, redrawn.err
    assert {path.name: path.read_bytes() for path in Path("elsewhere").glob("[!.]*")} == before

    listed = invoke("runs", "records")
    assert listed.code == 0, listed.err
    assert listed.out.count(" 8/8 ") == 6


def test_the_studies_their_claims_and_what_they_cost(monkeypatch):
    monkeypatch.setattr("icsbench.training.cost.seconds_of_run", lambda config, dataset: 60.0)
    listed = invoke("reproduce", "--list", "scale=demo", "hydra.launcher.n_jobs=2")
    assert listed.code == 0, listed.err
    lines = {line[2:].split()[0]: line for line in listed.out.splitlines()[:-1]}
    claims = "claims 1, 3, 4, 4b, 5, 5b, 7, 10, 11, 11b, 12, 15"
    assert lines["long"].split() == f"* long 18 runs, 9 min {claims}".split()
    assert lines["dose"].startswith("  dose ") and "24 runs, 12 min" in lines["dose"]
    assert "36 runs, 18 min" in lines["lr_grid"] and "claims 1b, 12b, 14" in lines["lr_grid"]
    assert set(lines) == set(options("experiment"))
    fewer = invoke("reproduce", "three_regimes", "--list", "scale=demo", "hydra.launcher.n_jobs=2", "seed=range(0,2)")
    assert "6 runs, 3 min" in next(line for line in fewer.out.splitlines() if "three_regimes" in line)


def test_what_cannot_be_timed_is_said_for_its_study_alone(monkeypatch):
    monkeypatch.setattr("icsbench.training.cost.seconds_of_run", lambda config, dataset: 60.0)
    listed = invoke("reproduce", "--list", "scale=cpu", "data.root=nowhere", "three_regimes", "dln")
    assert listed.code == 0, listed.err
    assert " lp " not in listed.out
    assert "cannot be said" in next(line for line in listed.out.splitlines() if "three_regimes" in line)
    assert " min " in next(line for line in listed.out.splitlines() if " dln " in line)


def test_claims_of_records_the_catalogue_and_one_claim():
    plant(Path("records"), claim_of("3").parts[0], [1.0, 1.02, 0.98, 1.01, 0.99, 1.0])
    done = invoke("claims", "records")
    assert done.code == 0, done.err
    assert "✓ supported" in done.out and f"{len(all_claims())} claims: 1 supported, " in done.out
    assert Path("records/claims.json").exists()
    assert invoke("claims", "records", "--out", "elsewhere", "--scale", "cpu").code == 0
    assert Path("elsewhere/claims.md").read_text().count("\n|") > 20
    explained = invoke("claims", "why", "3", "records")
    assert "Verdict: supported at scale cpu" in explained.out
    listed = invoke("claims", "--list")
    assert listed.code == 0 and "disputed by" in listed.out and "noise_control" in listed.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["claims"], "results: no such folder"),
        (["claims", "why", "x", "records"], "no claim 'x'; the ids are 1, 1b, 2"),
        (["claims", "records", "--scale", "demo"], "no run of scale demo; there are cpu"),
        (["report", "records", "--scale", "demo"], "no run of scale demo; there are cpu"),
        (["report", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_claims_and_report_refuse_in_one_line(arguments, said):
    write(Path("records"), "dose", "noisy_bn", 0)
    result = invoke(*arguments)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert said in result.err


def test_figures_prints_and_writes_the_table_of_the_updates():
    for regime in ("none", "bn"):
        write_run("records", regime, steps=100, probes=False, updates=("ics", "landscape"))
    done = invoke("figures", "records", "--out", "drawn")
    assert done.code == 0, done.err
    for text in (done.out, Path("drawn/optimisation.md").read_text()):
        assert "lr 0.1, second half of the updates:" in text and "at matched training loss" in text
    lines = Path("drawn/optimisation.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 and "landscape/beta_lr_half/mean" in lines[0]
    again = invoke("figures", "records", "--out", "drawn")
    assert (again.code, "files up to date" in again.out) == (0, True)


def test_figures_of_a_damaged_measurement_is_one_line():
    path = write_run("records", "bn", steps=100, probes=False, updates=("ics", "landscape"))
    metrics = path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"landscape/losses": [', '"landscape/losses": ["x", ', 1))
    done = invoke("figures", "records", "--out", "drawn")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert (
        line.startswith("icsbench: ") and f"{metrics}: landscape/losses is not a list of equally many numbers" in line
    )
