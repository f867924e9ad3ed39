"""The lab on BN's statistics against the network taken by hand, on two networks."""

from dataclasses import replace

import pytest
import torch

from icsbench.config import Config, DataConfig, options_of, probes_options
from icsbench.data import Batches, load_dataset, normalize
from icsbench.errors import IcsbenchError
from icsbench.labs.batch_statistics import LAB, BatchStatisticsOptions
from icsbench.labs.batch_statistics.measure import compositions, rows
from icsbench.labs.network import Network
from icsbench.training import build_model
from icsbench.training.task import cross_entropy

MLP = options_of("model", "mlp", depth=2, units=24)
VGG = options_of("model", "vgg11", width=0.125)


def network_of(norm="bn", order="reshuffle", model=MLP, data="digits8", **options):
    config = Config(
        steps=5,
        batch_size=16,
        recalibration_batches=3,
        data=DataConfig(data, val_size=157, order=order),
        model=model,
        norm=options_of("norm", norm),
        optim=options_of("optim", "sgd", lr=0.2),
        probes=probes_options(shift=False),
    )

    def train(_):
        raise AssertionError("the lab makes its training itself")

    return Network(replace(config, **options), train)


def by_hand(network):
    """The network after its steps, made with plain torch."""
    config, dataset = network.config, network.dataset
    mean, std = dataset.normalization()
    about = {"mean": mean, "std": std, "device": "cpu"}
    batches = Batches(dataset.train, config.batch_size, config.seed, order=config.data.order, **about)
    model = build_model(config, dataset.num_classes).train()
    model = model.to(memory_format=torch.channels_last)
    for step in range(config.steps):
        x, labels = batches(step)
        model.zero_grad()
        cross_entropy(model(x), labels).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= config.optim.lr * parameter.grad
    return model, Batches(dataset.train, config.batch_size, config.seed, **about), (mean.float(), std.float())


@torch.no_grad()
def right(model, split, statistics, size):
    x = normalize(split.images, *statistics)
    parts = zip(x.split(size), split.labels.split(size), strict=True)
    return float(sum((model(part).argmax(1) == labels).sum() for part, labels in parts)) / len(split)


@pytest.mark.parametrize(("model", "data"), [(MLP, "digits8"), (VGG, "digits")])
@pytest.mark.parametrize("order", ["reshuffle", "by_class"])
def test_the_accuracies_are_those_of_the_network_taken_by_hand(model, data, order):
    network = network_of(order=order, model=model, data=data)
    found = [*rows(BatchStatisticsOptions("batch_statistics", images=160, sizes=[4]), network)]
    at_end = {(r["statistics"], r["batches"], r["size"]): r["accuracy"] for r in found if r["step"] == 5}
    assert {r["step"] for r in found} == {1, 2, 5} and len(found) == 3 * 4 + 2 and len(at_end) == 6
    trained, random, statistics = by_hand(network)
    test = network.dataset.test.take(torch.arange(160))
    trained.eval()
    assert at_end["running", "random", 16] == pytest.approx(right(trained, test, statistics, 160), abs=1e-9)
    trained.train()
    for size in (4, 16):
        for batches, split in compositions(test, size, 1, 0).items():
            assert at_end["batch", batches, size] == pytest.approx(right(trained, split, statistics, size), abs=1e-9)
    norms = [m for m in trained.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for step in range(3):
            trained(random(step)[0])
    trained.eval()
    assert at_end["precise", "random", 16] == pytest.approx(right(trained, test, statistics, 160), abs=1e-9)


def test_a_norm_without_statistics_has_one_accuracy():
    found = [*rows(BatchStatisticsOptions("batch_statistics", images=50), network_of("none", "by_class"))]
    assert [(r["step"], r["statistics"], r["size"]) for r in found] == [(n, "running", 16) for n in (1, 2, 5)]
    assert {(r["norm"], r["order"]) for r in found} == {("none", "by_class")}


@pytest.mark.parametrize(("size", "classes"), [(8, 1), (8, 2), (12, 4)])
def test_both_compositions_hold_the_same_images(size, classes):
    test = load_dataset("digits8", None, 157).test
    found = compositions(test, size, classes, 3)
    assert [*found] == ["random", "by_class"]
    totals = [split.images.flatten(1).long().sum(1).sort().values for split in found.values()]
    assert torch.equal(*totals) and len(totals[0]) % size == 0
    assert max(len(labels.unique()) for labels in found["by_class"].labels.split(size)) <= classes
    assert min(len(labels.unique()) for labels in found["random"].labels.split(size)) > classes


@pytest.mark.parametrize(
    ("options", "network", "message"),
    [
        ({"images": 20}, {}, "lab.images=20 test images make no batch by class of 8"),
        (
            {"sizes": [9]},
            {"data": DataConfig("digits8", val_size=157, classes_per_batch=2)},
            "does not divide a batch of 9",
        ),
    ],
)
def test_batches_that_cannot_be_are_refused_before_a_row(options, network, message):
    of = network_of()
    of = Network(replace(of.config, **network), lambda _: {})
    with pytest.raises(IcsbenchError, match=message):
        list(LAB.rows(BatchStatisticsOptions("batch_statistics", **options), 0, of))


def test_a_regression_is_refused():
    config = Config(
        batch_size=1000,
        data=DataConfig("gaussian"),
        model=options_of("model", "dln", depth=2, units=10),
        probes=probes_options(shift=False),
    )
    with pytest.raises(IcsbenchError, match="is about a classifier, and data gaussian have no classes"):
        list(LAB.rows(BatchStatisticsOptions("batch_statistics"), 0, Network(config, lambda _: {})))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"images": 1}, "lab.images must be at least 2"), ({"sizes": [8, 1]}, "lab.sizes must be at least 2")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BatchStatisticsOptions("batch_statistics", **options)
