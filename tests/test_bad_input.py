import errno
import json
import os
import pickle
import shutil
import signal
import socket
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from filelock import FileLock
from helpers import ANY_MODEL, PROBED, TINY, Result, content, invoke, isolate, rows, run_dir, run_dirs, start
from networks import NORMS
from synthetic import write_run
from torchvision.datasets import CIFAR10

from icsbench.record.writer import Record
from icsbench.training import trainer


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def refused(*arguments: str) -> str:
    """The one line with which a command is refused."""
    result = invoke(*arguments)
    assert result.code == 1, result
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("icsbench: ")
    assert "Traceback" not in line
    return line


def train(*overrides: str) -> Result:
    return invoke("train", *TINY, *overrides)


def trained(*overrides: str) -> Path:
    result = train(*overrides)
    assert result.code == 0, result.err
    return run_dir()


def killed_at(step: int, *overrides: str) -> Path:
    """The record of a run that a signal stopped: with a checkpoint, without a summary."""
    with pytest.MonkeyPatch.context() as patch:
        rate, sent = trainer.learning_rate, []

        def interrupt(config, now):
            if now == step and not sent:
                sent.append(now)
                os.kill(os.getpid(), signal.SIGTERM)
            return rate(config, now)

        patch.setattr(trainer, "learning_rate", interrupt)
        assert train(*overrides).code == 130
    return run_dir()


def undisturbed(folder: str, *overrides: str) -> dict:
    """The record of the same run without disturbance, made in another folder under the same relative paths."""
    Path(folder).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return content(trained(*overrides))


# --- what is typed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("sede=1", ["unknown key 'sede'", "did you mean 'seed'?"]),
        ("optim.ler=1", ["unknown key 'optim.ler'", "did you mean 'optim.lr'?"]),
        ("zzz=1", ["unknown key 'zzz'", "icsbench train --cfg job lists the keys"]),
        ("+foo=1", ["unknown key 'foo'", "--cfg job"]),
        ("++foo.bar=1", ["unknown key 'foo'"]),
        ("norm=batch", ["'norm/batch'", " ".join(sorted(NORMS))]),
        ("model=vgg12", ["'model/vgg12'", "did you mean model=vgg1"]),
        ("experiment=landscap", ["no study is called 'landscap'", "experiment=landscape?", "++experiment=landscap "]),
        ("experiment=a/b", ["experiment must be a plain folder name (got 'a/b')"]),
        ("scale=huge", ["'scale/huge'", "cpu demo paper"]),
        ("hydra/launcher=nosuch", ["'hydra/launcher/nosuch'", "pool"]),
        ("+optim.wrap.clip.most=1", ["no wrapper is called 'clip'"]),
        ("nrom=bn", ["unknown key 'nrom'"]),
        ("steps=abc", ["'abc'", "Integer", "steps"]),
        ("seed=1.5", ["'1.5'", "Integer", "seed"]),
        ("seed=null", ["seed", "'None'", "'int'"]),
        ("optim.lr=fast", ["'fast'", "Float", "optim.lr"]),
        ("deterministic=maybe", ["'maybe'", "bool", "deterministic"]),
        ("steps=${nosuch}", ["'nosuch' not found", "steps"]),
        ("seed=-1", ["seed must be at least 0", "got -1"]),
        ("optim.lr=0", ["optim.lr must be greater than 0", "got 0.0"]),
        ("optim.lr=-1", ["optim.lr must be greater than 0", "got -1.0"]),
        ("optim.lr=nan", ["optim.lr must be greater than 0", "got nan"]),
        ("optim.lr=inf", ["optim.lr must be", "got inf"]),
        ("optim.momentum=1.5", ["optim.momentum must be at least 0 and at most 0.9999"]),
        ("optim.schedule=linear", ["optim.schedule must be one of constant, cosine"]),
        ("model.width=0", ["model.width must be at least 0.015625 and at most 16"]),
        ("model.width=-1", ["model.width must be at least 0.015625"]),
        ("model.width=100", ["at most 16", "got 100"]),
        ("model.init=xavier", ["model.init must be one of glorot, he, torch"]),
        ("steps=0", ["steps must be at least 1"]),
        ("log_every=0", ["log_every must be at least 1"]),
        ("checkpoint_every=0", ["checkpoint_every must be at least 1"]),
        ("recalibration_batches=0", ["recalibration_batches must be at least 1"]),
        ("threads=0", ["threads must be at least 1"]),
        ("batch_size=1", ["batch_size must be at least 2"]),
        ("batch_size=1281", ["1281", "1280 images"]),
        ("probes=shift probes.batch_size=1281", ["probes.batch_size is 1281", "1280 training images"]),
        ("probes=shift probes.every=1", ["probes.every must be at least 2"]),
        ("data.val_size=-1", ["data.val_size must be at least 0"]),
        ("data.val_size=1437", ["data.val_size=1437", "1437 training images", "from 0 to 1436"]),
        ("data.val_size=1420", ["17 images"]),
        ("data.name=svhn", ["data.name must be one of digits, "]),
        ("data=mnist", ["data mnist does not fit model vgg11", "32x32 colour images"]),
        ("model=dln", ["data digits does not fit model dln", "gaussian"]),
        ("data=cifar10 data.root=null", ["data.root is not set"]),
        ("norm=bn norm.n_mu=1", ["'norm.n_mu' does not apply to the chosen norm", "norm=NAME"]),
        ("norm=noisy_bn norm.n_sigma=0.5", ["norm.n_sigma must be at least 1"]),
        ("wandb.mode=bogus", ["wandb.mode must be one of auto, online, offline, disabled"]),
        ("device=tpu", ["device must be one of auto, cpu, cuda, mps"]),
        ("device=cuda:x", ["device=cuda:x cannot be used here", "device=cpu"]),
        ("seed", ["'seed' is not an override; they are key=value, such as seed=3"]),
        ("seed==1", ["'seed==1'"]),
        ("optim.lr=[1", ["'optim.lr=[1'"]),
        ("=3", ["override"]),
        ("optim=5", ["override must be a string"]),
        ("seed=0,1", ["'seed=0,1'", "icsbench sweep"]),
        ("seed=range(0,2)", ["'seed=range(0,2)'", "--multirun"]),
        ("--config-dir=nosuch", ["nosuch' not found"]),
    ],
)
def test_an_impossible_configuration_is_one_line(overrides, said):
    line = refused("train", *(ANY_MODEL if "model=dln" in overrides else TINY), *overrides.split())
    for words in said:
        assert words in line
    assert not any(path.suffix == ".pt" for path in Path().rglob("*"))


def test_the_full_batch_is_no_choice():
    assert "batch_size must be 1000 (got 100)" in refused("train", "experiment=dln", "batch_size=100", "device=cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        *("sed=0", "model=vgg12", "scale=huge", "steps=many", "steps=0", "optim.lr=[1", "seed==1", "optim=5"),
        *("norm.n_mu=1 norm=none", "data=mnist", "wandb.mode=bogus", "+foo=1", "~nosuch", "threads=0"),
    ],
)
def test_a_sweep_says_what_a_run_says(wrong):
    said = refused("train", *TINY, *wrong.split())
    grid = [f"{key}={values}" for key, values in (("norm", "none,bn"), ("seed", "0,1")) if f"{key}=" not in wrong]
    assert refused("sweep", *TINY, *grid, *wrong.split()) == said
    assert refused("reproduce", *TINY, *grid, *wrong.split()) == said
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("sede=1,2", "did you mean 'seed'?"),
        ("norm=bn,batch", "'norm/batch'"),
        ("optim.lr=0.1,-1", "optim.lr must be greater than 0 (got -1.0)"),
        ("seed=0,1,x", "'x'"),
        ("norm=noisy_bn,none norm.strength=1,2", "'norm.strength' does not apply to the chosen norm"),
        ("model=vgg11,dln", "data digits does not fit model dln"),
        ("model=vgg11,mlp model.width=0.1", "'model.width' does not apply to the chosen model"),
        ("data.val_size=range(0,3)", "data.val_size must be 0 or at least 2 (got 1)"),
        ("steps=4,5,6 seed=range(0,2) norm=none,bn optim.momentum=0,0.5,2", "optim.momentum must be"),
    ],
)
@pytest.mark.parametrize("name", [["sweep"], ["reproduce", "three_regimes"]])
def test_an_impossible_value_of_a_sweep_starts_no_run(name, overrides, said):
    assert said in refused(*name, *(ANY_MODEL if "dln" in overrides else TINY), *overrides.split())
    assert not Path("results").exists()


def test_a_word_that_is_no_override():
    assert "'seed' is not an override; they are key=value, such as seed=3" in refused("sweep", *TINY, "seed")
    assert "no study 'seed'" in refused("reproduce", *TINY, "seed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there(device):
    assert f"device={device} cannot be used here; use device=auto or device=cpu" in refused(
        "train", *TINY, f"device={device}"
    )


# --- data ------------------------------------------------------------------------------------------------------------


def test_no_data_and_no_way_to_download_it(monkeypatch):
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{taken.getsockname()[1]}/cifar.tar.gz")
        line = refused("train", *TINY, "data=cifar10", "data.root=here")
    for words in ("cannot download", "data.root", "here", "refused", "cifar-10-batches-py", "train-*.parquet"):
        assert words in line
    assert "cannot download" in json.loads((run_dir() / "failure.json").read_text())["error"]


def test_truncated_parquet():
    Path("here").mkdir()
    for name in ("train", "test"):
        path = Path("here", f"{name}-00000-of-00001.parquet")
        pl.DataFrame({"img": [{"bytes": b"x" * 500, "path": ""}], "label": [0]}).write_parquet(path)
        path.write_bytes(path.read_bytes()[:-20])
    line = refused("train", *TINY, "data=cifar10", "data.root=here")
    assert "cannot read" in line
    assert "train-00000-of-00001.parquet" in line


def test_data_root_is_a_file():
    Path("here").write_text("")
    assert "data.root is not a folder" in refused("train", *TINY, "data=cifar10", "data.root=here")


# --- the results folder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("results", ["file", "file/below"])
def test_results_that_cannot_be_a_folder(results):
    Path("file").write_text("mine")
    line = refused("train", *TINY, f"results={results}")
    assert "cannot be written" in line
    assert "results=DIR" in line
    assert Path("file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_results():
    Path("results").mkdir(mode=0o500)
    assert "cannot be written (Permission denied); choose another with results=DIR" in refused("train", *TINY)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_results_that_the_system_refuses(monkeypatch, call, number):
    original = getattr(os, call)

    def refuse(what, *arguments):
        if call == "fsync" or "seed-0" in str(what):
            raise OSError(number, os.strerror(number))
        return original(what, *arguments)

    monkeypatch.setattr(os, call, refuse)
    line = refused("train", *TINY)
    assert "results folder results/single/bn-" in line
    assert f"cannot be written ({os.strerror(number)})" in line


def test_a_record_of_another_configuration():
    path = trained() / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2").replace("seed: 0", "seed: 7"))
    line = refused("train", *TINY)
    assert "belongs to another config (it differs in optim.lr, seed)" in line
    assert "results=DIR" in line


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("", "is not a run's config: it holds no keys"),
        ("- 1\n", "holds no keys"),
        ("seed: [", "cannot be read"),
        ("sede: 1\n", "unknown key 'sede'"),
        ("steps: many\n", "'many'"),
        ("a\x00b", "cannot be read"),
    ],
)
def test_a_damaged_config(damage, said):
    path = trained() / "config.yaml"
    path.write_text(damage)
    line = refused("train", *TINY)
    assert said in line
    assert path.read_text() == damage


@pytest.mark.parametrize("name", ["summary.json", "environment.json", "timing.json"])
def test_damaged_json(name):
    folder = trained() if name == "summary.json" else killed_at(3)
    (folder / name).write_text('{"seconds": ')
    line = refused("train", *TINY)
    assert f"{folder / name} is damaged" in line


def test_two_processes_on_one_run():
    folder = trained()
    before = content(folder)
    with FileLock(folder / "run.lock"):
        assert "is in use by another process; wait for it or choose another seed" in refused("train", *TINY)
    assert content(folder) == before
    assert train().code == 0


# --- checkpoints -----------------------------------------------------------------------------------------------------


class Bomb:
    """A pickle of it creates a file where it is loaded with trust."""

    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_foreign_checkpoint_runs_no_code():
    folder = killed_at(3)
    for write in (lambda path: path.write_bytes(pickle.dumps(Bomb())), lambda path: torch.save({"step": Bomb()}, path)):
        write(folder / "checkpoint.pt")
        line = refused("train", *TINY)
        assert "the checkpoint is damaged or not one of icsbench's; delete it" in line
        assert str(folder / "checkpoint.pt") in line
        assert not Path("exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert Path("exploded").exists()  # it would have


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint_and_starting_again_without_it(keep):
    whole = undisturbed("whole")
    path = killed_at(3) / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    assert "the checkpoint is damaged" in refused("train", *TINY)
    path.unlink()
    assert content(trained()) == whole


def test_a_checkpoint_of_something_else():
    path = killed_at(3) / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for change, said in (
        ({"seed": 1}, "belongs to another run"),
        ({"fingerprint": "0123456789"}, "belongs to another run (0123456789 seed 0"),
        ({"format": 99}, "has format 99"),
    ):
        torch.save(state | change, path)
        assert said in refused("train", *TINY)
    torch.save([1, 2], path)
    assert "is not one of icsbench's" in refused("train", *TINY)


def test_a_checkpoint_of_another_seed():
    shutil.copy(killed_at(3) / "checkpoint.pt", "checkpoint.pt")
    shutil.rmtree("results")
    shutil.copy("checkpoint.pt", killed_at(3, "seed=1") / "checkpoint.pt")
    line = refused("train", *TINY, "seed=1")
    assert "belongs to another run" in line
    assert "seed 0" in line


def test_metrics_shorter_than_their_checkpoint():
    path = killed_at(3) / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    line = refused("train", *TINY)
    assert "metrics.jsonl is shorter than its checkpoint says" in line
    assert f"delete {path.parent}" in line


def test_metrics_longer_than_their_checkpoint_are_written_again():
    whole = undisturbed("whole")
    with open(killed_at(3) / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 4, "train/loss": 77.0}\n{"step": 5, "tr')
    assert content(trained()) == whole


# --- full disks, kills and Ctrl-C ------------------------------------------------------------------------------------

DISTURBED = (*PROBED, "norm=noisy_bn", "checkpoint_every=2", "log_every=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The record of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        return content(trained(*DISTURBED))


class Killed(BaseException):
    """Ends a run wherever it is, past everything that handles errors."""


def disturb(monkeypatch, where: str, number: int, error: BaseException) -> list[int]:
    """Raise ``error`` in the ``number``-th call (from 0) of something that every write of a record goes through."""
    owner, name = {"sync": (os, "fsync"), "replace": (os, "replace"), "row": (Record, "append")}[where]
    original, calls = getattr(owner, name), []

    def disturbed(*arguments):
        calls.append(0)
        if len(calls) == number + 1:
            raise error
        return original(*arguments)

    monkeypatch.setattr(owner, name, disturbed)
    return calls


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("where", ["sync", "replace", "row"])
def test_killed_at_any_write_the_rerun_is_bit_identical(whole, where, stride):
    with pytest.MonkeyPatch.context() as patch:
        calls = disturb(patch, where, -1, Killed())
        assert content(trained(*DISTURBED)) == whole
    assert len(calls) > 6
    for number in range(len(calls) - 1, -1, -stride):
        shutil.rmtree("results")
        with pytest.MonkeyPatch.context() as patch:
            disturb(patch, where, number, Killed())
            with pytest.raises(Killed):
                train(*DISTURBED)
        assert not Path(run_dir() if run_dirs() else "results", "summary.json").exists()
        assert content(trained(*DISTURBED)) == whole, f"{where} {number}"


@pytest.mark.parametrize(("where", "number"), [("sync", 2), ("sync", 5), ("replace", 3), ("row", 4), ("row", 7)])
def test_a_disk_that_fills_up(whole, where, number):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, where, number, full)
        result = train(*DISTURBED)
    assert (result.code, result.out) == (1, "")
    line = result.err.splitlines()[-1]
    assert line.startswith("icsbench: ")
    assert "No space left on device; free some space and run the same command again" in line
    assert not (run_dir() / "summary.json").exists()
    assert "No space left" in json.loads((run_dir() / "failure.json").read_text())["error"]
    assert content(trained(*DISTURBED)) == whole


LONG = ("steps=150", "checkpoint_every=10", "log_every=5", "eval_every=1000")


def wait_for(condition, process, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


def under_way(rows_wanted: int) -> bool:
    """Whether every run begun here has a checkpoint and at least so many rows."""
    folders = run_dirs()
    return bool(folders) and all(
        (folder / "checkpoint.pt").exists() and (folder / "metrics.jsonl").read_bytes().count(b"\n") >= rows_wanted
        for folder in folders
    )


def test_kill_9_and_the_rerun_is_bit_identical():
    whole = undisturbed("whole", *LONG, "norm=noisy_bn")
    with start("train", *TINY, *LONG, "norm=noisy_bn") as process:
        wait_for(lambda: under_way(11), process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (run_dir() / "summary.json").exists()
    assert content(trained(*LONG, "norm=noisy_bn")) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_run_that_goes_on(number):
    whole = undisturbed("whole", *LONG)
    with start("train", *TINY, *LONG, "checkpoint_every=1000") as process:
        wait_for(lambda: run_dirs() and (run_dir() / "metrics.jsonl").exists() and len(rows(run_dir())) > 3, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "icsbench: interrupted; the same command goes on where it stopped\n"
    assert (run_dir() / "checkpoint.pt").exists()
    assert not (run_dir() / "failure.json").exists()
    finished = content(trained(*LONG))
    for record in (whole, finished):
        del record["config.yaml"]  # holds checkpoint_every
    assert finished == whole


@pytest.mark.slow
def test_ctrl_c_stops_a_pool_of_jobs_that_goes_on():
    jobs = ("sweep", *TINY, *LONG, "steps=500", "norm=none,bn")
    with start(*jobs, start_new_session=True) as process:
        wait_for(lambda: len(run_dirs()) == 2 and under_way(5), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "icsbench: interrupted; the same command goes on where it stopped" in err.splitlines()
    assert "Traceback" not in err
    assert not [*Path("results").glob("single/*/*/summary.json")]
    assert invoke(*jobs, "hydra/launcher=basic").code == 0
    stopped = [content(folder) for folder in run_dirs()]
    shutil.rmtree("results")
    assert invoke(*jobs, "hydra/launcher=basic").code == 0
    assert [content(folder) for folder in run_dirs()] == stopped


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_jobs_of_a_pool_that_was_killed_stop_and_the_rerun_goes_on(number):
    jobs = ("sweep", *TINY, *LONG, "steps=500", "norm=none,bn")
    with start(*jobs) as process:
        wait_for(lambda: len(run_dirs()) == 2 and under_way(5), process)
        process.send_signal(number)  # to the sweep alone: its jobs are left behind
        process.wait(timeout=60)
    assert invoke(*jobs, "hydra/launcher=basic").code == 0  # at once: the jobs give up their locks
    stopped = [content(folder) for folder in run_dirs()]
    shutil.rmtree("results")
    assert invoke(*jobs, "hydra/launcher=basic").code == 0
    assert [content(folder) for folder in run_dirs()] == stopped


@pytest.mark.slow
def test_what_a_killed_sweep_had_not_begun_is_not_begun():
    with start("sweep", *TINY, *LONG, "steps=500", "norm=none,bn", "seed=0,1", "hydra.launcher.n_jobs=2") as process:
        wait_for(lambda: len(run_dirs()) == 2 and under_way(5), process)
        process.kill()
        process.wait(timeout=60)
    begun = run_dirs()
    for folder in begun:  # at once: its job gives up its lock
        norm, seed = folder.parent.name.partition("-")[0], folder.name.removeprefix("seed-")
        assert train(*LONG, "steps=500", f"norm={norm}", f"seed={seed}").code == 0
    assert run_dirs() == begun


# --- W&B -------------------------------------------------------------------------------------------------------------


def test_an_unreachable_wandb_server_is_one_warning(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setattr("icsbench.tracking.wandb._INIT_TIMEOUT", 1.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    result = train("wandb=mirror", "wandb.mode=online")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if not line.startswith("bn lr 0.1 seed 0: ")]
    assert line.startswith("icsbench: W&B: CommError: ")
    assert line.endswith("; mirroring offline instead")
    assert [*run_dir().glob("wandb/offline-run-*/*.wandb")]
    assert json.loads((run_dir() / "summary.json").read_text())["status"] == "complete"


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_malformed_wandb_key_is_one_warning(monkeypatch, mode):
    monkeypatch.setattr("icsbench.tracking.wandb._INIT_TIMEOUT", 1.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    result = train("wandb=mirror", f"wandb.mode={mode}")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if not line.startswith("bn lr 0.1 seed 0: ")]
    assert line.startswith("icsbench: W&B: AuthenticationError: ")
    assert "API key" in line


@pytest.mark.parametrize(
    "fault", [OSError(errno.EACCES, "Permission denied"), RuntimeError("two\nlines"), ImportError("no wandb")]
)
@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_whatever_wandb_raises_is_one_warning_and_never_reaches_the_run(monkeypatch, fault, call):
    wandb = pytest.importorskip("wandb")

    def broken(*_, **__):
        raise fault

    class Run:
        summary: dict = {}  # noqa: RUF012

        def __getattr__(self, name):
            return broken if name == call else lambda *_, **__: None

    monkeypatch.setattr(wandb, "init", broken if call == "init" else lambda **_: Run())
    result = train("wandb=mirror", "wandb.mode=offline")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if line.startswith("icsbench: ")]
    assert line.startswith(f"icsbench: W&B: {type(fault).__name__}: ")
    assert rows(run_dir())[-1]["step"] == 6
    assert json.loads((run_dir() / "summary.json").read_text())["status"] == "complete"


def test_a_wandb_folder_that_cannot_be_written():
    folder = killed_at(3)
    (folder / "wandb").write_text("in the way")
    result = train("wandb=mirror", "wandb.mode=offline")
    assert result.code == 0
    assert (folder / "summary.json").exists()
    assert (folder / "wandb").read_text() == "in the way"
    assert len([line for line in result.err.splitlines() if line.startswith(("icsbench: ", "wandb"))]) <= 1


# --- figures and runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["figures", "runs"])
def test_records_that_are_not_there(name):
    assert "nosuch" in refused(name, "nosuch")
    Path("empty").mkdir()
    assert "no run records" in refused(name, "empty")
    Path("file").write_text("")
    assert "file" in refused(name, "file")


@pytest.mark.parametrize("damage", [b'{"step": 1', b"not json\n", b"[1]\n", b"\xff\xfe\n"])
def test_damaged_metrics_of_a_finished_run(damage):
    path = write_run("results", steps=200) / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-30] + damage)
    result = invoke("figures", "results")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("icsbench: ")
    assert "metrics.jsonl" in line


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "environment.json"])
@pytest.mark.parametrize("command", ["figures", "runs"])
def test_damaged_files_of_a_record(command, name):
    path = write_run("results", steps=200) / name
    path.write_text("{")
    result = invoke(command, "results")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("icsbench: ")
    assert name in line


def test_unfinished_runs_are_listed_and_not_drawn():
    folder = killed_at(3)
    listed = invoke("runs", "results")
    assert listed.code == 0
    assert "incomplete" in listed.out
    assert "4/6" in listed.out
    assert "none of 1 runs is finished" in invoke("figures", "results").err.splitlines()[-1]
    with FileLock(folder / "run.lock"):
        assert "running" in invoke("runs", "results").out
