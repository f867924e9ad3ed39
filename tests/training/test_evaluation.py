import math

import pytest
import torch
from networks import ANYWHERE, small_vgg

from icsbench.data import Batches, Split, channel_statistics, load_dataset, normalize
from icsbench.norms import batch_norms, noise_modules
from icsbench.norms.batch_norm import population_statistics
from icsbench.record import schema
from icsbench.streams import stream_seed
from icsbench.training import Protocol, accuracies, protocols_of
from icsbench.training.evaluation import KNOWN, hits

DATA = load_dataset("digits", None, 157)
MEAN, STD = (value.float() for value in channel_statistics(DATA.train.images))
OPTIONS = {"batch_size": 64, "mean": MEAN, "std": STD, "seed": 0}


def trained(norm):
    """A network a few steps into training, so that running and population statistics differ."""
    model = small_vgg(norm, name="vgg11", width=0.125)
    stream = torch.Generator().manual_seed(1)
    for module in noise_modules(model):
        module.generator = stream
    lr = 0.005 if norm == "bn_frozen" else 0.05  # its statistics stay behind, and it diverges
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for step in range(12):
        inputs, targets = batches()(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def evaluate(model, split, protocol, **options):
    """The accuracy on one split."""
    return accuracies(model, {"": split}, protocol, **options)[""]


def batches():
    return Batches(DATA.train, 64, 0, mean=MEAN, std=STD, device="cpu")


def recalibration():
    return (batches()(step)[0] for step in range(5))


def test_protocols_of_the_regimes():
    assert list(map(str, protocols_of("none"))) == ["running-off"]
    assert list(map(str, protocols_of("bn"))) == ["running-off", "recalibrated-off", "batch-off"]
    assert list(map(str, protocols_of("noise"))) == ["running-off", "running-on"]
    assert len(set(protocols_of("noisy_bn"))) == 6
    assert str(protocols_of("noisy_bn")[-1]) == "batch-on"
    for norm in ("l1", "l2", "linf"):
        assert protocols_of(norm) == protocols_of("bn")
    assert str(KNOWN) == schema.KNOWN


@torch.no_grad()
def accuracy_by_hand(model, chunks=None):
    images, labels = DATA.test.images, DATA.test.labels
    if chunks is None:
        return (model(normalize(images, MEAN, STD)).argmax(1) == labels).double().mean().item()
    parts = zip(images.tensor_split(chunks), labels.tensor_split(chunks), strict=True)
    return sum((model(normalize(x, MEAN, STD)).argmax(1) == y).sum().item() for x, y in parts) / len(labels)


@pytest.mark.parametrize("norm", ANYWHERE)
def test_running_statistics_without_noise_is_plain_eval_mode(norm):
    model = trained(norm)
    found = evaluate(model, DATA.test, Protocol("running", False), **OPTIONS)
    assert model.training
    assert found == accuracy_by_hand(model.eval())


@pytest.mark.parametrize("norm", ["bn", "noisy_bn", "l1", "l2", "linf"])
def test_batch_statistics_are_those_of_each_evaluated_batch(norm):
    model = trained(norm)
    found = evaluate(model, DATA.test, Protocol("batch", False), **OPTIONS)
    for module in noise_modules(model):
        module.noise = False
    assert found == accuracy_by_hand(model.train(), chunks=6)


@pytest.mark.parametrize("norm", ["noisy_bn", "noise"])
def test_noise_on_draws_from_the_evaluation_stream(norm):
    model = trained(norm)
    protocol = protocols_of(norm)[-1]
    found = evaluate(model, DATA.test, protocol, **OPTIONS)
    assert found == evaluate(model, DATA.test, protocol, **OPTIONS)  # the same noise again
    stream = torch.Generator().manual_seed(stream_seed(0, "evaluation", str(protocol)))
    for module in noise_modules(model):
        module.noise, module.generator = True, stream
    model.train(protocol.statistics == "batch")
    assert found == accuracy_by_hand(model, chunks=6)


def averages(batches, p):
    """The averages of the batches' means and l_p norms per channel."""
    rows = [batch.transpose(0, 1).flatten(1) for batch in batches]
    norms = [row.abs().amax(1) if p == math.inf else row.abs().pow(p).mean(1) ** (1 / p) for row in rows]
    return torch.stack([row.mean(1) for row in rows]).mean(0), torch.stack(norms).mean(0)


@pytest.mark.parametrize("norm", ["bn", "l1", "l2", "linf"])
def test_recalibrated_statistics_are_the_population_statistics_of_the_paper(norm):
    model = trained(norm)
    found = evaluate(model, DATA.test, Protocol("recalibrated", False), recalibration=recalibration(), **OPTIONS)
    norms = [block.norm for _, block in model.layers()[:-1]]
    inputs = {norm: [] for norm in norms}
    handles = [n.register_forward_pre_hook(lambda m, a: inputs[m].append(a[0].clone())) for n in norms]
    model.train()
    with torch.no_grad():
        for batch in recalibration():
            model(batch)
    for handle in handles:
        handle.remove()
    for module, seen in inputs.items():
        if norm == "bn":
            module.running_mean, module.running_var = population_statistics(seen)
        else:
            module.running_mean, module.running_norm = averages(seen, module.p)
    assert found == accuracy_by_hand(model.eval())
    assert found != 1 / 10


@pytest.mark.parametrize("norm", ANYWHERE)
def test_evaluation_leaves_the_network_as_it_was(norm):
    model = trained(norm)
    few = Split(DATA.test.images[:64], DATA.test.labels[:64])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    streams = [module.generator.get_state() for module in noise_modules(model)]
    for protocol in protocols_of(norm):
        evaluate(model, few, protocol, recalibration=recalibration(), **OPTIONS)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(a, m.generator.get_state()) for a, m in zip(streams, noise_modules(model), strict=True))
    assert all(module.noise is None for module in noise_modules(model))
    assert all(module.momentum == 0.1 for module in batch_norms(model))


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_a_network_that_answers_nothing_guesses_whatever_the_classes_shares(norm):
    model = trained(norm)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    for share in (0.0, 0.5, 1.0):  # of class 0, which is where argmax finds NaN
        labels = torch.full((60,), 3)
        labels[: int(60 * share)] = 0
        split = Split(DATA.test.images[:60], labels)
        for protocol in protocols_of(norm):
            found = evaluate(model, split, protocol, recalibration=recalibration(), **OPTIONS)
            assert found == pytest.approx(0.1, abs=1e-12)


def test_only_answers_that_are_not_finite_count_as_guessed():
    outputs = torch.tensor(
        [[1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [math.nan, 9.0, 0.0], [math.inf, 0.0, 0.0], [0.0, 1.0, 2.0]]
    )
    right, guessed = hits(outputs, torch.tensor([1, 1, 1, 0, 2]))
    assert (right.item(), guessed.item()) == (2, 2)


def test_splits_evaluated_together_have_the_accuracies_they_have_alone():
    for norm in ("bn", "noisy_bn"):
        model = trained(norm)
        splits = {"test": DATA.test, "val": DATA.val, "empty": Split(DATA.test.images[:0], DATA.test.labels[:0])}
        for protocol in protocols_of(norm):
            together = accuracies(model, splits, protocol, recalibration=recalibration(), **OPTIONS)
            assert math.isnan(together.pop("empty"))
            for name, accuracy in together.items():
                alone = evaluate(model, splits[name], protocol, recalibration=recalibration(), **OPTIONS)
                assert accuracy == alone


def test_an_empty_split_has_no_accuracy():
    empty = Split(DATA.test.images[:0], DATA.test.labels[:0])
    assert math.isnan(evaluate(trained("none"), empty, Protocol("running", False), **OPTIONS))
