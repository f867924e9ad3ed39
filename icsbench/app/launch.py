"""The Hydra application behind ``icsbench train`` and ``icsbench sweep``."""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from icsbench import terminal
from icsbench.app.compose import check_sweep, prepare_hydra
from icsbench.app.errors import asking_hydra
from icsbench.app.folders import CONFIG_DIR
from icsbench.app.overrides import as_typed
from icsbench.app.progress import ending, failing, in_all, say, who
from icsbench.app.reports import printing_to
from icsbench.app.runs import make
from icsbench.app.watching import watching
from icsbench.config import resolve
from icsbench.errors import IcsbenchError
from icsbench.record.schema import VAL_ACCURACY
from icsbench.record.writer import folder_of

_SHOWING = {"-c", "--cfg", "-h", "--help", "--hydra-help", "-i", "--info", "-sc", "--shell-completion", "--version"}

failures: list[str] = []
"""Error lines of the jobs that failed, gathered by :func:`launch`."""
_planned: dict[str, int | None] = {}
_watched = contextlib.ExitStack()


@hydra.main(config_path=str(CONFIG_DIR), config_name="train", version_base="1.3")
def task(composed: DictConfig) -> float | None:
    """Make one run; return the validation accuracy that a sweeper may maximise (None of a lab, or where it failed)."""
    hydra_config = HydraConfig.get()
    multirun = hydra_config.mode == RunMode.MULTIRUN
    in_pool = multirun and "joblib" in hydra_config.launcher["_target_"].lower()
    if in_pool:
        terminal.prepare()
    config, reports = None, _reports(hydra_config) if multirun else None
    try:
        config = resolve(composed)
        with printing_to(reports if in_pool else None):
            summary = make(config, in_pool=in_pool, reports=reports)
            say(f"{who(config)}: {ending(summary)}; record {folder_of(config)}")
    except IcsbenchError as error:
        line = str(error) if config is None else failing(error, config)
        if not multirun:
            failures.append(line)
            return None
        job = f"{' '.join(hydra_config.overrides.task)}: {line}"
        error_file = Path(hydra_config.sweep.dir) / f"{hydra_config.job.num}.error"
        error_file.write_text(job, encoding="utf-8", errors="surrogateescape")
        return None
    return next(iter(summary.get(VAL_ACCURACY, {}).values()), None)


def _reports(hydra_config: Any) -> Path:
    """Where the jobs of a sweep tell how they get on, whatever machine they are on."""
    return Path(hydra_config.sweep.dir) / "reports"


class SweepOutcome(Callback):
    """Watches a sweep, gathers the error lines of its jobs, whatever process ran them, and tidies up behind it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Show how the jobs get on, until :func:`launch` or the end of the sweep says that it is over.

        Where the folder cannot be written, the jobs say so.
        """
        with contextlib.suppress(OSError):
            _watched.enter_context(watching(_planned, _reports(config.hydra)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Read what the failed jobs left in the sweep's folder; remove the folder where there is nothing to keep."""
        _watched.close()
        folder = Path(config.hydra.sweep.dir)
        left = sorted(folder.glob("*.error"), key=lambda path: int(path.stem))
        failures.extend(path.read_text(encoding="utf-8", errors="surrogateescape") for path in left)
        if not left:
            (folder / "multirun.yaml").unlink(missing_ok=True)
            for empty in [*(path for path in folder.iterdir() if path.is_dir()), folder, folder.parent]:
                with contextlib.suppress(OSError):  # what a launcher left there stays
                    empty.rmdir()


def launch(arguments: list[str]) -> None:
    """Hand ``arguments`` (overrides and Hydra flags) to Hydra, as if they had been typed behind its own command.

    Of a sweep (with ``hydra.mode=MULTIRUN``) every value is checked before the first job starts.

    :raises IcsbenchError: the arguments or a job failed; one line per failed job.
    """
    failures.clear()
    _planned.clear()
    argv = sys.argv
    with asking_hydra():
        prepared = as_typed(arguments)
        flags = {argument.partition("=")[0] for argument in prepared if argument.startswith("-")}
        if "hydra.mode=MULTIRUN" in prepared:
            if not flags:
                _planned.update(check_sweep(prepared))
            if not flags & _SHOWING:
                prepared.append("--multirun")  # Hydra takes a mode that it cannot compose for that of a single run
        # Hydra finds overrides only where they stand side by side, so the flags (and their values) go behind them.
        sys.argv = ["icsbench", *sorted(prepared, key=lambda a: a.startswith("-") or not re.match(r"~|[^=]*=", a))]
        prepare_hydra()
        try:
            task()
        finally:
            _watched.close()
            sys.argv = argv
    if failures:
        raise IcsbenchError(in_all(failures))
