"""The TensorBoard mirror of a run record: event files in the folder ``tensorboard`` of the record."""

import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from icsbench.config import Config
from icsbench.tracking.mirror import Histograms, Mirror


class Tracker(Mirror):
    """Mirrors one run to TensorBoard: ``tensorboard --logdir results`` shows every run below its folder.

    The config is a text at step 0. Numbers of the summary are scalars ``summary/<key>`` at the last step. A run that
    goes on adds a file, in which the steps since its checkpoint come once more, with the same values.
    """

    label = "TensorBoard"

    def _open(self, config: Config, directory: Path) -> bool:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError("not installed: pip install 'icsbench[tensorboard]'") from error
        event, summary, tensor, types = cast("Any", (event_pb2, summary_pb2, tensor_pb2, types_pb2))
        self._event, self._summary = event, summary
        self._last = 0
        self._writer = EventFileWriter(str(directory / "tensorboard"), max_queue_size=1000)
        text = f"```yaml\n{config.to_yaml()}```"
        as_text = summary.SummaryMetadata(
            plugin_data=summary.SummaryMetadata.PluginData(plugin_name="text"), data_class=summary.DATA_CLASS_TENSOR
        )
        content = tensor.TensorProto(dtype=types.DT_STRING, string_val=[text.encode()])
        self._write(0, [summary.Summary.Value(tag="config", metadata=as_text, tensor=content)])
        return True

    def _log(self, scalars: dict[str, Any], histograms: Histograms) -> None:
        self._last = int(scalars["step"])
        values = self._scalars({key: value for key, value in scalars.items() if key != "step"})
        for name, (counts, edges) in histograms.items():
            values.append(self._summary.Summary.Value(tag=name, histo=self._histogram(counts, edges)))
        if values:
            self._write(self._last, values)

    def _finish(self, summary: dict[str, Any] | None) -> None:
        if values := self._scalars(dict(_flat(summary or {}, "summary"))):
            self._write(self._last, values)
        self._writer.close()

    def _write(self, step: int, values: list[Any]) -> None:
        event = self._event.Event(wall_time=time.time(), step=step, summary=self._summary.Summary(value=values))
        self._writer.add_event(event)

    def _scalars(self, values: dict[str, Any]) -> list[Any]:
        return [
            self._summary.Summary.Value(tag=key, simple_value=float(value))
            for key, value in values.items()
            if isinstance(value, int | float)
        ]

    def _histogram(self, counts: np.ndarray, edges: np.ndarray) -> Any:
        """TensorBoard's form: the upper edge of each bucket, the first of which is empty and ends where values begin.

        Sums are those of values in the middle of their buckets.
        """
        edges = edges.astype(np.float64)
        middle = (edges[:-1] + edges[1:]) / 2
        return self._summary.HistogramProto(
            min=float(edges[0]),
            max=float(edges[-1]),
            num=float(counts.sum()),
            sum=float(counts @ middle),
            sum_squares=float(counts @ middle**2),
            bucket_limit=edges.tolist(),
            bucket=[0.0, *counts.tolist()],
        )


def _flat(values: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}/{key}"
        found += _flat(value, name) if isinstance(value, dict) else [(name, value)]
    return found
