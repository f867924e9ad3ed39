"""Accuracy by evaluation protocol (which statistics BN normalizes by, and whether the noise is on), and when."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from icsbench.config import Config
from icsbench.data import Split, normalize
from icsbench.members import member
from icsbench.norms import Norm, batch_norms, noise_modules
from icsbench.probes import undisturbed
from icsbench.record import schema
from icsbench.streams import stream_seed
from icsbench.training.task import Task

_SHARE = 0.05
_PASSES_OF_AN_UPDATE = 3  # forward, and backward, which is two


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

    Both are integers on the device. An image without an answer counts as guessed: right once in C.
    """
    answered = outputs.isfinite().all(1)
    return (answered & (outputs.argmax(1) == labels)).sum(), (~answered).sum()


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
    :param mean: mean of the pixels per channel, ``std`` their standard deviation, by which the model's inputs are
        normalized.
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
            norm.momentum = 0.0  # batch renormalization reads what it follows: a batch would depend on those before it
        noise = generator.get_state()
        for name, split in filled.items():
            generator.set_state(noise)
            count = len(split.labels)
            right, guessed, classes = 0, 0, 1
            chunks = _chunks(count, batch_size)
            for images, labels in zip(
                split.images.tensor_split(chunks), split.labels.tensor_split(chunks), strict=True
            ):
                outputs = model(normalize(images, mean, std))
                classes = outputs.shape[1]
                of_chunk = hits(outputs, labels)
                right, guessed = right + of_chunk[0], guessed + of_chunk[1]
            found[name] = (int(right) + int(guessed) / classes) / count
    return found


def _chunks(count: int, batch_size: int) -> int:
    return min(math.ceil(count / batch_size), count // 2) or 1


class Evaluations:
    """The accuracies of one run: which are measured along the way and which at the end, and the measuring.

    Along the way: the test accuracy under the customary protocol, and where noise is trained with, under the protocol
    of training itself. At the end: all protocols, on test and validation images. What the network *knows*
    (:data:`KNOWN`) is measured at the end, and along the way as often as it is cheap. A regression has none of these.
    """

    def __init__(self, config: Config, task: Task, model: nn.Module) -> None:
        self._config = config
        self._task = task
        self._model = model
        self.protocols: list[Protocol] = []
        if task.chance is not None:
            self.protocols = protocols_of(config.norm.name)
        self._followed = [*self.protocols[:1], *(protocol for protocol in self.protocols[-1:] if protocol.noise)]
        self._of_known = known_protocol(self.protocols)
        self.known_splits = tuple(name for name in ("test", "train") if name in task.splits)
        """The splits on which it is measured what the network knows: ``test``, and ``train`` if it is large enough."""
        self.recalibration_along = min(config.recalibration_batches, task.steps_per_epoch)
        """Recalibration batches of an evaluation along the way: an epoch at most, as more would be the same images."""
        self.known_steps = self._affordable(sum(len(task.splits[name]) for name in self.known_splits))
        """The evaluations along the way at which it is measured what the network knows."""

    def row_along(self, step: int) -> dict[str, Any] | None:
        """The row of the evaluation after ``step`` updates; None where none is due."""
        wanted = self._along(step)
        if not wanted:
            return None
        return self._row(step, self.measure(wanted, along=True), known=step in self.known_steps)

    def at_end(self, step: int) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The row of the last evaluation, and what the summary says of it: accuracies by split and protocol."""
        found = self.measure(self._end(), along=False)
        summary: dict[str, Any] = {
            schema.accuracy(split): {str(protocol): found[protocol][split] for protocol in self.protocols}
            for split in ("test", "val")
        }
        row = self._row(step, found, known=True) if self.protocols else None
        return row, summary | self._known(found)

    def measure(self, wanted: Mapping[Protocol, tuple[str, ...]], *, along: bool) -> dict[Protocol, dict[str, float]]:
        """Accuracies of the network now, by protocol and split.

        :param wanted: the splits for each protocol.
        :param along: whether to recalibrate on :attr:`recalibration_along` batches, as along the way.
        """
        task, config = self._task, self._config
        found = {}
        for protocol, splits in wanted.items():
            with task.autocast():
                found[protocol] = accuracies(
                    self._model,
                    {name: task.splits[name] for name in splits},
                    protocol,
                    batch_size=config.batch_size,
                    mean=task.mean,
                    std=task.std,
                    seed=config.seed,
                    recalibration=(task.batches(i)[0] for i in range(self._recalibration(along))),
                )
        return found

    def batches(self) -> int:
        """Batches that pass the network in all evaluations of a run, those of recalibration among them."""
        steps = range(0, self._config.steps, self._config.eval_every)
        along = sum(self._batches(self._along(step), along=True) for step in steps)
        return along + self._batches(self._end(), along=False)

    def _along(self, step: int) -> dict[Protocol, tuple[str, ...]]:
        if step % self._config.eval_every or step >= self._config.steps:
            return {}
        wanted: dict[Protocol, tuple[str, ...]] = {protocol: ("test",) for protocol in self._followed}
        return self._with_known(wanted) if step in self.known_steps else wanted

    def _end(self) -> dict[Protocol, tuple[str, ...]]:
        return self._with_known(dict.fromkeys(self.protocols, ("test", "val"))) if self.protocols else {}

    def _with_known(self, wanted: dict[Protocol, tuple[str, ...]]) -> dict[Protocol, tuple[str, ...]]:
        splits = (*wanted.get(self._of_known, ()), *self.known_splits)
        return wanted | {self._of_known: tuple(dict.fromkeys(splits))}

    def _recalibration(self, along: bool) -> int:
        return self.recalibration_along if along else self._config.recalibration_batches

    def _batches(self, wanted: Mapping[Protocol, tuple[str, ...]], *, along: bool) -> int:
        count = 0
        for protocol, splits in wanted.items():
            sizes = [len(self._task.splits[name]) for name in splits]
            count += sum(_chunks(size, self._config.batch_size) for size in sizes if size)
            count += self._recalibration(along) if protocol.statistics == "recalibrated" else 0
        return count

    def _row(self, step: int, found: Mapping[Protocol, Mapping[str, float]], *, known: bool) -> dict[str, Any]:
        customary, *others = self._followed
        row = {schema.STEP: step, schema.TEST_ACCURACY: found[customary]["test"]}
        row |= {schema.accuracy("test", protocol): found[protocol]["test"] for protocol in others}
        return row | (self._known(found) if known else {})

    def _known(self, found: Mapping[Protocol, Mapping[str, float]]) -> dict[str, float]:
        return {schema.accuracy(split, KNOWN): found[self._of_known][split] for split in self.known_splits}

    def _affordable(self, images: int) -> frozenset[int]:
        """Of the evaluations along the way, evenly spread, as many as a twentieth of the training pays for.

        Counted in images that pass the network, and for every regime as if it kept statistics, so that all regimes
        share these steps. Step 0, where nothing is known yet, is never among them.
        """
        config = self._config
        cost = self.recalibration_along * config.batch_size + images
        pays_for = int(_SHARE * _PASSES_OF_AN_UPDATE * config.steps * config.batch_size / cost)
        later = range(config.eval_every, config.steps, config.eval_every)
        every = len(later) // (pays_for + 1) + 1
        return frozenset(later[every - 1 :: every]) if images and pays_for else frozenset()
