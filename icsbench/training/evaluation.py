"""Accuracy by evaluation protocol: which statistics BN normalises by, and whether the noise is on."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icsbench.data import Split, normalise
from icsbench.members import member
from icsbench.norms import Norm, batch_norms, noise_modules
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


KNOWN = Protocol("recalibrated", False)
"""What a network knows: what noise and lagging statistics cost while they are on is left out."""


def protocols_of(norm: str) -> list[Protocol]:
    """The protocols under which a network with this norm can differ; the first is the customary one."""
    regime = member("norms", Norm, norm)
    statistics = ("running", "recalibrated", "batch") if regime.keeps_statistics else ("running",)
    noise = (False, True) if regime.draws_noise else (False,)
    return [Protocol(s, n) for n in noise for s in statistics]


def known_protocol(protocols: list[Protocol]) -> Protocol:
    """:data:`KNOWN`; running-off, which is the same, where a norm keeps no statistics."""
    return KNOWN if KNOWN in protocols else Protocol("running", False)


def hits(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many of N answers are right, and how many are none: outputs, ``(N, C)``, that are not all finite.

    Both are integers on the device. Who gives no answer guesses, and is right once in C.
    """
    answered = outputs.isfinite().all(1)
    return (answered & (outputs.argmax(1) == labels)).sum(), (~answered).sum()


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
    """Accuracy of ``model`` on one split; see :func:`accuracies`."""
    options = {"batch_size": batch_size, "mean": mean, "std": std, "seed": seed}
    return accuracies(model, {"": split}, protocol, recalibration=recalibration, **options)[""]


@torch.no_grad()
def accuracies(
    model: nn.Module,
    splits: Mapping[str, Split],
    protocol: Protocol,
    *,
    batch_size: int,
    mean: Tensor,
    std: Tensor,
    seed: int,
    recalibration: Iterable[Tensor] = (),
) -> dict[str, float]:
    """Accuracy of ``model`` on each of the splits under ``protocol``, a fraction; NaN for an empty split.

    A split is cut into nearly equal batches of at most ``batch_size`` images, and none of one image out of several
    (batch statistics depend on the size). Noise, where it is on, is on in recalibration too, and drawn from the
    "evaluation" stream of ``seed``, for each split as if it were the only one. Answers that are none count as guessed
    (:func:`hits`). The model is left as it was found.

    :param splits: uint8 images on the model's device, by name.
    :param mean: per-channel mean of the pixels, ``std`` their standard deviation: the normalisation of training.
    :param recalibration: training batches for the recalibrated statistics; unused by the other protocols.
    """
    found = dict.fromkeys(splits, math.nan)
    filled = {name: split for name, split in splits.items() if len(split.labels)}
    if not filled:
        return found
    device = next(iter(filled.values())).images.device
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
        noise = generator.get_state()
        for name, split in filled.items():
            generator.set_state(noise)
            count = len(split.labels)
            right, guessed, classes = 0, 0, 1
            chunks = min(math.ceil(count / batch_size), count // 2) or 1
            for images, labels in zip(
                split.images.tensor_split(chunks), split.labels.tensor_split(chunks), strict=True
            ):
                outputs = model(normalise(images, mean, std))
                classes = outputs.shape[1]
                of_chunk = hits(outputs, labels)
                right, guessed = right + of_chunk[0], guessed + of_chunk[1]
            found[name] = (int(right) + int(guessed) / classes) / count
    return found
