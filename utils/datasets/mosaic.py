"""Four images around one random point: the mosaic, with its labels and polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
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
        return _corners(self.labels, scale, offset), [polygon * scale + offset for polygon in self.polygons]


@dataclass(frozen=True)
class Mosaic:
    """Four images on a square canvas of twice their size, around one point that each touches with a corner.

    Where things are is known before a pixel has been moved, so only what a warp will look at needs to be painted.

    Attributes:
        tiles: upper left, upper right, lower left, lower right.
        offsets_xy: where the upper left corner of each lies on the canvas, pixels.
        side: of the canvas.
    """

    tiles: Sequence[Tile]
    offsets_xy: Sequence[tuple[int, int]]
    side: int

    @classmethod
    def around(cls, centre_xy: tuple[int, int], tiles: Sequence[Tile], size: int) -> Mosaic:
        """Lay four tiles around a point.

        Args:
            centre_xy: the point, in pixels of the canvas.
            tiles: for upper left, upper right, lower left, lower right.
            size: side of one image; the canvas has twice that.
        """
        offsets = []
        for place, tile in enumerate(tiles):
            height, width = tile.image.shape[:2]
            right, below = place % 2 == 1, place >= 2
            offsets.append((centre_xy[0] - width * (not right), centre_xy[1] - height * (not below)))
        return cls(tiles, offsets, 2 * size)

    def paint(self, seen: tuple[slice, slice] | None = None) -> np.ndarray:
        """The canvas, (side, side, 4) uint8: blue, green, red and one that nobody reads, as warps are faster with it.

        Args:
            seen: rows and columns that somebody will look at, all if None; the others hold just anything.
        """
        rows, columns = seen or (slice(0, self.side), slice(0, self.side))
        canvas = np.empty((self.side, self.side, 4), np.uint8)
        canvas[rows, columns] = FILL[0]
        for tile, (left, top) in zip(self.tiles, self.offsets_xy, strict=True):
            height, width = tile.image.shape[:2]
            across, down = _overlap(left, width, columns), _overlap(top, height, rows)
            if across.start < across.stop and down.start < down.stop:
                part = tile.image[down.start - top : down.stop - top, across.start - left : across.stop - left]
                cv2.cvtColor(part, cv2.COLOR_BGR2BGRA, dst=canvas[down, across])
        return canvas

    def labels(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The labels of all tiles, cut at the border of the canvas, those outside left out.

        Returns:
            (N, 5) float32 class and corners in pixels of the canvas; and one polygon for each, (0, 2) for plain boxes,
            none at all when no tile has any. Polygons are not cut: the warp does that.
        """
        counts = [len(tile.labels) for tile in self.tiles]
        places = [(*tile.image.shape[1::-1], *offset) for tile, offset in zip(self.tiles, self.offsets_xy, strict=True)]
        place = np.array(places, np.float32).repeat(counts, axis=0)  # (N, 4) each label's tile: width, height, x, y
        scale, offset = place[:, :2], place[:, 2:]
        labels = _corners(np.concatenate([tile.labels for tile in self.tiles]), scale, offset)
        labels[:, 1:] = labels[:, 1:].clip(0, self.side)
        visible = (labels[:, 3] > labels[:, 1]) & (labels[:, 4] > labels[:, 2])
        if not any(tile.polygons for tile in self.tiles):
            return labels[visible], []
        plain = np.zeros((0, 2), np.float32)
        outlines = [
            outline
            for tile, count in zip(self.tiles, counts, strict=True)
            for outline in tile.polygons or [plain] * count
        ]
        return labels[visible], [outlines[row] * scale[row] + offset[row] for row in np.flatnonzero(visible).tolist()]


def _corners(labels: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(N, 5) class and corners in pixels of normalised labels; scale and offset are (2,), or (N, 2) for each label."""
    centres, halves = labels[:, 1:3] * scale + offset, labels[:, 3:5] * (scale / 2)
    return np.concatenate([labels[:, :1], centres - halves, centres + halves], axis=1)


def _overlap(start: int, length: int, window: slice) -> slice:
    return slice(max(start, window.start), min(start + length, window.stop))
