"""What a run is about: its batches, the network, the loss, and for a classifier the images that it is evaluated on."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench.config import Config
from icsbench.data import Batches, Dataset, FullBatch, Split, normalize
from icsbench.errors import IcsbenchError
from icsbench.members import member
from icsbench.models import Model, Network
from icsbench.norms import Norm
from icsbench.streams import stream_seed

KNOWN_IMAGES = 5000
"""Training images that are evaluated, where the training set has as many."""


def build_model(config: Config, num_classes: int | None) -> Network:
    """The network of a config with its norm, with the initial weights of the run's seed, on the CPU.

    :param num_classes: size of a classifier's output; None for a regression.
    """
    model = member("models", Model, config.model.name)
    norm = member("norms", Norm, config.norm.name).bound(config.norm)
    with torch.random.fork_rng(devices=[]):
        network = model.build(config.model, norm, shape=config.data.shape, num_classes=num_classes, seed=config.seed)
    return network.to(model.dtype)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of a classifier, mean over the batch; in float32 under autocast too, in float64 for such logits."""
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of a regression, ``1/2 sum ||y - t||^2``, summed over the batch (Santurkar et al. 2018, Appendix A)."""
    return (outputs - targets).square().sum() / 2


class Task:
    """Batches, loss and evaluated images of one run on one device.

    :param dataset: with classes it is classified, without it is a regression on the full batch.
    :raises IcsbenchError: the data do not hold a batch.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        self._config = config
        self._train = dataset.train
        self._device = device
        self.chance = None if dataset.num_classes is None else 1 / dataset.num_classes
        """Accuracy of guessing; None for a regression."""
        self.loss: Callable[[Tensor, Tensor], Tensor]
        self.batches: Callable[[int], tuple[Tensor, Tensor]]
        """``step -> (inputs, targets)`` on the device."""
        self.steps_per_epoch = 1
        self.splits: dict[str, Split] = {}
        """The evaluated images on the device: ``test``, ``val``, and ``train``, :data:`KNOWN_IMAGES` fixed ones."""
        if self.chance is None:
            self.loss = half_squared_error
            self.batches = FullBatch(dataset.train.images, dataset.train.labels, device)
            if config.batch_size != len(dataset.train):
                raise IcsbenchError(
                    f"data {dataset.name} is trained on the full batch: batch_size must be {len(dataset.train)} "
                    f"(got {config.batch_size})"
                )
            return
        self.loss = cross_entropy
        mean, std = dataset.normalization()
        data = config.data
        self.batches = Batches(
            dataset.train,
            config.batch_size,
            config.seed,
            flip=data.flip,
            crop=data.crop,
            order=data.order,
            classes_per_batch=data.classes_per_batch,
            mean=mean,
            std=std,
            device=device,
        )
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.mean, self.std = mean.float().to(device), std.float().to(device)
        splits = {"test": dataset.test, "val": dataset.val}
        if len(dataset.train) >= KNOWN_IMAGES:
            # The same images in every run on this training set, whatever its seed.
            draw = torch.Generator().manual_seed(stream_seed(0, "known"))
            known = torch.randperm(len(dataset.train), generator=draw)[:KNOWN_IMAGES].sort().values
            splits["train"] = Split(dataset.train.images[known], dataset.train.labels[known])
        self.splits = {name: Split(split.images.to(device), split.labels.to(device)) for name, split in splits.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        """What forward passes of training and evaluation are made in: bfloat16 autocast with ``amp``.

        It keeps casts of the weights while it lasts, so weights must not change inside.
        """
        return torch.autocast(self._device.type, torch.bfloat16) if self._config.amp else nullcontext()

    def probe_inputs(self, size: int) -> Tensor:
        """A fixed batch of ``size`` training images, drawn from the "probe" stream; of a regression all inputs.

        :raises IcsbenchError: there are not as many.
        """
        if self.chance is None:
            return self.batches(0)[0]
        available = len(self._train)
        if size > available:
            raise IcsbenchError(f"probes.batch_size is {size}, more than the {available} training images")
        generator = torch.Generator().manual_seed(stream_seed(self._config.seed, "probe"))
        chosen = torch.randperm(available, generator=generator)[:size]
        return normalize(self._train.images[chosen].to(self._device), self.mean, self.std)
