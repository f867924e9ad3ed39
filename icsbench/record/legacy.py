"""What records of earlier versions leave unsaid. Of the modules that read records, only this one names members."""

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

DEFAULTS: dict[str, Any] = {"norm.strength": 1.0}
"""Settings that earlier records may lack, with the value that their runs had."""
