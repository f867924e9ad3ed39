"""What records of earlier versions leave unsaid. Of the modules that read records, only this one names members."""

from typing import Any

FORMER_KEYS = {
    "model": ("width", "head", "head_norm", "depth", "units", "init", "init_std"),
    "norm": ("eps", "momentum", "n_mu", "n_sigma", "r_mu", "r_sigma", "strength"),
}
"""By group, the keys that every ``config.yaml`` once held, whether the chosen member took them or not."""


def former_run(identity: dict[str, Any], scale: str) -> tuple[dict[str, Any], str] | None:
    """What an earlier version took the fingerprint of this run over, and what it called the network.

    There, every network had the width of its scale, also one that does not use it. None where nothing was otherwise.
    """
    network, width = identity.get("model.name"), {"demo": 0.125, "cpu": 0.25}.get(scale)
    if width is None or network not in ("mlp", "dln"):
        return None
    return {**identity, "model.width": width}, f"{network}-w{width:g}"
