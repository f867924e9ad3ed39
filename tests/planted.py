"""Sealed run records in which every measure of a claim has a value that was put there."""

import json
from pathlib import Path

import numpy as np
import yaml
from synthetic import DLN, LAYERS

from icsbench.analysis.claims import all_claims
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.record.seal import SEAL, checksums
from icsbench.report.words import decided, measured

RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
MIDDLE = float(np.exp(np.log(RATES).mean()))
STRENGTHS = {0: 1e-3, 1: 0.3, 2: 0.6, 4: 1.2}
SIZES = (16, 64, 256)
FACTORS = {
    **dict.fromkeys(("normalizer_free", "normalizer_free_plain", "clipping"), "optim.wrap"),
    **dict.fromkeys(("warmup", "warmup_plain"), "optim.warmup"),
    "affine_only": "optim.train",
    **dict.fromkeys(("family_batch", "bn_variants"), "batch_size"),
}
"""The settings, norm and learning rate apart, in which the runs of a study differ."""
MLP_LAYERS = [f"fc{number}" for number in range(1, 5)]
PLAIN = {
    "reach": 200,  # step at which training accuracy jumps from chance to `train`
    "train": 0.7,
    "test": 0.6,
    "nearly_all": None,  # step from which on it is 1
    "own": 0.0,  # test accuracy with the statistics of the batch, minus with others
    "val": 0.6,
    "mean": 0.1,  # change of a moment in one step
    "variance": 0.1,
    "mean_in_units": 0.1,
    "variance_in_units": 0.1,
    "drift": 0.2,
    "relative": 0.5,
    "cosine": 0.5,
    "width": 0.3,
    "difference": 2.0,
    "gradient": 1.0,
    "beta": 10.0,
    "loss": 100.0,
    "warmup": 0,
}
STEPS = 1000


def write(
    root,
    experiment,
    regime,
    seed,
    *,
    lr=0.1,
    strength=1.0,
    batch_size=128,
    clipping=None,
    scale="cpu",
    trains="all",
    amp=False,
    **planted,
) -> Path:
    """Write one finished, sealed run; ``planted`` are values of ``PLAIN`` (a list of cosines and betas: over steps).

    ``clipping``: the threshold of adaptive gradient clipping, None without.
    """
    values = PLAIN | planted
    if {"slope", "level"} & planted.keys():
        values["beta"] = 2 / lr * planted.get("level", 1.0) * (lr / MIDDLE) ** (1 - planted.get("slope", 1.0))
    if experiment == "batch_sharpness":
        sharper = planted.get("sharp_level", 1.0) * (lr / MIDDLE) ** (1 - planted.get("sharp_slope", 1.0))
        values["sharpness"] = 2 / lr * sharper
    if {"edge", "short", "correlation"} & planted.keys():
        values |= _around_the_edge(lr, regime, planted)
    network = "dln" if experiment.startswith("dln") else "mlp" if experiment == "percentiles" else "vgg16"
    layers = {"dln": DLN["layers"], "mlp": MLP_LAYERS, "vgg16": LAYERS}[network]
    rest = ("" if trains == "all" else f"-{trains}") + ("" if clipping is None else f"-c{clipping:g}") + "-amp" * amp
    name = f"{regime}-x{strength:g}-b{batch_size}-lr{lr:g}{rest}"
    path = Path(root) / experiment / name / f"seed-{seed}"
    (path / "probes" / "shift").mkdir(parents=True)
    (path / "probes" / "ics").mkdir()
    config = {
        "experiment": experiment,
        "scale": scale,
        "seed": seed,
        "steps": STEPS,
        "log_every": 10,
        "amp": amp,
        "study": None,
        "batch_size": batch_size,
        "data": {"name": "gaussian" if network == "dln" else "cifar10"},
        "model": {"name": network, "width": 0.25},
        "norm": {"name": regime, "ghost_size" if regime == "ghost" else "strength": strength},
        "optim": {"lr": lr, "schedule": "constant", "train": trains, "warmup": values["warmup"]},
    }
    if clipping is not None:
        config["optim"]["wrap"] = {"agc": {"clipping": clipping}}
    if experiment in FACTORS:
        config["study"] = {"factors": {FACTORS[experiment]: []}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    classes = None if network == "dln" else 10
    data = {"name": "planted", "label": "planted", "fingerprint": "f" * 16, "num_classes": classes}
    (path / "environment.json").write_text(json.dumps({"data": data, "commit": "0" * 40, "torch": "2.6"}))
    entries = [{"layer": layer, "depth": depth, "channels": 4} for depth, layer in enumerate(layers, 1)]
    for folder in ("shift", "ics"):
        (path / "probes" / folder / "layers.json").write_text(json.dumps(entries))
    diverged = planted.get("diverged_at")
    rows = [_training(values, step, classes, diverged) for step in range(10, STEPS + 1, 10)]
    rows = [row for row in rows if diverged is None or row["step"] <= diverged + 10]
    end = STEPS if diverged is None else diverged
    rows += [_probed(values, step, layers) for step in range(100, end + 1, 100)]
    updates = range(0, end, 25)
    rows += [_update(values, number, step, layers, lr) for number, step in enumerate(updates)]
    rows.sort(key=lambda row: row["step"])
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in range(0, STEPS + 1, 100):
        _write_percentiles(path, step, len(layers), values["drift"])
    accuracy, validated = (0.09 if diverged else values[split] for split in ("test", "val"))  # 0.09: class 0's share
    protocols = (
        ["running-off"] if regime in ("none", "noise", "ws", "nf") else ["running-off", "recalibrated-off", "batch-off"]
    )
    trained = values["train"] >= 0.2
    summary = {
        "status": "complete",
        "outcome": "diverged" if diverged else "trained" if trained or network == "dln" else "chance",
        "diverged_at": diverged,
        "steps": STEPS,
        "train/loss": values["loss"],
        "test/accuracy": {
            protocol: accuracy + values["own"] * (protocol == "batch-off")
            for protocol in (protocols if classes is not None else [])
        },
        "val/accuracy": {} if classes is None else dict.fromkeys(protocols, validated),
    }
    if classes is not None:
        summary["train/accuracy"] = values["train"]
    return finish(path, summary)


def finish(path: Path, summary: dict) -> Path:
    """Write summary and seal of a record."""
    content = json.dumps(summary).encode()
    (path / SEAL).write_text(json.dumps(checksums(path, content)))
    (path / "summary.json").write_bytes(content)
    return path


def _training(values, step, classes, diverged):
    if diverged is not None and step > diverged:
        return {"step": step, "train/loss": float("nan")} | ({} if classes is None else {"train/accuracy": 0.09})
    row = {"step": step, "train/loss": values["loss"]}
    if classes is not None:
        row["train/accuracy"] = values["train"] if step >= values["reach"] else 0.1
        if values["nearly_all"] is not None and step >= values["nearly_all"]:
            row["train/accuracy"] = 1.0
    return row


def _probed(values, step, layers):
    row = {"step": step, "shift/interval": 1}
    for layer in layers:
        row |= {f"shift/{layer}/{moment}_raw": values[moment] for moment in ("mean", "variance")}
        row |= {f"shift/{layer}/{moment}": values[f"{moment}_in_units"] for moment in ("mean", "variance")}
    return row


def _update(values, number, step, layers, lr):
    def of(name):
        return float(values[name][number % len(values[name])] if isinstance(values[name], list) else values[name])

    loss = 2.0 * 0.95**number  # the same path for all, so that matched loss is matched step
    row = {"step": step}
    for place, layer in enumerate(layers):
        row |= {
            f"ics/{layer}/relative": of("relative") * (place > 0),
            f"ics/{layer}/l2": of("relative") * (place > 0),
            f"ics/{layer}/cosine": of("cosine") if place else 1.0,
            f"ics/{layer}/weight_norm": 1.0,
        }
    row |= {"batch_sharpness/mean": values["sharpness"]} if "sharpness" in values else {}
    return row | {
        "landscape/loss": loss,
        "landscape/gradient_norm": of("gradient"),
        "landscape/alphas": [0.5 * lr, lr],
        "landscape/losses": [loss, loss * 10 ** of("width")],
        "landscape/gradient_differences": [0.5 * of("difference"), of("difference")],
        "landscape/beta": of("beta"),
    }


def _write_percentiles(path, step, layers, drift):
    """Units whose percentiles are `drift` final ranges from the end until they get there at the last probe."""
    quantiles = np.array([[-1.0], [0.0], [1.0]]) + np.zeros(4 * layers) + 2 * drift * (step < STEPS)
    np.savez(path / "probes" / "shift" / f"step-{step:08d}.npz", quantiles_preactivation=quantiles)


# --- what to write, so that a measure has a value --------------------------------------------------------------------

Runs = dict[tuple, dict]


def _run(regime, lr=0.1, strength=1.0, batch_size=128, trains="all", amp=False):
    """The settings of a run; a regime with `` + agc`` behind it has its gradients clipped."""
    norm, _, clipped = regime.partition(" + ")
    return norm, lr, strength, batch_size, trains, 0.04 if clipped else None, amp


def _bn_over_none(name, base):
    return lambda value: {_run("bn"): {name: base * value}, _run("none"): {name: base}}


def _noisy_over_none(name):
    return lambda value: {_run("noisy_bn"): {name: 0.1 * value}, _run("none"): {name: 0.1}}


def _points(one, other, name):
    return lambda value: {_run(one): {name: 0.6 + value / 100}, _run(other): {name: 0.6}}


def _behind(one, other, name="train"):
    """As `_points`, where it is the other that moves."""
    return lambda value: {_run(one): {name: 0.6}, _run(other): {name: 0.6 - value / 100}}


def _largest_lr(one, other):
    """Which of the rates train, so that the largest of one regime is `value` times that of the other."""

    def plant(value):
        largest = {other: 0.05 if value >= 1 else 0.8, one: 0.05 * value if value >= 1 else 0.8 * value}
        return {
            _run(regime, lr): {"train": 0.6 if lr <= most * 1.01 else 0.1}
            for regime, most in largest.items()
            for lr in RATES
        }

    return plant


def _warmed(other):
    """The same of none with a warm-up, which is told apart by its strength, and another regime without one."""

    def plant(value):
        runs = _largest_lr("warmed", "other")(value)
        place = {"warmed": ("none", 2.0, {"warmup": 60}), "other": (other, 1.0, {})}
        return {
            _run(place[kind][0], lr, place[kind][1]): planted | place[kind][2]
            for (kind, lr, *_), planted in runs.items()
        }

    return plant


def _test_at_best_lr(value):
    runs = {_run(regime, lr): {"val": 0.3, "test": 0.9} for regime in ("bn", "none") for lr in RATES}
    runs |= {_run("bn", 0.8): {"val": 0.7, "test": 0.5 + value / 100}, _run("none", 0.1): {"val": 0.6, "test": 0.5}}
    return runs


def _beta_of_rates(regime, name):
    """Slope of log beta (or batch sharpness) on log 1/lr, and geometric mean of it x lr / 2 over the rates."""

    def plant(value):
        other = {"bn": "none", "none": "bn"}[regime]
        return {_run(other, lr): {} for lr in RATES} | {_run(regime, lr): {name: value} for lr in RATES}

    return plant


def _noise(value):
    return {_run("noise"): {"train": 0.12 if value else 0.3, "reach": 10}, _run("none"): {"train": 0.6}}


def _dln(name, regime, lr=1e-7):
    return lambda value: {_run(regime, lr): {name: value}}


def _dln_loss(value):
    return {_run("bn", 1e-7): {"loss": 100 * value}, _run("none", 1e-7): {"loss": 100.0}}


def _rates_of_bn(name):
    """BN at three learning rates, with one of the values that :func:`_around_the_edge` makes measurements of."""
    return lambda value: {_run("bn", lr): {name: value} for lr in (1e-6, 1e-7, 1e-8)}


def _around_the_edge(lr, regime, planted):
    """Cosines and betas of a deep linear network: at 1e-8 short steps, at 1e-7 around the edge, at 1e-6 beyond it.

    ``edge``: the median of beta x lr / 2 at 1e-7; ``short``: that of the cosine of short steps; ``correlation``: the
    rank correlation at the larger rates, -1, 0 or 1.
    """
    edge, short, correlation = (
        planted.get(key, plain) for key, plain in (("edge", 1), ("short", 0.96), ("correlation", -1))
    )
    if regime == "none":
        return {"cosine": 0.9999, "beta": 2 * edge / lr}
    ramp = np.linspace(-1, 1, 40)
    if lr < 1e-7:
        return {"cosine": list(short + 1e-3 * ramp), "beta": list(2 * (0.25 + 0.2 * ramp) / lr)}
    halves = (1.4 if lr > 1e-7 else edge) * (1 + 0.1 * ramp)
    return {"cosine": list(0.2 * (correlation * ramp if correlation else np.abs(ramp))), "beta": list(2 * halves / lr)}


def _dose(value):
    return {_run("noisy_bn", strength=s): {"test": 0.6 + (value / 100 if s == 1 else 0)} for s in STRENGTHS}


def _gap(value):
    """BN's gap grows by `value` points per doubling more than the two points by which it grows without."""
    return {
        _run(norm, batch_size=size): {"train": 0.9, "test": 0.6 - growth / 100 * (np.log2(size) - 6)}
        for norm, growth in (("bn", value + 2), ("none", 2))
        for size in SIZES
    }


def _amp(norm):
    return lambda value: {_run(norm, amp=True): {"train": 0.6 + value / 100}, _run(norm): {"train": 0.6}}


def _rates_of(*regimes):
    """A study of two learning rates: all runs of these regimes, with the plain values."""
    return {_run(regime, lr): {} for regime in regimes for lr in (0.05, 0.4)}


def _last_minus_first(value):
    """At the smaller rate, at which training accuracy is better; it is the first that moves."""
    return _better_at_smaller("bn_last", "bn_first") | {
        _run("bn_last", 0.05): {"train": 0.7, "test": 0.5},
        _run("bn_first", 0.05): {"train": 0.7, "test": 0.5 - value / 100},
    }


def _last_share(value):
    """BN gains 20 points over none; it is these two that move."""
    none = 0.5 - 0.2 * value
    return _better_at_smaller("bn_last", "bn", "none") | {
        _run("bn_last", 0.05): {"train": 0.7, "test": 0.5},
        _run("bn", 0.05): {"train": 0.7, "test": none + 0.2},
        _run("none", 0.05): {"train": 0.7, "test": none},
    }


def _better_at_smaller(*regimes):
    return {run: {"train": 0.7 if run[1] == 0.05 else 0.3, "test": 0.4} for run in _rates_of(*regimes)}


def _share_of_gain(one):
    """The share of the gain of BN over none, 40 points of training accuracy at the larger rate."""
    return lambda value: (
        _rates_of(one, "bn", "none")
        | {
            _run(one, 0.4): {"train": 0.3 + 0.4 * value},
            _run("bn", 0.4): {"train": 0.7},
            _run("none", 0.4): {"train": 0.3},
        }
    )


def _at_rate(one, other, lr):
    return lambda value: (
        _rates_of(one, other) | {_run(one, lr): {"train": 0.6 + value / 100}, _run(other, lr): {"train": 0.6}}
    )


def _ghosts(test, train, own=0):
    """Each accuracy grows by so much of the value per doubling of the ghost batch."""
    return lambda value: {
        _run("ghost", strength=size): {
            "test": 0.5 + test * value / 100 * (np.log2(size) - 6),
            "train": 0.7 + train * value / 100 * (np.log2(size) - 6),
            "own": own * value / 100 * (np.log2(size) - 6),
        }
        for size in SIZES
    }


def _reach(value):
    """The mean of 100 steps is there 90 steps after the accuracy: at step 200, without BN at `value` times it."""
    late = max(round(200 * value - 90, -1), 10)
    return {_run("bn"): {"reach": 110, "train": 0.6}, _run("none"): {"reach": late, "train": 0.6}}


def _affine_to_random(value):
    """Each has its accuracy at the rate at which it trains; at the other it tests at something else."""
    good = {"affine": (0.1, {"train": 0.3, "test": 0.2 * value}), "random": (1.0, {"train": 0.3, "test": 0.2})}
    return {
        _run("bn", lr, trains=trains): planted if lr == best else {"train": 0.2, "test": 0.9}
        for trains, (best, planted) in good.items()
        for lr in (0.1, 1.0)
    }


def _whole_mean(value):
    """Noisy BN and none end equal; one leaves chance so much later that its mean over all steps is `value` less."""
    late = 10 * round(abs(value) / 100 / 0.5 * 100)
    first, other = (200, 200 + late) if value > 0 else (200 + late, 200)
    return {_run("noisy_bn"): {"reach": first, "train": 0.6}, _run("none"): {"reach": other, "train": 0.6}}


def _over_halfway(value):
    return {_run("weight_norm"): {"train": 0.5 + value / 100}, _run("none"): {"train": 0.3}, _run("bn"): {"train": 0.7}}


def _around_half(value):
    return {_run("bn"): {"train": 0.5 + value / 200}, _run("none"): {"train": 0.5 - value / 200}}


def _at_size(size, one, other, name):
    """One of them is so many points better than the other, at one size of the batch."""
    return lambda value: {
        _run(norm, batch_size=of): {name: 0.6 - (value / 100 if norm == other and of == size else 0)}
        for norm in (one, other)
        for of in (min(SIZES), max(SIZES))
    }


def _of_bn(norm, size, name="train"):
    """The same against BN, of which it is the other that moves."""
    return lambda value: {
        key: {name: 0.6 + (value / 100 if key == _run(norm, batch_size=size) else 0)}
        for key in _at_size(size, norm, "bn", name)(0)
    }


def _small_batch(value):
    """With group norm `value` points better than with BN at the smallest batch, and as good at the largest."""
    runs = {_run(norm, batch_size=max(SIZES)): {"test": 0.6} for norm in ("bn", "group")}
    better = {"test": 0.5 + value / 100}
    return runs | {_run("bn", batch_size=min(SIZES)): {"test": 0.5}, _run("group", batch_size=min(SIZES)): better}


PLANT = {
    "speed_up_to_90": _reach,
    "test_bn_minus_none": _points("bn", "none", "test"),
    "test_at_best_lr": _test_at_best_lr,
    "drift_last_hidden": _bn_over_none("drift", 0.2),
    "drift_vgg": _bn_over_none("drift", 0.2),
    "train_noisy_minus_bn": _points("noisy_bn", "bn", "train"),
    "mean_train_noisy_minus_none": _whole_mean,
    "test_noisy_minus_bn": _points("noisy_bn", "bn", "test"),
    "shift_mean_noisy_to_none_off_chance": _noisy_over_none("mean"),
    "shift_variance_noisy_to_none_off_chance": _noisy_over_none("variance"),
    "shift_mean_noisy_to_none_in_units": _noisy_over_none("mean_in_units"),
    "shift_variance_noisy_to_none_in_units": _noisy_over_none("variance_in_units"),
    "noise_at_chance": _noise,
    "ics_relative_in_window": _bn_over_none("relative", 0.5),
    "ics_relative_matched_in_window": _bn_over_none("relative", 0.5),
    "dln_cosine_none": _dln("cosine", "none"),
    "dln_cosine_bn": _dln("cosine", "bn"),
    "dln_loss": _dln_loss,
    "dln_edge_bn": _dln("edge", "bn"),
    "dln_edge_none": _dln("edge", "none"),
    "dln_cosine_short_steps": _rates_of_bn("short"),
    "dln_correlation_within_rates": _rates_of_bn("correlation"),
    "loss_width_in_window": _bn_over_none("width", 0.3),
    "loss_width_matched_in_window": _bn_over_none("width", 0.3),
    "predictiveness_in_window": _bn_over_none("difference", 2.0),
    "predictiveness_matched_in_window": _bn_over_none("difference", 2.0),
    "beta_in_window": _bn_over_none("beta", 10.0),
    "beta_matched_in_window": _bn_over_none("beta", 10.0),
    "beta_slope_bn": _beta_of_rates("bn", "slope"),
    "beta_slope_none": _beta_of_rates("none", "slope"),
    "beta_level_bn": _beta_of_rates("bn", "level"),
    "beta_level_none": _beta_of_rates("none", "level"),
    "train_l1_minus_bn": _points("l1", "bn", "train"),
    "train_l2_minus_bn": _points("l2", "bn", "train"),
    "train_linf_minus_bn": _points("linf", "bn", "train"),
    "train_skipinit_minus_bn": _behind("skipinit", "bn"),
    "train_skipinit_minus_none": _behind("skipinit", "none"),
    "train_fixup_minus_bn": _behind("fixup", "bn"),
    "train_fixup_minus_none": _behind("fixup", "none"),
    "dln_loss_l1": lambda value: {_run("l1", 1e-6): {"loss": 100 * value}, _run("bn", 1e-6): {"loss": 100.0}},
    "four_times_the_rate": lambda value: _largest_lr("bn", "none")(8.0 if value else 1.0),
    "largest_lr_warmed_residual_over_bn": _warmed("bn"),
    "largest_lr_warmed_plain_over_bn": _warmed("bn"),
    "largest_lr_warmed_residual_over_none": _warmed("none"),
    "largest_lr_warmed_plain_over_none": _warmed("none"),
    "sharpness_slope_bn": _beta_of_rates("bn", "sharp_slope"),
    "sharpness_slope_none": _beta_of_rates("none", "sharp_slope"),
    "sharpness_level_bn": _beta_of_rates("bn", "sharp_level"),
    "sharpness_level_none": _beta_of_rates("none", "sharp_level"),
    "largest_lr_nf_agc": _largest_lr("nf + agc", "nf"),
    "train_nf_agc_minus_bn": _behind("nf + agc", "bn"),
    "test_nf_agc_minus_bn": _behind("nf + agc", "bn", "test"),
    "train_nf_agc_minus_none": _behind("nf + agc", "none"),
    "train_nf_agc_minus_nf": _behind("nf + agc", "nf"),
    "train_nf_agc_minus_none_agc": _behind("nf + agc", "none + agc"),
    "train_ws_agc_minus_bn_plain": _behind("ws + agc", "bn"),
    "noise_off_cost": _dose,
    "gap_slope_bn_minus_none": _gap,
    **{f"train_amp_minus_float32_{norm}": _amp(norm) for norm in ("none", "bn", "noisy_bn")},
    "affine_to_random": _affine_to_random,
    "train_group_minus_bn": _behind("group", "bn"),
    "test_group_minus_bn_smallest_batch": _small_batch,
    "test_lost_bn_minus_group": _small_batch,
    "train_dyt_minus_layer": _behind("dyt", "layer"),
    "train_dyt_minus_bn": _behind("dyt", "bn"),
    "train_dyt_minus_none": _behind("dyt", "none"),
    "train_rms_minus_layer": _behind("rms", "layer"),
    "train_rms_minus_none": _behind("rms", "none"),
    "train_linf_bn_minus_bn_usual_batch": _of_bn("linf_bn", max(SIZES)),
    "train_topk_bn_minus_bn_usual_batch": _of_bn("topk_bn", max(SIZES)),
    "train_bn_minus_none_usual_batch": _at_size(max(SIZES), "bn", "none", "train"),
    "test_renorm_minus_bn_smallest_batch": _of_bn("batch_renorm", min(SIZES), "test"),
    "train_renorm_minus_bn_usual_batch": _of_bn("batch_renorm", max(SIZES)),
    "train_weight_norm_over_halfway": _over_halfway,
    "train_bn_minus_none_family": _around_half,
    "last_share": _last_share,
    "last_minus_first": _last_minus_first,
    "detached_minus_bn_smaller": _at_rate("bn_detached", "bn", 0.05),
    "detached_minus_bn_larger": _at_rate("bn_detached", "bn", 0.4),
    "l1_minus_bn_smaller": _at_rate("l1_bn", "bn", 0.05),
    "l1_minus_bn_larger": _at_rate("l1_bn", "bn", 0.4),
    "variance_share": _share_of_gain("bn_var"),
    "mean_share": _share_of_gain("bn_mean"),
    "affine_share": _share_of_gain("affine"),
    "ghost_gap_slope": _ghosts(test=0, train=1),
    "ghost_test_slope": _ghosts(test=1, train=0),
    "ghost_own_minus_precise_slope": _ghosts(test=0, train=0, own=1),
}


def plant(root, part: Part, values, study=None) -> None:
    """Write the records of one part, with the value that its measure is to have for each seed."""
    plant_claim(root, Claim("", "", "", "", parts=(part,)), [values], study)


def plant_claim(root, claim: Claim, values, study=None) -> None:
    """The same for all parts of a claim, whose settings of one run come together."""
    for name in {part.studies[0] for part in claim.parts}:
        for seed in range(len(values[0])):
            runs: Runs = {}
            for part, of_part in zip(claim.parts, values, strict=True):
                if part.studies[0] == name:
                    for run, planted in PLANT[part.name](of_part[seed]).items():
                        runs[run] = runs.get(run, {}) | planted
            for (regime, *settings), planted in runs.items():
                place = dict(zip(("lr", "strength", "batch_size", "trains", "clipping", "amp"), settings, strict=True))
                write(root, study or name, regime, seed, **place, **planted)


MEASURED = [claim for claim in all_claims() if any(part.of == "seeds" for part in claim.parts)]


def explain(verdict) -> str:
    """A verdict in full, with its arithmetic, as ``icsbench claims why`` shows it."""
    return "\n".join([*measured(verdict), *decided(verdict)])
