"""Four images around one random point: the mosaic, with its labels and polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.geometry_warp import FILL


@dataclass(frozen=True)
class Tile:
    """One image at training size with its labels.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        labels: (N, 5) float32 class, x, y, width, height, normalised by this image.
        polygons: one normalised (n, 2) outline per label, (0, 2) for plain boxes; empty when no label has any.
        original_hw: height and width of the image file.
    """

    image: np.ndarray
    labels: np.ndarray
    polygons: Sequence[np.ndarray]
    original_hw: tuple[int, int]

    def placed(
        self, ratio_wh: tuple[float, float], offset_xy: tuple[float, float]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Labels as class and corners, and polygons, in pixels of a canvas.

        Args:
            ratio_wh: scale of this image on the canvas.
            offset_xy: where its upper left corner lies on the canvas, pixels.
        """
        height, width = self.image.shape[:2]
        scale = np.array([width * ratio_wh[0], height * ratio_wh[1]], np.float32)
        offset = np.array(offset_xy, np.float32)
        centres, halves = self.labels[:, 1:3] * scale + offset, self.labels[:, 3:5] * (scale / 2)
        corners = np.concatenate([self.labels[:, :1], centres - halves, centres + halves], axis=1)
        return corners, [polygon * scale + offset for polygon in self.polygons]


def compose_mosaic(
    tiles: Sequence[Tile], size: int, centre_xy: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Lay four tiles around a point of a square canvas, each touching the point with one corner.

    Args:
        tiles: for upper left, upper right, lower left, lower right.
        size: side of one image; the canvas has twice that.
        centre_xy: the point, in pixels of the canvas.

    Returns:
        Canvas (2 size, 2 size, 3) uint8; labels (N, 5) float32, class and corners in its pixels, cut at its border,
        those outside left out; and one polygon per label, (0, 2) for plain boxes.
    """
    side = 2 * size
    canvas = np.full((side, side, 3), FILL[0], np.uint8)
    labels: list[np.ndarray] = []
    polygons: list[np.ndarray] = []
    for place, tile in enumerate(tiles):
        right, below = place % 2 == 1, place >= 2
        height, width = tile.image.shape[:2]
        left = centre_xy[0] if right else centre_xy[0] - width
        top = centre_xy[1] if below else centre_xy[1] - height
        columns, rows = _overlap(left, width, side), _overlap(top, height, side)
        canvas[rows, columns] = tile.image[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        corners, outlines = tile.placed((1.0, 1.0), (left, top))
        labels.append(corners)
        polygons += outlines or [np.zeros((0, 2), np.float32)] * len(corners)
    return canvas, *_inside(np.concatenate(labels), polygons, side)


def _overlap(start: int, length: int, side: int) -> slice:
    return slice(max(start, 0), min(start + length, side))


def _inside(labels: np.ndarray, polygons: list[np.ndarray], side: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cut boxes at the canvas and leave out those that are not on it. Polygons are cut later, by the warp."""
    labels[:, 1:] = labels[:, 1:].clip(0, side)
    visible = (labels[:, 3] > labels[:, 1]) & (labels[:, 4] > labels[:, 2])
    return labels[visible], [polygon for polygon, keep in zip(polygons, visible, strict=True) if keep]
