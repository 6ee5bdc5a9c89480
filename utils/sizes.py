"""Arithmetic on image sizes and layer widths."""

from __future__ import annotations

import math
from typing import Any

import torch

from utils.log import LOGGER

SMALLEST_GRID = 32  # px; image sizes divide by at least this, whatever the network's strides


def make_divisible(x: float, divisor: int | torch.Tensor) -> int:
    """Round up to a multiple.

    Args:
        x: the number to round.
        divisor: a whole number; of a tensor the largest entry counts.
    """
    step = int(divisor.max()) if isinstance(divisor, torch.Tensor) else divisor
    return math.ceil(x / step) * step


def grid_size(stride: float | torch.Tensor) -> int:
    """What image sizes must divide by, px: the largest stride, at least 32."""
    return max(int(torch.as_tensor(stride).max()), SMALLEST_GRID)


def check_img_size(imgsz: Any, s: int | torch.Tensor = 32, floor: int = 0) -> Any:
    """Round an image size up to what the network's strides allow; a change is logged.

    Args:
        imgsz: px, one number or a list or tuple of them (height, width).
        s: stride; of a tensor the largest entry counts.
        floor: px that no side may go below.

    Returns:
        A number for a number, otherwise a list.
    """
    wanted = list(imgsz) if isinstance(imgsz, (list, tuple)) else [imgsz]
    rounded = [max(make_divisible(int(side), s), floor) for side in wanted]
    answer = rounded if isinstance(imgsz, (list, tuple)) else rounded[0]
    if rounded != [int(side) for side in wanted]:
        step = int(torch.as_tensor(s).max())
        LOGGER.warning(f"--imgsz {imgsz} does not fit the network's grid of {step} px; {answer} is used")
    return answer
