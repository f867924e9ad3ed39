"""What a run would cost here: its parts timed on a few steps, and counted."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icsbench.config import Config
from icsbench.data import Dataset
from icsbench.probes import ShiftProbe
from icsbench.probes.shift import is_scheduled
from icsbench.training.environment import choose_device
from icsbench.training.evaluation import protocols_of
from icsbench.training.loop import update_probe_of
from icsbench.training.optimizers import build_optimizer
from icsbench.training.task import KNOWN_IMAGES, Task, build_model

_STEPS = 3


def seconds_of_run(config: Config, dataset: Dataset) -> float:
    """Wall time of one run on this device with the threads that are set, start of the process and files apart.

    Steps, probes and one evaluated batch are timed, each after one that is not, and multiplied by how often a run has
    them. Raises IcsbenchError where the device or the data cannot be used.
    """
    device = choose_device(config.device)
    task = Task(config, dataset, device)
    model = build_model(config, dataset.num_classes).to(device)
    optimizer = build_optimizer(model.parameters(), replace(config.optim, lr=1e-12))
    update_probe = update_probe_of(config, model, task)
    batches = iter(range(1_000_000))
    model.train()

    def step() -> None:
        inputs, targets = task.batches(next(batches))
        update(inputs, targets)

    def update(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with task.autocast():
            loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()

    def watched() -> None:
        assert update_probe is not None
        inputs, targets = task.batches(next(batches))
        update_probe.before()
        update(inputs, targets)
        update_probe.after(inputs, targets, 1e-12)

    one_step = _seconds(step, device)
    seconds = config.steps * one_step
    if update_probe is not None:
        seconds += -(-config.steps // config.probes.update_every) * (_seconds(watched, device) - one_step)
    if config.probes.shift:
        probe = ShiftProbe(model, model.layers(), task.probe_inputs(), samples=config.probes.samples, seed=config.seed)
        at = iter(range(1_000_000))
        probes = sum(is_scheduled(done, config.probes.every) for done in range(config.steps + 1))
        seconds += probes * _seconds(lambda: probe(next(at)), device)
    if task.chance is not None:
        seconds += _evaluated_batches(config, dataset, task) * _seconds(lambda: _forward(model, task), device)
    return seconds


def _evaluated_batches(config: Config, dataset: Dataset, task: Task) -> int:
    """Batches that the run's evaluations see, those of recalibration among them."""
    sizes = {"test": len(dataset.test), "val": len(dataset.val), "train": KNOWN_IMAGES}
    batches = {split: math.ceil(size / config.batch_size) for split, size in sizes.items()}
    known = sum(batches[split] for split in task.known_splits)
    protocols = protocols_of(config.norm.name)
    recalibrated = sum(protocol.statistics == "recalibrated" for protocol in protocols)
    followed = 2 if protocols[-1].noise else 1
    along = -(-config.steps // config.eval_every) * followed * batches["test"]
    # without statistics the customary protocol is that of what the network knows
    extra = known + task.recalibration_along if recalibrated else known - batches["test"]
    end = len(protocols) * (batches["test"] + batches["val"]) + recalibrated * config.recalibration_batches
    return along + len(task.known_steps) * extra + end + known - batches["test"]


@torch.no_grad()
def _forward(model: torch.nn.Module, task: Task) -> Any:
    with task.autocast():
        return model(task.batches(0)[0])


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    run()
    _wait(device)
    began = time.perf_counter()
    for _ in range(_STEPS):
        run()
    _wait(device)
    return (time.perf_counter() - began) / _STEPS


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
