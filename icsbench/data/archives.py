"""torchvision's files of CIFAR and MNIST: their folders, their checksums, their download."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from icsbench.data.files import reason
from icsbench.data.kinds import Kind, Source, Split, layouts
from icsbench.errors import IcsbenchError

# torchvision is imported where it is used: it takes a second or two, and few runs need it.
if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

# MD5 of MNIST's unpacked files; torchvision has those of the packed ones.
_UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def _cifar(name: str) -> type[CIFAR10]:
    from torchvision.datasets import CIFAR10, CIFAR100

    return {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]


def find_archive(root: Path, kind: Kind) -> Path | None:
    """Return torchvision's folder in ``root``, ``root`` itself if it is that folder, or None."""
    for folder in (root / kind.folder, root / Path(kind.folder).name, root):
        if folder.match(kind.folder) and folder.is_dir():
            return folder
    return None


def read_archive(folder: Path, kind: Kind) -> Source:
    """Read torchvision's ``folder``; no byte of it is used before its checksum is verified."""
    return _read_mnist(folder, kind) if kind.name == "mnist" else _read_cifar(folder, kind)


def _verify(path: Path, md5: str) -> None:
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(path, md5):
        fault = "corrupt (its checksum is wrong)" if path.exists() else "missing"
        raise IcsbenchError(f"{path} is {fault}: delete the folder {path.parent} to download it again")


def _read_cifar(folder: Path, kind: Kind) -> Source:
    archive = _cifar(kind.name)
    for filename, md5 in (*archive.train_list, *archive.test_list, (archive.meta["filename"], archive.meta["md5"])):
        _verify(folder / filename, md5)

    def read(train: bool) -> Split:
        with warnings.catch_warnings():
            # NumPy 2.4 complains about how the archive's arrays were pickled, long ago.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            data = archive(folder.parent, train=train)
        return Split(torch.from_numpy(np.ascontiguousarray(data.data)), torch.tensor(data.targets))

    return Source(kind.label, kind.num_classes, read(train=True), read(train=False))


def _read_mnist(folder: Path, kind: Kind) -> Source:
    from torchvision.datasets import MNIST

    packed_md5 = dict(MNIST.resources)

    def read(filename: str, header: int) -> Tensor:
        path, md5 = folder / filename, _UNPACKED_MD5[filename]
        if not path.exists():
            path, md5 = folder / f"{filename}.gz", packed_md5[f"{filename}.gz"]
        _verify(path, md5)
        data = path.read_bytes()
        content = bytearray(gzip.decompress(data) if path.suffix else data)
        return torch.frombuffer(content, dtype=torch.uint8, offset=header)

    def split(name: str) -> Split:
        images = read(f"{name}-images-idx3-ubyte", header=16).view(-1, *kind.shape)
        return Split(images, read(f"{name}-labels-idx1-ubyte", header=8).long())

    return Source(kind.label, kind.num_classes, split("train"), split("t10k"))


def download(root: Path, kind: Kind) -> Path:
    """Put torchvision's folder into ``root``, whole or not at all, and return it."""
    from torchvision.datasets import MNIST

    folder = kind.folder
    addresses = MNIST.mirrors if kind.name == "mnist" else [_cifar(kind.name).url]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"), tempfile.TemporaryDirectory(dir=root, prefix=".extract-") as staging:
            if (root / folder).is_dir():
                return root / folder
            if kind.name == "mnist":
                for filename, md5 in MNIST.resources:
                    _fetch([mirror + filename for mirror in addresses], Path(staging) / folder, filename, md5)
            else:
                archive = _cifar(kind.name)
                _fetch(addresses, root, archive.filename, archive.tgz_md5)
                with tarfile.open(root / archive.filename) as tar:
                    tar.extractall(staging, filter="data")
            (root / folder).parent.mkdir(exist_ok=True)
            os.replace(Path(staging) / folder, root / folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise IcsbenchError(
            f"cannot download {' or '.join(addresses)} into data.root={root} ({reason(error)}): instead, put there "
            f"one of {layouts(kind)}"
        ) from error
    return root / folder


def _fetch(addresses: list[str], folder: Path, filename: str, md5: str) -> None:
    """Download a file into ``folder`` from the first address that gives it with the right checksum."""
    from torchvision.datasets.utils import download_url

    faults = []
    for address in addresses:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return download_url(address, folder, filename, md5)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            # The one RuntimeError of torchvision's downloader is about the checksum.
            faults.append("what came has the wrong checksum" if type(error) is RuntimeError else reason(error))
    raise OSError("; ".join(dict.fromkeys(faults)))
