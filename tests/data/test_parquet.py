import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from written import (
    GREY,
    encode,
    expected_rows,
    make_images,
    refused,
    rows,
    splits,
    write_parquet,
    write_parquet_pair,
)

from icsbench.data import channel_statistics, load_dataset

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.mark.parametrize("place", [".", "data", "plain_text"])
def test_parquet_files_are_found_and_read(tmp_path: Path, place: str):
    train, test = write_parquet_pair(tmp_path / place)
    dataset = load_dataset("cifar10", str(tmp_path), 5)
    labels = list(range(10)) * 2
    assert dataset.label.startswith("CIFAR-10")
    assert len(dataset.val.labels) == 5
    assert rows(dataset.train) | rows(dataset.val) == expected_rows(train, labels)
    assert rows(dataset.test) == expected_rows(test, labels)
    assert dataset.test.labels.tolist() != labels
    digest = hashlib.sha256()
    for images in (train, test):
        digest.update(images.tobytes() + np.array(labels, dtype=np.int64).tobytes())
    assert dataset.fingerprint == digest.hexdigest()[:16]


def test_cifar100_takes_the_fine_label(tmp_path: Path):
    write_parquet_pair(tmp_path / "cifar100", classes=100, image="image", target="fine_label")
    dataset = load_dataset("cifar100", str(tmp_path), 0)
    assert dataset.label.startswith("CIFAR-100 layout with ")
    assert dataset.num_classes == 100
    assert dataset.train.labels.bincount().tolist() == [2] * 100


def test_jpeg_images_are_told_in_the_label(tmp_path: Path):
    write_parquet_pair(tmp_path, kind="jpeg")
    assert load_dataset("cifar10", str(tmp_path), 0).label.startswith("CIFAR-10 (JPEG copy) layout with ")


def test_shards_are_read_together_and_all_needed(tmp_path: Path):
    write_parquet_pair(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    images = make_images(20, 5)
    for shard, half in enumerate((slice(0, 10), slice(10, 20))):
        path = tmp_path / f"train-0000{shard}-of-00002.parquet"
        write_parquet(path, [encode(image) for image in images[half]], list(range(10)))
    dataset = load_dataset("cifar10", str(tmp_path), 0)
    assert rows(dataset.train) == expected_rows(images, list(range(10)) * 2)
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    assert "1 of the 2 files train-*.parquet" in refused(tmp_path, val_size=1)


def test_a_missing_split_is_named(tmp_path: Path):
    write_parquet_pair(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert f"{tmp_path} has no test-*.parquet" in refused(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path):
    write_parquet_pair(tmp_path)
    path = tmp_path / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"cannot read {path} as parquet" in refused(tmp_path)
    path.write_bytes(b"")
    assert f"cannot read {path} as parquet" in refused(tmp_path)


@pytest.mark.parametrize(
    ("encoded", "labels", "columns", "complaint"),
    [
        (None, [*range(9), 10], {}, "column label runs from 0 to 10: it needs to be 0 to 9"),
        (None, [*range(9), -1], {}, "column label runs from -1 to 8"),
        (None, [*range(9), None], {}, "without a label"),
        (None, [str(label) for label in range(10)], {}, "column label is String"),
        (None, [*range(9), 8], {}, "has 9 classes: CIFAR-10 has 10"),
        (None, [*range(10)], {"image": "picture"}, "has the columns picture, label: it needs img or image"),
        (None, [*range(10)], {"target": "coarse_label"}, "it needs img or image, and label or fine_label"),
        ([b"GIF89a"] * 10, [*range(10)], {}, "image 0 of"),
        ([None] * 10, [*range(10)], {}, "without image bytes"),
        ([encode(make_images(1)[0, :16])] * 10, [*range(10)], {}, "is 32x16 pixels: it needs to be 32x32"),
        ([encode(make_images(1)[0])[:-200]] * 10, [*range(10)], {}, "cannot be decoded"),
        ([encode(make_images(1)[0], "jpeg")[:-200]] * 10, [*range(10)], {}, "cannot be decoded"),
        ([], [], {}, "column label is Null"),
    ],
)
def test_wrong_contents_are_named(tmp_path: Path, encoded, labels, columns, complaint: str):
    write_parquet_pair(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(path, [encode(image) for image in make_images(10)] if encoded is None else encoded, labels, **columns)
    message = refused(tmp_path)
    assert complaint in message
    assert str(tmp_path / "train-") in message


def test_an_image_column_of_another_kind_and_an_empty_file_are_named(tmp_path: Path):
    write_parquet_pair(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    pl.DataFrame({"img": ["x"] * 10, "label": list(range(10))}).write_parquet(path)
    assert f"{path}: column img is String" in refused(tmp_path)
    pl.read_parquet(tmp_path / "test-00000-of-00001.parquet").clear().write_parquet(path)
    assert f"{path} has no rows" in refused(tmp_path)


def test_mnist_is_read_from_parquet_files(tmp_path: Path):
    train, test = write_parquet_pair(tmp_path, shape=GREY, image="image")
    dataset = load_dataset("mnist", str(tmp_path), 5)
    labels = list(range(10)) * 2
    assert (dataset.label, dataset.num_classes) == ("MNIST layout with 20 + 20 images", 10)
    assert [split.images.shape for split in splits(dataset)] == [(15, *GREY), (5, *GREY), (20, *GREY)]
    assert rows(dataset.train) | rows(dataset.val) == expected_rows(train, labels)
    assert rows(dataset.test) == expected_rows(test, labels)
    (tmp_path / "jpeg").mkdir()
    write_parquet_pair(tmp_path / "jpeg", shape=GREY, kind="jpeg")
    copy = load_dataset("mnist", str(tmp_path / "jpeg"), 0, binary=True)
    assert copy.label == "MNIST (JPEG copy) layout with 20 + 20 images, binary"
    write_parquet_pair(tmp_path / "large")
    assert "is 32x32 pixels: it needs to be 28x28" in refused(tmp_path / "large", "mnist")


def test_rgb_copies_of_grey_images_become_grey(tmp_path: Path):
    train, _ = write_parquet_pair(tmp_path, shape=GREY)
    path = tmp_path / "train-00000-of-00001.parquet"
    labels = list(range(10)) * 2
    write_parquet(path, [encode(image.repeat(3, axis=2)) for image in train], labels)
    assert rows(load_dataset("mnist", str(tmp_path), 0).train) == expected_rows(train, labels)


@pytest.mark.parametrize(("place", "cifar"), [("mnist", "cifar10"), ("mnist", "plain_text"), ("xyz", "cifar10")])
def test_data_sets_in_folders_side_by_side_are_told_apart(tmp_path: Path, place: str, cifar: str):
    _, grey = write_parquet_pair(tmp_path / place, shape=GREY)
    _, colour = write_parquet_pair(tmp_path / cifar)
    write_parquet_pair(tmp_path / "cifar100", classes=100)
    labels = list(range(10)) * 2
    assert rows(load_dataset("mnist", str(tmp_path), 0).test) == expected_rows(grey, labels)
    assert rows(load_dataset("cifar10", str(tmp_path), 0).test) == expected_rows(colour, labels)
    assert load_dataset("cifar100", str(tmp_path), 0).num_classes == 100


def test_binary_covers_the_threshold_and_the_fingerprint(tmp_path: Path):
    labels = list(range(10))
    for name, levels in (("grey", (0, 127, 128, 255)), ("black_and_white", (0, 0, 255, 255))):
        image = np.repeat(np.array(levels, dtype=np.uint8), 7)[None, :, None].repeat(28, axis=0)
        for split in ("train", "test"):
            write_parquet(tmp_path / name / f"{split}-00000-of-00001.parquet", [encode(image)] * 10, labels)
    grey, white = (str(tmp_path / name) for name in ("grey", "black_and_white"))
    expected = load_dataset("mnist", white, 0)
    binary = load_dataset("mnist", grey, 0, binary=True)
    assert torch.equal(binary.train.images, expected.train.images)
    assert (expected.binary, binary.binary) == (False, True)
    # The same pixels, but normalised in another way: other data.
    assert binary.fingerprint != expected.fingerprint
    assert binary.fingerprint == load_dataset("mnist", white, 0, binary=True).fingerprint


def test_cifar10_files_are_not_cifar100(tmp_path: Path):
    write_parquet_pair(tmp_path)
    assert "has 10 classes: CIFAR-100 has 100" in refused(tmp_path, "cifar100")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the CIFAR-10 copy is not on this machine")
def test_the_shared_copy_of_cifar10():
    dataset = load_dataset("cifar10", str(SHARED), 5000)
    assert dataset.label.startswith("CIFAR-10 (JPEG copy)")
    assert [len(split.labels) for split in (dataset.train, dataset.val, dataset.test)] == [45000, 5000, 10000]
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    assert len(dataset.test.labels[:100].unique()) == 10
    assert len(dataset.val.labels[:100].unique()) == 10
    mean, _ = channel_statistics(torch.cat((dataset.train.images, dataset.val.images)))
    assert mean.tolist() == pytest.approx([125.27, 122.93, 113.86], abs=0.005)
