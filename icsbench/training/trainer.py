"""Training one run: the update, what is measured around it, and the way from the first update to the summary."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from icsbench.config import Config
from icsbench.data import Dataset
from icsbench.norms import noise_modules, start_from_data
from icsbench.probes import NetworkWatcher, Reading, Update, UpdateWatcher, start_probes, undisturbed
from icsbench.record import schema
from icsbench.streams import stream_seed
from icsbench.training.evaluation import Evaluations, hits
from icsbench.training.journal import Journal
from icsbench.training.optimizers import build_optimizer
from icsbench.training.part import trained_part
from icsbench.training.task import Task, build_model


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or a termination signal) and has written its checkpoint."""


class Progress(NamedTuple):
    """How far a run has come, for whoever shows it."""

    step: int
    loss: float
    accuracy: float | None
    samples_per_second: float


class Trainer:
    """A run in training: its network, optimizer, random stream of noise and probes, and how far it has come.

    :meth:`fit` is the whole of a run, from wherever it stands to its summary. It calls :meth:`step` for every update
    and :meth:`look` for what probes measure between two of them.

    :raises IcsbenchError: the data, the probes or the trained part of the parameters do not fit the config.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        self.config = config
        self.task = Task(config, dataset, device)
        self.model = build_model(config, dataset.num_classes)
        self.model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._noise = torch.Generator(device).manual_seed(stream_seed(config.seed, "noise"))
        for module in noise_modules(self.model):
            module.generator = self._noise
            module.coarse = config.amp  # the probes, in float32, then see the draw of the update
        start_from_data(self.model, lambda: self.task.batches(0)[0])
        self.optimizer = build_optimizer(trained_part(self.model, config.optim, config.seed), config.optim)
        self.probes = start_probes(config, self.model, self.task)
        self.evaluations = Evaluations(config, self.task, self.model)
        self.done = 0
        """How many updates have been made."""
        self._forward = torch.compile(self.model) if config.compile else self.model
        # Of the updates since the last row; on the device, so that no update waits for it.
        self._losses = torch.zeros(config.log_every, device=device, dtype=next(self.model.parameters()).dtype)
        self._correct = torch.zeros(config.log_every, device=device)
        self._outcome: dict[str, Any] = {"diverged_at": None, "left_chance_at": None}

    def step(self, number: int, watchers: Sequence[UpdateWatcher] = ()) -> list[Reading]:
        """Make one update, the one after ``number`` others; what the watchers find, in their order.

        The probes measure in float32 with amp too: differences of gradients drown in bfloat16.
        """
        inputs, targets = self.task.batches(number)
        update = Update(number, inputs, targets, learning_rate(self.config, number))
        for group in self.optimizer.param_groups:
            group["lr"] = update.lr * group.get("lr_scale", 1)
        for watcher in watchers:
            with undisturbed(self.model, inputs, targets):
                watcher.before(update)
        self.model.zero_grad(set_to_none=True)
        with self.task.autocast():
            outputs = self._forward(inputs)
            loss = self.task.loss(outputs, targets)
        loss.backward()
        self.optimizer.step()
        update = update._replace(lr=self.optimizer.param_groups[0]["lr"])  # a wrapper may have changed it
        readings = []
        for watcher in watchers:
            with undisturbed(self.model, inputs, targets):
                readings.append(watcher.after(update))
        slot = number % self.config.log_every
        self._losses[slot] = loss.detach()
        if self.task.chance is not None:
            right, guessed = hits(outputs.detach(), targets)
            self._correct[slot] = right + guessed * self.task.chance
        return readings

    def look(self, watcher: NetworkWatcher, step: int) -> Reading:
        """What the watcher finds in the network after ``step`` updates."""
        with undisturbed(self.model):
            return watcher.measure(step)

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, for a checkpoint."""
        return {
            "step": self.done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self._noise.get_state(),
            "losses": self._losses,
            "correct": self._correct,
            "outcome": self._outcome,
            "probes": {name: watcher.state_dict() for name, watcher in self.probes},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.done = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._noise.set_state(state["noise"].cpu())
        self._losses.copy_(state["losses"])
        self._correct.copy_(state["correct"])
        self._outcome = state["outcome"]
        for name, watcher in self.probes:
            if name in state["probes"]:  # at the end of training no probe has a state any more
                watcher.load_state_dict(state["probes"][name])

    def fit(self, journal: Journal, *, show: Callable[[Progress], None], stopped: Sequence[str]) -> dict[str, Any]:
        """Train to the end of the run, or until the loss is not finite any more.

        :param show: called after every row of training metrics.
        :param stopped: names of the signals that ask for a stop, as they arrive; looked at between two updates.
        :returns: the summary.
        :raises Interrupted: a signal has arrived; the checkpoint is written.
        """
        steps, log_every = self.config.steps, self.config.log_every
        if self.done == 0:
            self._measure_network(journal)
        self.model.train()
        since = time.perf_counter()
        while self.done < steps and self._outcome["diverged_at"] is None:
            self._make_update(journal)
            if self.done % log_every == 0 or self.done == steps:
                show(self._write_progress(journal, since))
                since = time.perf_counter()
                if self._outcome["diverged_at"] is not None:
                    break
            self._measure_network(journal)
            if stopped:
                journal.save(self.state())
                raise Interrupted(f"stopped by {stopped[0]} at step {self.done}")
            if self.done % self.config.checkpoint_every == 0 and self.done < steps:
                journal.save(self.state())
        return self._finish(journal)

    def _measure_network(self, journal: Journal) -> None:
        """Between two updates: the probes that are due, then the evaluation, if it is."""
        for name, watcher in self.probes:
            if isinstance(watcher, NetworkWatcher) and watcher.due(self.done):
                journal.note(name, self.done, self.look(watcher, self.done))
        row = self.evaluations.row_along(self.done)
        if row is not None:
            journal.write(row)

    def _make_update(self, journal: Journal) -> None:
        due = {name: w for name, w in self.probes if isinstance(w, UpdateWatcher) and w.due(self.done)}
        readings = self.step(self.done, [*due.values()])
        for name, reading in zip(due, readings, strict=True):
            journal.note(name, self.done, reading)
        self.done += 1

    def _write_progress(self, journal: Journal, since: float) -> Progress:
        """The row of the updates since the last one, and what it says of the outcome."""
        count = (self.done - 1) % self.config.log_every + 1
        window = self._losses[:count].tolist()
        row = {schema.TRAIN_LOSS: math.fsum(window) / count}
        if self.task.chance is not None:
            row[schema.TRAIN_ACCURACY] = self._correct[:count].mean().item() / self.config.batch_size
            if self._outcome["left_chance_at"] is None and not self._at_chance(row):
                self._outcome["left_chance_at"] = self.done
        journal.write({schema.STEP: self.done, **row, schema.LR: self.optimizer.param_groups[0]["lr"]})
        for index, loss in enumerate(window):
            if not math.isfinite(loss):
                self._outcome["diverged_at"] = self.done - count + index
                break
        self._outcome |= row
        rate = count * self.config.batch_size / (time.perf_counter() - since)
        return Progress(self.done, row[schema.TRAIN_LOSS], row.get(schema.TRAIN_ACCURACY), rate)

    def _finish(self, journal: Journal) -> dict[str, Any]:
        """After the last update: the final evaluation, the last checkpoint, the summary."""
        row, accuracies = self.evaluations.at_end(self.done)
        journal.save({**self.state(), "probes": {}})
        if row is not None:
            journal.write(row)
        if self._outcome["diverged_at"] is not None:
            outcome = "diverged"
        else:
            outcome = "chance" if self._at_chance(self._outcome) else "trained"
        return {"status": "complete", "outcome": outcome, **self._outcome, "steps": self.done, **accuracies}

    def _at_chance(self, row: dict[str, Any]) -> bool:
        """Whether a classifier guesses; a regression never does."""
        chance = self.task.chance
        return chance is not None and not row[schema.TRAIN_ACCURACY] >= schema.LEFT_CHANCE * chance


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of the update after ``step`` updates: that of the schedule, times the share of the warm-up.

    The schedule is ``lr``, ``lr/2 (1 + cos(pi step / steps))`` or ``lr growth^step``; see
    :class:`icsbench.config.OptimConfig`.
    """
    optim, rate = config.optim, config.optim.lr
    if optim.schedule == "cosine":
        rate = rate / 2 * (1 + math.cos(math.pi * step / config.steps))
    elif optim.schedule == "exponential":
        rate *= optim.growth**step
    if step < optim.warmup:
        rate *= (step + 1 if optim.warmup_shape == "linear" else 1) / optim.warmup
    return rate
