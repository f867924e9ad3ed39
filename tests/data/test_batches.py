import hashlib
import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as oracle

from icsbench.data import Batches, Split, channel_statistics, load_dataset, normalize
from icsbench.errors import IcsbenchError

MEAN = torch.tensor([120.0, 110.5, 99.25], dtype=torch.float64)
STD = torch.tensor([60.0, 70.5, 81.125], dtype=torch.float64)
SHAPES = [(32, 32, 3), (28, 28, 1), (8, 8, 1), (12, 12, 3)]


def make_split(count: int, seed: int = 0, shape: tuple[int, int, int] = (32, 32, 3)) -> Split:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=draw)
    return Split(images, torch.arange(count))


def make_batches(split: Split, batch_size: int, seed: int = 0, flip: bool = False, crop: bool = False) -> Batches:
    mean, std = MEAN[: split.images.shape[3]], STD[: split.images.shape[3]]
    return Batches(split, batch_size, seed, flip=flip, crop=crop, mean=mean, std=std, device="cpu")


def transformed(image: Tensor, row: int | None, column: int | None, flip: bool) -> Tensor:
    """What torchvision makes of one uint8 (H, W, C) image; row and column None for no crop."""
    result = image.permute(2, 0, 1)
    channels, height, width = result.shape
    if row is not None and column is not None:
        result = oracle.crop(oracle.pad(result, [4, 4, 4, 4]), row, column, height, width)
    if flip:
        result = oracle.hflip(result)
    return oracle.normalize(result / 255, (MEAN[:channels] / 255).tolist(), (STD[:channels] / 255).tolist())


def recovered_draw(image: Tensor, result: Tensor, crop: bool, flip: bool) -> tuple[int | None, int | None, bool]:
    """The one crop offset and flip with which torchvision makes ``result`` of ``image``."""
    offsets = [(row, column) for row in range(9) for column in range(9)] if crop else [(None, None)]
    fits = [
        (row, column, mirrored)
        for row, column in offsets
        for mirrored in ((False, True) if flip else (False,))
        if torch.allclose(transformed(image, row, column, mirrored), result, rtol=0, atol=1e-6)
    ]
    assert len(fits) == 1
    return fits[0]


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_image_is_what_torchvision_makes_of_it(shape: tuple[int, int, int], flip: bool, crop: bool):
    split = make_split(16, shape=shape)
    images, labels = make_batches(split, 16, flip=flip, crop=crop)(3)
    height, width, channels = shape
    assert images.shape == (16, channels, height, width)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    assert sorted(labels.tolist()) == list(range(16))
    draws = {
        recovered_draw(split.images[label], image, crop, flip)
        for image, label in zip(images, labels.tolist(), strict=True)
    }
    assert len(draws) >= (8 if crop else 2 if flip else 1)


@pytest.mark.parametrize(
    ("flip", "crop", "expected"),
    [
        (False, False, "c3af1a8eb09f6f5f8f1b5cf646ee4ad0850ca1dd60a21e59ab56058b8afd5519"),
        (False, True, "8c82f51a368f92f269c76ea0311df0650a105293590833345deb28a8d3d85de2"),
        (True, False, "7c53f8775069120ff5286eec66b516151b5b9483f64502d97476f3d9564cdd1e"),
        (True, True, "ba692110f7bfb0952cea66e4379365f4c824d20315d6c1bbbf66e87cbae498a9"),
    ],
)
def test_batches_are_those_of_version_0_1_to_the_bit(flip: bool, crop: bool, expected: str):
    split = load_dataset("digits", None, 157).train
    mean, std = channel_statistics(split.images)
    batches = Batches(split, 64, 3, flip=flip, crop=crop, mean=mean, std=std, device="cpu")
    digest = hashlib.sha256()
    for step in (0, 1, 19, 20, 33, 500):
        images, labels = batches(step)
        digest.update(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes() + labels.numpy().tobytes())
    assert digest.hexdigest() == expected


def test_offsets_and_flips_are_uniform_and_independent():
    # Each pixel says where it is, so that the centre of a result tells the offsets and the direction.
    rows = torch.arange(32, dtype=torch.uint8).view(1, 32, 1).expand(1, 32, 32)
    columns = torch.arange(32, dtype=torch.uint8).view(1, 1, 32).expand(1, 32, 32)
    image = torch.stack((rows, columns, rows), -1)
    split = Split(image.expand(400, -1, -1, -1), torch.zeros(400, dtype=torch.int64))
    zero, one = torch.zeros(3), torch.ones(3)
    batches = Batches(split, 400, 0, flip=True, crop=True, mean=zero, std=one, device="cpu")
    counts = torch.zeros(9, 9, 2)
    steps = 80
    for step in range(steps):
        images, _ = batches(step)
        row = images[:, 0, 16, 16] - 16 + 4
        flipped = images[:, 1, 16, 16] > images[:, 1, 16, 17]
        column = torch.where(flipped, images[:, 1, 16, 16] - 15, images[:, 1, 16, 16] - 16) + 4
        counts.index_put_((row.long(), column.long(), flipped.long()), torch.ones(400), accumulate=True)
    expected = steps * 400 / counts.numel()
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = counts.numel() - 1
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)


def test_an_epoch_visits_each_image_once_and_drops_the_incomplete_batch():
    batches = make_batches(make_split(23), 5)
    assert batches.steps_per_epoch == 4
    epochs = [[batches(4 * epoch + step)[1] for step in range(4)] for epoch in range(2)]
    for epoch in epochs:
        assert all(len(labels) == 5 for labels in epoch)
        assert len(torch.cat(epoch).unique()) == 20
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_a_batch_depends_on_seed_and_step_alone():
    split = make_split(40)
    forward = make_batches(split, 8, seed=7, flip=True, crop=True)
    resumed = make_batches(split, 8, seed=7, flip=True, crop=True)
    expected = [forward(step) for step in range(12)]
    for step in (11, 2, 7, 2):
        images, labels = resumed(step)
        assert torch.equal(images, expected[step][0])
        assert torch.equal(labels, expected[step][1])
    assert not torch.equal(make_batches(split, 8, seed=8)(0)[1], expected[0][1])


def test_augmentation_leaves_the_order_alone():
    split = make_split(40)
    plain = make_batches(split, 8, seed=7)
    augmented = make_batches(split, 8, seed=7, flip=True, crop=True)
    assert all(torch.equal(plain(step)[1], augmented(step)[1]) for step in range(10))


def test_the_global_random_state_is_not_touched():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    batches = make_batches(make_split(16), 4, flip=True, crop=True)
    for step in range(5):
        batches(step)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_is_not_overwritten_by_the_next_and_the_split_stays_as_it_is(flip: bool):
    split = make_split(16)
    before = split.images.clone()
    batches = make_batches(split, 8, flip=flip)
    first = batches(0)[0]
    kept = first.clone()
    first_again = batches(0)[0].mul_(2)
    batches(1)
    assert torch.equal(first, kept)
    assert torch.equal(first_again, kept * 2)
    assert torch.equal(split.images, before)


@pytest.mark.parametrize("batch_size", [0, 17])
def test_a_batch_size_that_does_not_fit_is_refused(batch_size: int):
    with pytest.raises(IcsbenchError, match=f"batch_size={batch_size} .* 16 images"):
        make_batches(make_split(16), batch_size)


def test_channel_statistics_are_exact():
    images = make_split(50).images.clone()
    images[..., 2] //= 3
    mean, std = channel_statistics(images)
    channels = images.flatten(0, 2).double()
    assert mean.dtype == std.dtype == torch.float64
    assert torch.allclose(mean, channels.mean(0), rtol=1e-13)
    assert torch.allclose(std, channels.std(0, correction=0), rtol=1e-13)
    grey_mean, grey_std = channel_statistics(images[..., 1:2])
    assert torch.allclose(grey_mean, mean[1:2], rtol=1e-14)
    assert torch.allclose(grey_std, std[1:2], rtol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_normalize_is_torchvisions_and_takes_an_empty_split(shape: tuple[int, int, int]):
    images = make_split(6, shape=shape).images
    height, width, channels = shape
    mean, std = MEAN[:channels], STD[:channels]
    expected = torch.stack([transformed(image, None, None, False) for image in images])
    result = normalize(images, mean, std)
    assert torch.allclose(result, expected, rtol=0, atol=1e-6)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize(images.permute(0, 2, 1, 3), mean, std), result.transpose(2, 3))
    assert normalize(images[:0], mean, std).shape == (0, channels, height, width)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_batches_are_the_same_on_a_gpu(shape: tuple[int, int, int], augmented: bool):
    split = make_split(64, shape=shape)
    mean, std = MEAN[: shape[2]], STD[: shape[2]]
    cpu = make_batches(split, 16, flip=augmented, crop=augmented)
    gpu = Batches(split, 16, 0, flip=augmented, crop=augmented, mean=mean, std=std, device="cuda")
    for step in range(8):
        images, labels = gpu(step)
        assert images.is_cuda
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(images.cpu(), cpu(step)[0], rtol=0, atol=1e-6)
        assert torch.equal(labels.cpu(), cpu(step)[1])
