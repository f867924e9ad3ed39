import contextlib
import gzip
import hashlib
import http.server
import io
import pickle
import socket
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional
from torchvision.datasets import CIFAR10, CIFAR100, MNIST

from icsbench.data import Batches, Dataset, Split, archives, channel_statistics, load_dataset, normalise
from icsbench.errors import IcsbenchError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
BASE = "cifar-10-batches-py"
PER_BATCH = 10
RGB, GREY = (32, 32, 3), (28, 28, 1)


def make_images(count: int, seed: int = 0, shape: tuple[int, int, int] = RGB) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)


def encode(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, kind)
    return buffer.getvalue()


def refused(root: Path | None, name: str = "cifar10", val_size: int = 0) -> str:
    """The one line with which the data set is refused."""
    with pytest.raises(IcsbenchError) as caught:
        load_dataset(name, None if root is None else str(root), val_size)
    message = str(caught.value)
    assert "\n" not in message
    return message


def splits(dataset: Dataset) -> tuple[Split, Split, Split]:
    return dataset.train, dataset.val, dataset.test


def rows(split: Split) -> set[tuple[bytes, int]]:
    """The split as a set of (pixels, label)."""
    return {(image.numpy().tobytes(), label) for image, label in zip(split.images, split.labels.tolist(), strict=True)}


def expected_rows(images: np.ndarray, labels: list[int]) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}


# --- all data sets ---------------------------------------------------------------------------------------------------


def test_digits():
    dataset = load_dataset("digits", None, 100)
    assert (dataset.name, dataset.label, dataset.num_classes) == ("digits", "Digits (8x8, upsampled)", 10)
    assert [len(split.labels) for split in (dataset.train, dataset.val, dataset.test)] == [1337, 100, 360]
    for split in (dataset.train, dataset.val, dataset.test):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split.labels), 32, 32, 3)
        assert split.labels.dtype == torch.int64
        assert split.images.max() == 255
        assert (split.images == split.images[..., :1]).all()
        assert len(split.labels.unique()) == 10
    assert load_dataset("digits", None, 100) is dataset


def test_the_validation_size_moves_neither_test_set_nor_fingerprint():
    whole, some = load_dataset("digits", None, 0), load_dataset("digits", None, 37)
    assert some.val.images.shape == (37, 32, 32, 3)
    assert whole.val.images.shape == (0, 32, 32, 3)
    assert torch.equal(whole.test.images, some.test.images)
    assert whole.fingerprint == some.fingerprint
    assert rows(whole.train) == rows(some.train) | rows(some.val)
    assert len(whole.train.labels) == len(some.train.labels) + 37


@pytest.mark.parametrize("val_size", [-1, 1437])
def test_a_validation_size_that_leaves_nothing_is_refused(val_size: int):
    message = refused(None, "digits", val_size)
    assert f"data.val_size={val_size}" in message
    assert "0 to 1436" in message


def test_unknown_name_and_missing_root_are_refused(tmp_path: Path):
    assert "one of digits, digits8, cifar10, cifar100, mnist, gaussian" in refused(None, "imagenet")
    assert "data.root is not set: cifar10" in refused(None)
    assert "data.root is not set: mnist" in refused(None, "mnist")
    (tmp_path / "file").write_text("")
    assert "not a folder" in refused(tmp_path / "file")


def test_digits8_are_scikit_learns_in_the_splits_of_the_digits():
    dataset, large = load_dataset("digits8", None, 100), load_dataset("digits", None, 100)
    assert (dataset.name, dataset.label, dataset.num_classes) == ("digits8", "Digits (8x8)", 10)
    assert dataset.fingerprint != large.fingerprint
    for split, upsampled in zip(splits(dataset), splits(large), strict=True):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 8, 8, 1)
        assert torch.equal(split.labels, upsampled.labels)
        native = split.images.permute(0, 3, 1, 2).float()
        again = functional.interpolate(native, (32, 32), mode="bilinear", align_corners=False)
        # Half a level of rounding before and half a level after.
        assert (again - upsampled.images[..., :1].permute(0, 3, 1, 2)).abs().max() <= 1
    pixels, labels = load_digits(return_X_y=True)
    scaled = np.array([round(level * 255 / 16) for level in range(17)], dtype=np.uint8)[pixels.astype(int)]
    every = Counter(zip((row.tobytes() for row in scaled), labels.tolist(), strict=True))
    images = (image.numpy().tobytes() for split in splits(dataset) for image in split.images)
    assert Counter(zip(images, torch.cat([s.labels for s in splits(dataset)]).tolist(), strict=True)) == every


@pytest.mark.parametrize("name", ["digits8", "digits"])
def test_binary_images_enter_the_network_as_zeros_and_ones(name: str):
    grey, binary = load_dataset(name, None, 100), load_dataset(name, None, 100, binary=True)
    assert binary.label == f"{grey.label}, binary"
    assert binary.fingerprint != grey.fingerprint
    mean, std = binary.normalisation()
    for split, original in zip(splits(binary), splits(grey), strict=True):
        assert torch.equal(split.labels, original.labels)
        inputs = normalise(split.images, mean, std)
        assert inputs.unique().tolist() == [0, 1]
        assert torch.equal(inputs, (original.images > 127.5).permute(0, 3, 1, 2).float())
    batches = Batches(binary.train, 64, 0, flip=True, crop=True, mean=mean, std=std, device="cpu")
    assert batches(3)[0].unique().tolist() == [0, 1]


def test_other_images_are_normalised_by_the_statistics_of_the_training_images():
    for name in ("digits8", "digits"):
        dataset = load_dataset(name, None, 100)
        mean, std = dataset.normalisation()
        channels = dataset.train.images.flatten(0, 2).double()
        assert torch.allclose(mean, channels.mean(0), rtol=1e-12)
        assert torch.allclose(std, channels.std(0, correction=0), rtol=1e-12)
        inputs = normalise(dataset.train.images, mean, std).double()
        assert inputs.mean((0, 2, 3)).abs().max() < 1e-6
        assert (inputs.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_images_are_read_once_for_all_seeds():
    kept = load_dataset("digits8", None, 100, seed=1)
    assert load_dataset("digits8", None, 100, seed=2) is kept
    assert load_dataset("digits8", None, 100, binary=False) is kept
    assert load_dataset("digits8", None, 100, binary=True) is load_dataset("digits8", None, 100, binary=True, seed=3)


# --- Hugging Face parquet files --------------------------------------------------------------------------------------


def write_parquet(
    path: Path, encoded: list[bytes | None], labels: list, image: str = "img", target: str = "label"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = pl.Series(
        [{"bytes": data, "path": "x"} for data in encoded], dtype=pl.Struct({"bytes": pl.Binary, "path": pl.String})
    )
    pl.DataFrame({image: structs, target: labels}).write_parquet(path)


def write_parquet_pair(
    folder: Path, classes: int = 10, kind: str = "png", shape: tuple[int, int, int] = RGB, **columns: str
) -> list[np.ndarray]:
    labels = list(range(classes)) * 2
    written = []
    for seed, name in enumerate(("train", "test")):
        images = make_images(len(labels), seed, shape)
        path = folder / f"{name}-00000-of-00001.parquet"
        write_parquet(path, [encode(image, kind) for image in images], labels, **columns)
        written.append(images)
    return written


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


# --- class folders of images -----------------------------------------------------------------------------------------


def write_image_folder(
    root: Path, kind: str = "png", side: int = 32, classes: int = 10, shape: tuple[int, int, int] = RGB
) -> None:
    for seed, name in enumerate(("train", "test")):
        for target in range(classes):
            folder = root / name / f"class_{target:02d}"
            folder.mkdir(parents=True)
            for number, image in enumerate(make_images(2, 100 * seed + target, shape)):
                (folder / f"{number}.{kind}").write_bytes(
                    encode(image[:side, :side], "jpeg" if kind == "jpg" else kind)
                )


def test_image_folder(tmp_path: Path):
    write_image_folder(tmp_path)
    (tmp_path / "train" / "class_03" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = load_dataset("cifar10", str(tmp_path), 0)
    assert dataset.label.startswith("CIFAR-10")
    for seed, split in enumerate((dataset.train, dataset.test)):
        images = np.concatenate([make_images(2, 100 * seed + target) for target in range(10)])
        assert rows(split) == expected_rows(images, [target for target in range(10) for _ in range(2)])


def test_mnist_is_read_from_class_folders(tmp_path: Path):
    write_image_folder(tmp_path, shape=GREY)
    for folder in (*tmp_path.glob("*/class_*"),):
        folder.rename(folder.parent / folder.name[-1])
    dataset = load_dataset("mnist", str(tmp_path), 4)
    assert dataset.label == "MNIST layout with 20 + 20 images"
    images = [np.concatenate([make_images(2, 100 * seed + t, GREY) for t in range(10)]) for seed in range(2)]
    labels = [target for target in range(10) for _ in range(2)]
    assert len(dataset.val) == 4
    assert rows(dataset.train) | rows(dataset.val) == expected_rows(images[0], labels)
    assert rows(dataset.test) == expected_rows(images[1], labels)


def test_image_folder_of_small_jpegs_is_scaled_and_told_in_the_label(tmp_path: Path):
    write_image_folder(tmp_path, kind="jpg", side=16)
    dataset = load_dataset("cifar10", str(tmp_path), 0)
    assert dataset.label.startswith("CIFAR-10 (JPEG copy)")
    assert dataset.train.images.shape == (20, 32, 32, 3)


def test_grey_images_become_rgb(tmp_path: Path):
    write_image_folder(tmp_path)
    path = tmp_path / "train" / "class_00" / "0.png"
    Image.new("L", (32, 32), 77).save(path)
    dataset = load_dataset("cifar10", str(tmp_path), 0)
    assert (np.full((32, 32, 3), 77, dtype=np.uint8).tobytes(), 0) in rows(dataset.train)


def test_faults_of_an_image_folder_are_named(tmp_path: Path):
    few, odd, empty, broken, half = (tmp_path / name for name in ("few", "odd", "empty", "broken", "half"))
    write_image_folder(few, classes=9)
    assert f"{few / 'train'} has 9 class folders: CIFAR-10 has 10" in refused(few)
    write_image_folder(odd)
    (odd / "test" / "class_09").rename(odd / "test" / "klass_09")
    assert "only one has class_09, klass_09" in refused(odd)
    write_image_folder(empty)
    for path in (empty / "test" / "class_04").iterdir():
        path.unlink()
    assert f"{empty / 'test' / 'class_04'} has no .png" in refused(empty)
    write_image_folder(broken)
    (broken / "test" / "class_02" / "1.png").write_bytes(b"not an image")
    assert f"{broken / 'test' / 'class_02' / '1.png'} cannot be decoded" in refused(broken)
    (half / "train").mkdir(parents=True)
    assert f"{half / 'test'} is missing" in refused(half)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_image_folder(tmp_path)

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    message = refused(tmp_path)
    assert f"cannot read data.root={tmp_path}" in message
    assert str(tmp_path / "train" / "class_00" / "0.png") in message


# --- torchvision's archive -------------------------------------------------------------------------------------------


class _OldDtype:
    """Pickled as the archive's arrays were, in a way that NumPy 2.4 warns about."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, True)


def write_archive_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a tiny archive folder and make its checksums the ones that torchvision verifies."""
    folder.mkdir(parents=True)
    checksums = {}
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        data = make_images(PER_BATCH, seed).transpose(0, 3, 1, 2).reshape(PER_BATCH, -1)
        entry = {"data": data, "labels": list(range(10)), "dtype": _OldDtype()}
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
    for path in folder.iterdir():
        checksums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{n}", checksums[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", checksums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": checksums["batches.meta"]})


def assert_is_the_tiny_archive(root: Path) -> None:
    dataset = load_dataset("cifar10", str(root), 0)
    assert dataset.label.startswith("CIFAR-10")
    train = np.concatenate([make_images(PER_BATCH, seed) for seed in range(5)])
    assert rows(dataset.train) == expected_rows(train, list(range(10)) * 5)
    assert rows(dataset.test) == expected_rows(make_images(PER_BATCH, 5), list(range(10)))


@pytest.mark.parametrize("root", [".", BASE])
def test_torchvisions_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str):
    write_archive_folder(tmp_path / BASE, monkeypatch)
    write_parquet_pair(tmp_path)  # which comes second
    assert_is_the_tiny_archive(tmp_path / root)


def test_a_missing_or_truncated_file_of_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / BASE
    write_archive_folder(folder, monkeypatch)
    path = folder / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    message = refused(tmp_path)
    assert f"{path} is corrupt" in message
    assert f"delete the folder {folder} to download it again" in message
    path.unlink()
    assert f"{path} is missing" in refused(tmp_path)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_no_foreign_pickle_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    folder, trap = tmp_path / BASE, tmp_path / "trap"
    write_archive_folder(folder, monkeypatch)

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    (folder / name).write_bytes(pickle.dumps(Trap()))
    assert f"{folder / name} is corrupt" in refused(tmp_path)
    assert not trap.exists()


# --- torchvision's MNIST ---------------------------------------------------------------------------------------------

MNIST_SIZES = {"train": 20, "t10k": 10}


def write_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch, packed: str = "ubyte") -> None:
    """Write tiny files in MNIST's format, their checksums made to fit; those with ``packed`` in their names as .gz."""
    folder.mkdir(parents=True)
    resources = []
    for seed, (name, count) in enumerate(MNIST_SIZES.items()):
        sizes = b"".join(size.to_bytes(4, "big") for size in (count, 28, 28))
        images = b"\0\0\x08\x03" + sizes + make_images(count, seed, GREY).tobytes()
        labels = b"\0\0\x08\x01" + sizes[:4] + bytes(range(10)) * (count // 10)
        for filename, content in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", labels)):
            compressed = gzip.compress(content, mtime=0)
            monkeypatch.setitem(archives._UNPACKED_MD5, filename, hashlib.md5(content).hexdigest())
            resources.append((f"{filename}.gz", hashlib.md5(compressed).hexdigest()))
            if packed in filename:
                (folder / f"{filename}.gz").write_bytes(compressed)
            else:
                (folder / filename).write_bytes(content)
    monkeypatch.setattr(MNIST, "resources", resources)


def assert_is_the_tiny_mnist(root: Path) -> None:
    dataset = load_dataset("mnist", str(root), 3)
    assert dataset.label == "MNIST layout with 20 + 10 images"
    assert (len(dataset.train), len(dataset.val), dataset.num_classes) == (17, 3, 10)
    for split in splits(dataset):
        assert split.images.dtype == torch.uint8
        assert split.images.shape[1:] == GREY
        assert split.labels.dtype == torch.int64
    assert rows(dataset.train) | rows(dataset.val) == expected_rows(make_images(20, 0, GREY), list(range(10)) * 2)
    assert rows(dataset.test) == expected_rows(make_images(10, 1, GREY), list(range(10)))


def test_mnist_is_what_torchvision_reads_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert {f"{name}.gz" for name in archives._UNPACKED_MD5} == dict(MNIST.resources).keys()
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch, packed="none")
    dataset = load_dataset("mnist", str(tmp_path), 0)
    for split, train in ((dataset.train, True), (dataset.test, False)):
        theirs = MNIST(tmp_path, train=train)
        assert rows(split) == expected_rows(theirs.data.numpy(), theirs.targets.tolist())


@pytest.mark.parametrize("root", [".", "MNIST/raw"])
@pytest.mark.parametrize("packed", ["ubyte", "images", "none"])
def test_torchvisions_mnist_is_read_packed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: str, root: str
):
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch, packed)
    write_parquet_pair(tmp_path, shape=GREY)  # which comes second
    assert_is_the_tiny_mnist(tmp_path / root)


@pytest.mark.parametrize(("packed", "suffix"), [("ubyte", ".gz"), ("none", "")])
def test_a_missing_or_foreign_file_of_mnist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: str, suffix: str
):
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder, monkeypatch, packed)
    path = folder / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes((folder / f"train-images-idx3-ubyte{suffix}").read_bytes())
    message = refused(tmp_path, "mnist")
    assert f"{path} is corrupt" in message
    assert f"delete the folder {folder} to download it again" in message
    path.unlink()
    assert f"{folder / 't10k-images-idx3-ubyte'}.gz is missing" in refused(tmp_path, "mnist")


# --- download --------------------------------------------------------------------------------------------------------


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a loopback server of ``folder``."""

    def handler(*args):
        return _QuietHandler(*args, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def write_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tiny archive, checksums made to fit, and return its path."""
    write_archive_folder(folder / "unpacked" / BASE, monkeypatch)
    path = folder / CIFAR10.filename
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "unpacked" / BASE, BASE)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    archive = write_archive(tmp_path / "server", monkeypatch)
    root = tmp_path / "new" / "root"
    with served(archive.parent) as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
        assert_is_the_tiny_archive(root)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "100" in captured.err  # per cent
    assert {path.name for path in root.iterdir()} <= {BASE, archive.name, ".download.lock"}


# What the reader silences it silences for the whole process: one thread's end lets another's warning through.
@pytest.mark.filterwarnings("ignore::numpy.exceptions.VisibleDeprecationWarning")
@pytest.mark.parametrize(("name", "files"), [("cifar10", 1), ("mnist", 4)])
def test_three_downloads_at_once_fetch_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: int
):
    archive = write_archive(tmp_path / "server", monkeypatch)
    write_mnist(tmp_path / "server" / "mnist", monkeypatch)
    root = tmp_path / "root"
    fetched = []
    monkeypatch.setattr(_QuietHandler, "log_request", lambda handler, *_: fetched.append(handler.path))
    failures = []

    def load(val_size: int) -> None:
        try:
            load_dataset(name, str(root), val_size)
        except BaseException as error:
            failures.append(error)

    with served(archive.parent) as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
        monkeypatch.setattr(MNIST, "mirrors", [f"{address}/mnist/"])
        threads = [threading.Thread(target=load, args=(val_size,)) for val_size in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(fetched) == 2 * files  # the address of the file, then the file


def test_an_archive_that_lies_there_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = write_archive(tmp_path / "server", monkeypatch)
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{closed_port()}/{archive.name}")
    root = tmp_path / "root"
    root.mkdir()
    archive.rename(root / archive.name)
    assert_is_the_tiny_archive(root)


def test_a_wrong_checksum_is_told_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = write_archive(tmp_path / "server", monkeypatch)
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with served(archive.parent) as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
        assert "what came has the wrong checksum" in refused(tmp_path / "root")
    assert not (tmp_path / "root" / BASE).exists()


def test_mnist_is_downloaded_from_the_mirror_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    write_mnist(tmp_path / "server", monkeypatch)
    (tmp_path / "server" / "wrong").mkdir()
    for path in (tmp_path / "server").glob("*labels*"):
        (tmp_path / "server" / "wrong" / path.name).write_bytes(b"what a proxy says")
    root = tmp_path / "new" / "root"
    with served(tmp_path / "server") as address:
        mirrors = [f"http://127.0.0.1:{closed_port()}/", f"{address}/wrong/", f"{address}/"]
        monkeypatch.setattr(MNIST, "mirrors", mirrors)
        assert_is_the_tiny_mnist(root)
    assert capfd.readouterr().out == ""
    assert {path.name for path in root.iterdir()} <= {"MNIST", ".download.lock"}
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(dict(MNIST.resources))
    monkeypatch.setattr(MNIST, "mirrors", [])
    assert len(load_dataset("mnist", str(root), 0).train) == 20


@pytest.mark.parametrize("fault", ["what came has the wrong checksum", "HTTP Error 404: File not found"])
def test_a_download_of_mnist_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    write_mnist(tmp_path / "server", monkeypatch)
    last = tmp_path / "server" / "t10k-labels-idx1-ubyte.gz"
    if "404" in fault:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:-1])
    root = tmp_path / "root"
    with served(last.parent) as address:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{closed_port()}/", f"{address}/"])
        message = refused(root, "mnist")
    assert f"Connection refused>; {fault})" in message
    assert [path.name for path in root.iterdir() if path.name != ".download.lock"] == []


def test_without_a_network_the_other_ways_to_mnist_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mirrors = [f"http://127.0.0.1:{closed_port()}/{name}/" for name in "ab"]
    monkeypatch.setattr(MNIST, "mirrors", mirrors)
    message = refused(tmp_path, "mnist")
    for part in (" or ".join(mirrors), f"data.root={tmp_path}", "MNIST/raw", "parquet", "ImageFolder"):
        assert part in message
    assert message.count("Connection refused") == 1


@pytest.mark.parametrize(("name", "archive"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_without_a_network_the_other_ways_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, archive: type[CIFAR10]
):
    monkeypatch.setattr(archive, "url", f"http://127.0.0.1:{closed_port()}/{archive.filename}")
    (tmp_path / "something.txt").write_text("unrecognised")
    message = refused(tmp_path, name)
    for part in (f"data.root={tmp_path}", archive.base_folder, "parquet", "ImageFolder", "Connection refused"):
        assert part in message


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert f"data.root={tmp_path / 'file' / 'root'}" in refused(tmp_path / "file" / "root")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", full)
    assert "No space left on device" in refused(tmp_path)
    assert "No space left on device" in refused(tmp_path, "mnist")
