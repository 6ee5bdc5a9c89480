"""Test-time augmentation: the same image in three sizes, one of them mirrored, and the predictions put together."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

PASSES = ((1.0, False), (0.83, True), (0.67, False))  # scale, mirrored left-right
PAD_VALUE = 0.447  # the mean of ImageNet, in 0..1


def scale_image(image: torch.Tensor, ratio: float, multiple: int) -> torch.Tensor:
    """Resize a batch and pad it to the right and below up to a multiple of the stride.

    Args:
        image: (B, C, H, W) in 0..1.
        ratio: new size / old size.
        multiple: the largest stride, px.
    """
    if ratio == 1.0:
        return image
    height, width = image.shape[-2:]
    resized = F.interpolate(image, (int(height * ratio), int(width * ratio)), mode="bilinear", align_corners=False)
    right = math.ceil(width * ratio / multiple) * multiple - resized.shape[-1]
    below = math.ceil(height * ratio / multiple) * multiple - resized.shape[-2]
    return F.pad(resized, (0, right, 0, below), value=PAD_VALUE)


def predict_augmented(
    predict: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, multiple: int, levels: int
) -> torch.Tensor:
    """Predict on every pass, map the boxes back and join them.

    Args:
        predict: (B, C, H, W) -> (B, rows, 5 + nc), boxes in px of its own input, rows from fine to coarse level.
        image: (B, C, H, W) in 0..1.
        multiple: the largest stride, px.
        levels: number of levels in the predictions.

    Returns:
        (B, rows of all passes, 5 + nc), boxes in px of ``image``. The first pass is left without its coarsest level and
        the last without its finest, where the other sizes see better.
    """
    joined = []
    for number, (ratio, mirrored) in enumerate(PASSES):
        scaled = scale_image(image.flip(3) if mirrored else image, ratio, multiple)
        boxes = predict(scaled)
        centre_x, rest_xywh = boxes[..., 0:1] / ratio, boxes[..., 1:4] / ratio
        if mirrored:
            centre_x = image.shape[-1] - centre_x
        boxes = torch.cat((centre_x, rest_xywh, boxes[..., 4:]), -1)
        coarsest = boxes.shape[1] // sum(4**level for level in range(levels))  # rows of the largest stride
        if number == 0:
            boxes = boxes[:, : boxes.shape[1] - coarsest]
        elif number == len(PASSES) - 1:
            boxes = boxes[:, coarsest * 4 ** (levels - 1) :]
        joined.append(boxes)
    return torch.cat(joined, 1)
