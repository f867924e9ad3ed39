from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import GREY, expected_rows, make_images, refused, rows, write_image_folder

from icsbench.data import load_dataset


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
