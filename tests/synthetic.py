"""Run records made up to order, in the format of ``icsbench.record``."""

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
FINAL = {"none": 0.55, "bn": 0.92, "noisy_bn": 0.88, "noise": 0.30}
RATE = {"none": 900.0, "bn": 350.0, "noisy_bn": 450.0, "noise": 1500.0}
SHIFT = {"none": 0.02, "bn": 0.006, "noisy_bn": 0.4, "noise": 0.5}
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
):
    """Write one run directory and return its path; everything is a function of the arguments."""
    rng = np.random.default_rng([seed, *regime.encode(), int(lr * 1e4)])
    norm = {"name": regime, **(norm or {})}
    tail = "-".join(f"{key}{value}" for key, value in norm.items() if key != "name")
    name = f"{regime}{tail and '-' + tail}-vgg16-w{width:g}-{data}-lr{lr:g}-{steps}-{scale}"
    path = Path(root) / experiment / name / f"seed-{seed}"
    path.mkdir(parents=True)
    config = {
        "experiment": experiment,
        "scale": scale,
        "seed": seed,
        "steps": steps,
        "batch_size": 128,
        "data": {"name": data, "root": None, "val_size": 5000, "flip": False, "crop": False},
        "model": {"name": "vgg16", "width": width, "head": "linear", "init": "glorot"},
        "norm": norm,
        "optim": {"lr": lr, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"},
        "probes": {"shift": probes},
    }
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
            "num_classes": 10,
            "train": 45000,
            "val": 5000,
            "test": 10000,
        },
    }
    (path / "environment.json").write_text(json.dumps(environment))

    final = FINAL[regime] if final is None else final
    final = 0.1 if outcome == "chance" else final + 0.02 * rng.standard_normal()
    rate = RATE[regime] * np.exp(0.1 * rng.standard_normal()) * steps / 2000

    def accuracy(step, noise):
        value = 0.1 + (final - 0.1) * (1 - np.exp(-step / rate)) + noise * rng.standard_normal()
        return float(np.clip(value, 0.0, 1.0))

    end = steps if diverged_at is None else min(steps, diverged_at)
    rows = []
    for step in range(0, end + 1):
        if step and step % log_every == 0:
            train = accuracy(step, 0.015)
            rows.append({"step": step, "train/loss": 2.5 * (1 - train), "train/accuracy": train, "lr": lr})
        if step and (step % eval_every == 0 or step == steps):
            row = {"step": step, "test/accuracy": 0.85 * accuracy(step, 0.01)}
            if regime == "noisy_bn":
                row["test/accuracy/batch-on"] = row["test/accuracy"] * 0.95
                row["test/accuracy"] *= 0.45 * (1 + 0.1 * rng.standard_normal())
            rows.append(row)
    if probes:
        rows += _write_probes(path, regime, [t for t in probe_steps(steps, probe_every) if t <= end], layers, rng)
    rows.sort(key=lambda row: row["step"])
    if diverged_at is not None:
        rows.append({"step": end, "train/loss": float("nan"), "train/accuracy": 0.1, "lr": lr})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        trained = [row["train/accuracy"] for row in rows if "train/accuracy" in row]
        test = 0.1 if outcome != "trained" else 0.85 * final
        drop = {protocol: TEST_DROP.get(protocol, 0.05) * rng.random() for protocol in PROTOCOLS[regime]}
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
            "test/accuracy": {protocol: test * (1 - drop[protocol]) for protocol in PROTOCOLS[regime]},
            "val/accuracy": {protocol: test * (1 - drop[protocol]) for protocol in PROTOCOLS[regime]},
        }
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def _write_probes(path, regime, steps, layers, rng):
    folder = path / "probes" / "shift"
    folder.mkdir(parents=True)
    entries = [
        {"layer": layer, "depth": depth, "input_channels": 16, "channels": 32} for depth, layer in enumerate(layers, 1)
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
        np.savez(folder / f"step-{step:08d}.npz", **_arrays(regime, step, len(layers), rng))
        previous = step
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
            wide = {"none": 0.5 + 2.5 * (1 - np.exp(-step / 400)), "bn": 1.0, "noisy_bn": 1.5, "noise": 4.0}[regime]
            shift = -wide * 0.8 * (1 - np.exp(-step / 300)) * depth / layers
            if regime.startswith("nois"):
                shift += 0.7 * rng.standard_normal()
            counts.append(rng.poisson(base_counts))
            edges.append(shift + wide * base_edges)
        arrays[f"histogram_counts_{place}"] = np.array(counts)
        arrays[f"histogram_edges_{place}"] = np.array(edges)
    return arrays


def write_study(root, regimes=("none", "bn", "noisy_bn"), seeds=6, **options):
    """Write ``seeds`` runs of each regime and return their paths."""
    return [write_run(root, regime, seed, **options) for regime in regimes for seed in range(seeds)]
