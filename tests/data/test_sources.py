import contextlib
import hashlib
import http.server
import io
import pickle
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from icsbench.data import channel_statistics, load_dataset
from icsbench.data.sources import Split
from icsbench.errors import IcsbenchError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
BASE = "cifar-10-batches-py"
PER_BATCH = 10


def make_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)


def encode(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def refused(root: Path | None, name: str = "cifar10", val_size: int = 0) -> str:
    """The one line with which the data set is refused."""
    with pytest.raises(IcsbenchError) as caught:
        load_dataset(name, None if root is None else str(root), val_size)
    message = str(caught.value)
    assert "\n" not in message
    return message


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
    assert "digits, cifar10, cifar100" in refused(None, "mnist")
    assert "data.root" in refused(None)
    (tmp_path / "file").write_text("")
    assert "not a folder" in refused(tmp_path / "file")


# --- Hugging Face parquet files --------------------------------------------------------------------------------------


def write_parquet(
    path: Path, encoded: list[bytes | None], labels: list, image: str = "img", target: str = "label"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = pl.Series(
        [{"bytes": data, "path": "x"} for data in encoded], dtype=pl.Struct({"bytes": pl.Binary, "path": pl.String})
    )
    pl.DataFrame({image: structs, target: labels}).write_parquet(path)


def write_parquet_pair(folder: Path, classes: int = 10, kind: str = "png", **columns: str) -> list[np.ndarray]:
    labels = list(range(classes)) * 2
    written = []
    for seed, name in enumerate(("train", "test")):
        images = make_images(len(labels), seed)
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
    pl.DataFrame({"img": [b"x"] * 10, "label": list(range(10))}).write_parquet(path)
    assert f"{path}: column img is Binary" in refused(tmp_path)
    pl.read_parquet(tmp_path / "test-00000-of-00001.parquet").clear().write_parquet(path)
    assert f"{path} has no rows" in refused(tmp_path)


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


def write_image_folder(root: Path, kind: str = "png", side: int = 32, classes: int = 10) -> None:
    for seed, name in enumerate(("train", "test")):
        for target in range(classes):
            folder = root / name / f"class_{target:02d}"
            folder.mkdir(parents=True)
            for number, image in enumerate(make_images(2, 100 * seed + target)):
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


def test_two_downloads_at_once_fetch_the_archive_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = write_archive(tmp_path / "server", monkeypatch)
    root = tmp_path / "root"
    fetched = []
    monkeypatch.setattr(_QuietHandler, "log_request", lambda handler, *_: fetched.append(handler.path))
    failures = []

    def load(val_size: int) -> None:
        try:
            load_dataset("cifar10", str(root), val_size)
        except BaseException as error:
            failures.append(error)

    with served(archive.parent) as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
        threads = [threading.Thread(target=load, args=(val_size,)) for val_size in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(fetched) == 2  # the address of the file, then the file


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
