"""One image: whether training can read it, all of it, and whether it is what it seems."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from utils.datasets.images import MIN_SIDE, check_image, exif_orientation
from utils.doctor.findings import Finding
from utils.errors import DatasetError
from utils.image_io import read_image
from utils.paths import special_kind

_DIGEST = 16  # bytes; two different pictures share one with a chance of 1 to 10^38


@dataclass(frozen=True)
class Picture:
    """What looking at an image brought.

    Attributes:
        size_wh: width and height as training sees it, px; None when training leaves it out.
        digest: of its pixels; empty when they were not decoded, or are all equal.
        findings: what is wrong with it.
    """

    size_wh: tuple[int, int] | None
    digest: bytes = b""
    findings: tuple[Finding, ...] = ()


def check_picture(file: str, split: str, pixels: bool = True) -> Picture:
    """Check an image as training does at its start, and as it will later, when it decodes it.

    Args:
        file: its path.
        split: train, val or test.
        pixels: False only reads the header where that is enough for training.
    """
    try:
        size_wh = check_image(file)
        image = read_image(file) if pixels else None
    except DatasetError as error:
        text = str(error).removeprefix(f"{Path(file)}: ")
        return Picture(None, b"", (Finding(_kind_of(file), text, file, 0, split),))
    findings = []
    orientation = _orientation(file)
    if orientation != 1:
        text = f"EXIF orientation {orientation}; turned, it is {size_wh[0]}x{size_wh[1]}"
        findings.append(Finding("image-turned", text, file, 0, split))
    if image is None:
        return Picture(size_wh, b"", tuple(findings))
    height, width = image.shape[:2]
    if (width, height) != size_wh:
        text = f"header says {size_wh[0]}x{size_wh[1]}, decoded {width}x{height}"
        findings.append(Finding("image-size", text, file, 0, split))
    if _is_blank(image):
        findings.append(Finding("image-blank", f"all pixels are {image[0, 0].tolist()} (BGR)", file, 0, split))
        return Picture(size_wh, b"", tuple(findings))
    return Picture(size_wh, _digest(image), tuple(findings))


def _is_blank(image: np.ndarray) -> bool:
    first = image[0, 0]
    return bool((image[0] == first).all() and (image == first).all())  # most pictures are done after one row


def _kind_of(file: str) -> str:
    """Why an image cannot be used."""
    if special_kind(file):
        return "image-special"
    try:
        with Image.open(file) as image:  # only its header
            return "image-tiny" if min(image.size) < MIN_SIDE else "image-truncated"
    except FileNotFoundError:
        return "image-missing"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "image-unreadable"


def _orientation(file: str) -> int:
    try:
        with Image.open(file) as image:
            if image.format == "PNG" and "exif" not in image.info:
                return 1  # asking for more would decode the pixels
            return exif_orientation(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1  # OpenCV reads what Pillow does not


def _digest(image: np.ndarray) -> bytes:
    """Of size and pixels, so that metadata and lossless formats make no difference."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=_DIGEST)
    digest.update(np.ascontiguousarray(image))
    return digest.digest()
