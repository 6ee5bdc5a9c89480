"""How large objects are in the pixels that the network gets to see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from utils.datasets.labels import LabelFile
from utils.doctor.findings import Finding

SMALLEST = 8  # px; the finest level of the networks has cells of that size
BOUNDS = (SMALLEST, 16, 32, 96)  # px, longer side


def longer_sides(boxes_whn: np.ndarray, size_wh: np.ndarray | tuple[int, int], imgsz: int) -> np.ndarray:
    """Longer side of each box once the image's long side is ``imgsz``, px.

    Args:
        boxes_whn: (N, 2) width and height, normalised.
        size_wh: width and height of the image, or (N, 2) of each box's image.
        imgsz: px.
    """
    size = np.asarray(size_wh, dtype=np.float64)
    return (boxes_whn * size).max(axis=-1) * (imgsz / size.max(axis=-1))


class Sizes:
    """Counts objects by size.

    Args:
        imgsz: training size, px.

    Attributes:
        counts: (5,) objects below 8 px, 16 px, 32 px, 96 px, and larger ones, by split.
    """

    def __init__(self, imgsz: int) -> None:
        self.imgsz = imgsz
        self.counts: dict[str, np.ndarray] = {}

    def add(self, split: str, file: str, label: LabelFile, size_wh: tuple[int, int]) -> Iterator[Finding]:
        """Count the objects of an image; a finding for each that is too small, those without area apart."""
        sides = longer_sides(label.labels[:, 3:5], size_wh, self.imgsz)
        empty = np.zeros(len(BOUNDS) + 1, np.int64)
        counted = np.bincount(np.searchsorted(BOUNDS, sides, side="right"), minlength=len(empty))
        self.counts[split] = self.counts.get(split, empty) + counted
        drawn = (label.labels[:, 3:5] > 0).all(axis=1)
        for row in np.flatnonzero((sides < SMALLEST) & drawn):
            text = f"the longer side is {sides[row]:.1f} px at image size {self.imgsz}"
            yield Finding("objects-tiny", text, file, int(label.lines[row]), split)
