"""What is seen of a sweep: on a terminal, in a log, and what its processes tell."""

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from helpers import TINY, content, invoke, isolate, run_dir, run_dirs
from rich.console import Console
from rich.live import Live

from icsbench.app.compose import composed
from icsbench.app.display import Tally, bar
from icsbench.app.progress import Seen
from icsbench.app.reports import Inbox, Report, Reporter
from icsbench.app.watching import Watch
from icsbench.record.writer import folder_of


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


class Clock:
    """A clock that goes when it is told."""

    now = 1000.0

    def __call__(self):
        return self.now


def told(folder, *said):
    """Write reports as a process of a sweep does: (what, study, run, others)."""
    with open(folder / "host-1.jsonl", "a") as file:
        for what, study, run, others in said:
            report = {"what": what, "study": study, "run": run, "key": f"{study}/{run}", **others}
            file.write(json.dumps(report) + "\n")


def ended(study, run, seconds, outcome="trained"):
    return ("ended", study, run, {"outcome": outcome, "seconds": seconds})


def at(study, run, *seen):
    return ("at", study, run, {"seen": seen})


class Screen:
    """A terminal of 80 columns whose lines can be read."""

    def __init__(self):
        self._out = io.StringIO()
        self.console = Console(file=self._out, width=80, force_terminal=True, color_system="standard")
        self.live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False)
        self.live.start()

    def frame(self, watch):
        """What a look writes, without what moves the cursor, and with colours by name."""
        self._out.seek(0)
        self._out.truncate()
        watch.look()
        text = re.sub(r"\x1b\[\d*[AKlhG]|\x1b\[\?25[lh]|\r", "", self._out.getvalue())
        for code, name in (("31", "<red>"), ("35", "<magenta>")):
            text = text.replace(f"\x1b[{code}m", name)
        return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()]


PLANNED = {"parts": 1, "dose": 6, "long": 4, "lp": 2}
UNDER_WAY = (
    ("began", "parts", "parts seed 0", {}),
    at("parts", "parts seed 0", 12),
    ended("parts", "parts seed 0", 5.0, "complete"),
    ("began", "dose", "bn lr 0.1 seed 0", {}),
    ended("dose", "bn lr 0.1 seed 0", 100.0),
    ended("dose", "bn lr 0.1 seed 1", 140.0, "diverged"),
    ("failed", "dose", "bn lr 0.1 seed 2", {}),
    ("began", "dose", "none lr 0.1 seed 0", {}),
    at("dose", "none lr 0.1 seed 0", 40, 200, 1.25, 0.613, 1234.4),
    ("began", "long", "l2 lr 1e-06 seed 0", {}),
)


def test_the_display_of_a_sweep(tmp_path):
    clock, screen = Clock(), Screen()
    watch = Watch(tmp_path, PLANNED, screen.live, clock)
    assert screen.frame(watch) == [
        "4 studies to come: parts, dose, long, lp",
        "0 of 13 runs, 0 s so far",
    ]
    told(tmp_path, *UNDER_WAY)
    clock.now += 30
    assert screen.frame(watch) == [
        "1 study done: parts",
        "1 study to come: lp",
        f"dose  {'━' * 12}╺{'━' * 11}  3/6  <magenta>1 diverged, <red>1 failed",
        "  none lr 0.1 seed 0  step 40/200  61.3%  1,234 samples/s",
        f"long  {'━' * 24}  0/4",
        "  l2 lr 1e-06 seed 0  starting",
        # three runs of dose are left, 120 s each, and two go at a time; nobody knows what long and lp take
        "4 of 13 runs, 1 diverged, 1 failed, 30 s so far, at least 3 min left",
    ]
    told(tmp_path, at("long", "l2 lr 1e-06 seed 0", 10, 100, 0.25, None, 50.0))
    clock.now += 60
    screen.frame(watch)
    told(tmp_path, at("long", "l2 lr 1e-06 seed 0", 30, 100, 0.125, None, 50.0), ended("lp", "x", 3600.0))
    clock.now += 40
    frame = screen.frame(watch)
    assert "  l2 lr 1e-06 seed 0  step 30/100  loss 0.125  50 samples/s" in frame
    # dose: 360 - 100; long: 20 steps took 40 s, so 200 s a run, 4 * 200 - 100; lp: one of an hour; by two at a time
    assert (
        frame[-1] == f"5 of 13 runs, 1 diverged, 1 failed, 2 min so far, about {(260 + 700 + 3600) / 120:.0f} min left"
    )


def test_what_is_printed_stands_above_the_display(tmp_path):
    screen = Screen()
    watch = Watch(tmp_path, {"dose": 1}, screen.live, Clock())
    (tmp_path / "host-1.printed").write_text("a [line] that is quite whole\nhalf a")
    assert screen.frame(watch) == ["a [line] that is quite whole", "1 study to come: dose", "0 of 1 runs, 0 s so far"]
    with open(tmp_path / "host-1.printed", "a") as file:
        file.write(" line\n")
    assert screen.frame(watch)[0] == "half a line"
    assert screen.frame(watch)[0] == "1 study to come: dose"


def test_the_display_ends_with_how_many_runs_there_are(tmp_path, capsys):
    clock, screen = Clock(), Screen()
    watch = Watch(tmp_path, {"dose": 2}, screen.live, clock)
    told(tmp_path, ended("dose", "bn seed 0", 5.0), ("failed", "dose", "bn seed 1", {}))
    clock.now += 7
    watch.close()
    assert not screen.live.is_started
    assert capsys.readouterr().err == "2 of 2 runs, 1 failed, 7 s so far\n"


def test_a_line_a_minute_without_a_terminal(tmp_path, capsys):
    clock = Clock()
    watch = Watch(tmp_path, PLANNED, None, clock)
    told(tmp_path, *UNDER_WAY)
    for _ in range(300):
        watch.look()
        clock.now += 0.5
    minutes = capsys.readouterr().err.splitlines()
    # at 60 s and 120 s: three runs of dose, 120 s each, less what has run of one; two go at a time
    assert minutes == [
        f"4 of 13 runs, 1 diverged, 1 failed, {gone}, at least {left} left; running: none lr 0.1 seed 0 (step 40/200), "
        "l2 lr 1e-06 seed 0"
        for gone, left in (("60 s so far", "2 min"), ("2 min so far", "2 min"))
    ]
    many = [("began", "lp", f"bn seed {seed}", {}) for seed in range(5)]
    told(tmp_path, *many)
    clock.now += 60
    watch.look()
    assert capsys.readouterr().err.endswith(", bn seed 0, bn seed 1, 3 more\n")


def test_nobody_knows_how_many_runs_a_sweeper_draws():
    tally = Tally({"single": None}, 0.0)
    tally.hear(Report("ended", "single", "bn seed 0", "a", outcome="trained", seconds=5.0), 5.0)
    assert tally.counts(6.0) == "1 runs, 6 s so far"


def test_reports_come_through_as_they_were_told():
    config = composed(["norm=bn", "seed=3", "scale=demo"])
    folder_of(config).mkdir(parents=True)
    (folder_of(config) / "timing.json").write_text('{"seconds": 12.5}')
    Path("told").mkdir()
    reporter, inbox = Reporter(config, Path("told")), Inbox(Path("told"))
    who = ("single", "bn lr 0.1 seed 3", str(folder_of(config)))
    reporter.began()
    reporter.at(Seen(10, 20, float("nan"), 0.5, 3.0))
    began, at = inbox.reports()
    assert began == Report("began", *who) and at.seen is not None
    assert (at.what, at.seen.step, at.seen.accuracy, str(at.seen.loss)) == ("at", 10, 0.5, "nan")
    reporter.ended({"outcome": "trained"})
    reporter.failed()
    assert [*inbox.reports()] == [Report("ended", *who, None, "trained", 12.5), Report("failed", *who)]
    assert [*inbox.reports()] == []
    Reporter(config, Path("gone")).began()  # a folder that is gone stops no run
    assert not Path("gone").exists()


# --- real runs -------------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments, until=None):
    """Run the command line on a terminal of its own; Ctrl-C when ``until`` holds. Its exit code and what it wrote."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm", COLUMNS="80")
        os.execv(sys.executable, [sys.executable, "-m", "icsbench", *arguments])
    written, pressed, end = b"", until is None, time.monotonic() + 240
    while time.monotonic() < end:
        if not pressed and until is not None and until():
            pressed = os.write(terminal, b"\x03") == 1
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # what Linux says at the end
                break
            written += chunk
    else:
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), written.decode()


LONG = (*TINY, "steps=100", "checkpoint_every=5", "log_every=5", "eval_every=1000")


def test_ctrl_c_stops_the_display_and_leaves_a_run_that_goes_on():
    arguments = ("sweep", *LONG, "norm=noisy_bn")
    code, written = on_a_terminal(
        *arguments, "hydra.launcher.n_jobs=2", until=lambda: [*Path("results").rglob("checkpoint.pt")]
    )
    assert code == 130, written
    assert written.splitlines()[-1] == "icsbench: interrupted; the same command goes on where it stopped"
    assert "Traceback" not in written
    assert re.search(r"\n0 of 1 runs, .* so far", re.sub(r"\x1b\[[\d;]*[mAK]", "", written))
    assert written.rpartition("\x1b[?25")[2][0] == "h"  # the cursor is there
    assert not [*Path("results").rglob("reports")]
    stopped = {path.name for path in run_dir().iterdir()}
    assert stopped >= {"config.yaml", "environment.json", "metrics.jsonl", "checkpoint.pt", "timing.json"}
    assert not stopped & {"summary.json", "failure.json"}
    assert invoke(*arguments, "hydra/launcher=basic").code == 0
    gone_on = content(run_dir())
    shutil.rmtree("results")
    assert invoke(*arguments, "hydra/launcher=basic").code == 0
    assert content(run_dir()) == gone_on


def test_runs_in_a_log_have_a_line_each_and_leave_nothing_behind():
    done = invoke("sweep", *TINY, "norm=none,bn", "hydra.launcher.n_jobs=1")
    assert done.code == 0, done.err
    *runs, counts = done.err.splitlines()
    assert sorted(line.split(":")[0] for line in runs) == ["bn lr 0.1 seed 0", "none lr 0.1 seed 0"]
    assert re.fullmatch(r"2 of 2 runs(, \d diverged)?, \d+ s so far", counts)
    assert [path.name for path in Path("results").iterdir()] == ["single"]


def test_a_pool_of_one_process_shows_the_display_and_keeps_its_lines():
    code, written = on_a_terminal("sweep", *TINY, "norm=none,bn", "hydra.launcher.n_jobs=1")
    assert code == 0, written
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)
    assert re.search(r"single +━+ +[01]/2", plain) and "2 of 2 runs" in plain.splitlines()[-1]
    assert len(re.findall(r"(?:bn|none) lr 0.1 seed 0: .*; record results/single/", plain.replace("\r\n", ""))) >= 1
    assert len(run_dirs()) == 2


def test_a_bar_of_one_training(monkeypatch):
    config = composed(["norm=bn", "steps=200"])
    with bar(config) as tell:
        assert tell is None  # no terminal here
    out = io.StringIO()
    monkeypatch.setattr("icsbench.app.display.on_terminal", lambda: True)
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("icsbench.app.display.Console", lambda **_: console)
    times = iter([0.0, 10.0, 25.0])
    monkeypatch.setattr("icsbench.app.display.time.monotonic", lambda: next(times))
    with bar(config) as tell:
        assert tell is not None
        tell(Seen(50, 200, 1.5, 0.25, 100.0))
        tell(Seen(100, 200, 1.25, 0.75, 100.0))
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "\n", out.getvalue()).splitlines()]
    assert any(re.fullmatch(r"bn lr 0.1 seed 0 .* step 0/200 +", f"{line} ") for line in lines)
    assert any(line.endswith("step 50/200  25.0%") for line in lines)
    assert any(line.endswith("step 100/200  75.0%  30 s left") for line in lines)  # 50 steps took 15 s
