"""A split of a few drawn pictures with known labels, and comparing what loaders make of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

HYP = {
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "scale", "translate", "copy_paste"), 0.3),
    **dict.fromkeys(("fliplr", "flipud", "mixup"), 0.5),
    "mosaic": 0.7,
    "degrees": 5.0,
    "lr0": 0.01,
}
# width, height and one white rectangle x1 y1 x2 y2 on black; None: no label file
IMAGES = {
    "wide": ((200, 100), (20, 30, 80, 70)),
    "tall": ((60, 150), (10, 40, 50, 120)),
    "flat": ((160, 40), (100, 4, 140, 36)),
    "square": ((90, 90), (9, 9, 81, 81)),
    "empty": ((120, 80), None),
    "wider": ((210, 100), (20, 30, 80, 70)),
}


def draw_split(root: Path) -> Path:
    """Draw :data:`IMAGES` below a folder; returns the folder of the images."""
    for name, (size_wh, box) in IMAGES.items():
        draw_picture(root, name, size_wh, box)
    return root / "images" / "train"


def draw_many(root: Path, count: int) -> Path:
    """Draw as many pictures of different sizes, each with one rectangle; returns the folder of the images."""
    rng = np.random.default_rng(count)
    for number in range(count):
        width, height = rng.integers(30, 90, 2).tolist()
        draw_picture(root, f"{number:03d}", (width, height), (5, 6, width - 7, height - 8), level=130 + number)
    return root / "images" / "train"


def draw_picture(root: Path, name: str, size_wh: tuple[int, int], box: tuple | None, level: int = 255) -> None:
    """One picture with its label file, of class 1."""
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
    if box:
        x1, y1, x2, y2 = box
        image[y1:y2, x1:x2] = level
        row = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        text = "1 " + " ".join(f"{value:.6f}" for value in row) + "\n"
        (root / "labels" / "train" / f"{name}.txt").write_text(text)
    cv2.imwrite(str(root / "images" / "train" / f"{name}.png"), image)


def assert_same_batches(first, second):
    """Bit for bit."""
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one[2:] == two[2:]
        torch.testing.assert_close(one[0], two[0], rtol=0, atol=0)
        torch.testing.assert_close(one[1], two[1], rtol=0, atol=0)
