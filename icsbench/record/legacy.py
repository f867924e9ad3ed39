"""What records of earlier versions leave unsaid. Of the modules that read records, only this one names members."""

from fractions import Fraction
from typing import Any

LOOKS: dict[str, dict[str, Any]] = {
    "none": {"label": "Standard", "order": 0, "color": "#D55E00", "linestyle": "-", "marker": "o"},
    "bn": {"label": "Standard + BatchNorm", "order": 1, "color": "#0072B2", "linestyle": (0, (5, 1.2)), "marker": "s"},
    "noisy_bn": {
        "label": "Standard + 'Noisy' BatchNorm",
        "order": 2,
        "color": "#009E73",
        "linestyle": (0, (5, 1.2, 1.2, 1.2)),
        "marker": "^",
    },
    "noise": {"label": "Standard + noise", "order": 3, "color": "#CC79A7", "linestyle": (0, (1.2, 1.2)), "marker": "D"},
    "l1": {
        "label": "Standard + ℓ₁ norm",
        "order": 4,
        "color": "#E69F00",
        "linestyle": (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)),
        "marker": "v",
    },
    "l2": {"label": "Standard + ℓ₂ norm", "order": 5, "color": "#56B4E9", "linestyle": (0, (2.5, 1.2)), "marker": "<"},
    "linf": {"label": "Standard + ℓ∞ norm", "order": 6, "color": "#000000", "linestyle": (0, (8, 2.5)), "marker": ">"},
}
"""How each norm looks in figures and tables, in their order; later records carry it in ``environment.json``."""

_DEFAULTS: dict[str, Any] = {
    "amp": False,
    "data.binary": False,
    "data.classes_per_batch": 1,
    "data.order": "reshuffle",
    "log_every": 10,
    "norm.strength": 1.0,
    "optim.growth": 1.0,
    "optim.momentum": 0.0,
    "optim.name": "sgd",
    "optim.schedule": "constant",
    "optim.train": "all",
    "optim.train_output": False,
    "optim.warmup": 0,
    "optim.warmup_shape": "linear",
    "optim.weight_decay": 0.0,
    "probes.alpha_high": 4.0,
    "probes.alpha_low": 0.5,
    "probes.alpha_points": 6,
    "probes.batch_size": 128,
    "probes.samples": 1024,
    "recalibration_batches": 40,
}
"""Settings that earlier records may lack, with the value that their runs had."""

_NETWORKS = {
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), "vgg"),
    "mlp": "mlp",
    "dln": "dln",
}
_STATISTICS = ("norm.eps", "norm.momentum")
_NOISE = ("norm.n_mu", "norm.n_sigma", "norm.r_mu", "norm.r_sigma", "norm.strength")
_NOT_TAKEN = {
    "vgg": ("model.depth", "model.units"),
    "mlp": ("model.width", "model.head", "model.head_norm"),
    "dln": ("model.width", "model.head", "model.head_norm"),
    "none": (*_STATISTICS, *_NOISE),
    **dict.fromkeys(("bn", "l1", "l2", "linf"), _NOISE),
    "noise": _STATISTICS,
}
"""Options of other networks and norms, which the config of a run held too."""

_SCALES: dict[str, dict[str, dict[str, Any]]] = {
    "vgg": {
        "demo": {"data.name": "digits", "model.width": 0.125, "batch_size": 64},
        "cpu": {"data.name": "cifar10", "model.width": 0.25, "batch_size": 128},
        "paper": {"data.name": "cifar10", "model.width": 1.0, "steps": 15_000, "batch_size": 128},
    },
    "mlp": {
        "paper": {
            "data.name": "mnist",
            "data.binary": True,
            "model.depth": 3,
            "model.units": 100,
            "steps": 50_000,
            "batch_size": 60,
        },
    },
    "dln": {"paper": {"data.name": "gaussian", "model.depth": 25, "model.units": 10, "steps": 10_000}},
}
"""What each scale stands for with a network."""


def settings(found: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training by dotted key: with those its record lacks, without those that it does not use."""
    network = _NETWORKS.get(found.get("model.name", ""), "")
    unused = {*_NOT_TAKEN.get(network, ()), *_NOT_TAKEN.get(found.get("norm.name", ""), ())}
    if (network or "model.init" in found) and found.get("model.init") != "gaussian":
        unused.add("model.init_std")
    lacking = {key: value for key, value in _DEFAULTS.items() if key not in found}
    return {key: value for key, value in (found | lacking).items() if key not in unused}


_FACTORS: dict[str, dict[str, list[str]]] = {
    "batch_size": {"batch_size": ["steps", "recalibration_batches"]},
    "amp": {"amp": []},
}
"""What the studies varied that did not declare it."""


def factors(config: dict[str, Any]) -> dict[str, list[str]]:
    """What a study varied besides norm and learning rate, with the settings that hang on it."""
    return _FACTORS.get(str(config.get("experiment")), {})


def model(settings: dict[str, Any]) -> dict[str, Any]:
    """What ``environment.json`` says of the network in later records: label, units, scales."""
    name, depth, units = (settings.get(f"model.{key}") for key in ("name", "depth", "units"))
    network = _NETWORKS.get(name or "", "")
    if network == "mlp":
        label = f"MLP, {depth} x {units} sigmoid units"
    elif network == "dln":
        label = f"deep linear network, {depth} layers of {units} x {units}"
    else:
        width = settings.get("model.width")
        size = "" if width is None else f" at width {Fraction(width).limit_denominator(64)}"
        label = (str(name).upper() if network else str(name or "?")) + size
    return {"label": label, "units": network in ("mlp", "dln"), "scales": _SCALES.get(network, {})}


def probed_under_autocast(settings: dict[str, Any], environment: dict[str, Any]) -> bool:
    """Whether probes measured in bfloat16 with ``amp``, as before ``environment.json`` stated the precision."""
    probed = any(settings.get(f"probes.{probe}") for probe in ("shift", "ics", "landscape"))
    return probed and "precision" not in environment


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
