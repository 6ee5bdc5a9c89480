"""Pictures in and out of files: any path, any bit depth, turned upright, always 8-bit BGR."""

from __future__ import annotations

import io
import struct
import urllib.request
from http.client import HTTPException
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from utils.errors import DatasetError
from utils.paths import special_kind

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_FETCH_TIMEOUT = 20.0  # seconds without an answer
_LARGEST_FETCH = 256 << 20  # bytes
# Pixels that a byte of a file may stand for, from a size on at which decoding takes seconds: 20 in what cameras see, 70
# to 1,000 in JPEGs and PNGs of a single colour. Pillow does not tell sizes beyond its limit, 179 million pixels; of a
# real picture of that size the bytes below are the least.
_ALWAYS_DECODED = 64_000_000
_PIXELS_A_BYTE = 1000
_PILLOWS_LIMIT = 2 * (Image.MAX_IMAGE_PIXELS or 0)
_BYTES_OF_HUGE = 10 << 20
# What Pillow raises for files that are damaged, or none of its own; documented are the first two.
UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
              MemoryError, struct.error, Image.DecompressionBombError)  # fmt: skip
JPEG_TAIL = 32  # bytes in which a complete JPEG's end mark is looked for; some cameras append a little padding


def read_image(path: str | Path, reduction: int = 1) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 BGR, turned as its EXIF orientation says.

    Grey becomes three equal channels, 16 bits become the upper 8, floating-point values in 0..1 become 0..255, and
    transparency is dropped. Of animated pictures, and of those with several pages, the first one counts.

    Args:
        path: of the file.
        reduction: 1, or 2, 4 or 8 for a JPEG with sides of this part of its own, rounded up, which takes a fraction of
            the time; other formats come whole.

    Raises:
        DatasetError: when the file cannot be read, is no picture, or is cut off.
    """
    file = Path(path)
    special = special_kind(file)
    if special:  # waiting for its bytes could take for ever
        raise DatasetError(f"{file}: is {special}, expected a picture's file")
    try:
        data = np.fromfile(file, dtype=np.uint8)  # unlike cv2.imread, takes any path on every system
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror or error})") from error
    return decode_image(data, str(file), reduction)


def fetch_image(url: str) -> np.ndarray:
    """Read a picture from a web server, as :func:`read_image` does from a file; nothing is stored.

    Raises:
        DatasetError: when it cannot be fetched, is too large, or is no picture.
    """
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT) as answer:
            data = answer.read(_LARGEST_FETCH + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise DatasetError(f"{url}: cannot be fetched ({error})") from error
    if len(data) > _LARGEST_FETCH:
        raise DatasetError(f"{url}: is larger than {_LARGEST_FETCH >> 20} MB, too large for a picture")
    return decode_image(np.frombuffer(data, np.uint8), url)


def decode_image(data: np.ndarray, name: str, reduction: int = 1) -> np.ndarray:
    """Decode the bytes of a picture file; see :func:`read_image`.

    Args:
        data: (n,) uint8, the whole file.
        name: path or address, for its suffix and for errors.
        reduction: 1, 2, 4 or 8.

    Raises:
        DatasetError: when it is no picture, or is cut off.
    """
    if data.size == 0:
        raise DatasetError(f"{name}: is empty")
    _refuse_bomb(name, data)
    _refuse_cut_jpeg(name, data)
    manner = _REDUCED[reduction] if _is_jpeg(data) else cv2.IMREAD_COLOR
    image = _decode(data, manner, floating=name.lower().endswith(".pfm"))
    return _decode_with_pillow(name, data) if image is None else image


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) BGR uint8 picture in the format of the path's suffix.

    Raises:
        DatasetError: when the format cannot be written, or the file cannot.
    """
    file = Path(path)
    try:
        done, encoded = cv2.imencode(file.suffix, image)
    except cv2.error as error:
        raise DatasetError(f"{file}: cannot be written as {file.suffix or 'a picture without suffix'}") from error
    if not done:
        raise DatasetError(f"{file}: cannot be written as {file.suffix}")
    try:
        encoded.tofile(file)
    except OSError as error:
        raise DatasetError(f"{file}: cannot be written ({error.strerror or error})") from error


def to_8bit(image: np.ndarray) -> np.ndarray:
    """Any depth and channel count to (H, W, 3) uint8; the order of channels stays.

    Args:
        image: (H, W), or (H, W, C) with one channel, or three and more, of which the first three count. Of 16 bits the
            upper 8 stay, other whole numbers are clipped to 0..255, floating-point values up to 1 become 0..255.
    """
    if image.dtype.kind == "f":
        finite = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
        scale = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
        image = np.clip(np.rint(finite * scale), 0, 255).astype(np.uint8)
    elif image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype != np.uint8:
        image = np.clip(image, 0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


def ends_as_jpeg(tail: bytes) -> bool:
    """Whether a JPEG file is complete, by the end mark among its last :data:`JPEG_TAIL` bytes."""
    return _JPEG_END in tail


def _is_jpeg(data: np.ndarray) -> bool:
    return data[:2].tobytes() == _JPEG_START


def refuse_lying_size(name: str, size_wh: tuple[int, int] | None, bytes_there: int) -> None:
    """Refuse a picture whose header asks for memory that its few bytes cannot be meant to fill.

    Args:
        name: path or address, for the error.
        size_wh: width and height that the header declares, px; None where there are more pixels than Pillow looks at.
        bytes_there: of the file.

    Raises:
        DatasetError: saying what is declared.
    """
    pixels = _PILLOWS_LIMIT if size_wh is None else size_wh[0] * size_wh[1]
    needed = _BYTES_OF_HUGE if size_wh is None else pixels // _PIXELS_A_BYTE
    if pixels > _ALWAYS_DECODED and bytes_there < needed:
        declared = f"more than {pixels:,}" if size_wh is None else f"{size_wh[0]}x{size_wh[1]}"
        raise DatasetError(
            f"{name}: declares {declared} pixels in {bytes_there:,} bytes, which no picture is; it was not decoded"
        )


def _refuse_bomb(name: str, data: np.ndarray) -> None:
    """Look at the size in the header before a decoder takes memory for it."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            size_wh = picture.size
    except Image.DecompressionBombError:
        size_wh = None
    except UNREADABLE:  # a format that Pillow does not know
        return
    refuse_lying_size(name, size_wh, data.size)


def _refuse_cut_jpeg(name: str, data: np.ndarray) -> None:
    """Some decoders fill the missing part of a cut JPEG with grey; a detector should not see that."""
    if not _is_jpeg(data) or ends_as_jpeg(data[-JPEG_TAIL:].tobytes()):
        return
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except UNREADABLE as error:
        raise DatasetError(f"{name}: the JPEG is cut off or damaged ({error})") from error


def _decode(data: np.ndarray, manner: int, floating: bool) -> np.ndarray | None:
    """OpenCV's decoder, or None where it gives up."""
    try:
        image = None if floating else cv2.imdecode(data, manner)
        if image is None:  # floating-point files come only through as they are
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return None if image is None else to_8bit(image)


def _decode_with_pillow(name: str, data: np.ndarray) -> np.ndarray:
    """A second decoder for formats that OpenCV was built without."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except UNREADABLE as error:
        raise DatasetError(f"{name}: is not a picture that can be read, or is damaged") from error
    return np.ascontiguousarray(np.asarray(upright)[..., ::-1])
