"""Which entries of an annotation file can be meant: names, boxes, file names.

Each function raises ``ValueError`` with what is wrong; the reader knows file and entry and adds them.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from utils.annotations.record import Box

_LARGEST = 1e7  # px; anything beyond is no coordinate
_LONGEST_NAME = 1000  # bytes
LONGEST_PART = 200  # bytes between two "/": file systems take 255, and a little is added while writing
_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's controls, surrogates, and separators of lines and paragraphs
_NOT_IN_XML = {"\ufffe", "\uffff"}


def finite(value: Any, what: str) -> float:
    """A number of an annotation file."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} is {_short(value)}, expected a number")
    if not abs(value) <= _LARGEST:  # also NaN
        raise ValueError(f"{what} is {_short(value)}, expected a number within {_LARGEST:.0e}")
    return float(value)


def class_name(value: Any) -> str:
    """The name of a class, without space around it."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"class name is {_short(value)}, expected a text")
    name = value.strip()
    if not is_plain(name):
        raise ValueError(f"class name {_short(name)} cannot be used")
    return name


def is_plain(text: str) -> bool:
    """Whether a text of any language is one line that every file can hold: no control characters, no half ones."""
    if len(text.encode(errors="replace")) > _LONGEST_NAME:
        return False
    characters = set(text)
    return not characters & _NOT_IN_XML and not _NO_TEXT & set(map(unicodedata.category, characters))


def inside_name(value: Any) -> str:
    """The path of an image below a folder, with "/" between its parts.

    Refused are absolute paths, drives, ``..`` and control characters: nothing outside the folder may be read or
    written.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"file name is {_short(value)}, expected a text")
    text = value.replace("\\", "/")
    path = PurePosixPath(text)
    if not is_plain(text) or any(len(part.encode()) > LONGEST_PART for part in path.parts):
        raise ValueError(f"file name {_short(value)} cannot be used")
    if path.is_absolute() or ".." in path.parts or not path.name or ":" in path.parts[0]:
        raise ValueError(f"file name {_short(value)} leads out of the folder of images")
    return str(path)


def cut_box(box_xyxy: Sequence[float], size_wh: tuple[int, int]) -> tuple[Box, bool]:
    """A box cut at the image.

    Args:
        box_xyxy: px.
        size_wh: of the image, px.

    Returns:
        The box, and whether more than rounding was cut off.

    Raises:
        ValueError: when it is turned round, empty, or outside the image.
    """
    left, top, right, bottom = box_xyxy
    if right <= left or bottom <= top:
        raise ValueError(f"box {_rounded(box_xyxy)} (left top right bottom) has no width or no height")
    width, height = size_wh
    cut = min(max(left, 0.0), width), min(max(top, 0.0), height), min(max(right, 0.0), width), min(bottom, height)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise ValueError(f"box {_rounded(box_xyxy)} (left top right bottom) is outside the {width}x{height} px image")
    lost = max(abs(before - after) for before, after in zip(box_xyxy, cut, strict=True))
    return tuple(map(float, cut)), lost > 1.0


def outline(values: Any) -> np.ndarray:
    """An outline (n, 2) px from ``[[x, y], ...]`` or ``[x, y, x, y, ...]`` with at least three points."""
    try:
        points = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("outline is no list of numbers") from None
    if points.ndim not in (1, 2) or points.size % 2 or (points.ndim == 2 and points.shape[1] != 2) or points.size < 6:
        raise ValueError("outline needs at least three points of two numbers")
    if not (np.abs(points) <= _LARGEST).all():
        raise ValueError("outline has a number that is not finite or too large")
    return points.reshape(-1, 2)


def run_lengths(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """COCO's run-length form of a mask: ``size`` and ``counts``."""
    size, counts = value.get("size"), value.get("counts")
    is_text = isinstance(counts, str) and counts.isascii()
    is_list = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    size_hw = whole_size(*size) if isinstance(size, list) and len(size) == 2 else None
    if size_hw is None or not (is_text or (is_list and sum(counts) == math.prod(size_hw))):
        raise ValueError("run-length mask needs `size` and `counts` that fit together")
    return {"size": list(size_hw), "counts": counts}


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """The size that a file declares, px; None when it declares none that can be meant."""
    sides = []
    for value in (width, height):
        try:
            side = float(value)
        except (TypeError, ValueError, OverflowError):
            return None
        if not (math.isfinite(side) and side.is_integer() and 0 < side <= _LARGEST):
            return None
        sides.append(int(side))
    return sides[0], sides[1]


def _rounded(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
