"""A detector whose answers are known, and a video to try it on.

The detector has one level of stride 8 and one anchor of 10 x 13 px. Its head ignores its input: every cell predicts a
box of exactly the anchor's size around the cell's centre.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel

TINY = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
}
NAMES = {0: "bus", 1: "行人"}
LOGIT_HALF = 0.0  # sigmoid 0.5: centre of the cell, size of the anchor


def save_detector(path: Path, objectness: float = 4.0) -> Path:
    torch.manual_seed(0)
    model = DetectionModel(TINY)
    model.names = dict(NAMES)
    head = model.model[-1].m[0]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([LOGIT_HALF] * 4 + [objectness, -8.0, 4.0]))
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model), optimizer={"state": torch.ones(5000)}))
    return path


def save_video(path: Path, frames: int = 5, size: tuple[int, int] = (64, 48), codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 12.0, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 40 * number % 256, np.uint8))
    writer.release()
    return path
