"""Accuracy by evaluation protocol: which statistics BN normalises by, and whether the noise is on."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icsbench.data import Split, normalise
from icsbench.norms import batch_norms, noise_modules
from icsbench.probes import undisturbed
from icsbench.streams import stream_seed


class Protocol(NamedTuple):
    """How a network is evaluated.

    ``statistics``: ``running`` (BN's moving averages), ``recalibrated`` (population statistics of the final weights,
    Ioffe & Szegedy 2015, section 3.1: the averages of the batch means and unbiased batch variances over training
    batches, of the batches' means and N_p for l_p normalization), or ``batch`` (of the evaluated batch, as in
    training). ``noise``: whether injected noise is on.
    """

    statistics: str
    noise: bool

    def __str__(self) -> str:
        return f"{self.statistics}-{'on' if self.noise else 'off'}"


def protocols_of(norm: str) -> list[Protocol]:
    """The protocols under which a network with this norm can differ; the first is the customary one."""
    statistics = ("running",) if norm in ("none", "noise") else ("running", "recalibrated", "batch")
    noise = (False, True) if norm in ("noisy_bn", "noise") else (False,)
    return [Protocol(s, n) for n in noise for s in statistics]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    protocol: Protocol,
    *,
    batch_size: int,
    mean: Tensor,
    std: Tensor,
    seed: int,
    recalibration: Iterable[Tensor] = (),
) -> float:
    """Accuracy of ``model`` on ``split`` under ``protocol``, a fraction; NaN for an empty split.

    The split is cut into nearly equal batches of at most ``batch_size`` images, and none of one image out of several
    (batch statistics depend on the size). Noise, where it is on, is on in recalibration too, and drawn from the
    "evaluation" stream of ``seed``. The model is left as it was found.

    :param split: uint8 images on the model's device.
    :param mean: per-channel mean of the pixels, ``std`` their standard deviation: the normalisation of training.
    :param recalibration: training batches for the recalibrated statistics; unused by the other protocols.
    """
    if not len(split.labels):
        return math.nan
    device = split.images.device
    with undisturbed(model):
        model.eval()
        norms = batch_norms(model)
        generator = torch.Generator(device).manual_seed(stream_seed(seed, "evaluation", str(protocol)))
        for module in noise_modules(model):
            module.noise, module.generator = protocol.noise, generator
        if protocol.statistics == "recalibrated":
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.training = True
            for inputs in recalibration:
                model(inputs)
        for norm in norms:
            norm.training = protocol.statistics == "batch"
        correct = torch.zeros((), dtype=torch.int64, device=device)
        chunks = min(math.ceil(len(split.labels) / batch_size), len(split.labels) // 2) or 1
        for images, labels in zip(split.images.tensor_split(chunks), split.labels.tensor_split(chunks), strict=True):
            correct += (model(normalise(images, mean, std)).argmax(1) == labels).sum()
    return correct.item() / len(split.labels)
