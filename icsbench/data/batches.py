"""Training batches as a pure function of a seed and a step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from icsbench.errors import IcsbenchError
from icsbench.streams import stream_seed

if TYPE_CHECKING:
    from icsbench.data.kinds import Split

PADDING = 4


def generator(seed: int, *name: str | int) -> torch.Generator:
    """Return a CPU generator for the stream ``name`` of ``seed``, apart from the global one."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact mean and population standard deviation of each channel.

    ``images`` is uint8 ``(N, H, W, C)``; both results are float64 ``(C,)`` on the CPU, in pixel units 0..255.
    """
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(-1)]).cpu()
    values = torch.arange(256, dtype=torch.float64)
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    return mean, variance.sqrt()


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return ``(images - mean) / std`` as float32 ``(N, C, H, W)`` in the channels_last memory format.

    ``images`` is uint8 ``(N, H, W, C)``; ``mean`` and ``std`` are ``(C,)`` in pixel units 0..255. The result is on
    the device of ``images``.
    """
    width, channels = images.shape[2:]
    mean, std = (statistic.to(images.device, torch.float32).repeat(width) for statistic in (mean, std))
    # Whole rows of pixels at a time: arithmetic that broadcasts over a few channels is several times slower on a CPU.
    rows = images.flatten(2).float().sub_(mean).div_(std)
    return rows.unflatten(2, (width, channels)).permute(0, 3, 1, 2)


def epoch_order(
    order: str, seed: int, epoch: int, labels: Tensor, batch_size: int, classes_per_batch: int = 1
) -> Tensor:
    """Return the numbers of the images in which an epoch visits them, int64 on the CPU; each B in a row are a batch.

    =============  ===================================================================================================
    reshuffle      a new random order in every epoch (random reshuffling)
    shuffle_once   the order of epoch 0 in every epoch (single shuffle)
    fixed_batches  the batches of ``shuffle_once``, visited in a new random order in every epoch
    by_class       batches of at most ``classes_per_batch`` classes: the images of each class, in a new random order in
                   every epoch, are cut into pieces of ``B / classes_per_batch``; the pieces are visited in random order
    =============  ===================================================================================================

    What is left over at the end makes no batch; of ``by_class``, what makes no whole piece of its class is left out.

    :param labels: the class of each image, int64 ``(N,)`` on the CPU.
    """
    draw = generator(seed, "order", 0 if order in ("shuffle_once", "fixed_batches") else epoch)
    visited = torch.randperm(len(labels), generator=draw)
    if order == "fixed_batches":
        batches = visited[: len(visited) // batch_size * batch_size].view(-1, batch_size)
        return batches[torch.randperm(len(batches), generator=generator(seed, "batches", epoch))].flatten()
    if order == "by_class":
        of_class = visited[labels[visited].argsort(stable=True)].split(labels.bincount().tolist())
        size = batch_size // classes_per_batch
        pieces = torch.cat([images[: len(images) // size * size].view(-1, size) for images in of_class])
        return pieces[torch.randperm(len(pieces), generator=draw)].flatten()
    return visited


class Batches:
    """Training batches as a pure function of ``(seed, step)``.

    Epoch ``e`` is the steps ``e * steps_per_epoch`` and on; it visits the split in an order drawn from
    ``(seed, e)``, see :func:`epoch_order`, and the augmentation of a step is drawn from ``(seed, step)``. All draws are
    made on the CPU by generators of their own, so that a run resumes at any step without state, sees the same batches
    on every device and never moves the global random state.

    ``flip`` mirrors each image with probability 1/2; ``crop`` pads each with four black pixels on every side and cuts
    a window of the image's own size at one of the 81 offsets. The images are square, of C channels; ``mean`` and
    ``std`` are ``(C,)`` in pixel units 0..255. The images stay on ``device`` as uint8.

    :raises IcsbenchError: the split holds fewer than ``batch_size`` images, or does not fill a batch by class.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        *,
        flip: bool = False,
        crop: bool = False,
        order: str = "reshuffle",
        classes_per_batch: int = 1,
        mean: Tensor,
        std: Tensor,
        device: torch.device | str,
    ) -> None:
        self._count = len(split.labels)
        if not 1 <= batch_size <= self._count:
            raise IcsbenchError(
                f"batch_size={batch_size} does not fit the training set of {self._count} images "
                f"(what data.val_size leaves of it): choose one from 2 to {self._count}"
            )
        self._order_of = partial(
            epoch_order,
            order,
            seed,
            labels=split.labels.cpu(),
            batch_size=batch_size,
            classes_per_batch=classes_per_batch,
        )
        if order == "by_class":
            self._check_classes(split.labels, batch_size, classes_per_batch)
        self._order = 0, self._order_of(0)
        self.steps_per_epoch = len(self._order[1]) // batch_size
        self._batch_size = batch_size
        self._seed = seed
        self._flip = flip
        self._crop = crop
        self._device = torch.device(device)
        self._mean = mean.to(self._device, torch.float32)
        self._std = std.to(self._device, torch.float32)
        self._labels = split.labels.to(self._device)
        self._shape = split.images.shape[1:]
        self._images = split.images.to(self._device)
        if crop:
            self._images = functional.pad(self._images, (0, 0, PADDING, PADDING, PADDING, PADDING))
        self._width = self._images.shape[2]
        self._pixels = self._images.reshape(-1, self._shape[2])
        self._across = torch.arange(self._shape[1], device=self._device)
        self._down = self._width * self._across[:, None]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of ``step`` (from 0), on the device.

        The images are float32 ``(B, C, H, W)`` in the channels_last memory format, the labels int64 ``(B,)``; the
        incomplete batch at the end of an epoch is left out, because batch normalization depends on the batch size.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        index = self._epoch_order(epoch)[position * self._batch_size :][: self._batch_size]
        if not (self._flip or self._crop):
            index = index.to(self._device, non_blocking=True)
            return normalize(self._images.index_select(0, index), self._mean, self._std), self._labels[index]
        draw = generator(self._seed, "augment", step)
        # An image is read from the pixel numbered `first`, and along its rows in the direction `stride`.
        first, stride = index * self._width**2, torch.ones_like(index)
        if self._crop:
            row, column = torch.randint(2 * PADDING + 1, (2, self._batch_size), generator=draw)
            first += self._width * row + column
        if self._flip:
            flipped = torch.randint(2, (self._batch_size,), generator=draw)
            first += (self._shape[1] - 1) * flipped
            stride -= 2 * flipped
        plan = torch.stack((index, first, stride)).to(self._device, non_blocking=True)
        index, first, stride = plan[0], plan[1, :, None, None], plan[2, :, None, None]
        chosen = first + stride * self._across + self._down
        images = self._pixels.index_select(0, chosen.flatten()).view(self._batch_size, *self._shape)
        return normalize(images, self._mean, self._std), self._labels[index]

    def _epoch_order(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            self._order = epoch, self._order_of(epoch)
        return self._order[1]

    @staticmethod
    def _check_classes(labels: Tensor, batch_size: int, classes_per_batch: int) -> None:
        images = labels.bincount()
        classes = int((images > 0).sum())
        if classes_per_batch > classes:
            raise IcsbenchError(
                f"data.classes_per_batch={classes_per_batch} is more than the {classes} classes of the training set"
            )
        if batch_size % classes_per_batch:
            raise IcsbenchError(
                f"data.classes_per_batch={classes_per_batch} does not divide batch_size={batch_size}: a batch has "
                "equally many images of each class"
            )
        piece = batch_size // classes_per_batch
        if (pieces := int((images // piece).sum())) < classes_per_batch:
            raise IcsbenchError(
                f"data.order=by_class makes no batch: one takes {classes_per_batch} x {piece} images of a class, and "
                f"the training set has {pieces} x {piece}: choose a smaller batch_size or more data.classes_per_batch"
            )
