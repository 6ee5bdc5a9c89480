"""Sizes of images on their way into a network; the rest of that way is in :mod:`utils.network_input`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from utils.log import LOGGER
from utils.sizes import check_img_size, grid_size


def note_training_size(model: nn.Module, imgsz: int) -> None:
    """Say so when a network is used at another image size than it was trained at.

    Args:
        model: as loaded from a checkpoint, with ``imgsz`` where that tells.
        imgsz: px, longer side asked for.
    """
    trained = getattr(model, "imgsz", None)
    if trained and trained != imgsz:
        LOGGER.info(f"note: trained at {trained} px, used at {imgsz}: --img {trained} gives the training's own figures")


def input_size(model: nn.Module, asked: Sequence[int]) -> tuple[int, int]:
    """Height and width of the images to give a detector, px; the file decides where its sizes are fixed.

    Args:
        model: a loaded detector.
        asked: height and width asked for; rounded up to the detector's grid, with a warning.
    """
    fixed = getattr(model, "hw", None)
    if fixed is None:
        height, width = check_img_size(list(asked), grid_size(model.stride))
        return height, width
    if tuple(asked) != fixed:
        LOGGER.info("note: this file takes images of %dx%d px, whatever --imgsz says", *fixed)
    return fixed


def is_flexible(model: nn.Module) -> bool:
    """Whether a detector takes images of every size that its grid allows."""
    return getattr(model, "hw", None) is None


def resize_to(images: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """Resize a batch so that its longer side is ``size``, then both sides up to the stride, bilinearly.

    Args:
        images: (B, 3, H, W) floating point.
        size: px.
        stride: px, what both sides must divide by.
    """
    height, width = images.shape[-2:]
    factor = size / max(height, width)
    if factor == 1:
        return images
    new_hw = [-(-side * factor // stride) * stride for side in (height, width)]
    return nn.functional.interpolate(images, size=[int(side) for side in new_hw], mode="bilinear", align_corners=False)
