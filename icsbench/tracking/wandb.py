"""The W&B mirror of a run record."""

import contextlib
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from icsbench.config import Config
from icsbench.tracking.mirror import Histograms, Mirror, quiet_processes

_INIT_TIMEOUT = 15.0
_FINISH_TIMEOUT = 60.0  # for what is still to be uploaded; all of it is on disk, where `wandb sync` finds it


class Tracker(Mirror):
    """Mirrors one run to W&B, where a sweep is one group, and its regimes are the job types in it.

    One W&B run per run record: its id is the fingerprint and seed, so a resumed run goes on as the same W&B run. The
    mode auto is online where a key is configured, offline otherwise; the environment's ``WANDB_MODE`` wins over both,
    and so does ``WANDB_DISABLED``. An unreachable server or a refused key falls back to offline.
    """

    label = "W&B"

    def _open(self, config: Config, directory: Path) -> bool:
        drop_empty_variables()
        disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")
        mode = "disabled" if disabled else os.environ.get("WANDB_MODE", config.wandb.mode)
        if mode == "disabled":
            return False
        import wandb

        self._wandb = wandb
        self._hidden: set[str] = set()
        with quiet_processes():
            failure = self._connect(config, directory, mode)
        if failure is not None:
            self._warn(failure, "mirroring offline instead")
        return True

    def _connect(self, config: Config, directory: Path, mode: str) -> Exception | None:
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
            group=config.experiment,
            job_type=config.regime,
            tags=[config.experiment, config.scale, config.regime, config.data.name],
            config=OmegaConf.to_container(OmegaConf.create(config.to_yaml())),  # pyright: ignore[reportArgumentType]
            dir=str(directory.absolute()),  # W&B writes in a process of its own, which may be elsewhere
            mode=mode,  # pyright: ignore[reportArgumentType]
            resume="allow" if mode == "online" else None,
            settings=settings(),
        )
        # `step` is a metric like the others, so rows that a resumed run logs again are kept.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def _log(self, scalars: dict[str, Any], histograms: Histograms) -> None:
        for key in scalars.keys() - self._hidden:
            if key.startswith("shift/"):  # no panel for each layer: the summary has one chart of all layers
                self._run.define_metric(key, step_metric="step", hidden=True)
                self._hidden.add(key)
        drawn = {
            name: self._wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
            for name, (counts, edges) in histograms.items()
        }
        self._run.log({**scalars, **drawn})

    def _finish(self, summary: dict[str, Any] | None) -> None:
        if summary is not None:
            self._run.summary.update(summary)
        self._run.finish(exit_code=0 if summary is not None else 1)


def drop_empty_variables() -> None:
    """Remove variables of W&B's that are empty: they count as unset."""
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value.strip()]:
        del os.environ[name]


def settings() -> Any:
    """Settings of a W&B run that is silent, and waits for a server only so long; new ones for each run."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        x_disable_stats=True,
        init_timeout=_INIT_TIMEOUT,
        finish_timeout=_FINISH_TIMEOUT,
        disable_git=True,
    )
