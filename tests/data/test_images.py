"""Encoded images against arrays: what is written here by hand, byte by byte, must come out as its levels say."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import make_images

from icsbench.data.images import MAX_BYTES, Encoded, decode, formats
from icsbench.errors import IcsbenchError

RAMP = np.round(np.linspace(0, 65535, 1024)).astype(int).reshape(32, 32)
NOISE = np.random.default_rng(1).integers(65536, size=(32, 32))


def read(data: bytes, suffix: str = "", channels: int = 3, resize: bool = False) -> np.ndarray:
    pixels, _ = decode([Encoded("here", data, suffix)], (32, 32, channels), resize)
    return pixels[0].numpy().astype(int)


def refused(data: bytes, suffix: str = "", resize: bool = False) -> str:
    with pytest.raises(IcsbenchError) as caught:
        read(data, suffix, resize=resize)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("here ")
    return message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(levels: np.ndarray, bits: int = 16, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of ``(H, W)`` or ``(H, W, C)`` levels; of ``size`` if given, with too little data."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[levels[0, 0].size]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", *(size or levels.shape[1::-1]), bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(levels: np.ndarray, bits: int, order: str = "<", white: int = 0, sample_format: int = 1) -> bytes:
    """An uncompressed grey TIFF of what ``levels`` holds in memory."""
    data = levels.tobytes()
    entries = [(256, levels.shape[1]), (257, levels.shape[0]), (258, bits), (259, 1), (262, 1 - white), (273, 8)]
    entries += [(277, 1), (278, levels.shape[0]), (279, len(data)), (339, sample_format)]
    directory = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in entries)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return start + data + struct.pack(order + "H", len(entries)) + directory + bytes(4)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rounded(levels: np.ndarray, largest: int = 65535) -> np.ndarray:
    return np.floor(levels * (255 / largest) + 0.5).astype(int)


# --- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [RAMP, NOISE], ids=["ramp", "noise"])
@pytest.mark.parametrize(
    "write",
    [
        png,
        lambda levels: tiff(levels.astype("<u2"), 16),
        lambda levels: tiff(levels.astype(">u2"), 16, ">"),
        lambda levels: b"P5 32 32 65535\n" + levels.astype(">u2").tobytes(),
        lambda levels: b"P2 32 32 65535\n" + " ".join(map(str, levels.flat)).encode(),
        lambda levels: saved(Image.fromarray(levels.astype(np.uint16)), "JPEG2000"),
        lambda levels: saved(Image.fromarray(levels.astype(np.uint16)), "TIFF", compression="tiff_lzw"),
    ],
    ids=["png", "tiff", "tiff, big-endian", "pgm", "plain pgm", "jpeg2000", "tiff, packed"],
)
def test_16_bit_grey_is_scaled_to_8(write, levels: np.ndarray):
    expected = rounded(levels)
    for channels in (1, 3):
        assert (read(write(levels), channels=channels) == expected[..., None]).all()
    if levels is RAMP:
        assert len(np.unique(expected)) == 256
        assert expected.mean() == 127.5


@pytest.mark.parametrize("largest", [511, 4095])
def test_levels_of_another_range_that_the_file_states_are_scaled_by_it(largest: int):
    levels = np.linspace(0, largest, 1024).astype(int).reshape(32, 32)
    pixels = read(f"P5 32 32 {largest}\n".encode() + levels.astype(">u2").tobytes())
    assert (pixels == rounded(levels, largest)[..., None]).all()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_is_right_to_one_level(channels: int):
    every = np.stack([NOISE, NOISE.T, NOISE[::-1], NOISE[:, ::-1]], axis=-1)[..., :channels]
    expected = rounded(every[..., :1] if channels == 2 else every[..., :3])
    assert np.abs(read(png(every)) - expected).max() == 1
    eight_bit = every // 256
    exact = eight_bit[..., :1] if channels == 2 else eight_bit[..., :3]
    assert (read(png(eight_bit * 257)) == exact).all()
    assert (read(png(eight_bit, bits=8)) == exact).all()


@pytest.mark.parametrize(
    "data",
    [
        tiff(NOISE.astype("<u4"), 32),
        tiff(NOISE.astype("<i4"), 32, sample_format=2),
        tiff(NOISE.astype("<i2"), 16, sample_format=2),
        tiff(NOISE.astype("<i1"), 8, sample_format=2),
        tiff(NOISE.astype("<f4"), 32, sample_format=3),
        tiff(NOISE.astype("<u2"), 16, white=1),
        tiff(np.zeros((32, 48), dtype=np.uint8), 12).replace(
            struct.pack("<HHII", 256, 4, 1, 48), b"\0\1\4\0\1\0\0\0 \0\0\0"
        ),
        b"Pf 32 32 -1.0\n" + NOISE.astype("<f4").tobytes(),
        saved(Image.new("LAB", (32, 32), (128, 130, 120)), "TIFF"),
    ],
    ids=["32", "signed 32", "signed 16", "signed 8", "float", "white is 0", "12", "float pfm", "lab"],
)
def test_levels_without_a_known_range_are_refused(data: bytes):
    assert "has levels of no known range (" in refused(data)


RGB_LEVELS = make_images(1)[0].astype(int)
GREY_LEVELS = RGB_LEVELS[..., 0]
HALF = np.where(GREY_LEVELS > 100, 255, 0)
OPAQUE = np.maximum(GREY_LEVELS.T, 1)


def tiff_of(mode: str, levels: np.ndarray) -> bytes:
    return saved(Image.frombytes(mode, (32, 32), levels.astype(np.uint8).tobytes()), "TIFF")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(Image.fromarray(HALF > 0), "PNG"), HALF),
        (tiff(GREY_LEVELS.astype(np.uint8), 8, white=1), 255 - GREY_LEVELS),
        (tiff_of("LA", np.stack([GREY_LEVELS, GREY_LEVELS.T], -1)), GREY_LEVELS),
        (tiff_of("RGBA", np.concatenate([RGB_LEVELS, OPAQUE[..., None]], -1)), RGB_LEVELS),
        (tiff_of("CMYK", np.concatenate([RGB_LEVELS, 0 * OPAQUE[..., None]], -1)), 255 - RGB_LEVELS),
        (png(np.stack([GREY_LEVELS, 0 * GREY_LEVELS], -1), bits=8), GREY_LEVELS),
    ],
    ids=["1", "white is 0", "LA", "RGBA", "CMYK", "LA, clear"],
)
def test_other_modes_are_read_by_their_definition(data: bytes, expected: np.ndarray):
    assert (read(data) == (expected if expected.ndim == 3 else expected[..., None])).all()


def test_palettes_grey_times_alpha_and_luma_are_read_by_their_definition():
    palette = make_images(1, 7)[0, 0, :16]
    index = RGB_LEVELS[..., 1] % 16
    image = Image.frombytes("P", (32, 32), index.astype(np.uint8).tobytes())
    image.putpalette(palette.tobytes())
    for options in ({}, {"transparency": 3}, {"transparency": bytes(range(16))}):
        assert (read(saved(image, "PNG", **options)) == palette[index]).all()

    times_alpha = np.minimum(GREY_LEVELS, OPAQUE)
    unmixed = read(
        tiff_of("LA", np.stack([times_alpha, OPAQUE], -1)).replace(
            struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 338, 3, 1, 1, 0)
        )
    )
    assert np.abs(unmixed[..., 0] - 255 * times_alpha / OPAQUE).max() <= 1

    luma, blue, red = np.moveaxis(RGB_LEVELS, -1, 0).astype(float)
    colours = (
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    )
    expected = np.clip(np.stack(colours, -1), 0, 255)
    assert np.abs(read(tiff_of("YCbCr", RGB_LEVELS)) - expected).max() <= 1


# --- formats ---------------------------------------------------------------------------------------------------------

EXACT = {
    "PNG": {}, "BMP": {}, "DIB": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG2000": {}, "PPM": {}, "PCX": {},
    "TGA": {}, "SGI": {}, "DDS": {}, "ICO": {"sizes": [(32, 32)]}, "QOI": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", EXACT)
def test_every_suffix_of_a_format_is_read(kind: str):
    suffixes = [suffix for suffix, name in formats().items() if name == kind]
    assert suffixes
    data = saved(Image.fromarray(RGB_LEVELS.astype(np.uint8)), kind, **EXACT[kind])
    for suffix in suffixes:
        for spelled in (suffix, suffix.upper()):
            assert (read(data, spelled) == RGB_LEVELS).all()


def test_the_bytes_count_and_not_the_suffix():
    data = saved(Image.fromarray(RGB_LEVELS.astype(np.uint8)), "BMP")
    for suffix in ("", ".png", ".TGA", ".im", ".webp", ".unknown"):
        assert (read(data, suffix) == RGB_LEVELS).all()


def test_the_suffixes_are_those_that_pillow_reads_but_for_a_few():
    Image.init()
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    left_out = {
        ".eps",
        ".ps",
        ".iim",
        ".wmf",
        ".emf",
        ".bufr",
        ".grib",
        ".h5",
        ".hdf",
        ".mpg",
        ".mpeg",
        ".fit",
        ".fits",
    }
    assert formats().keys() == readable - left_out
    assert {
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".jp2",
    } <= formats().keys()


def test_jpegs_are_told_apart():
    image = Image.fromarray(RGB_LEVELS.astype(np.uint8))
    files = {kind: Encoded("here", saved(image, kind)) for kind in ("PNG", "JPEG", "WEBP")}
    assert not decode([files["PNG"], files["WEBP"]], (32, 32, 3))[1]
    assert decode([files["PNG"], files["JPEG"]], (32, 32, 3))[1]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP"])
def test_several_frames_or_pages_are_refused(kind: str):
    first, second = (Image.fromarray(image) for image in make_images(2))
    assert "several frames or pages" in refused(saved(first, kind, save_all=True, append_images=[second]))
    assert read(saved(first, kind, save_all=True)).shape == (32, 32, 3)


def test_the_first_picture_of_a_cameras_jpeg_is_read():
    first = Image.fromarray(np.full((32, 32, 3), 200, dtype=np.uint8))
    preview = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))
    assert np.abs(read(saved(first, "MPO", save_all=True, append_images=[preview])) - 200).max() <= 2


TURNED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_an_image_is_turned_as_a_viewer_turns_it(kind: str, orientation: int):
    blocks = np.kron(make_images(1, 3)[0, :2, :2], np.ones((16, 16, 1), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    pixels = read(saved(Image.fromarray(blocks), kind, exif=exif, **options))
    assert np.abs(pixels - TURNED[orientation](blocks)).max() <= (3 if kind == "JPEG" else 0)


def test_damaged_exif_data_do_not_matter():
    image = Image.new("RGB", (32, 32), (9, 9, 9))
    assert np.abs(read(saved(image, "JPEG", exif=b"Exif\0\0garbage")) - 9).max() <= 1


# --- what is no image, or too much of one ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8_200, 9_500, 60_000])
def test_an_image_of_too_many_pixels_is_not_decoded(side: int):
    small = np.zeros((2, 2, 3), dtype=int)
    assert "more than 67,108,864 pixels" in refused(png(small, 8, (side, side)), resize=True)
    assert "pixels" in refused(png(small, 8, (side, side)))


def test_too_many_bytes_and_none_are_told():
    assert "has 67,108,865 bytes: at most 67,108,864 are read" in refused(bytes(MAX_BYTES + 1))
    assert refused(b"") == "here is empty: replace it"


@pytest.mark.parametrize("kind", EXACT)
def test_a_cut_image_is_refused(kind: str):
    data = saved(Image.fromarray(make_images(1)[0]), kind, **EXACT[kind])
    suffix = {"TGA": ".tga"}.get(kind, "")
    for length in (8, 30, len(data) // 2, len(data) - 100):
        assert "cannot be decoded" in refused(data[:length], suffix)


def test_no_bytes_by_chance_are_an_image():
    draw = np.random.default_rng(5)
    for _ in range(50):
        data = draw.integers(256, size=draw.integers(1, 3000), dtype=np.uint8).tobytes()
        for suffix in ("", ".png", ".webp", ".pcd"):
            assert "cannot be decoded" in refused(data, suffix, resize=True)


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trap, program = tmp_path / "trap", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {trap}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(OSError):  # the trap works
        Image.open(io.BytesIO(eps)).load()
    assert trap.exists()
    trap.unlink()
    for suffix in (".eps", ".ps", ".png", ""):
        assert "cannot be decoded" in refused(eps, suffix)
    assert not trap.exists()
