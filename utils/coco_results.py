"""Detections in the form in which COCO takes results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def coco_image_id(stem: str) -> int | str:
    """An image's id from the name of its file without suffix: a number when it is one."""
    return int(stem) if stem.isdecimal() else stem


def coco_rows(
    image_id: int | str, boxes: np.ndarray, category_ids: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Entries of COCO's list of results.

    Args:
        image_id: of the image.
        boxes: (n, 6) of x1 y1 x2 y2 in px of the original image, confidence 0..1, class.
        category_ids: COCO's number for each class index; the index itself when omitted.
    """
    for left, top, right, bottom, confidence, kind in boxes.tolist():
        yield {
            "image_id": image_id,
            "category_id": category_ids[int(kind)] if category_ids is not None else int(kind),
            "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
            "score": round(confidence, 5),
        }
