"""Sealed records of the lab of large steps with values that were put there."""

import json
from pathlib import Path

from planted import finish
from synthetic import write_lab

from icsbench.record.legacy import LOOKS
from icsbench.record.strict_json import dumps

ALPHAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
PLAIN = {"divergence": 1.0, "growth": 0.0, "share": 0.6, "commonest": 0.4, "gradient": 1.0}
VALUES = {
    "resnet110": {
        "none": PLAIN | {"divergence": 1e-3, "growth": 0.05, "share": 0.97, "commonest": 1.0},
        "bn": PLAIN,
    },
    "vgg16": {"none": PLAIN, "bn": PLAIN},
}
"""What each network has with each norm, so that every claim is supported."""


def study(root, models=("resnet110", "vgg16"), seeds=6, **planted):
    """Write the runs of the study; ``planted``: values by network and norm that differ from ``VALUES``."""
    for model in models:
        for norm, values in VALUES[model].items():
            for seed in range(seeds):
                run(root, model, norm, seed, **(values | planted.get(model, {}).get(norm, {})))


def run(root, model, norm, seed, *, divergence, growth, share, commonest, gradient) -> Path:
    """Write one sealed run of two batches; every value is a little larger for a larger seed."""
    training = {"model": {"name": model}, "norm": {"name": norm}, "batch_size": 64}
    options = {"batches": 2, "lowest": 1e-5, "highest": 10.0, "per_decade": 1, "key": f"{model}-{norm}"}
    path = write_lab(
        root,
        "large_steps",
        seed,
        experiment="large_steps",
        label="Large steps",
        factors={"model": [], "lab.key": []},
        training=training,
        **options,
    )
    divergence *= 1.02**seed
    rows = []
    for batch in range(2):
        about = {"batch": batch}
        for index, alpha in enumerate(ALPHAS):
            loss = 1 + 2e3 * (alpha >= divergence)
            rows.append({"step": index, "measure": "step_size", **about, "alpha": alpha, "relative_loss": loss})
        for depth in range(1, 21):
            size = 10 ** ((growth + 1e-4 * seed) * depth) * (depth > 1) + (depth == 1) * 1e-3
            layer = {"layer": f"conv{depth}", "channel_mean": size, "channel_std": 2 * size}
            rows.append({"step": depth, "measure": "layer", **about, **layer})
        for number in range(10):
            shares = {"sign_share": 0.9, "sign_share_by_size": share + 1e-3 * seed}
            rows.append({"step": number, "measure": "class", **about, **shares})
        whole = {"loss": 2.3, "gradient_norm": gradient, "weight_norm": 1.0, "common": 0.1, "useful_step": 1e-4}
        whole |= {"commonest_prediction": commonest - 1e-3 * seed, "divergence_step": divergence}
        rows.append({"step": batch, "measure": "batch", **about, **whole})
    (path / "metrics.jsonl").write_text("".join(dumps(row) + "\n" for row in rows))
    environment = json.loads((path / "environment.json").read_text())
    look = LOOKS[norm] | {"linestyle": "-"}
    data = {"label": "Planted images", "num_classes": 10, "fingerprint": "0" * 16}
    network = {"label": model, "units": False, "scales": {}}
    environment |= {"regime": look, "data": data, "model": network}
    (path / "environment.json").write_text(json.dumps(environment))
    finish(path, {"status": "complete", "outcome": "complete", "rows": len(rows)})
    return path
