"""Encoded images into pixels: which formats are read, and how each mode becomes 8-bit grey or RGB."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile
from torch import Tensor

from icsbench.errors import IcsbenchError

MAX_BYTES = 2**26
"""The largest encoded image that is read."""
MAX_PIXELS = 2**26
"""The most pixels of an image that is decoded."""

# What Pillow opens and we do not: EPS starts Ghostscript, and IPTC may have EPS in it; the others are no pictures, or
# need a program of their own; of FITS, the levels have no known range.
_REFUSED = {"EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FITS"}
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}


class Encoded(NamedTuple):
    """An image as it lies in a file: what to call it in messages, its bytes, and its file's suffix if it has one."""

    where: str
    data: bytes
    suffix: str = ""


@lru_cache(maxsize=1)
def formats() -> dict[str, str]:
    """Return Pillow's format of each file suffix that is read, all in small letters with the dot."""
    known = Image.registered_extensions()
    return {suffix: name for suffix, name in known.items() if name in Image.OPEN and name not in _REFUSED}


@lru_cache(maxsize=1)
def _recognised() -> list[str]:
    """The formats that are known by their first bytes, whatever the file is called."""
    return [name for name in dict.fromkeys(formats().values()) if Image.OPEN[name][1] is not None]


def decode(images: Iterable[Encoded], shape: tuple[int, int, int], resize: bool = False) -> tuple[Tensor, bool]:
    """Return the images as uint8 ``(N, *shape)``, and whether any of them is a JPEG.

    Colour becomes grey, or grey colour, as ``shape`` has it. 16-bit grey levels v become ``round(v * 255 / 65535)``;
    of 16-bit colour Pillow gives the high byte, which is at most one level from that. The alpha channel is left out,
    and an image is turned as its EXIF orientation says. Images of another size are scaled if ``resize`` is true.

    :raises IcsbenchError: one is no image, or is in a format that is not read (see ``formats``). Or it has another size
        and ``resize`` is false, too many pixels or bytes, more than one frame or page, or levels without a known range
        (32 bits, floating point, Lab).
    """
    side, _, channels = shape
    pixels, jpeg = [], False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on oddities that it can read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for encoded in images:
            try:
                image = _open(encoded, None if resize else side, "RGB" if channels == 3 else "L")
            except IcsbenchError as error:
                raise IcsbenchError(f"{encoded.where} {error}") from error
            except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
                raise IcsbenchError(f"{encoded.where} has more than {MAX_PIXELS:,} pixels: make it smaller") from error
            except Exception as error:  # Whatever a decoder makes of foreign bytes.
                fault = "cannot be decoded as an image (PNG, JPEG or another that Pillow reads): replace it"
                raise IcsbenchError(f"{encoded.where} {fault}") from error
            if image.size != (side, side):
                image = image.resize((side, side), Image.Resampling.BILINEAR)
            pixels.append(image.tobytes())
            jpeg |= encoded.data.startswith(b"\xff\xd8")
    return torch.frombuffer(bytearray().join(pixels), dtype=torch.uint8).view(-1, *shape), jpeg


def _open(encoded: Encoded, side: int | None, mode: str) -> Image.Image:
    if not encoded.data:
        raise IcsbenchError("is empty: replace it")
    if len(encoded.data) > MAX_BYTES:
        raise IcsbenchError(f"has {len(encoded.data):,} bytes: at most {MAX_BYTES:,} are read")
    own = formats().get(encoded.suffix.lower())
    image = Image.open(io.BytesIO(encoded.data), formats=[*filter(None, [own]), *_recognised()])
    width, height = image.size
    if side is not None and (width, height) != (side, side):
        raise IcsbenchError(f"is {width}x{height} pixels: it needs to be {side}x{side}")
    if width * height > MAX_PIXELS:
        raise IcsbenchError(f"is {width}x{height}, more than {MAX_PIXELS:,} pixels: make it smaller")
    # MPO is the JPEG of a camera with previews behind it; of PSD Pillow opens all layers together.
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD"):
        raise IcsbenchError("has several frames or pages: save each that is meant as an image of its own")
    wide = _is_16_bit(image)
    if not wide and (image.mode not in _MODES or _is_signed(image)):
        raise IcsbenchError(f"has levels of no known range ({image.format}, mode {image.mode}): save it as 8-bit PNG")
    orientation = None
    with contextlib.suppress(Exception):  # Damaged EXIF data are no reason to refuse the picture.
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation not in (None, 1):
        image = ImageOps.exif_transpose(image)
    if wide:
        image = Image.fromarray(((np.asarray(image, dtype=np.int32) + 128) // 257).astype(np.uint8))
    if image.mode == "La":  # Pillow has no way from grey times alpha but through grey and alpha.
        image = image.convert("LA")
    return image.convert(mode)


def _is_16_bit(image: Image.Image) -> bool:
    """Return whether the image is grey, of levels from 0 (black) to 65535."""
    if isinstance(image, TiffImageFile):
        # Not of 12 bits, and not with 0 as white: Pillow gives such levels as they are in the file.
        layout = image.tag_v2.get(BITSPERSAMPLE), image.tag_v2.get(PHOTOMETRIC_INTERPRETATION)
        return image.mode.startswith("I;16") and layout == ((16,), 1)
    return image.mode.startswith("I") and image.format in ("PNG", "PPM", "JPEG2000")


def _is_signed(image: Image.Image) -> bool:
    """Return whether the image is a TIFF of signed levels, which Pillow gives as if they were not."""
    return isinstance(image, TiffImageFile) and 2 in image.tag_v2.get(SAMPLEFORMAT, ())
