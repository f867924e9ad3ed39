"""Sealed records of the lab of large steps with values that were put there."""

import json
from pathlib import Path

from planted import finish
from synthetic import write_lab

from icsbench.record.legacy import LOOKS
from icsbench.record.strict_json import dumps

ALPHAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
PLAIN = {"divergence": 1.0, "growth": 0.0, "share": 0.6, "commonest": 0.4}
VALUES = {
    "none": PLAIN | {"divergence": 1e-3, "growth": 0.05, "share": 0.97, "commonest": 1.0},
    **dict.fromkeys(("bn", "skipinit", "fixup"), PLAIN),
}
"""What the residual network has with each norm, so that every claim is supported; the plain one has ``PLAIN``."""


def study(root, norms=tuple(VALUES), seeds=6, plain=None, **planted):
    """Write the runs of both studies; ``planted``: values by norm that differ from ``VALUES``, ``plain`` likewise."""
    for seed in range(seeds):
        for norm in norms:
            run(root, "large_steps", norm, seed, **(VALUES[norm] | planted.get(norm, {})))
        for norm in ("none", "bn"):
            run(root, "large_steps_plain", norm, seed, **(PLAIN | (plain or {}).get(norm, {})))


def run(root, experiment, norm, seed, *, divergence, growth, share, commonest) -> Path:
    """Write one sealed run of two batches; every value is a little other for another seed."""
    training = {"model": {"name": experiment}, "norm": {"name": norm}, "batch_size": 64}
    options = {"factors": {"lab.key": []}, "training": training, "batches": 2, "key": norm}
    path = write_lab(root, "large_steps", seed, experiment=experiment, **options)
    divergence *= 1.02 ** (seed if norm != "none" else 0)
    rows = []
    for batch in range(2):
        about = {"batch": batch}
        for index, alpha in enumerate(ALPHAS):
            loss = 1 + 2e3 * (alpha >= divergence)
            rows.append({"step": index, "measure": "step_size", **about, "alpha": alpha, "relative_loss": loss})
        for depth in range(1, 21):
            size = 1e-3 if depth == 1 else 10 ** ((growth + 1e-4 * seed) * depth)
            layer = {"layer": f"conv{depth}", "channel_mean": size, "channel_std": 2 * size}
            rows.append({"step": depth, "measure": "layer", **about, **layer})
        for number in range(10):
            shares = {"sign_share": 0.9, "sign_share_by_size": share + 1e-3 * seed}
            rows.append({"step": number, "measure": "class", **about, **shares})
        whole = {"loss": 2.3, "gradient_norm": 1.0, "weight_norm": 1.0, "common": 0.1, "useful_step": 1e-4}
        whole |= {"commonest_prediction": commonest - 1e-3 * seed, "divergence_step": divergence}
        rows.append({"step": batch, "measure": "batch", **about, **whole})
    (path / "metrics.jsonl").write_text("".join(dumps(row) + "\n" for row in rows))
    environment = json.loads((path / "environment.json").read_text())
    environment |= {"data": {"label": "Planted images", "num_classes": 10, "fingerprint": "0" * 16}}
    environment |= {"model": {"label": "Planted network", "units": False, "scales": {}}}
    environment |= {"regime": LOOKS.get(norm, {"label": norm}) | {"linestyle": "-"}}
    (path / "environment.json").write_text(json.dumps(environment))
    return finish(path, {"status": "complete", "outcome": "complete", "rows": len(rows)})
