"""The network of a training, for the labs that are about one: untrained, and as its run leaves it."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from icsbench.config import Config
from icsbench.errors import IcsbenchError
from icsbench.record.schema import CHECKPOINT
from icsbench.record.writer import folder_of
from icsbench.streams import stream_seed

if TYPE_CHECKING:
    from torch import Tensor

    from icsbench import models
    from icsbench.data import Dataset
    from icsbench.training.task import Task


class Network:
    """The network of ``config``, a training, on the CPU (float64 is slow on most GPUs, and missing on some).

    :param train: makes the record of a training, unless it is there already; returns its summary.
    """

    def __init__(self, config: Config, train: Callable[[Config], dict[str, Any]]) -> None:
        self.config = config
        self._train = train

    @cached_property
    def dataset(self) -> "Dataset":
        """The data of the run.

        :raises IcsbenchError: they are not there, or cannot be read.
        """
        from icsbench.training.environment import dataset_of

        return dataset_of(self.config)

    @cached_property
    def task(self) -> "Task":
        """Batches and loss of the run.

        :raises IcsbenchError: the data do not hold a batch.
        """
        import torch

        from icsbench.training.task import Task

        return Task(self.config, self.dataset, torch.device("cpu"))

    @cached_property
    def described(self) -> dict[str, Any]:
        """What the record of a lab says of it: the look of its norm, the model, the data.

        :raises IcsbenchError: the data are not there, or cannot be read.
        """
        from icsbench.training.environment import of_network

        return of_network(self.config, self.dataset)

    @cached_property
    def initial(self) -> "dict[str, Tensor]":
        """The parameters before the first update, by name."""
        return {name: parameter.detach().clone() for name, parameter in self.untrained().named_parameters()}

    def untrained(self) -> "models.Network":
        """A new copy of the network before the first update, with its noise at the start of its stream."""
        import torch

        from icsbench.norms import noise_modules, start_from_data
        from icsbench.training import build_model

        network = build_model(self.config, self.dataset.num_classes)
        noise = torch.Generator().manual_seed(stream_seed(self.config.seed, "noise"))
        for module in noise_modules(network):
            module.generator = noise
        start_from_data(network, lambda: self.task.batches(0)[0])
        return network

    def trained(self) -> "tuple[models.Network, int]":
        """A new copy of the network after the last update, and the number of updates; the run is made if need be.

        :raises IcsbenchError: the run cannot be made, has diverged, or has lost its checkpoint.
        """
        import torch

        from icsbench.training import checkpoint

        summary = self._train(self.config)
        folder = folder_of(self.config)
        if summary["diverged_at"] is not None:
            raise IcsbenchError(f"{folder} diverged, so there is no trained network; try a smaller optim.lr")
        path = folder / CHECKPOINT
        if not path.exists():
            raise IcsbenchError(f"{path} is missing; delete the folder to train the run again")
        network = self.untrained()
        network.load_state_dict(checkpoint.load(path, self.config, torch.device("cpu"))["model"])
        return network, summary["steps"]
