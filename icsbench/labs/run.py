"""A run of a lab, from its config to its record."""

import itertools
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

import icsbench
from icsbench.config import Config
from icsbench.labs.contract import Lab, Row, checked
from icsbench.labs.network import Network
from icsbench.machine import processor, system
from icsbench.members import member
from icsbench.record.failure import noted
from icsbench.record.schema import ENVIRONMENT, METRICS, SUMMARY, TIMING
from icsbench.record.strict_json import loads
from icsbench.record.writer import Record, folder_of
from icsbench.source import commit


def lab_of(config: Config) -> Lab:
    """The lab whose run it is."""
    assert config.lab is not None
    return member("labs", Lab, config.lab.name)


def run(
    config: Config,
    *,
    train: Callable[[Config], dict[str, Any]],
    threads: int | None = None,
    show: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Make the record of one run of a lab, from its first row on; a complete one is left alone.

    :param train: makes the record of a training that the lab needs, unless it is there; returns its summary.
    :param threads: CPU threads of torch, where the config does not say and torch is used.
    :param show: called after every row with the number of rows so far.
    :returns: the summary.
    :raises IcsbenchError: what the lab refuses, or the record cannot be used, in one line.
    """
    began, started = datetime.now(UTC).isoformat(), time.perf_counter()
    network = Network(replace(config, lab=None), train) if lab_of(config).network else None
    if (folder_of(config) / SUMMARY).exists():
        rows: Iterable[Row] = ()
    else:  # what the lab refuses at once leaves no record behind
        rows = _rows(config, network, config.threads or threads)
    with Record(config) as record:
        if record.summary is not None:
            return record.summary
        with noted(record):
            record.rewind(0)
            record.write_json(ENVIRONMENT, _environment(lab_of(config), network))
            count = 0
            for row in rows:
                record.append(row)
                count += 1
                show(count)
            record.write_json(TIMING, {"began": began, "seconds": time.perf_counter() - started})
            summary = {"status": "complete", "outcome": "complete", "rows": count}
            record.finish(summary)
            return summary


def rows_of(config: Config) -> list[Row]:
    """The rows of a complete run of a lab, as its record holds them."""
    text = (folder_of(config) / METRICS).read_text(encoding="utf-8")
    return [loads(line) for line in text.splitlines()]


def _rows(config: Config, network: Network | None, threads: int | None) -> Iterable[Row]:
    """The rows of the lab, the first of which is there already."""
    lab = lab_of(config)
    if threads is not None and (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    rows = checked(lab.rows(config.lab, config.seed, *filter(None, [network])), lab.name)
    return itertools.chain([*itertools.islice(rows, 1)], rows)


def _environment(lab: Lab, network: Network | None) -> dict[str, Any]:
    torch = sys.modules.get("torch")
    return {
        "icsbench": icsbench.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": None if torch is None else torch.__version__,
        "threads": None if torch is None else torch.get_num_threads(),
        "machine": system(),
        "device_name": processor(),
        "lab": {"label": lab.label},
        **({} if network is None else network.described),
    }
