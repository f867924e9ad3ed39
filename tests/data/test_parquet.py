import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from helpers import TINY, invoke, isolate, run_dir
from PIL import Image
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

from icsbench.data import channel_statistics, load_dataset, parquet

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
    # The same pixels, but normalized in another way: other data.
    assert binary.fingerprint != expected.fingerprint
    assert binary.fingerprint == load_dataset("mnist", white, 0, binary=True).fingerprint


def test_cifar10_files_are_not_cifar100(tmp_path: Path):
    write_parquet_pair(tmp_path)
    assert "has 10 classes: CIFAR-100 has 100" in refused(tmp_path, "cifar100")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the CIFAR-10 copy is not on this machine")
def test_the_shared_copy_of_cifar10():
    dataset = load_dataset("cifar10", str(SHARED), 5000)
    assert dataset.label == "CIFAR-10 (JPEG copy)"
    assert dataset.fingerprint == "c99073801e016b24"  # of the committed records
    assert [len(split.labels) for split in (dataset.train, dataset.val, dataset.test)] == [45000, 5000, 10000]
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    assert len(dataset.test.labels[:100].unique()) == 10
    assert len(dataset.val.labels[:100].unique()) == 10
    mean, _ = channel_statistics(torch.cat((dataset.train.images, dataset.val.images)))
    assert mean.tolist() == pytest.approx([125.27, 122.93, 113.86], abs=0.005)


# --- the hub's places and columns ------------------------------------------------------------------------------------

LABELS = list(range(10)) * 2


@pytest.mark.parametrize(
    "pattern",
    [
        "{split}.parquet",
        "data/{split}.parquet",
        "{split}/0000.parquet",
        "plain_text/{split}/0000.parquet",
        "{split}/{split}-00000-of-00001.parquet",
        "default/{split}/part.parquet",
        "plain_text/cifar10-{split}.parquet",
        "data/{split}-00000-of-00001-c08a401c53fe5312.parquet",
        "Data/{split}ing.PARQUET",
        "cifar10/plain_text/{split}-00000-of-00001.parquet",
        "CIFAR-10/{split}.parquet",
        "hub/datasets--uoft-cs--cifar10",
        "datasets--uoft-cs--cifar10",
    ],
)
def test_the_places_of_the_hub_are_known(tmp_path: Path, pattern: str):
    usual, root = tmp_path / "usual", tmp_path / "root"
    write_parquet_pair(usual)
    for split in ("train", "test"):
        written = usual / f"{split}-00000-of-00001.parquet"
        if "--" not in pattern:
            path = root / pattern.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(written.read_bytes())
            continue
        repository = root / "datasets--uoft-cs--cifar10"
        for folder in ("blobs", "refs", "snapshots/0123abc/plain_text", "snapshots/4567def"):
            (repository / folder).mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text("0123abc")
        (repository / "blobs" / split).write_bytes(written.read_bytes())
        link = repository / "snapshots" / "0123abc" / "plain_text" / written.name
        link.symlink_to(Path("../../../blobs") / split)
        (repository / "snapshots" / "0123abc" / "README.md").write_text("a card")
        (root / "datasets--ylecun--mnist" / "snapshots" / "0" / "mnist").mkdir(parents=True, exist_ok=True)
    if pattern.startswith("datasets--"):
        root = root / pattern
    assert load_dataset("cifar10", str(root), 0).fingerprint == load_dataset("cifar10", str(usual), 0).fingerprint


def test_a_hub_cache_of_several_versions_without_a_current_one_is_refused(tmp_path: Path):
    repository = tmp_path / "datasets--uoft-cs--cifar10"
    for number, version in enumerate(("0123abc", "4567def")):
        write_parquet_pair(repository / "snapshots" / version / "plain_text", kind=["png", "jpeg"][number])
    (repository / "refs").mkdir()
    for root in (tmp_path, repository):
        message = refused(root)
        assert f"{repository / 'snapshots'} holds 0123abc, 4567def: set data.root to one of them" in message
    assert "JPEG" in load_dataset("cifar10", str(repository / "snapshots" / "4567def"), 0).label


def test_of_two_folders_like_the_data_set_neither_is_guessed(tmp_path: Path):
    write_parquet_pair(tmp_path / "first")
    write_parquet_pair(tmp_path / "second")
    assert "parquet files in first and second: set data.root to one of them" in refused(tmp_path)
    write_parquet_pair(tmp_path / "cifar-10", kind="jpeg")
    assert "JPEG" in load_dataset("cifar10", str(tmp_path), 0).label
    write_parquet_pair(tmp_path / "Fashion-MNIST", shape=GREY)
    assert "first and second" in refused(tmp_path, "mnist")


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path):
    for split, folder in (("train", tmp_path / "train"), ("test", tmp_path)):
        images = make_images(24)
        for shard in range(12):
            name = f"{shard}.parquet" if split == "train" else f"test-{shard}-of-12.parquet"
            pair = images[2 * shard : 2 * shard + 2]
            write_parquet(folder / name, [encode(image) for image in pair], [shard % 10, 0])
    digest = hashlib.sha256()
    labels = np.array([[shard % 10, 0] for shard in range(12)], dtype=np.int64)
    for _ in range(2):
        digest.update(images.tobytes() + labels.tobytes())
    assert load_dataset("cifar10", str(tmp_path), 0).fingerprint == digest.hexdigest()[:16]
    (tmp_path / "train" / "7.parquet").rename(tmp_path / "moved")
    assert f"{tmp_path / 'train'} holds 0.parquet, 1.parquet" in refused(tmp_path, val_size=1)
    (tmp_path / "moved").rename(tmp_path / "train" / "7.parquet")
    (tmp_path / "test-3-of-12.parquet").rename(tmp_path / "test-12-of-12.parquet")
    assert f"{tmp_path} has 12 of the 12 files test-*.parquet: number 3 is missing" in refused(tmp_path, val_size=1)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("train.parquet", "do not belong together: leave one set of files"),
        ("train-00000-of-00002.parquet", "do not belong together"),
        ("train-00000-of-00001-again.parquet", "do not belong together"),
        ("train/0000.parquet", "holds train twice, as "),
        (
            "validation-00000-of-00001.parquet",
            "holds validation-00000-of-00001.parquet beside",
        ),
        ("val.parquet", "holds val.parquet beside"),
        ("unsupervised.parquet", "holds unsupervised.parquet beside"),
    ],
)
def test_files_that_are_not_of_one_set_are_refused(tmp_path: Path, extra: str, said: str):
    write_parquet_pair(tmp_path)
    path = tmp_path / extra
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((tmp_path / "train-00000-of-00001.parquet").read_bytes())
    assert said in refused(tmp_path)


def test_images_beside_parquet_files_of_a_split_are_refused(tmp_path: Path):
    write_parquet_pair(tmp_path / "flat")
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / "flat" / f"{split}-00000-of-00001.parquet").rename(tmp_path / split / "0000.parquet")
    (tmp_path / "train" / "README.md").write_text("passed over")
    assert load_dataset("cifar10", str(tmp_path), 0).num_classes == 10
    (tmp_path / "train" / "cats").mkdir()
    assert f"{tmp_path / 'train'} holds cats beside its parquet files" in refused(tmp_path, val_size=1)


@pytest.mark.parametrize("image", ["img", "image"])
@pytest.mark.parametrize("target", ["label", "labels", "fine_label", "fine_labels"])
def test_every_usual_name_of_a_column_is_known(tmp_path: Path, image: str, target: str):
    train, test = write_parquet_pair(tmp_path, image=image, target=target)
    dataset = load_dataset("cifar10", str(tmp_path), 0)
    assert rows(dataset.train) == expected_rows(train, LABELS)
    assert rows(dataset.test) == expected_rows(test, LABELS)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.Int16, pl.UInt32, pl.Int64, pl.UInt64])
def test_images_may_be_bytes_alone_and_labels_any_integers(tmp_path: Path, dtype):
    written = {"train": make_images(20), "test": make_images(20, 1)}
    for split, images in written.items():
        frame = {"image": [encode(image, "bmp") for image in images], "labels": pl.Series(LABELS, dtype=dtype)}
        pl.DataFrame({**frame, "id": range(20)}).write_parquet(tmp_path / f"{split}.parquet")
    dataset = load_dataset("cifar10", str(tmp_path), 0)
    for split, images in written.items():
        assert rows(getattr(dataset, split)) == expected_rows(images, LABELS)


@pytest.mark.parametrize(("last", "size"), [(99, 100), (100, 100)])
def test_the_fine_label_comes_before_the_coarse_one(tmp_path: Path, last: int, size: int):
    images = make_images(100)
    fine = [*range(99), last]
    for split in ("train", "test"):
        structs = [{"bytes": encode(image), "path": ""} for image in images]
        frame = {"coarse_label": [label // 5 for label in range(100)], "img": structs, "fine_label": fine}
        pl.DataFrame(frame).write_parquet(tmp_path / f"{split}.parquet")
    if last == 100:
        assert "column fine_label runs from 0 to 100: it needs to be 0 to 99" in refused(tmp_path, "cifar100")
        return
    dataset = load_dataset("cifar100", str(tmp_path), 0)
    assert (dataset.label, dataset.num_classes) == ("CIFAR-100 layout with 100 + 100 images", 100)
    assert rows(dataset.train) == expected_rows(images, fine)


def test_coarse_labels_alone_are_twenty_classes(tmp_path: Path):
    train, test = write_parquet_pair(tmp_path, classes=20, target="coarse_label")
    dataset = load_dataset("cifar100", str(tmp_path), 7)
    assert dataset.label == "CIFAR-100 layout with 40 + 40 images, 20 coarse classes"
    assert dataset.num_classes == 20
    labels = list(range(20)) * 2
    assert rows(dataset.train) | rows(dataset.val) == expected_rows(train, labels)
    assert rows(dataset.test) == expected_rows(test, labels)
    path = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(path, [encode(image) for image in train], [*labels[:-1], 20], target="coarse_label")
    assert f"{path}: column coarse_label runs from 0 to 20: it needs to be 0 to 19" in refused(tmp_path, "cifar100")
    write_parquet(path, [encode(image) for image in train], [label % 19 for label in labels], target="coarse_label")
    assert "has 19 coarse classes: CIFAR-100 has 20" in refused(tmp_path, "cifar100")
    write_parquet(path, [encode(image) for image in train], labels, target="fine_label")
    assert "some files have fine labels, others coarse ones" in refused(tmp_path, "cifar100")


def test_a_run_on_coarse_labels_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    isolate(monkeypatch, tmp_path)
    write_parquet_pair(tmp_path / "data", classes=20, target="coarse_label")
    result = invoke("train", *TINY, "data=cifar100", "data.val_size=2", "data.binary=true")
    assert result.code == 0, result.err
    environment = json.loads((run_dir() / "environment.json").read_text())
    assert environment["data"]["num_classes"] == 20
    assert environment["data"]["label"] == "CIFAR-100 layout with 40 + 40 images, 20 coarse classes, binary"


def test_other_images_in_parquet_files_follow_the_same_rules(tmp_path: Path):
    write_parquet_pair(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    wide = make_images(20, 3)[..., 0].astype(np.uint16) * 257
    buffers = [io.BytesIO() for _ in wide]
    for image, buffer in zip(wide, buffers, strict=True):
        Image.fromarray(image).save(buffer, "PNG")
    write_parquet(path, [buffer.getvalue() for buffer in buffers], LABELS)
    expected = np.stack([make_images(20, 3)[..., 0]] * 3, axis=-1)
    assert rows(load_dataset("cifar10", str(tmp_path), 0).train) == expected_rows(expected, LABELS)
    for data, said in (
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n", "cannot be decoded"),
        (b"", "is empty"),
        (bytes(2**26 + 1), "at most 67,108,864 are read"),
    ):
        write_parquet(path, [*(encode(image) for image in make_images(19)), data], LABELS)
        message = refused(tmp_path, val_size=1)
        assert message.startswith(f"image 19 of {path} ")
        assert said in message


def test_pipes_and_huge_parquet_files_are_not_opened(tmp_path: Path):
    write_parquet_pair(tmp_path)
    path = tmp_path / "test-00000-of-00001.parquet"
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is no regular file" in refused(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**33)
    assert f"{path} has 8,589,934,592 bytes: at most 1,073,741,824 are read" in refused(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert str(path) in refused(tmp_path)


def test_a_small_file_of_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "MAX_BYTES", 2**20)
    write_parquet_pair(tmp_path)
    assert len(load_dataset("cifar10", str(tmp_path), 0).train) == 20
    path = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(path, [bytes(2**16)] * 17, [0] * 17)
    assert path.stat().st_size < 2**16
    assert refused(tmp_path, val_size=1) == f"{path} holds 1,114,112 bytes of images: at most 1,048,576 are read"


@pytest.mark.parametrize("name", ["a=b", "[1] {x}*?", "été, 数据"])
def test_a_root_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    train, _ = write_parquet_pair(tmp_path / name / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for root in (str(tmp_path / name), name, f"./{name}/", f"~/{name}"):
        assert rows(load_dataset("cifar10", root, 0).train) == expected_rows(train, LABELS)


def test_a_relative_root_is_read_from_where_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number, kind in enumerate(("png", "jpeg")):
        write_parquet_pair(tmp_path / str(number) / "data", kind=kind)
    labels = []
    for number in range(2):
        monkeypatch.chdir(tmp_path / str(number))
        labels.append(load_dataset("cifar10", "data", 0).label)
    assert ["JPEG" in label for label in labels] == [False, True]
