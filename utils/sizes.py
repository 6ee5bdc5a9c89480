"""Arithmetic on image sizes and layer widths."""

from __future__ import annotations

import math
from typing import Any

import torch

from utils.log import LOGGER


def make_divisible(x: float, divisor: int | torch.Tensor) -> int:
    """Round up to a multiple.

    Args:
        x: the number to round.
        divisor: a whole number; of a tensor the largest entry counts.
    """
    step = int(divisor.max()) if isinstance(divisor, torch.Tensor) else divisor
    return math.ceil(x / step) * step


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
    if rounded != [int(side) for side in wanted]:
        LOGGER.warning(f"--imgsz {imgsz} must be a multiple of {int(torch.as_tensor(s).max())}, using {rounded}")
    return rounded if isinstance(imgsz, (list, tuple)) else rounded[0]
