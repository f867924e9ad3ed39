"""What a run is about: its batches, the network, the loss, and for a classifier its accuracies."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icsbench.config import Config
from icsbench.data import Batches, Dataset, FullBatch, Split, normalise
from icsbench.errors import IcsbenchError
from icsbench.members import member
from icsbench.models import Model, Network
from icsbench.norms import Norm
from icsbench.streams import stream_seed
from icsbench.training.evaluation import Protocol, accuracies

KNOWN_IMAGES = 5000
"""Training images on which it is measured what the network knows, where the training set has as many."""
_SHARE = 0.05
_PASSES_OF_AN_UPDATE = 3  # forward, and backward, which is two


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
    """Batches, loss and evaluation of one run on one device.

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
        self.known_splits: tuple[str, ...] = ()
        """The splits on which it is measured what the network knows: ``test``, and ``train`` if it is large enough."""
        self.known_steps: frozenset[int] = frozenset()
        """The evaluations along the way at which that is measured; at the end it always is."""
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
        mean, std = dataset.normalisation()
        data = config.data
        self.batches = Batches(
            dataset.train,
            config.batch_size,
            config.seed,
            flip=data.flip,
            crop=data.crop,
            mean=mean,
            std=std,
            device=device,
        )
        self._mean, self._std = mean.float().to(device), std.float().to(device)
        splits = {"test": dataset.test, "val": dataset.val}
        if len(dataset.train) >= KNOWN_IMAGES:
            # The same images in every run on this training set, whatever its seed.
            draw = torch.Generator().manual_seed(stream_seed(0, "known"))
            known = torch.randperm(len(dataset.train), generator=draw)[:KNOWN_IMAGES].sort().values
            splits["train"] = Split(dataset.train.images[known], dataset.train.labels[known])
        self._evaluated = {
            name: Split(split.images.to(device), split.labels.to(device)) for name, split in splits.items()
        }
        self.known_splits = tuple(name for name in ("test", "train") if name in splits)
        self.recalibration_along = min(config.recalibration_batches, self.batches.steps_per_epoch)
        """Recalibration batches of an evaluation along the way: an epoch at most, as more would be the same images."""
        self.known_steps = self._affordable(sum(len(splits[name]) for name in self.known_splits))

    def _affordable(self, images: int) -> frozenset[int]:
        """Of the evaluations along the way, evenly spread, as many as a twentieth of the training pays for.

        Counted in images that pass the network, for all regimes as for one with statistics, so that they share steps.
        Not that of step 0, where nothing is known yet.
        """
        config = self._config
        cost = self.recalibration_along * config.batch_size + images
        pays_for = int(_SHARE * _PASSES_OF_AN_UPDATE * config.steps * config.batch_size / cost)
        later = range(config.eval_every, config.steps, config.eval_every)
        every = len(later) // (pays_for + 1) + 1
        return frozenset(later[every - 1 :: every]) if pays_for else frozenset()

    def autocast(self) -> AbstractContextManager[Any]:
        """What forward passes of training and evaluation are made in: bfloat16 autocast with ``amp``.

        It keeps casts of the weights while it lasts, so weights must not change inside.
        """
        return torch.autocast(self._device.type, torch.bfloat16) if self._config.amp else nullcontext()

    def accuracies(
        self, model: nn.Module, splits: Sequence[str], protocol: Protocol, *, along: bool = False
    ) -> dict[str, float]:
        """Accuracy of a classifier on ``test``, ``val`` or ``train`` (fixed images of it): :func:`accuracies`.

        ``along`` the way, recalibration takes ``recalibration_along`` batches.
        """
        batches = self.recalibration_along if along else self._config.recalibration_batches
        with self.autocast():
            return accuracies(
                model,
                {name: self._evaluated[name] for name in splits},
                protocol,
                batch_size=self._config.batch_size,
                mean=self._mean,
                std=self._std,
                seed=self._config.seed,
                recalibration=(self.batches(i)[0] for i in range(batches)),
            )

    def probe_inputs(self) -> Tensor:
        """The fixed batch of the shift probe: training samples drawn from the "probe" stream; all, for a regression."""
        if self.chance is None:
            return self.batches(0)[0]
        size, available = self._config.probes.batch_size, len(self._train)
        if size > available:
            raise IcsbenchError(f"probes.batch_size is {size}, more than the {available} training images")
        generator = torch.Generator().manual_seed(stream_seed(self._config.seed, "probe"))
        chosen = torch.randperm(available, generator=generator)[:size]
        return normalise(self._train.images[chosen].to(self._device), self._mean, self._std)
