"""A small detector with attention in it, to export, and what to compare the files with."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from tiny_network import tiny_network

from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel

SIZE = 64  # px
NAMES = {0: "red", 1: "green"}  # of tests/engine/tiny_dataset.py
FILES = {"torchscript": "best.torchscript", "onnx": "best.onnx", "openvino": "best_openvino_model"}
ROWS = ("BiFormerBlock, [2, 3, 2, 2]", "Conv, [32, 3, 2]", "Conv, [32, 3, 2]")
TINY = yaml.safe_load(tiny_network(*ROWS, levels=(3, 5)))


def save_awake_detector(path: Path, cfg: dict | str | None = None, nc: int = 2) -> Path:
    """Save a model of random weights; scales that start at zero have a value, and it believes in objects."""
    torch.manual_seed(0)
    model = DetectionModel(TINY if cfg is None else cfg, nc=nc)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.3)
        for layer in model.model[-1].m:
            layer.weight.normal_(0, 0.3)
            layer.bias.view(model.model[-1].na, -1)[:, 4] = 1
    model.names = dict(NAMES) if nc == 2 else {number: f"kind {number}" for number in range(nc)}
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


def noise(batch: int = 1, height: int = SIZE, width: int = SIZE) -> torch.Tensor:
    """(B, 3, H, W) in 0..1, always the same."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def in_shares(rows: torch.Tensor) -> torch.Tensor:
    """Boxes in px of the image as shares of it; what stands behind them as it is."""
    return rows / rows.new_tensor([SIZE] * 4 + [1] * (rows.shape[-1] - 4))
