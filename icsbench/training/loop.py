"""One run from its config to its complete record, whatever happens on the way."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from icsbench.config import Config
from icsbench.record import schema
from icsbench.record.failure import noted
from icsbench.record.writer import Record
from icsbench.training import checkpoint
from icsbench.training.environment import dataset_of, refuse_other_data, settle_environment
from icsbench.training.journal import Journal
from icsbench.training.trainer import Progress, Trainer


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
        with noted(record):
            return _train(config, record, threads, show)


def _train(config: Config, record: Record, threads: int | None, show: Callable[[Progress], None]) -> dict[str, Any]:
    dataset = dataset_of(config)
    device = torch.device(settle_environment(config, record, dataset, threads)["device"])
    trainer = Trainer(config, dataset, device)
    position = 0
    path = record.path / schema.CHECKPOINT
    if path.exists():
        state = checkpoint.load(path, config, device)
        trainer.load(state)
        position = state["position"]
    record.rewind(position)
    journal = Journal(config, record)
    summary = None
    try:
        with _stop_signals() as stopped:
            found = trainer.fit(journal, show=show, stopped=stopped)
            record.finish(found)
            summary = found
        return found
    finally:
        journal.close(summary)


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
