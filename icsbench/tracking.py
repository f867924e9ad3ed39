"""The W&B mirror of a run record: it may fail, the run may not."""

import os
import re
import sys
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
    mode auto is online where a key is configured, offline otherwise; the environment's ``WANDB_MODE`` wins over both.
    Whatever goes wrong with W&B is said once on stderr and never reaches training: an unreachable server or a refused
    key falls back to offline, anything later ends the mirroring.
    """

    def __init__(self, config: Config, directory: Path) -> None:
        self._run: Any = None
        mode = os.environ.get("WANDB_MODE") or config.wandb.mode
        if mode == "disabled":
            return
        try:
            import wandb
        except Exception as error:
            self._warn(error, "nothing is mirrored")
            return
        self._wandb = wandb
        try:
            wandb.setup(wandb.Settings(silent=True))
            if mode == "auto":
                mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
            self._start(config, directory, mode)
        except Exception as error:
            if mode == "offline":
                self._warn(error, "nothing is mirrored")
                return
            try:
                wandb.teardown()  # the failed run would still hold its id
                self._start(config, directory, "offline")
            except Exception:
                self._warn(error, "nothing is mirrored")
            else:
                self._warn(error, "mirroring offline instead")

    def _start(self, config: Config, directory: Path, mode: str) -> None:
        self._run = self._wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            id=f"{config.fingerprint}-{config.seed}",
            name=f"{config.run_name.removesuffix('-' + config.fingerprint)}-seed{config.seed}",
            group=f"{config.experiment}-{config.norm.name}",
            job_type="train",
            tags=[config.experiment, config.scale, config.norm.name, config.data.name],
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
