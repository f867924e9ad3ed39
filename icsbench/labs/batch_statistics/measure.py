"""A training followed step by step, and its test accuracies by statistics and composition of the batches."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from icsbench.data import Split, epoch_order
from icsbench.data.batches import generator
from icsbench.errors import IcsbenchError
from icsbench.labs.batch_statistics import BatchStatisticsOptions
from icsbench.labs.contract import Row
from icsbench.labs.network import Network
from icsbench.labs.rungs import rungs
from icsbench.training.evaluation import Protocol, accuracies, protocols_of
from icsbench.training.task import Task
from icsbench.training.trainer import Trainer


def rows(options: BatchStatisticsOptions, network: Network) -> Iterator[Row]:
    """The rows of one training.

    :raises IcsbenchError: the data have no classes; or the test images make no batch by class of a size.
    """
    config, dataset = network.config, network.dataset
    if dataset.num_classes is None:
        raise IcsbenchError(
            f"lab batch_statistics is about a classifier, and data {dataset.name} have no classes; "
            "choose data=digits or data=cifar10"
        )
    test = dataset.test.take(torch.arange(min(options.images, len(dataset.test))))
    keeps = len(protocols_of(config.norm.name)) > 1
    sizes = sorted({config.batch_size, *options.sizes})
    composed = {size: compositions(test, size, config.data.classes_per_batch, config.seed) for size in sizes if keeps}
    trainer = Trainer(config, dataset, torch.device("cpu"))
    random = Task(replace(config, data=replace(config.data, order="reshuffle")), dataset, torch.device("cpu")).batches

    def measured(splits: dict[str, Split], statistics: str, size: int) -> Iterator[Row]:
        with trainer.task.autocast():
            found = accuracies(
                trainer.model,
                splits,
                Protocol({"precise": "recalibrated"}.get(statistics, statistics), False),
                batch_size=size,
                mean=trainer.task.mean,
                std=trainer.task.std,
                seed=config.seed,
                recalibration=(random(number)[0] for number in range(config.recalibration_batches)),
            )
        for batches, accuracy in found.items():
            yield {"statistics": statistics, "batches": batches, "size": size, "accuracy": accuracy}

    trainer.model.train()
    recorded = {*rungs(config.steps)}
    for step in range(1, config.steps + 1):
        trainer.step(step - 1)
        if step not in recorded:
            continue
        about = {"step": step, "norm": config.norm.name, "order": config.data.order}
        for statistics in ("running", "precise") if keeps else ("running",):
            yield from (about | row for row in measured({"random": test}, statistics, config.batch_size))
        for size, splits in composed.items():
            if size == config.batch_size or step == config.steps:
                yield from (about | row for row in measured(splits, "batch", size))


def compositions(split: Split, size: int, classes_per_batch: int, seed: int) -> dict[str, Split]:
    """The same images in whole batches of ``size``: in ``random`` ones, and ``by_class``, of few classes each.

    :raises IcsbenchError: the images make no batch by class.
    """
    if size % classes_per_batch:
        raise IcsbenchError(f"data.classes_per_batch={classes_per_batch} does not divide a batch of {size} (lab.sizes)")
    order = epoch_order("by_class", seed, 0, split.labels, size, classes_per_batch)
    order = order[: len(order) // size * size]
    if not len(order):
        raise IcsbenchError(
            f"lab.images={len(split)} test images make no batch by class of {size}: choose more, or smaller lab.sizes"
        )
    shuffled = order[torch.randperm(len(order), generator=generator(seed, "compositions"))]
    return {"random": split.take(shuffled), "by_class": split.take(order)}
