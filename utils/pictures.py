"""Pictures that a caller hands over, in whatever form, as arrays a detector can take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from utils.errors import DatasetError
from utils.image_io import read_image, to_8bit

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MOST_ROWS_OF_PLANES = 4  # an array with no more rows than this is (channels, height, width)
_NUMBERS = "uif"  # NumPy's kinds: unsigned, signed, floating point


@dataclass(frozen=True)
class Picture:
    """One picture to look at.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; may be the caller's own array, so it is not to be drawn on.
        file: name for files about it, ending in ``.jpg``.
    """

    pixels: np.ndarray
    file: str


def read_pictures(given: Any) -> list[Picture]:
    """Read what a caller handed over.

    Args:
        given: a path, a Pillow image, an RGB array, or a list or tuple of these, in which tensors count as arrays.
            Arrays are (H, W, C), or (C, H, W) with fewer than 5 channels, or grey (H, W); of several channels the
            first three count. Files and Pillow images are turned as their EXIF orientation says.

    Raises:
        DatasetError: when one cannot be read, or is nothing of that kind. Addresses are not opened.
    """
    items = given if isinstance(given, (list, tuple)) else [given]
    return [_read_one(item, number) for number, item in enumerate(items)]


def _read_one(item: Any, number: int) -> Picture:
    if isinstance(item, (str, Path)):
        return Picture(_from_file(item), _file_name(str(item), number))
    if isinstance(item, Image.Image):
        return Picture(_from_pillow(item, number), _file_name(str(getattr(item, "filename", "")), number))
    if isinstance(item, torch.Tensor):
        item = item.detach().float().cpu().numpy() if item.is_floating_point() else item.cpu().numpy()
    if isinstance(item, np.ndarray):
        return Picture(_from_array(item, number), _file_name("", number))
    raise DatasetError(f"image {number}: expected a path, a Pillow image or an array, found {type(item).__name__}")


def _file_name(path: str, number: int) -> str:
    stem = Path(path).stem or f"image{number}"
    return f"{stem}.jpg"


def _from_file(path: str | Path) -> np.ndarray:
    if _ADDRESS.match(str(path)):
        raise DatasetError(f"{path}: nothing is fetched from the network; download the picture, and give its path")
    return np.ascontiguousarray(read_image(Path(path).expanduser())[..., ::-1])


def _from_pillow(image: Image.Image, number: int) -> np.ndarray:
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # Pillow itself would make everything above 255 white
            return to_8bit(np.asarray(upright).astype(np.uint16))
        return to_8bit(np.asarray(upright if upright.mode in ("I", "F") else upright.convert("RGB")))
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"image {number}: the Pillow image cannot be read ({error})") from error


def _from_array(array: np.ndarray, number: int) -> np.ndarray:
    channels_last = array
    if array.ndim == 3 and array.shape[0] <= _MOST_ROWS_OF_PLANES:
        channels_last = array.transpose(1, 2, 0)
    fits = channels_last.ndim == 2 or (channels_last.ndim == 3 and channels_last.shape[2] not in (0, 2))
    if not fits or not array.size or array.dtype.kind not in _NUMBERS:
        raise DatasetError(
            f"image {number}: expected numbers of shape (height, width, 3), RGB, found {array.dtype} {array.shape}"
        )
    return to_8bit(channels_last)
