"""What a lock says of studies: the runs that their overrides compose to, and the data of those."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from icsbench.app.compose import configurations
from icsbench.app.errors import asking_hydra
from icsbench.app.folders import options
from icsbench.app.overrides import as_typed, key_of
from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.source import commit

_OF_A_PLACE = {"results", "data.root", "lab.root", "device", "threads", "checkpoint_every", "wandb", "tracker", "hydra"}


def made_with() -> dict[str, str | None]:
    """The version of icsbench, and the commit of its source where that is known."""
    from icsbench import __version__

    return {"icsbench": __version__, "commit": commit()}


def named_studies(texts: Sequence[str]) -> dict[str, list[str]]:
    """Studies with overrides of their own, as they are typed: ``"long norm=none,bn amp=true"``.

    :raises IcsbenchError: there is no such study, or it is named twice.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, *overrides = shlex.split(text) or [""]
        if name not in options("experiment"):
            raise IcsbenchError(f"--study {text!r}: no study {name!r}; there are {', '.join(options('experiment'))}")
        if name in found:
            raise IcsbenchError(f"--study {text!r}: {name} for a second time; each is given once")
        found[name] = overrides
    return found


def overrides_of(overrides: Sequence[str], own: Sequence[str]) -> list[str]:
    """The overrides of a study: its ``own`` take the place of those of all that have the same key.

    :raises IcsbenchError: one of them is the seed.
    """
    mine = {key_of(override) for override in own}
    chosen = [*(override for override in overrides if key_of(override) not in mine), *own]
    if any(key_of(override) == "seed" for override in chosen):
        raise IcsbenchError("seed=: the seeds of a lock are given by --seeds")
    return chosen


def of_any_place(overrides: Sequence[str]) -> list[str]:
    """The overrides that say what a run is, without those that say where it is run and by whom it is watched."""
    return [o for o in overrides if (key := key_of(o)) not in _OF_A_PLACE and key.split(".")[0] not in _OF_A_PLACE]


def settings_of(study: str, chosen: list[str]) -> dict[str, str | None]:
    """The folders of a study's configurations, without seeds, and the fingerprint of the data of each (None: not read).

    :raises IcsbenchError: the study cannot be configured with these overrides.
    """
    try:
        with asking_hydra():
            configs = configurations([f"experiment={study}", *as_typed(chosen)])
    except IcsbenchError as error:
        raise IcsbenchError(f"study {study}: {error}; give it overrides of its own, --study '{study} ...'") from None
    return {config.run_name: _data(config) for config in configs}


def _data(config: Config) -> str | None:
    """The fingerprint of the data where they are here: nothing is downloaded for it."""
    if not config.trains:
        return None
    root = config.data.root
    if root is not None and not (Path(root).expanduser().is_dir() and any(Path(root).expanduser().iterdir())):
        return None
    from icsbench.training.environment import dataset_of

    try:
        return dataset_of(config).fingerprint
    except IcsbenchError:
        return None
