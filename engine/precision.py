"""Half precision in training: whether it can be trusted here."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from utils.log import LOGGER

_TOLERANCE = 0.1  # half precision may move a box by a tenth of the largest coordinate before it counts as broken


def amp_works(model: nn.Module, device: torch.device, imgsz: int) -> bool:
    """Whether mixed precision gives what float32 gives; always False off CUDA.

    Some GPUs and drivers return NaN or zeros in half precision. One small image through the network both ways tells.

    Args:
        model: on ``device``; unchanged afterwards.
        device: where the run takes place.
        imgsz: px, a size the model takes.
    """
    if device.type != "cuda":
        return False
    pixels = np.random.default_rng(0).random((1, 3, imgsz, imgsz), dtype=np.float32)
    image = torch.from_numpy(pixels).to(device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            full = model(image)[0]
            with torch.autocast("cuda", torch.float16):
                mixed = model(image)[0].float()
    finally:
        model.train(was_training)
    works = bool(torch.isfinite(mixed).all()) and float((mixed - full).abs().max()) <= _TOLERANCE * float(
        full.abs().max()
    )
    if not works:
        LOGGER.warning("AMP: half precision differs from float32 on this GPU; training in float32")
    return works
