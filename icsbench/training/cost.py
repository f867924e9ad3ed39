"""What a run would cost here: its parts timed on a few steps, and counted."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from icsbench.config import Config
from icsbench.data import Dataset
from icsbench.probes import NetworkWatcher, UpdateWatcher
from icsbench.training.environment import choose_device
from icsbench.training.trainer import Trainer

_STEPS = 3
_TINY_LR = 1e-12  # for the timed updates: no loss becomes infinite, where a probe would have less to do


def seconds_of_run(config: Config, dataset: Dataset) -> float:
    """Wall time in seconds of one run on this device with the threads that are set.

    Updates, probes and one evaluated batch are timed, each after a first time that does not count, and multiplied by
    how often a run has them. The start of the process and the writing of files are left out.

    :raises IcsbenchError: the device or the data cannot be used.
    """
    timed = replace(config, compile=False, optim=replace(config.optim, lr=_TINY_LR))
    device = choose_device(config.device)
    trainer = Trainer(timed, dataset, device)
    numbers = itertools.count()
    update = _seconds(lambda: trainer.step(next(numbers)), device)
    seconds = config.steps * update
    for _, watcher in trainer.probes:
        if isinstance(watcher, NetworkWatcher):
            due = [step for step in range(config.steps + 1) if watcher.due(step)]
            seconds += len(due) * _seconds_at(due, lambda step, w=watcher: trainer.look(w, step), device)
        if isinstance(watcher, UpdateWatcher):
            due = [step for step in range(config.steps) if watcher.due(step)]
            watched = _seconds_at(due, lambda step, w=watcher: trainer.step(step, [w]), device)
            seconds += len(due) * (watched - update)
    evaluated = trainer.evaluations.batches()
    if evaluated:
        seconds += evaluated * _seconds(lambda: _forward(trainer), device)
    return seconds


@torch.no_grad()
def _forward(trainer: Trainer) -> Any:
    with trainer.task.autocast():
        return trainer.model(trainer.task.batches(0)[0])


def _seconds_at(steps: list[int], run: Callable[[int], Any], device: torch.device) -> float:
    """Seconds of ``run(step)`` at some of the steps; 0 where there are none."""
    turns = itertools.cycle(steps)
    return _seconds(lambda: run(next(turns)), device) if steps else 0.0


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
