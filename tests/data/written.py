"""Data sets as users have them, written from arrays, and what is read from them as sets of rows."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from icsbench.data import Dataset, Split, load_dataset
from icsbench.errors import IcsbenchError

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
