"""Checkpoints: everything a run needs to go on bit-identically, in one file written atomically."""

from pathlib import Path
from typing import Any

import torch

from icsbench.atomic import write_atomically
from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.record.writer import names_of

FORMAT = 2


def save(path: Path, config: Config, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, and lists and dictionaries of them), marked as ``config``'s."""
    marked = {"format": FORMAT, "fingerprint": config.fingerprint, "seed": config.seed, **state}
    write_atomically(path, lambda file: torch.save(marked, file))


def load(path: Path, config: Config, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint of ``config``. Nothing in the file can run code (``weights_only=True``).

    :raises IcsbenchError: the file is damaged, or is not this run's.
    """
    advice = f"delete it to start this run again, or put the right one in its place: {path}"
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise IcsbenchError(f"the checkpoint is damaged or not one of icsbench's; {advice}") from error
    if not isinstance(state, dict) or "fingerprint" not in state:
        raise IcsbenchError(f"the checkpoint is not one of icsbench's; {advice}")
    if state.get("format") == 1:  # which had room for the state of one probe
        state |= {"format": FORMAT, "probes": {"shift": state["probe"]} if state.get("probe") else {}}
    if state.get("format") != FORMAT:
        raise IcsbenchError(f"the checkpoint has format {state.get('format')}, this version reads {FORMAT}; {advice}")
    fingerprints = [fingerprint for _, fingerprint in names_of(config)]
    if state["fingerprint"] not in fingerprints or state["seed"] != config.seed:
        raise IcsbenchError(
            f"the checkpoint belongs to another run ({state['fingerprint']} seed {state['seed']}, "
            f"not {config.fingerprint} seed {config.seed}); {advice}"
        )
    return state
