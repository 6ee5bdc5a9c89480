"""The augmentation of a training image as textbooks write it; what ours is measured against, and tested against.

Four images are read and scaled, laid into a canvas of twice the size, the canvas is warped and cut by one matrix, the
colours are changed channel by channel, the image is flipped, and at last its axes are exchanged. It draws the same
random numbers as :class:`utils.datasets.detection.LoadImagesAndLabels` and so makes the same items.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from utils.augmentations import hsv_gains
from utils.datasets.detection import LoadImagesAndLabels
from utils.geometry_warp import FILL, WarpDraw, box_candidates


class Textbook:
    """Items of a data set that is augmented by mosaic, warp, colours and flips alone, and has no polygons.

    Args:
        dataset: with ``mosaic: 1``, ``mixup: 0`` and ``copy_paste: 0``.
        in_memory: take scaled images from the data set, which has them in memory, rather than from their files.
    """

    def __init__(self, dataset: LoadImagesAndLabels, in_memory: bool):
        self.dataset, self.in_memory = dataset, in_memory
        self.size = dataset.img_size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (3, size, size) uint8 RGB, and labels (n, 6) rows 0, class, x, y, w, h normalised."""
        settings = self.dataset.settings
        rng = np.random.default_rng((self.dataset.seed, self.dataset.epoch, index, 0))
        rng.random()  # whether there is a mosaic
        canvas, labels = self._mosaic(index, rng)
        draw = WarpDraw.sample(settings.warp, rng)
        rng.random()  # whether there is a second mosaic
        image, labels = self._warp(canvas, labels, draw)
        image = _shift_colours(image, hsv_gains(settings.hsv_h, settings.hsv_s, settings.hsv_v, rng))
        upside_down, mirrored = rng.random(2) < (settings.flipud, settings.fliplr)
        if upside_down:
            image = np.flipud(image)
            labels[:, [2, 4]] = self.size - labels[:, [4, 2]]
        if mirrored:
            image = np.fliplr(image)
            labels[:, [1, 3]] = self.size - labels[:, [3, 1]]
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[::-1])
        rows = np.zeros((len(labels), 6), np.float32)
        rows[:, 1] = labels[:, 0]
        rows[:, 2:4] = (labels[:, 1:3] + labels[:, 3:5]) / 2 / self.size
        rows[:, 4:6] = (labels[:, 3:5] - labels[:, 1:3]) / self.size
        return torch.from_numpy(pixels), torch.from_numpy(rows)

    def _tile(self, index: int) -> np.ndarray:
        if self.in_memory:
            return self.dataset.load_tile(index).image
        image = cv2.imread(self.dataset.im_files[index])
        longer = max(image.shape[:2])
        height, width = (-(-side * self.size // longer) for side in image.shape[:2])
        return image if longer == self.size else cv2.resize(image, (width, height))

    def _mosaic(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Canvas (2 size, 2 size, 3), and labels (n, 5) class and corners in its pixels."""
        size, side = self.size, 2 * self.size
        members = rng.permutation(np.append(rng.integers(self.dataset.n, size=3), index)).tolist()
        middle_x, middle_y = rng.integers(size // 2, side - size // 2 + 1, size=2).tolist()
        canvas, found = np.full((side, side, 3), FILL[0], np.uint8), []
        for place, member in enumerate(members):
            tile = self._tile(member)
            height, width = tile.shape[:2]
            left = middle_x if place % 2 else middle_x - width
            top = middle_y if place > 1 else middle_y - height
            x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
            canvas[y1:y2, x1:x2] = tile[y1 - top : y2 - top, x1 - left : x2 - left]
            labels = self.dataset.labels[member].copy()
            x, y, w, h = (labels[:, 1:] * np.float32([width, height, width, height])).T
            labels[:, 1], labels[:, 3] = x + left - w / 2, x + left + w / 2
            labels[:, 2], labels[:, 4] = y + top - h / 2, y + top + h / 2
            found.append(labels)
        labels = np.concatenate(found)
        labels[:, 1:] = labels[:, 1:].clip(0, side)
        return canvas, labels[(labels[:, 3] > labels[:, 1]) & (labels[:, 4] > labels[:, 2])]

    def _warp(self, canvas: np.ndarray, labels: np.ndarray, draw: WarpDraw) -> tuple[np.ndarray, np.ndarray]:
        size = self.size
        matrix = draw.matrix(canvas.shape[:2], (size, size))
        if draw.perspective_x or draw.perspective_y:
            image = cv2.warpPerspective(canvas, matrix, (size, size), borderValue=FILL)
        else:
            image = cv2.warpAffine(canvas, matrix[:2], (size, size), borderValue=FILL)
        before = labels[:, 1:].astype(np.float64)
        points = np.ones((4 * len(labels), 3))
        points[:, :2] = before[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2)
        points = points @ matrix.T
        x, y = (points[:, :2] / points[:, 2:]).reshape(-1, 4, 2).transpose(2, 0, 1)
        after = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1).clip(0, size)
        kept = box_candidates(before.T * draw.scale, after.T)
        return image, np.concatenate([labels[kept, :1], after[kept]], axis=1).astype(np.float32)


def _shift_colours(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    levels = np.arange(256, dtype=np.float64)
    hues = (levels * factors[0] % 180).astype(np.uint8)
    saturations, values = ((levels * factor).clip(0, 255).astype(np.uint8) for factor in factors[1:])
    shifted = cv2.merge((cv2.LUT(hue, hues), cv2.LUT(saturation, saturations), cv2.LUT(value, values)))
    return cv2.cvtColor(shifted, cv2.COLOR_HSV2BGR)
