"""icsbench doctor: what it says of machines that can do much, little or nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers import invoke, isolate

from icsbench import doctor
from icsbench.data import locate
from icsbench.doctor import probes
from icsbench.errors import IcsbenchError
from icsbench.report.doctor import lines

KEY = "0123456789abcdef" * 2 + "01234567"
FACTS = {
    "icsbench": {
        **{"version": "9", "python": "3.11.7", "system": "Linux x86_64"},
        **{"processor": "CPU", "cores": 4, "usable_cores": 2},
    },
    "torch": {
        **{"torch": "2.6", "torchvision": "0.21", "bf16": {"works": True, "speed": 0.5}},
        **{"digits": {"train": 1437, "test": 360}, "gpus": []},
    },
    "disk": {"folder": "/r", "free": 2**31},
    "wandb": {"wandb": "0.31.0", "logged_in": True, "mode": "online"},
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def child(monkeypatch, code: str) -> None:
    """Let this code stand for every probe."""
    monkeypatch.setattr(doctor, "_CHILD", code)


def quick(seconds: float) -> dict[str, float]:
    return dict.fromkeys(doctor.LIMITS, seconds)


def test_this_machine():
    done = invoke("doctor", "--json", "data.root=none", "results=somewhere/else")
    found = json.loads(done.out)
    assert (done.code, done.err, found["runs"], found["reason"]) == (0, "", True, None)
    assert found["cifar10"] == {"root": "none", "folder": None, "layout": None}
    assert found["icsbench"]["usable_cores"] == len(os.sched_getaffinity(0))
    text = [*lines(found, found["reason"])]
    said = dict(line.split(maxsplit=1) for line in text)
    assert 10 <= len(text) <= 12
    assert said["torch"].startswith(torch.__version__) and said["digits"].startswith("1,797 images")
    free = shutil.disk_usage(".").free / 2**30
    assert abs(float(said["disk"].split()[0]) - free) < 2 and said["disk"].endswith("/somewhere/else")
    assert said["result"] == "runs can be made" and not Path("somewhere").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [("seed=3", "'seed=3': doctor takes"), ("results=", "'results='"), ("demo", "'demo'"), ("data.root", "data.root")],
)
def test_other_overrides_are_refused(override, said):
    done = invoke("doctor", override)
    assert (done.code, done.err.count("\n")) == (1, 1) and said in done.err


def test_a_probe_that_hangs_costs_its_limit_and_keeps_what_it_said(monkeypatch):
    said = '{"torch": "2.6", "torchvision": "0.21"}'
    child(monkeypatch, f"import time; print({said!r}, flush=True); time.sleep(60)")
    began = time.monotonic()
    found = doctor.examine([], quick(0.7))
    assert time.monotonic() - began < 4
    assert found.facts["torch"] == {"torch": "2.6", "torchvision": "0.21", "error": "no answer within 0.7 s"}
    text = "\n".join(lines(found.facts, found.reason))
    assert "GPU        failed: no answer within 0.7 s; try device=cpu" in text
    assert found.reason == "the digits cannot be read"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", "its process ended with status -6"),
        ("raise SystemExit(3)", "its process ended with status 3"),
        ("print('hello'); print('[1]'); print('1'); print('{\"a\":')", None),
    ],
)
def test_a_probe_that_crashes_or_says_nothing_is_a_line(monkeypatch, code, said):
    child(monkeypatch, code)
    done = invoke("doctor")
    assert (done.code, done.err) == (1, "")
    assert "no run can be made: torch cannot be imported" in done.out
    assert said is None or done.out.count(f"failed: {said}") == 6  # torch, bf16, GPU, digits, disk, W&B
    if said is None:
        assert done.out.count("failed: no answer") == 6


def probe(name: str, *arguments: str, env: dict[str, str] | None = None) -> dict:
    """The facts of one probe in a process of its own."""
    command = [sys.executable, "-P", "-c", doctor._CHILD, json.dumps(sys.path), name, json.dumps(arguments)]
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=60)
    facts: dict = {}
    for line in done.stdout.splitlines():
        facts.update(json.loads(line))
    return facts


def test_results_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert "file is a file; choose another folder" in probe("disk", "file/results")["error"]
    found = {**FACTS, "disk": {"error": "x"}}
    assert doctor._reason(found) == "results cannot be written"
    assert doctor._reason({**FACTS, "disk": {"folder": "/r", "free": 10 * 2**20}}) == (
        "/r has 10 MiB free; a run needs 200 MiB"
    )
    assert doctor._reason(FACTS) is None
    assert doctor._reason({**FACTS, "cifar10": {"error": "x"}}) == "CIFAR-10 cannot be read from data.root"


def test_a_folder_of_results_is_written_to_by_those_who_may(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "closed may not be written to" in probe("disk", "closed/results")["error"]


class Server:
    """Counts who connects."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.calls = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def _serve(self):
        try:
            while True:
                connection, _ = self.socket.accept()
                self.calls += 1
                connection.close()
        except OSError:
            return

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("environment", (True, "online")),
        ("netrc", (True, "online")),
        ("nowhere", (False, "offline")),
        ("disabled", (False, "disabled")),
    ],
)
def test_wandb_is_asked_without_contacting_anything_or_showing_a_key(where, expected, tmp_path):
    with Server() as server:
        env = {"WANDB_BASE_URL": server.address, "WANDB_ENTITY": ""}
        if where == "environment":
            env["WANDB_API_KEY"] = KEY
        if where == "netrc":
            (tmp_path / "home" / ".netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {KEY}\n")
            (tmp_path / "home" / ".netrc").chmod(0o600)
        if where == "disabled":
            env["WANDB_MODE"] = "disabled"
        found = probe("wandb", env=env)
    assert (found["logged_in"], found["mode"]) == expected
    assert server.calls == 0 and KEY not in str(found)


def test_a_broken_netrc_shows_no_key(tmp_path):
    (tmp_path / "home" / ".netrc").write_text(f"machine 127.0.0.1 {KEY} password\n")
    found = probe("wandb", env={"WANDB_BASE_URL": "http://127.0.0.1:9"})
    assert found["error"] == "NetrcParseError" and KEY not in str(found)


def test_cifar_is_where_the_project_finds_it(tmp_path):
    assert locate("cifar10", str(tmp_path / "none")) is None
    (tmp_path / "hub" / "plain_text").mkdir(parents=True)
    (tmp_path / "hub" / "plain_text" / "train-0.parquet").touch()
    found = next(probes.PROBES["cifar10"]("hub"))
    assert (found["layout"], found["folder"]) == ("parquet files", str(tmp_path / "hub" / "plain_text"))
    (tmp_path / "old" / "cifar-10-batches-py").mkdir(parents=True)
    assert locate("cifar10", str(tmp_path / "old")).layout == "torchvision's files"
    (tmp_path / "tree" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "tree" / "test" / "cat").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "tree" / split / "cat" / "1.png").touch()
    assert locate("cifar10", str(tmp_path / "tree")).layout == "class folders"
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.docx").touch()
    with pytest.raises(IcsbenchError, match=r"holds thesis.docx, but not CIFAR-10"):
        locate("cifar10", str(tmp_path / "strange"))
    facts = {**FACTS, "cifar10": {"error": "data.root=/x holds \x1b[31mthesis"}}
    assert "\x1b" not in "".join(lines(facts, None))


def test_what_is_said_of_other_machines():
    gpus = [
        {"device": "cuda:0", "name": "H100", "bf16": {"works": True, "speed": 2.5}},
        {"device": "cuda:1", "name": "P100", "bf16": {"works": False, "error": "RuntimeError: no"}},
    ]
    facts = {**FACTS, "torch": {**FACTS["torch"], "gpus": gpus}, "wandb": {"wandb": None}}
    text = "\n".join(lines(facts, None))
    for said in (
        "CPU        CPU, 2 of 4 cores; one run uses 2 threads",
        "bf16       CPU: works, a convolution takes 2 times as long as in float32: not worth it",
        "GPU        cuda:0 H100; bf16: works, a convolution takes 0.4 times as long as in float32: worth it (amp=true)",
        "GPU        cuda:1 P100; bf16: does not work (RuntimeError: no)",
        "disk       2.0 GiB free for /r",
        "W&B        not installed",
    ):
        assert said in text
    assert "a key is configured, mode online" in "\n".join(lines(FACTS, None))
