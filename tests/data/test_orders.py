"""The orders of training images: which images meet in a batch, and when."""

from functools import partial

import pytest
import torch

from icsbench.config import DataConfig
from icsbench.data import Batches, Split, epoch_order, load_dataset
from icsbench.errors import IcsbenchError

LABELS = torch.arange(70).remainder(7)[torch.randperm(70, generator=torch.Generator().manual_seed(1))]
ORDERS = ("reshuffle", "shuffle_once", "fixed_batches", "by_class")
order_of = partial(epoch_order, labels=LABELS, batch_size=8)


def sets_of(order, size=8):
    return sorted(tuple(sorted(batch)) for batch in order[: len(order) // size * size].view(-1, size).tolist())


def batches_of(labels, size, order, seed=0, classes_per_batch=1):
    images = torch.zeros(len(labels), 4, 4, 1, dtype=torch.uint8)
    mean, std = torch.zeros(1), torch.ones(1)
    return Batches(
        Split(images, labels),
        size,
        seed,
        order=order,
        classes_per_batch=classes_per_batch,
        mean=mean,
        std=std,
        device="cpu",
    )


@pytest.mark.parametrize("order", ORDERS)
def test_no_image_is_seen_twice_in_an_epoch_and_an_epoch_is_a_function_of_seed_and_number(order):
    found = [order_of(order, 3, epoch) for epoch in range(4)]
    for epoch, one in enumerate(found):
        assert len(one.unique()) == len(one) <= 70
        assert torch.equal(one, order_of(order, 3, epoch))
        assert not torch.equal(one, order_of(order, 4, epoch))
    assert torch.equal(found[0], found[1]) == (order == "shuffle_once")


def test_shuffled_once_is_the_first_epoch_of_reshuffling():
    assert torch.equal(order_of("shuffle_once", 5, 9), order_of("reshuffle", 5, 0))
    assert sets_of(order_of("reshuffle", 5, 1)) != sets_of(order_of("reshuffle", 5, 0))


def test_fixed_batches_keep_their_images_and_change_their_place():
    once, moved = order_of("shuffle_once", 5, 0), [order_of("fixed_batches", 5, epoch) for epoch in (0, 1, 2)]
    assert len(moved[0]) == 64
    assert all(sets_of(one) == sets_of(once) for one in moved)
    assert len({tuple(one.tolist()) for one in moved}) == 3


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_batches_by_class_have_no_more_classes_and_are_drawn_anew(classes):
    found = [order_of("by_class", 5, epoch, classes_per_batch=classes) for epoch in (0, 1)]
    size = 8 // classes
    for one in found:
        assert len(one) == 7 * (10 // size * size)
        assert (LABELS[one].view(-1, size) == LABELS[one].view(-1, size)[:, :1]).all()
        batches = LABELS[one][: len(one) // 8 * 8].view(-1, 8)
        assert max(len(batch.unique()) for batch in batches) <= classes
        assert len(LABELS[one].unique()) == 7
    assert sets_of(found[0]) != sets_of(found[1])


@pytest.mark.parametrize("order", ORDERS)
def test_a_run_is_resumed_at_any_step(order):
    split = load_dataset("digits8", None, 157).train
    mean, std = torch.zeros(1), torch.ones(1)
    forward, resumed = (
        Batches(split, 32, 7, order=order, flip=True, mean=mean, std=std, device="cpu") for _ in range(2)
    )
    expected = [forward(step) for step in range(2 * forward.steps_per_epoch + 1)]
    for step in (len(expected) - 1, 3, forward.steps_per_epoch, 0):
        assert torch.equal(resumed(step)[0], expected[step][0]) and torch.equal(resumed(step)[1], expected[step][1])
    assert all(len(labels) == 32 for _, labels in expected)
    if order == "by_class":
        assert all(len(labels.unique()) == 1 for _, labels in expected)


def test_an_image_belongs_to_the_batch_of_its_number():
    split = load_dataset("digits8", None, 157).train
    batches = Batches(split, 16, 2, order="by_class", mean=torch.zeros(1), std=torch.ones(1), device="cpu")
    order = epoch_order("by_class", 2, 1, split.labels, 16)
    images, labels = batches(batches.steps_per_epoch + 5)
    assert torch.equal(images[:, 0], split.images[order[80:96], :, :, 0].float())
    assert torch.equal(labels, split.labels[order[80:96]])


@pytest.mark.parametrize(
    ("size", "classes", "says"),
    [
        (8, 9, "data.classes_per_batch=9 is more than the 7 classes"),
        (8, 3, "data.classes_per_batch=3 does not divide batch_size=8"),
        (12, 1, "one takes 1 x 12 images of a class, and the training set has 0 x 12"),
    ],
)
def test_batches_by_class_that_cannot_be_are_refused(size, classes, says):
    with pytest.raises(IcsbenchError, match=says):
        batches_of(LABELS, size, "by_class", classes_per_batch=classes)
    assert batches_of(LABELS, size, "shuffle_once").steps_per_epoch == 70 // size


def test_one_class_of_enough_images_is_not_enough_for_a_batch_of_two():
    labels = torch.tensor([0] * 6 + [1] * 5 + [2] * 5)
    with pytest.raises(IcsbenchError, match=r"makes no batch: one takes 2 x 6 images of a class, and .* has 1 x 6"):
        batches_of(labels, 12, "by_class", classes_per_batch=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": "sorted"}, "data.order must be one of reshuffle, shuffle_once, fixed_batches, by_class"),
        ({"classes_per_batch": 0}, "data.classes_per_batch must be at least 1"),
        ({"name": "gaussian", "order": "by_class"}, "does not fit gaussian, which is trained on the full batch"),
        ({"name": "gaussian", "order": "shuffle_once"}, "it must be reshuffle"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        DataConfig(**options)
