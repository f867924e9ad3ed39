import os
import subprocess
import sys
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


# --- files and folders of the user's own -----------------------------------------------------------------------------

KINDS = ("png", "bmp", "webp", "tif", "PNG", "ppm", "TIFF", "gif", "jp2", "tga")


def write_mixed_folder(root: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Class folders with one grey image of each of ``KINDS``, the later ones in folders below."""
    written = {}
    for seed, split in enumerate(("train", "test")):
        images, labels = [], []
        for target in range(10):
            for number, (kind, image) in enumerate(
                zip(KINDS, make_images(len(KINDS), 50 * seed + target, (32, 32, 1)), strict=True)
            ):
                below = [".", "a", "b/c", "holiday.png"][number % 4]
                path = root / split / f"class {target} é" / below / f"{number}.{kind}"
                path.parent.mkdir(parents=True, exist_ok=True)
                options = {"lossless": True} if kind == "webp" else {}
                Image.fromarray(image[..., 0]).save(path, {"tif": "tiff", "jp2": "jpeg2000"}.get(kind), **options)
                images.append(image.repeat(3, axis=2))
                labels.append(target)
        written[split] = np.stack(images), labels
    return written


def test_images_of_every_suffix_and_in_folders_below_are_read(tmp_path: Path):
    written = write_mixed_folder(tmp_path / "my data = [1]")
    dataset = load_dataset("cifar10", str(tmp_path / "my data = [1]"), 0)
    assert dataset.label == "CIFAR-10 layout with 100 + 100 images"
    for split in ("train", "test"):
        read = getattr(dataset, split)
        assert len(read) == 100
        assert rows(read) == expected_rows(*written[split])


def test_what_file_managers_and_people_leave_is_passed_over(tmp_path: Path):
    write_image_folder(tmp_path)
    before = load_dataset("cifar10", str(tmp_path), 0).fingerprint
    again = tmp_path / "again"
    write_image_folder(again)
    for name in (
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._0.png",
        "notes.txt",
        "README.md",
        "README",
        "0.json",
        "0.xml",
    ):
        for folder in (again, again / "train", again / "test" / "class_05"):
            (folder / name).write_bytes(b"not an image")
    for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        for place in (again, again / "test", again / "train" / "class_01"):
            (place / folder).mkdir()
            (place / folder / "0.png").write_bytes(b"not an image")
    assert load_dataset("cifar10", str(again), 0).fingerprint == before


@pytest.mark.parametrize("name", ["x.npy", "x.zip", "x.eps", "x.pdf", "x.csv", "x", "x.arrow", "x.heic", "x.svg"])
def test_what_may_be_data_is_not_left_out(tmp_path: Path, name: str):
    write_image_folder(tmp_path)
    path = tmp_path / "train" / "class_03" / "more" / name
    path.parent.mkdir()
    path.write_bytes(b"?")
    assert f"{path} is no image of a kind that is read" in refused(tmp_path)
    path.rename(tmp_path / "test" / name)
    assert f"{tmp_path / 'test'} holds {name} beside the class folders" in refused(tmp_path)


def test_images_beside_the_class_folders_are_not_left_out(tmp_path: Path):
    write_image_folder(tmp_path)
    (tmp_path / "train" / "class_03" / "0.png").rename(tmp_path / "train" / "0.png")
    assert f"{tmp_path / 'train'} holds 0.png beside the class folders" in refused(tmp_path)
    flat = tmp_path / "flat"
    (flat / "test").mkdir(parents=True)
    (flat / "train").mkdir()
    (flat / "train" / "0.png").write_bytes(b"")
    assert f"{flat / 'train'} has 0 class folders beside 0.png: CIFAR-10 has 10" in refused(flat)


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "testing"), ("training", "Testing")])
def test_train_and_test_may_be_called_otherwise(tmp_path: Path, train: str, test: str):
    write_image_folder(tmp_path / "usual")
    write_image_folder(tmp_path / "other")
    (tmp_path / "other" / "train").rename(tmp_path / "other" / train)
    (tmp_path / "other" / "test").rename(tmp_path / "other" / test)
    fingerprints = {load_dataset("cifar10", str(tmp_path / name), 0).fingerprint for name in ("usual", "other")}
    assert len(fingerprints) == 1
    (tmp_path / "other" / "train" / "class_00").mkdir(parents=True)
    assert f"{tmp_path / 'other'} holds {', '.join(sorted((train, 'train')))}: leave one of them" in refused(
        tmp_path / "other", val_size=1
    )


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_validation_images_are_neither_left_out_nor_taken_for_the_test_set(tmp_path: Path, name: str):
    write_image_folder(tmp_path)
    (tmp_path / name).mkdir()
    assert f"{tmp_path} holds {name} beside train and test: validation images are taken out of train" in refused(
        tmp_path
    )
    (tmp_path / "test").rename(tmp_path / "elsewhere")
    assert f"{tmp_path} holds {name}" in refused(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    write_image_folder(tmp_path / "there")
    root = tmp_path / "here"
    (root / "train").mkdir(parents=True)
    (root / "test").symlink_to(tmp_path / "there" / "test")
    for folder in (tmp_path / "there" / "train").iterdir():
        if folder.name == "class_04":
            (root / "train" / folder.name).mkdir()
            for path in folder.iterdir():
                (root / "train" / folder.name / path.name).symlink_to(path)
        else:
            (root / "train" / folder.name).symlink_to(folder)
    fingerprint = load_dataset("cifar10", str(tmp_path / "there"), 0).fingerprint
    assert load_dataset("cifar10", str(root), 0).fingerprint == fingerprint
    circle = root / "train" / "class_04" / "circle"
    circle.symlink_to(root / "train" / "class_04")
    assert f"{circle} is a link to a folder that it lies in" in refused(root, val_size=1)
    circle.unlink()
    circle.with_name("2.png").symlink_to(tmp_path / "nowhere")
    assert str(circle.with_name("2.png")) in refused(root, val_size=1)


def test_pipes_devices_and_huge_files_are_not_opened(tmp_path: Path):
    write_image_folder(tmp_path)
    path = tmp_path / "test" / "class_07" / "x.png"
    os.mkfifo(path)
    assert f"{path} is no regular file" in refused(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert f"{path} is no regular file" in refused(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    assert f"{path} has 10,737,418,240 bytes: at most 67,108,864 are read" in refused(tmp_path)
    path.write_bytes(b"")
    assert refused(tmp_path) == f"{path} is empty: replace it"


def test_16_bit_images_of_another_size_are_scaled_as_the_8_bit_ones(tmp_path: Path):
    grey = make_images(1, 5, (48, 40, 1))[0, ..., 0]
    for root, image in ((tmp_path / "wide", grey.astype(np.uint16) * 257), (tmp_path / "usual", grey)):
        write_image_folder(root)
        Image.fromarray(image).save(root / "train" / "class_00" / "0.png")
    fingerprints = {load_dataset("cifar10", str(tmp_path / name), 0).fingerprint for name in ("wide", "usual")}
    assert len(fingerprints) == 1


def test_data_other_than_parquet_need_no_polars(tmp_path: Path):
    write_image_folder(tmp_path)
    code = "import sys; from icsbench.data import load_dataset; "
    code += f"load_dataset('cifar10', {str(tmp_path)!r}, 0); "
    code += "print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "numpy" in loaded
    assert not {"polars", "pyarrow", "pandas", "torchvision"} & set(loaded)
