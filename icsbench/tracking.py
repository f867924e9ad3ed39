"""The W&B mirror of a run record: it may fail, the run may not."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from icsbench.config import Config

_INIT_TIMEOUT = 15.0
_FINISH_TIMEOUT = 60.0  # for what is still to be uploaded; all of it is on disk, where `wandb sync` finds it


class Mirror:
    """Mirrors config, metrics, histograms and summary of one run to W&B.

    One W&B run per run record: its id is the fingerprint and seed, so a resumed run goes on as the same W&B run. The
    mode auto is online where a key is configured, offline otherwise; the environment's ``WANDB_MODE`` wins over both,
    and so does ``WANDB_DISABLED``. A variable of W&B's that is empty counts as unset, and is removed.
    Whatever goes wrong with W&B is said once on stderr and never reaches training: an unreachable server or a refused
    key falls back to offline, anything later ends the mirroring.
    """

    def __init__(self, config: Config, directory: Path) -> None:
        self._run: Any = None
        for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value.strip()]:
            del os.environ[name]
        disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")
        mode = "disabled" if disabled else os.environ.get("WANDB_MODE", config.wandb.mode)
        if mode == "disabled":
            return
        try:
            import wandb

            self._wandb = wandb
            with _quiet_processes():
                failure = self._open(config, directory, mode)
        except Exception as error:
            self._warn(error, "nothing is mirrored")
        else:
            if failure is not None:
                self._warn(failure, "mirroring offline instead")

    def _open(self, config: Config, directory: Path, mode: str) -> Exception | None:
        """Start the W&B run; returns why it is offline against what was asked for, if it is."""
        try:
            self._wandb.setup(self._wandb.Settings(silent=True))
            if mode == "auto":
                mode = "online" if self._wandb.login(prompt=False, verify=False) else "offline"
            self._start(config, directory, mode)
        except Exception as error:
            if mode == "offline":
                raise
            self._wandb.teardown()  # the failed run would still hold its id
            with contextlib.suppress(Exception):
                self._start(config, directory, "offline")
                return error
            raise
        return None

    def _start(self, config: Config, directory: Path, mode: str) -> None:
        self._run = self._wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            id=f"{config.fingerprint}-{config.seed}",
            name=f"{config.run_name.removesuffix('-' + config.fingerprint)}-seed{config.seed}",
            group=f"{config.experiment}-{config.regime}",
            job_type="train",
            tags=[config.experiment, config.scale, config.regime, config.data.name],
            config=OmegaConf.to_container(OmegaConf.create(config.to_yaml())),  # pyright: ignore[reportArgumentType]
            dir=str(directory.absolute()),  # W&B writes in a process of its own, which may be elsewhere
            mode=mode,  # pyright: ignore[reportArgumentType]
            resume="allow" if mode == "online" else None,
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                init_timeout=_INIT_TIMEOUT,
                finish_timeout=_FINISH_TIMEOUT,
                disable_git=True,
            ),
        )
        # `step` is a metric like the others, so rows that a resumed run logs again are kept.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, row: dict[str, Any], histograms: dict[str, tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        """Mirror the scalars of one row of metrics, with histograms as ``{name: (counts, edges)}``."""
        if self._run is None:
            return
        try:
            drawn = {
                name: self._wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
                for name, (counts, edges) in (histograms or {}).items()
                if np.isfinite(edges).all()
            }
            scalars = {key: value for key, value in row.items() if not isinstance(value, list | tuple)}
            self._run.log({**scalars, **drawn})
        except Exception as error:
            self._warn(error, "the mirror ends here; the run record goes on")
            self._run = None

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Mirror the summary (None: the run is not complete) and close the W&B run."""
        if self._run is None:
            return
        try:
            if summary is not None:
                self._run.summary.update(summary)
            self._run.finish(exit_code=0 if summary is not None else 1)
        except Exception as error:
            self._warn(error, "the mirror may be incomplete; the run record is not")
        self._run = None

    def _warn(self, error: Exception, consequence: str) -> None:
        said = re.sub(r"\s+", " ", str(error)).strip()[:160]
        print(f"icsbench: W&B: {type(error).__name__}: {said}; {consequence}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _quiet_processes() -> Iterator[None]:
    """Start processes without a stderr: W&B's own logs to it, page after page, where it cannot write a file."""
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
