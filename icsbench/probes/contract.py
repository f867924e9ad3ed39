"""What a probe is: the contract of its members, and of what they start for a run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from icsbench.members import members
from icsbench.probes.gradients import LossFn


class Update(NamedTuple):
    """One update of a run."""

    number: int
    """How many updates were made before it."""
    inputs: Tensor
    targets: Tensor
    lr: float
    """Its learning rate: before the update that of the schedule, after it the one that was used."""


@dataclass(frozen=True)
class Reading:
    """What a probe found at one step."""

    row: Mapping[str, Any] | None = None
    """Numbers, or lists of numbers, by their keys in ``metrics.jsonl``; None for no row."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Stored as ``probes/<name>/step-<step>.npz`` where there are any."""
    layers: list[dict[str, Any]] | None = None
    """The layers that are measured, in the order of the arrays: objects with ``layer`` (its path) and ``depth`` (from
    1). Stored as ``probes/<name>/layers.json``. Given once, with the first reading of a run."""
    histograms: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Counts, ``(bins,)``, and edges, ``(bins + 1,)``, by name, for W&B alone."""


class Watcher(ABC):
    """A probe at work in one run: a :class:`NetworkWatcher`, an :class:`UpdateWatcher`, or both.

    The trainer calls it inside :func:`icsbench.probes.undisturbed`: whatever it does to the network, its gradients and
    the random streams is put back.
    """

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether it measures the network after ``step`` updates, or the update that is made then."""

    def state_dict(self) -> dict[str, Any]:
        """What later measurements need of earlier ones: tensors, numbers, strings, and lists and dictionaries of them.

        It goes into the checkpoint, so that a resumed run measures the same.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from :meth:`state_dict`."""


class NetworkWatcher(Watcher):
    """Measures the network as it is between two updates, the first time before any and the last time after all."""

    @abstractmethod
    def measure(self, step: int) -> Reading:
        """Measure it after ``step`` updates."""


class UpdateWatcher(Watcher):
    """Measures single updates."""

    @abstractmethod
    def before(self, update: Update) -> None:
        """Called right before the forward pass of the update, with the weights that it starts from."""

    @abstractmethod
    def after(self, update: Update) -> Reading:
        """Called right after the update, with the new weights."""


class Task(Protocol):
    """What a probe can ask of the run's task (:class:`icsbench.training.task.Task`)."""

    @property
    def loss(self) -> LossFn:
        """The loss that is trained on."""
        ...

    @property
    def batches(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        """``step -> (inputs, targets)``: the batch of the update after so many others, as often as it is asked for."""
        ...

    def probe_inputs(self, size: int) -> Tensor:
        """A fixed batch of so many training inputs; of a regression, all of them."""
        ...


@dataclass(frozen=True)
class Probe:
    """A member of ``icsbench.probes``.

    Its name is that of its folder below ``probes/`` in a record.
    """

    name: str
    options: type
    """A dataclass. Its fields are keys of the group ``probes`` in the configuration, beside those of the other probes;
    it raises ValueError for a value out of range."""
    start: Callable[[Any, nn.Module, Task], Watcher | None]
    """``(config, network, task) ->`` the watcher of a run; None where ``config.probes`` switches the probe off."""


class Started(NamedTuple):
    """A probe's watcher in a run, with the probe's name."""

    name: str
    watcher: Watcher


def start_probes(config: Any, model: nn.Module, task: Task) -> list[Started]:
    """The watchers of a run, in the order of :func:`icsbench.members.members`; those due together measure in it.

    :param config: the run's :class:`icsbench.config.Config`.
    :raises IcsbenchError: a probe cannot measure this run.
    """
    started = ((probe.name, probe.start(config, model, task)) for probe in members("probes", Probe).values())
    return [Started(name, watcher) for name, watcher in started if watcher is not None]
