"""A small detector with weights at random, whose answers depend on every pixel and on the order of channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel

NAMES = {0: "bus", 1: "行人"}
TINY = {
    "nc": len(NAMES),
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 30, 20]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
}


def picture_detector() -> DetectionModel:
    """In training mode, as a constructor leaves it."""
    generator = torch.Generator().manual_seed(0)
    model = DetectionModel(TINY)
    model.names = dict(NAMES)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 4:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 2 / tensor[0].numel() ** 0.5)
        head = model.model[-1].m[0]
        head.weight *= 2
        head.bias.zero_()
    return model


def save_picture_detector(path: Path) -> Path:
    model = picture_detector()
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 of coloured blocks, which survive scaling."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width])
