"""Records of lab cliff with planted cliffs."""

import json

import numpy as np
from planted import finish
from synthetic import write_lab

DEPTHS = np.array([4, 8, 12, 16, 24, 32, 40, 52, 64])
LIMITS = {8: 27.529, 32: 38.096, 128: 40.834}


def planted(depth, where, scale=3.0, plateau=0.95, chance=0.1):
    return chance + (plateau - chance) / (1 + np.exp((depth - where) / scale))


def write_study(root, cliffs_of, seeds=2, networks=4, **options):
    """Two runs with networks whose cliffs (by norm and batch) differ a little from one another."""
    for seed in range(seeds):
        path = write_lab(root, "cliff", seed=seed, experiment="cliff", label="Cliff", **options)
        rows = []
        for (norm, batch), where in cliffs_of.items():
            for network in range(networks):
                moved = where * (1 + 0.01 * (networks * seed + network - 3.5))
                for depth in DEPTHS.tolist():
                    row = {
                        "step": depth,
                        "norm": norm,
                        "batch": batch,
                        "network": network,
                        "chance": 0.1,
                        "data": "Digits",
                    }
                    row["accuracy_train"] = row["accuracy_test"] = float(planted(depth, moved))
                    rows.append(row | ({"theory_cliff": LIMITS[batch]} if norm == "bn" else {}))
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        finish(path, json.loads((path / "summary.json").read_text()))
    return root


def study(bn, none):
    """Cliffs by norm and batch size: factors of 16 xi, and depths."""
    return {("bn", b): bn[b] * LIMITS[b] for b in LIMITS} | {("none", b): none for b in LIMITS}
