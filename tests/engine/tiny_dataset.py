"""A data set of a few small pictures with bright boxes on dark ground, made on the spot."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.yaml_io import yaml_save

COLOURS = ((40, 40, 230), (40, 230, 40))  # BGR, one a class
NAMES = {0: "red", 1: "green"}


def make_dataset(root: Path, train: int = 8, val: int = 4, side: int = 64, labelled_val: bool = True) -> Path:
    """Draw the pictures; returns the data set YAML."""
    rng = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            labelled = labelled_val or split == "train"
            picture, rows = _picture(rng, side if number % 2 else side * 3 // 4, side)
            cv2.imwrite(str(root / "images" / split / f"{number:03d}.png"), picture)
            text = "\n".join(" ".join(f"{value:.6g}" for value in row) for row in rows) if labelled else ""
            (root / "labels" / split / f"{number:03d}.txt").write_text(text)
    file = root / "data.yaml"
    yaml_save(file, {"path": str(root), "train": "images/train", "val": "images/val", "names": dict(NAMES)})
    return file


def _picture(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, list[list[float]]]:
    picture = rng.integers(0, 50, (height, width, 3), dtype=np.uint8)
    rows = []
    for kind in rng.permutation(2)[: rng.integers(1, 3)]:
        w, h = rng.uniform(0.3, 0.5, 2)
        x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        corners = np.array([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height])
        left, top, right, bottom = corners.round().astype(int).tolist()
        picture[top:bottom, left:right] = COLOURS[kind]
        rows.append([int(kind), x, y, w, h])
    return picture, rows
