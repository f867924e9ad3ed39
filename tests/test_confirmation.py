"""The sweeps of the confirmation (results/reference/confirmation) compose to the runs that its plan lists."""

import pytest

from icsbench.app.compose import jobs

COMMON = ["results=results", "wandb=disabled"]
CIFAR = [*COMMON, "scale=cpu", "data.root=PATH", "amp=true"]
ALL = "seed=range(6,18)"
LONG = ["experiment=long", "norm=none,bn,noisy_bn"]

SWEEPS = {
    "amp": (
        [
            *(*COMMON, "experiment=amp", "scale=cpu", "data.root=PATH", "probes=none", "steps=1000"),
            *("norm=none,bn,noisy_bn", "amp=true,false", "eval_every=1000", ALL),
        ],
        72,
        {"steps": 1000, "eval_every": 1000, "probes.shift": False, "probes.ics": False, "probes.landscape": False},
    ),
    "dln": (
        [*COMMON, "experiment=dln", "scale=cpu", ALL],
        48,
        {"steps": 10_000, "amp": False, "probes.ics": True, "probes.landscape": True},
    ),
    "dln_lp": ([*COMMON, "experiment=dln_lp", "scale=cpu", ALL], 60, {"steps": 10_000, "amp": False}),
    "dln_lr": (
        [*COMMON, "experiment=dln_lr", "scale=cpu", "norm=none,bn", ALL],
        96,
        {"steps": 10_000, "amp": False, "probes.ics": True, "probes.landscape": True},
    ),
    "long": (
        [*CIFAR, *LONG, "seed=range(6,12)"],
        18,
        {
            "steps": 15_000,
            "optim.lr": 0.1,
            "amp": True,
            "model.width": 0.25,
            "probes.shift": True,
            "probes.every": 500,
            "probes.ics": True,
            "probes.landscape": True,
            "probes.update_every": 100,
        },
    ),
    "long on all seeds": ([*CIFAR, *LONG, ALL], 36, {"steps": 15_000, "amp": True}),
    "lr_grid": (
        [*CIFAR, "experiment=lr_grid", "steps=1000", ALL],
        144,
        {"steps": 1000, "amp": True, "probes.landscape": True},
    ),
    "noise_control": ([*CIFAR, "experiment=noise_control", "steps=5000", ALL], 24, {"steps": 5000, "amp": True}),
    "percentiles": (
        [
            *(*COMMON, "experiment=percentiles", "scale=cpu", "data=cifar10", "data.binary=true"),
            *("data.root=PATH", "steps=50000", ALL),
        ],
        24,
        {"steps": 50_000, "amp": False, "data.name": "cifar10", "data.binary": True, "model.name": "mlp"},
    ),
    "lp": ([*CIFAR, "experiment=lp", "steps=2000", ALL], 60, {"steps": 2000, "amp": True, "probes.ics": True}),
    "batch_size": (
        [*CIFAR, "experiment=batch_size", "model.width=0.125", "norm=none,bn", ALL],
        72,
        {"amp": True, "model.width": 0.125, "data.val_size": 48_000},
    ),
    "dose": (
        [*CIFAR, "experiment=dose", "model.width=0.125", "steps=2000", "norm.strength=0,0.25,0.5,1,2,4", ALL],
        72,
        {"steps": 2000, "amp": True, "model.width": 0.125, "probes.shift": True},
    ),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_of_the_confirmation(name):
    overrides, runs, expected = SWEEPS[name]
    found, _ = jobs(overrides)
    assert sum(count for _, count in found) == runs
    for config, _ in found:
        found = {"experiment": config.experiment, **{key: value_of(config, key) for key in expected}}
        assert found == {"experiment": name.split()[0], **expected}


def value_of(config, key):
    for part in key.split("."):
        config = getattr(config, part)
    return config


def test_the_budgets_of_the_plan_are_steps_at_which_long_is_evaluated_and_measured():
    (config, _), *_ = jobs(SWEEPS["long"][0])[0]
    for budget in (1000, 2000, 5000):
        assert budget < config.steps
        for every in (config.eval_every, config.probes.every, config.probes.update_every, config.log_every):
            assert budget % every == 0


@pytest.mark.parametrize(("scale", "steps"), [("demo", 200), ("cpu", 15_000), ("paper", 15_000)])
def test_long_is_the_same_comparison_at_every_scale(scale, steps):
    runs, _ = jobs(["experiment=long", f"scale={scale}", "data.root=PATH"])
    assert {config.norm.name for config, _ in runs} == {"none", "bn", "noisy_bn"}
    assert {(config.steps, config.optim.lr, config.amp) for config, _ in runs} == {(steps, 0.1, False)}
    assert sum(count for _, count in runs) == 18


def test_the_batches_of_the_sizes_see_equally_many_images():
    runs, _ = jobs(SWEEPS["batch_size"][0])
    seen = {config.batch_size: config.steps * config.batch_size for config, _ in runs}
    assert seen.keys() == {16, 64, 256}
    assert all(100_000 - size < images <= 100_000 for size, images in seen.items())
