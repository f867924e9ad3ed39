"""What a run writes as it goes: rows, what probes read, and checkpoints."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from icsbench.config import Config
from icsbench.probes import Reading
from icsbench.record import schema
from icsbench.record.writer import Record
from icsbench.tracking import mirror_of
from icsbench.training import checkpoint


class Journal:
    """Writes to the record of a run, and all of it but the checkpoints to its mirror.

    The wall time of the run is counted from here on, on top of what a run that goes on has used before. When a run
    began is noted once: a reader can tell whether that was before or after a claim was registered.
    """

    def __init__(self, config: Config, record: Record) -> None:
        self._config = config
        self._record = record
        self._checkpoint = record.path / schema.CHECKPOINT
        timing = record.read_json(schema.TIMING) if self._checkpoint.exists() else None
        self._seconds = timing["seconds"] if timing else 0.0
        self._timing = {"began": datetime.now(UTC).isoformat()} if timing is None else timing
        self._mirror = mirror_of(config, record.path)
        self._began = time.perf_counter()

    def write(self, row: dict[str, Any]) -> None:
        """Append one row to the metrics."""
        self._record.append(row)
        self._mirror.log(row)

    def note(self, probe: str, step: int, reading: Reading) -> None:
        """Store what a probe found at a step."""
        if reading.layers is not None:
            self._record.write_json(schema.probe_layers(probe), reading.layers)
        if reading.arrays:
            self._record.write_arrays(schema.probe_arrays(probe, step), {**reading.arrays})
        if reading.row is not None:
            self._record.append({schema.STEP: step, **reading.row})
        histograms: Mapping[str, tuple[np.ndarray, np.ndarray]] = reading.histograms
        if reading.row is not None or histograms:
            self._mirror.log({schema.STEP: step, **(reading.row or {})}, {**histograms})

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint: the state of the trainer, and the place in the metrics that it belongs to."""
        state = {**state, "position": self._record.position()}
        checkpoint.save(self._checkpoint, self._config, state)
        seconds = self._seconds + time.perf_counter() - self._began
        self._record.write_json(schema.TIMING, self._timing | {"seconds": seconds})

    def close(self, summary: dict[str, Any] | None) -> None:
        """Close the mirror, with the summary of a complete run."""
        self._mirror.finish(summary)
