"""The training loop of one run, from its config to its record."""

import errno
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.models import Network
from icsbench.norms import noise_modules
from icsbench.probes import ShiftProbe, UpdateProbe
from icsbench.probes.shift import is_scheduled
from icsbench.record.writer import Record
from icsbench.streams import stream_seed
from icsbench.tracking import Mirror
from icsbench.training import checkpoint
from icsbench.training.environment import dataset_of, refuse_other_data, settle_environment
from icsbench.training.evaluation import KNOWN, Protocol, hits, known_protocol, protocols_of
from icsbench.training.optimizers import build_optimizer
from icsbench.training.task import Task, build_model

LEFT_CHANCE = 2.0
"""A network is at chance while its ``train/accuracy`` is below this many times 1 / number of classes."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or a termination signal) and has written its checkpoint."""


class Progress(NamedTuple):
    """What is known of a running run at some step, for whoever shows it."""

    step: int
    loss: float
    accuracy: float | None
    samples_per_second: float


def run(
    config: Config, *, threads: int | None = None, show: Callable[[Progress], None] = lambda _: None
) -> dict[str, Any]:
    """Train one run to completion, or go on where it stopped; a complete one is left alone.

    :param threads: CPU threads where neither the config nor an earlier part of this run says.
    :param show: called after every row of training metrics.
    :returns: the run's summary.
    :raises IcsbenchError: the data, the record or the checkpoint cannot be used, in one line.
    :raises Interrupted: stopped by a signal; the same call goes on from there.
    """
    with Record(config) as record:
        summary = record.summary
        if summary is not None:
            refuse_other_data(config, record)
            return summary
        try:
            (record.path / "failure.json").unlink(missing_ok=True)
            return _train(config, record, threads, show)
        except Interrupted:
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            line = f"{error.filename or record.path}: {error.strerror or error}; " + (
                "free some space and run the same command again"
                if full
                else "put that right and run the same command again"
            )
            _note_failure(record, line)
            raise IcsbenchError(line) from error
        except Exception as error:
            _note_failure(
                record, f"{type(error).__name__}: {error}" if not isinstance(error, IcsbenchError) else str(error)
            )
            raise


def _train(config: Config, record: Record, threads: int | None, show: Callable[[Progress], None]) -> dict[str, Any]:
    dataset = dataset_of(config)
    environment = settle_environment(config, record, dataset, threads)
    device = torch.device(environment["device"])
    task = Task(config, dataset, device)
    model = build_model(config, dataset.num_classes)
    model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    noise = torch.Generator(device).manual_seed(stream_seed(config.seed, "noise"))
    for module in noise_modules(model):
        module.generator = noise
        module.coarse = config.amp  # the probes, in float32, then see the draw of the update
    optimizer = build_optimizer(model.parameters(), config.optim)
    probes = config.probes
    probe = None
    if probes.shift:
        inputs = task.probe_inputs()
        probe = ShiftProbe(model, model.layers(), inputs, samples=probes.samples, seed=config.seed)
    update_probe = update_probe_of(config, model, task)
    forward = torch.compile(model) if config.compile else model
    protocols = protocols_of(config.norm.name) if task.chance is not None else []

    losses = torch.zeros(config.log_every, device=device, dtype=next(model.parameters()).dtype)
    correct = torch.zeros(config.log_every, device=device)
    start, seconds, rows_from = 0, 0.0, 0
    outcome: dict[str, Any] = {"diverged_at": None, "left_chance_at": None}
    path = record.path / "checkpoint.pt"
    if path.exists():
        state = checkpoint.load(path, config, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        noise.set_state(state["noise"].cpu())
        if probe is not None and state["probe"] is not None:
            probe.load_state_dict(state["probe"])
        losses.copy_(state["losses"])
        correct.copy_(state["correct"])
        start, rows_from, outcome, position = state["step"], state["rows_from"], state["outcome"], state["position"]
        record.rewind(position)
        seconds = (record.read_json("timing.json") or {"seconds": 0.0})["seconds"]
    else:
        record.rewind(0)

    mirror = Mirror(config, record.path)
    began = time.perf_counter()

    def save(step: int) -> None:
        state = {
            "step": step,
            "rows_from": rows_from,
            "position": record.position(),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "noise": noise.get_state(),
            "losses": losses,
            "correct": correct,
            "outcome": outcome,
            "probe": probe.state_dict() if probe is not None else None,
        }
        checkpoint.save(path, config, state)
        record.write_json("timing.json", {"seconds": seconds + time.perf_counter() - began})

    def write(row: dict[str, Any]) -> None:
        record.append(row)
        mirror.log(row)

    # Followed along the way: the customary protocol, and where noise is trained with, the protocol of training itself.
    followed = [*protocols[:1], *(protocol for protocol in protocols[-1:] if protocol.noise)]
    of_known = known_protocol(protocols)

    def measure(
        protocols: list[Protocol], splits: tuple[str, ...], *, known: bool, along: bool
    ) -> dict[Protocol, dict[str, float]]:
        """Accuracies by protocol and split; with ``known`` also those of what the network knows."""
        wanted = dict.fromkeys(protocols, splits)
        if known:
            wanted[of_known] = tuple(dict.fromkeys((*wanted.get(of_known, ()), *task.known_splits)))
        return {protocol: task.accuracies(model, of, protocol, along=along) for protocol, of in wanted.items()}

    def curve_row(step: int, found: dict[Protocol, dict[str, float]], known: bool) -> dict[str, Any]:
        row = {"step": step, "test/accuracy": found[protocols[0]]["test"]}
        row |= {f"test/accuracy/{p}": found[p]["test"] for p in followed[1:]}
        return row | (known_accuracies(found) if known else {})

    def known_accuracies(found: dict[Protocol, dict[str, float]]) -> dict[str, float]:
        return {f"{split}/accuracy/{KNOWN}": found[of_known][split] for split in task.known_splits}

    def watch(step: int) -> None:
        if probe is not None and is_scheduled(step, config.probes.every):
            row, arrays = probe(step)  # in float32 with amp too
            if step == 0:
                record.write_json("probes/shift/layers.json", probe.layers())
            record.write_arrays(f"probes/shift/step-{step:08d}.npz", arrays)
            histograms = {
                f"activations/{layer['layer']}": (counts, edges)
                for layer, counts, edges in zip(
                    probe.layers(),
                    arrays["histogram_counts_preactivation"],
                    arrays["histogram_edges_preactivation"],
                    strict=True,
                )
            }
            if row:
                record.append({"step": step, **row})
            mirror.log({"step": step, **row}, histograms)
        if followed and step % config.eval_every == 0 and step < config.steps:
            known = step in task.known_steps
            write(curve_row(step, measure(followed, ("test",), known=known, along=True), known))

    summary = None
    done = start
    try:
        with _stop_signals() as stopped:
            if start == 0:
                watch(0)
                if update_probe is not None and update_probe.layers():
                    record.write_json("probes/ics/layers.json", update_probe.layers())
            model.train()
            since = time.perf_counter()
            for step in range(start, config.steps if outcome["diverged_at"] is None else start):
                inputs, targets = task.batches(step)
                lr = learning_rate(config, step)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                watched = update_probe if step % config.probes.update_every == 0 else None
                if watched is not None:
                    watched.before()
                optimizer.zero_grad(set_to_none=True)
                with task.autocast():
                    outputs = forward(inputs)
                    loss = task.loss(outputs, targets)
                loss.backward()
                optimizer.step()
                if watched is not None:
                    # In float32 with amp too: differences of gradients drown in bfloat16.
                    write({"step": step, **watched.after(inputs, targets, lr)})
                slot = step - rows_from
                losses[slot] = loss.detach()
                if task.chance is not None:
                    right, guessed = hits(outputs.detach(), targets)
                    correct[slot] = right + guessed * task.chance
                done = step + 1

                if done % config.log_every == 0 or done == config.steps:
                    count = done - rows_from
                    window = losses[:count].tolist()
                    row = {"train/loss": math.fsum(window) / count}
                    if task.chance is not None:
                        row["train/accuracy"] = correct[:count].mean().item() / config.batch_size
                        if outcome["left_chance_at"] is None and row["train/accuracy"] >= LEFT_CHANCE * task.chance:
                            outcome["left_chance_at"] = done
                    write({"step": done, **row, "lr": lr})
                    rate = count * config.batch_size / (time.perf_counter() - since)
                    since = time.perf_counter()
                    show(Progress(done, row["train/loss"], row.get("train/accuracy"), rate))
                    bad = [i for i, value in enumerate(window) if not math.isfinite(value)]
                    if bad:
                        outcome["diverged_at"] = rows_from + bad[0]
                    outcome |= row
                    rows_from = done
                    if bad:
                        break
                watch(done)
                if stopped:
                    save(done)
                    raise Interrupted(f"stopped by {stopped[0]} at step {done}")
                if done % config.checkpoint_every == 0 and done < config.steps:
                    save(done)

        found = measure(protocols, ("test", "val"), known=bool(protocols), along=False)
        probe = None  # its state is of no more use
        save(done)
        if followed:
            write(curve_row(done, found, known=True))
        result = {"status": "complete", "outcome": _outcome(outcome, task.chance), **outcome, "steps": done}
        result |= {f"{split}/accuracy": {str(p): found[p][split] for p in protocols} for split in ("test", "val")}
        result |= known_accuracies(found)
        record.finish(result)
        summary = result
        return summary
    finally:
        mirror.finish(summary)


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of the update after ``step`` updates: constant, or ``lr/2 (1 + cos(pi step / steps))``."""
    if config.optim.schedule == "constant":
        return config.optim.lr
    return config.optim.lr / 2 * (1 + math.cos(math.pi * step / config.steps))


def _outcome(outcome: dict[str, Any], chance: float | None) -> str:
    if outcome["diverged_at"] is not None:
        return "diverged"
    return "trained" if chance is None or outcome["train/accuracy"] >= LEFT_CHANCE * chance else "chance"


def update_probe_of(config: Config, model: Network, task: Task) -> UpdateProbe | None:
    """The probe of a run's own updates; None where neither ICS nor landscape is asked for."""
    probes = config.probes
    layers = [(path, f"{path}.transform") for path, _ in model.layers()] if probes.ics else []
    ratio = (probes.alpha_high / probes.alpha_low) ** (1 / (probes.alpha_points - 1))
    alphas = [probes.alpha_low * ratio**k for k in range(probes.alpha_points)] if probes.landscape else []
    return UpdateProbe(model, task.loss, layers=layers, alphas=alphas) if layers or alphas else None


def _note_failure(record: Record, line: str) -> None:
    try:
        record.write_json("failure.json", {"error": line})
    except OSError:
        print(f"icsbench: {record.path}: the failure could not be noted there", file=sys.stderr)


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM, so that the loop can stop between two steps; a second one stops at once."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
