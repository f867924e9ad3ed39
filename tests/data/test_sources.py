import contextlib
import gzip
import hashlib
import http.server
import pickle
import socket
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torchvision.datasets import CIFAR10, CIFAR100, MNIST
from written import GREY, expected_rows, make_images, refused, rows, splits, write_image_folder, write_parquet_pair

from icsbench.data import Batches, archives, load_dataset, normalize

BASE = "cifar-10-batches-py"
PER_BATCH = 10

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


def test_a_home_folder_that_is_not_known_is_no_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "data.root=~nobody-here/data begins with a home folder" in refused(Path("~nobody-here/data"))
    assert not [*tmp_path.iterdir()]


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
    mean, std = binary.normalization()
    for split, original in zip(splits(binary), splits(grey), strict=True):
        assert torch.equal(split.labels, original.labels)
        inputs = normalize(split.images, mean, std)
        assert inputs.unique().tolist() == [0, 1]
        assert torch.equal(inputs, (original.images > 127.5).permute(0, 3, 1, 2).float())
    batches = Batches(binary.train, 64, 0, flip=True, crop=True, mean=mean, std=std, device="cpu")
    assert batches(3)[0].unique().tolist() == [0, 1]


def test_other_images_are_normalized_by_the_statistics_of_the_training_images():
    for name in ("digits8", "digits"):
        dataset = load_dataset(name, None, 100)
        mean, std = dataset.normalization()
        channels = dataset.train.images.flatten(0, 2).double()
        assert torch.allclose(mean, channels.mean(0), rtol=1e-12)
        assert torch.allclose(std, channels.std(0, correction=0), rtol=1e-12)
        inputs = normalize(dataset.train.images, mean, std).double()
        assert inputs.mean((0, 2, 3)).abs().max() < 1e-6
        assert (inputs.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_images_are_read_once_for_all_seeds():
    kept = load_dataset("digits8", None, 100, seed=1)
    assert load_dataset("digits8", None, 100, seed=2) is kept
    assert load_dataset("digits8", None, 100, binary=False) is kept
    assert load_dataset("digits8", None, 100, binary=True) is load_dataset("digits8", None, 100, binary=True, seed=3)


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


def touch(root: Path, *names: str) -> None:
    """Make files of one byte, and folders of names that end in a slash."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"?")


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("cifar10", ["cifar10.npz"], "cifar10.npz"),
        ("cifar10", ["archive.zip", "README.md"], "archive.zip"),
        ("cifar10", ["images/0.png", "labels.csv"], "images, labels.csv"),
        ("cifar10", ["airplane/0.png", "bird/0.png"], "airplane, bird"),
        ("cifar10", ["cifar10/data.arrow"], "cifar10"),
        ("cifar10", ["plain_text/0.0.0/cifar10-train.arrow"], "plain_text"),
        ("cifar10", ["hub/datasets--ylecun--mnist/snapshots/0/mnist/train.parquet"], "hub"),
        ("cifar10", ["cifar100/train-00000-of-00001.parquet"], "cifar100"),
        ("cifar10", ["something/deep/below/0.png"], "something"),
        ("cifar10", ["MNIST/raw/train-images-idx3-ubyte", "mine/0.png"], "mine"),
        ("cifar10", ["unknown"], "unknown"),
        ("cifar100", ["train", "test", "meta"], "meta, test, train"),
        ("mnist", ["MNIST/train-images-idx3-ubyte"], "MNIST"),
        ("mnist", ["fashion_mnist/train.parquet", "fashion_mnist/test.parquet"], "fashion_mnist"),
        ("mnist", ["mnist.npz", "cifar-10-batches-py/data_batch_1"], "mnist.npz"),
    ],
)
def test_a_folder_that_holds_something_unknown_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: list[str], told: str
):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda *_: pytest.fail("a download"))
    touch(tmp_path, *files)
    before = sorted(tmp_path.rglob("*"))
    message = refused(tmp_path, name)
    assert f"data.root={tmp_path} holds {told}, but not " in message
    for part in ("train-*.parquet", "ImageFolder", "set data.root to an empty folder"):
        assert part in message
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_found_is_told_in_a_few_names(tmp_path: Path):
    touch(tmp_path, *(f"{number:02d}.png" for number in range(40)))
    assert "holds 00.png, 01.png, 02.png, 03.png, 04.png and 35 more, but not CIFAR-10" in refused(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [".DS_Store", "Thumbs.db", ".download.lock", ".extract-abc/half", "README.md", "notes.txt"],
        [
            "MNIST/raw/train-images-idx3-ubyte",
            "FashionMNIST/raw/x",
            "cifar-100-python.tar.gz",
            "cifar-100-python/train",
        ],
        ["empty/", "also/empty/", "also/.hidden"],
        ["cifar-10-python.tar.gz"],
    ],
    ids=["nothing", "leftovers", "torchvision's others", "empty folders", "a cut download"],
)
def test_an_empty_folder_is_filled_by_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]):
    archive = write_archive(tmp_path / "server", monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    touch(root, *files)
    with served(archive.parent) as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
        assert_is_the_tiny_archive(root)


def test_torchvisions_files_are_found_in_a_folder_called_like_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_archive_folder(tmp_path / "CIFAR10" / BASE, monkeypatch)
    write_mnist(tmp_path / "mnist" / "MNIST" / "raw", monkeypatch)
    assert_is_the_tiny_archive(tmp_path)
    assert_is_the_tiny_mnist(tmp_path)
    assert_is_the_tiny_mnist(tmp_path / "mnist" / "MNIST")


def test_class_folders_are_found_in_a_folder_called_like_the_data_set(tmp_path: Path):
    write_image_folder(tmp_path / "cifar-10")
    write_image_folder(tmp_path / "stl10")
    labels = [target for target in range(10) for _ in range(2)]
    images = np.concatenate([make_images(2, target) for target in range(10)])
    assert rows(load_dataset("cifar10", str(tmp_path), 0).train) == expected_rows(images, labels)
    (tmp_path / "cifar-10").rename(tmp_path / "mine")
    assert "holds mine, stl10, but not CIFAR-10 in a layout that is known" in refused(tmp_path, val_size=1)


def test_parquet_files_come_before_class_folders(tmp_path: Path):
    write_image_folder(tmp_path)
    write_parquet_pair(tmp_path, kind="jpeg")
    assert "JPEG" in load_dataset("cifar10", str(tmp_path), 0).label


def test_a_root_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert f"data.root={tmp_path / 'file' / 'root'}" in refused(tmp_path / "file" / "root")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", full)
    assert "No space left on device" in refused(tmp_path)
    assert "No space left on device" in refused(tmp_path, "mnist")
