"""Detectors by path or by name, ready for pictures: what ``hubconf.py`` offers. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.autoshape import AutoShape
from models.backends.multi import DetectMultiBackend
from models.checkpoint import read_checkpoint
from models.transfer import transfer_weights
from models.yolo import DetectionModel
from utils.devices import select_device
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.paths import PROJECT_ROOT, find_weights

Device = str | int | torch.device | None

RGB = 3  # channels
COCO_CLASSES = 80


@dataclass(frozen=True)
class Build:
    """How a model of the project's own is made.

    Attributes:
        pretrained: fill it from ``<name>.pt``.
        channels: of the pictures.
        classes: their number.
    """

    pretrained: bool = True
    channels: int = RGB
    classes: int = COCO_CLASSES


def load_custom(path: str | Path | Sequence[str | Path], autoshape: bool = True, device: Device = None) -> nn.Module:
    """Load weights of one's own.

    Args:
        path: a weights file, or a list of them for an ensemble.
        autoshape: wrap it for pictures of any kind and size; False gives the DetectMultiBackend, not fused.
        device: as for ``--device``; None for the first GPU, else the CPU.

    Raises:
        ProjectError: when the file or the device cannot be used.
    """
    place = _select(device)
    backend = DetectMultiBackend(path, device=place, fuse=autoshape)
    return AutoShape(backend) if autoshape else backend


def load_named(name: str, build: Build | None = None, autoshape: bool = True, device: Device = None) -> nn.Module:
    """Load or build one of the project's models.

    Args:
        name: of its YAML, without suffix.
        build: what it is to be like. A network of other channels or classes than the usual takes from the weights
            file what fits, anchors apart.
        autoshape: see :func:`load_custom`.
        device: see :func:`load_custom`.

    Raises:
        ConfigError: when the weights file is not there.
        ProjectError: when it, or the device, cannot be used.
    """
    build = build or Build()
    weights = _local_weights(name) if build.pretrained else None
    if weights and (build.channels, build.classes) == (RGB, COCO_CLASSES):
        return load_custom(weights, autoshape, device)
    place = _select(device)
    model = DetectionModel(f"{name}.yaml", build.channels, build.classes)
    if weights:
        _fill(model, weights)
    model.eval().to(place)
    return AutoShape(model) if autoshape else model


def _select(device: Device) -> torch.device:
    return select_device("" if device is None else str(device), newline=False)


def _local_weights(name: str) -> Path:
    file = f"{name}.pt"
    try:
        return find_weights(file)
    except ConfigError as error:
        raise ConfigError(
            f"{file}: no such weights file, and nothing is downloaded: put it into the current folder or into "
            f"{PROJECT_ROOT / 'weights'}, load one by its path with 'custom', or pass pretrained=False for an "
            "untrained network"
        ) from error


def _fill(model: DetectionModel, weights: Path) -> None:
    checkpoint = read_checkpoint(weights)
    report = transfer_weights(checkpoint.weights, model, exclude=("anchor",))
    LOGGER.info("%s: %s", weights, report)
    if len(checkpoint.meta.names) == model.nc:
        model.names = dict(checkpoint.meta.names)
