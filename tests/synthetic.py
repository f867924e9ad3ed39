"""Run records made up to order, in the format of ``icsbench.record.writer``."""

import hashlib
import json
from pathlib import Path

import numpy as np
import yaml

CONVS = [f"features.conv{number}" for number in range(1, 14)]
LAYERS = [*CONVS, "head.fc1"]
PROTOCOLS = {
    "none": ["running-off"],
    "bn": ["running-off", "recalibrated-off", "batch-off"],
    "noisy_bn": ["running-off", "recalibrated-off", "batch-off", "running-on", "recalibrated-on", "batch-on"],
    "noise": ["running-off", "running-on"],
}
PROTOCOLS |= dict.fromkeys(("l1", "l2", "linf"), PROTOCOLS["bn"])
FINAL = {"none": 0.55, "bn": 0.92, "noisy_bn": 0.88, "noise": 0.30, "l1": 0.93, "l2": 0.91, "linf": 0.84}
RATE = {"none": 900.0, "bn": 350.0, "noisy_bn": 450.0, "noise": 1500.0, "l1": 330.0, "l2": 380.0, "linf": 500.0}
SHIFT = {"none": 0.02, "bn": 0.006, "noisy_bn": 0.4, "noise": 0.5, "l1": 0.03, "l2": 0.04, "linf": 0.08}
WIDE = {"bn": 1.0, "noisy_bn": 1.5, "noise": 4.0, "l1": 1.2, "l2": 0.9, "linf": 0.4}
FINAL_LOSS = {"none": 1.7e3, "bn": 4.8e2, "l1": 1e2, "l2": 4.5e2, "linf": 1e3}

# Options of write_run and write_study for the other networks.
MLP = {
    "experiment": "sigmoid_mlp",
    "model": {"name": "mlp", "depth": 3, "units": 100, "init": "gaussian", "init_std": 0.1},
    "batch_size": 60,
    "data": "mnist",
    "label": "MNIST, binary",
    "layers": [f"fc{number}" for number in range(1, 5)],
    "channels": [100, 100, 100, 10],
}
DLN = {
    "experiment": "deep_linear",
    "model": {"name": "dln", "depth": 25, "units": 10, "init": "glorot"},
    "batch_size": 1000,
    "lr": 1e-6,
    "data": "gaussian",
    "label": "Gaussian, 1,000 x 10, redrawn for each seed",
    "layers": [f"fc{number}" for number in range(1, 26)],
    "channels": [10] * 25,
    "regression": True,
}
TEST_DROP = {"running-off": 0.15, "recalibrated-off": 0.13, "batch-off": 0.14}


def probe_steps(steps, every=100):
    pairs = [t for end in range(every, steps + 1, every) for t in (end - 1, end)]
    return sorted({t for t in [0, 1, 2, 4, 8, 16, 32, 64, *pairs] if t <= steps})


def write_run(
    root,
    regime="bn",
    seed=0,
    *,
    steps=2000,
    lr=0.1,
    experiment="three_regimes",
    scale="cpu",
    data="cifar10",
    label="CIFAR-10 (JPEG copy)",
    width=0.25,
    norm=None,
    outcome="trained",
    diverged_at=None,
    finished=True,
    probes=True,
    final=None,
    layers=LAYERS,
    log_every=10,
    eval_every=100,
    probe_every=100,
    model=None,
    batch_size=128,
    channels=None,
    regression=False,
    updates=(),
    update_every=10,
    alphas=(0.5, 1.0, 2.0, 3.0, 4.0),
    look=None,
    network=None,
    factors=None,
):
    """Write one run directory and return its path; everything is a function of the arguments.

    A regime that is none of ``PROTOCOLS`` trains as bn does. ``look``, ``network``, ``factors``: what later records say
    of their regime, model and study.
    """
    model = model or {"name": "vgg16", "width": width, "head": "linear", "init": "glorot"}
    rng = np.random.default_rng([seed, *regime.encode(), int(lr * 1e4)])
    norm = {"name": regime, **(norm or {})}
    tail = "-".join(f"{key}{value}" for key, value in norm.items() if key != "name")
    name = f"{regime}{tail and '-' + tail}-{model['name']}-w{width:g}-{data}-lr{lr:g}-{steps}-{scale}"
    path = Path(root) / experiment / name / f"seed-{seed}"
    path.mkdir(parents=True)
    config = {
        "experiment": experiment,
        "scale": scale,
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
        "data": {"name": data, "root": None, "val_size": 5000, "flip": False, "crop": False},
        "model": model,
        "norm": norm,
        "optim": {"lr": lr, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"},
        "probes": {"shift": probes},
    }
    if factors is not None:
        config["study"] = {"factors": factors}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {
        "icsbench": "0.1.0",
        "python": "3.11",
        "torch": "2.6",
        "commit": "0" * 40,
        "device": "cpu",
        "threads": 1,
        "machine": "none",
        "data": {
            "name": data,
            "label": label,
            "fingerprint": hashlib.sha256(label.encode()).hexdigest(),
            "num_classes": None if regression else 10,
            "train": 45000,
            "val": 5000,
            "test": 10000,
        },
    }
    environment |= {key: said for key, said in (("regime", look), ("model", network)) if said is not None}
    (path / "environment.json").write_text(json.dumps(environment))

    like = regime if regime in PROTOCOLS else "bn"
    final = FINAL[like] if final is None else final
    final = 0.1 if outcome == "chance" else final + 0.02 * rng.standard_normal()
    rate = RATE[like] * np.exp(0.1 * rng.standard_normal()) * steps / 2000

    def accuracy(step, noise):
        value = 0.1 + (final - 0.1) * (1 - np.exp(-step / rate)) + noise * rng.standard_normal()
        return float(np.clip(value, 0.0, 1.0))

    end = steps if diverged_at is None else min(steps, diverged_at)
    rows = []
    for step in range(0, end + 1):
        if step and step % log_every == 0:
            train = accuracy(step, 0.015)
            rows.append({"step": step, "train/loss": 2.5 * (1 - train), "train/accuracy": train, "lr": lr})
            if regression:
                loss = FINAL_LOSS[regime] + 5e4 * np.exp(-step / rate)
                blown_up = 1.0 if diverged_at is None else 10.0 ** max(0, 20 - (diverged_at - step) / log_every)
                del rows[-1]["train/accuracy"]
                rows[-1]["train/loss"] = float(loss * blown_up * np.exp(0.1 * rng.standard_normal()))
        if step and not regression and (step % eval_every == 0 or step == steps):
            row = {"step": step, "test/accuracy": 0.85 * accuracy(step, 0.01)}
            if regime == "noisy_bn":
                row["test/accuracy/batch-on"] = row["test/accuracy"] * 0.95
                row["test/accuracy"] *= 0.45 * (1 + 0.1 * rng.standard_normal())
            rows.append(row)
    if probes:
        rows += _write_probes(
            path, like, [t for t in probe_steps(steps, probe_every) if t <= end], layers, rng, channels
        )
    if updates:
        loss = FINAL_LOSS[regime] if regression else 2.5 * (1 - final)
        at = range(0, end, update_every)
        rows += _write_updates(path, updates, regime, at, layers, seed, lr, alphas, loss, rate, regression)
    rows.sort(key=lambda row: row["step"])
    if diverged_at is not None:
        rows.append({"step": end, "train/loss": float("nan"), "train/accuracy": 0.1, "lr": lr})
        if regression:
            del rows[-1]["train/accuracy"]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished and regression:
        last = [row["train/loss"] for row in rows if "train/loss" in row][-1]
        summary = {"status": "complete", "outcome": outcome, "diverged_at": diverged_at, "steps": steps}
        summary |= {"train/loss": last, "test/accuracy": {}, "val/accuracy": {}}
        (path / "summary.json").write_text(json.dumps(summary))
    elif finished:
        trained = [row["train/accuracy"] for row in rows if "train/accuracy" in row]
        test = 0.1 if outcome != "trained" else 0.85 * final
        drop = {protocol: TEST_DROP.get(protocol, 0.05) * rng.random() for protocol in PROTOCOLS[like]}
        if regime == "noisy_bn":
            drop["running-off"] = 0.55
        summary = {
            "status": "complete",
            "outcome": outcome,
            "diverged_at": diverged_at,
            "left_chance_at": None if outcome == "chance" else 20,
            "steps": steps,
            "train/loss": float("nan") if outcome == "diverged" else 2.5 * (1 - trained[-1]),
            "train/accuracy": trained[-1],
            "test/accuracy": {protocol: test * (1 - drop[protocol]) for protocol in PROTOCOLS[like]},
            "val/accuracy": {protocol: test * (1 - drop[protocol]) for protocol in PROTOCOLS[like]},
        }
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def _write_probes(path, regime, steps, layers, rng, channels):
    folder = path / "probes" / "shift"
    folder.mkdir(parents=True)
    entries = [
        {"layer": layer, "depth": depth, "input_channels": 16, "channels": channels[depth - 1] if channels else 32}
        for depth, layer in enumerate(layers, 1)
    ]
    (folder / "layers.json").write_text(json.dumps(entries))
    rows, previous = [], None
    for step in steps:
        row = {"step": step}
        if previous is not None:
            row["shift/interval"] = step - previous
            for depth, layer in enumerate(layers, 1):
                scale = SHIFT[regime] * (1 + depth / 6) * np.exp(0.25 * rng.standard_normal())
                now = scale * np.sqrt(step - previous) / (1 + step / 700)
                start = 6 * scale * np.log1p(step / 10)
                for prefix in ("", "input_"):
                    for name, value in (("mean", 1.0), ("variance", 1.6), ("w1", 1.1)):
                        row[f"shift/{layer}/{prefix}{name}"] = now * value
                        row[f"shift/{layer}/{prefix}{name}_from_start"] = start * value
                        if name != "w1":
                            row[f"shift/{layer}/{prefix}{name}_raw"] = 2 * now * value**2
                            row[f"shift/{layer}/{prefix}{name}_from_start_raw"] = 2 * start * value**2
        rows.append(row)
        arrays = _arrays(regime, step, len(layers), rng)
        if channels:
            arrays["quantiles_preactivation"] = _quantiles(regime, step, sum(channels), rng)
        np.savez(folder / f"step-{step:08d}.npz", **arrays)
        previous = step
    return rows


def _write_updates(path, updates, regime, steps, layers, seed, lr, alphas, final, rate, regression):
    """Rows of the ICS and the landscape; a network whose final loss is that of chance has next to none of either."""
    rng = np.random.default_rng([seed, *regime.encode(), 7])
    if "ics" in updates:
        (path / "probes" / "ics").mkdir(parents=True)
        entries = [{"layer": layer, "depth": depth} for depth, layer in enumerate(layers, 1)]
        (path / "probes" / "ics" / "layers.json").write_text(json.dumps(entries))
    stuck, rows = final > 2.2 and not regression, []
    multiples = np.array(alphas)
    for step in steps:
        row, late = {"step": step}, 1 - np.exp(-step / rate)
        wild = 9 * np.exp(-3 * step / rate) if regression and regime == "none" else 0.0
        sharp = {"none": 0.5, "bn": 0.08}.get(regime, 0.15) * np.exp(0.3 * rng.standard_normal())
        if stuck:
            sharp *= 1e-5
        loss = final + (5e4 if regression else 2.3) * (1 - late)
        loss = 2.302 + 1e-4 * rng.standard_normal() if stuck else loss * np.exp(0.1 * rng.standard_normal())
        gradient = (1e-3 if stuck else 3e-2 / lr) * np.sqrt(loss) * np.exp(0.2 * rng.standard_normal())
        if "landscape" in updates:
            beta = (1e-2 if stuck else 2 * (0.2 + 0.8 * late)) / lr * 10**wild * np.exp(0.1 * rng.standard_normal())
            shape = np.exp(0.1 * rng.standard_normal(len(alphas))) / (1 + 0.3 * multiples)
            difference = beta * gradient * lr * multiples * shape
            row["landscape/loss"] = float(loss)
            row["landscape/gradient_norm"] = float(gradient)
            row["landscape/alphas"] = (lr * multiples).tolist()
            row["landscape/losses"] = (loss * (1 + 10**wild * sharp * (multiples - 1) ** 2)).tolist()
            row["landscape/gradient_differences"] = difference.tolist()
            row["landscape/beta"] = float((difference / (lr * multiples * gradient)).max())
        for depth, layer in enumerate(layers if "ics" in updates else [], 1):
            norm = gradient / np.sqrt(len(layers)) * np.exp(0.2 * rng.standard_normal())
            angle = {"none": 0.6, "bn": 1.3}.get(regime, 1.1) * (1.9 if regression else 1) * (0.3 + 0.7 * late)
            angle *= (1e-4 if stuck else np.exp(0.2 * rng.standard_normal())) * (depth > 1)
            row |= {
                f"ics/{layer}/l2": float(norm * 2 * np.sin(min(angle, 3.0) / 2)),
                f"ics/{layer}/relative": float(2 * np.sin(min(angle, 3.0) / 2)),
                f"ics/{layer}/cosine": float(np.cos(min(angle, 3.0))),
                f"ics/{layer}/gradient_norm": float(norm),
                f"ics/{layer}/weight_norm": float(3 + depth + (5 * late if regime != "none" else 0)),
            }
        rows.append(row)
    return rows


def _arrays(regime, step, layers, rng):
    arrays = {}
    base_counts, base_edges = np.histogram(np.random.default_rng(0).standard_t(6, 20_000), bins=64)
    for place in ("input", "preactivation"):
        arrays[f"mean_{place}"] = rng.standard_normal(32 * layers)
        arrays[f"variance_{place}"] = rng.random(32 * layers)
        arrays[f"quantiles_{place}"] = rng.standard_normal((3, 32 * layers))
        counts, edges = [], []
        for depth in range(1, layers + 1):
            wide = WIDE.get(regime, 0.5 + 2.5 * (1 - np.exp(-step / 400)))
            shift = -wide * 0.8 * (1 - np.exp(-step / 300)) * depth / layers
            if regime.startswith("nois"):
                shift += 0.7 * rng.standard_normal()
            counts.append(rng.poisson(base_counts))
            edges.append(shift + wide * base_edges)
        arrays[f"histogram_counts_{place}"] = np.array(counts)
        arrays[f"histogram_edges_{place}"] = np.array(edges)
    return arrays


def _quantiles(regime, step, units, rng):
    """Percentiles of units of which each goes its own way: far in regime none, little in the others."""
    own = np.random.default_rng(units).standard_normal((2, units))
    far, late = (3.0, 600.0) if regime == "none" else (0.5, 150.0)
    way = far * (1 - np.exp(-step / late))
    middle = way * own[0] + 0.05 * rng.standard_normal(units)
    return middle + np.array([[-1.0], [0.0], [1.0]]) * (0.6 + 0.5 * way * np.abs(own[1]))


def write_lab(root, lab="walk", seed=0, *, experiment="walks", label=None, factors=None, finished=True, **options):
    """Write the record of one run of a lab without data, a row for each of ten steps; returns its path."""
    tail = "-".join(f"{key}{value}" for key, value in options.items())
    path = Path(root) / experiment / f"{lab}-{tail}" / f"seed-{seed}"
    path.mkdir(parents=True)
    config = {
        "experiment": experiment,
        "scale": "demo",
        "seed": seed,
        "lab": {"name": lab, **options},
        "study": {"factors": factors or {}},
        "steps": 300 + seed,  # of a training, which the lab has none of
        "norm": {"name": "bn"},
        "optim": {"lr": 0.1},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"icsbench": "0.1.0", "commit": "0" * 40, "torch": "2.6", "machine": "none", "threads": 1}
    (path / "environment.json").write_text(
        json.dumps(environment | ({} if label is None else {"lab": {"label": label}}))
    )
    rows = [{"step": step, "walk/distance": float(step + seed)} for step in range(10)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (path / "summary.json").write_text(json.dumps({"status": "complete", "outcome": "complete"}))
    return path


def write_study(root, regimes=("none", "bn", "noisy_bn"), seeds=6, **options):
    """Write ``seeds`` runs of each regime and return their paths."""
    return [write_run(root, regime, seed, **options) for regime in regimes for seed in range(seeds)]
