"""Which precision a training computes in, and whether half precision can be trusted here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from utils.dist import from_main
from utils.errors import BackendError
from utils.log import LOGGER

_TOLERANCE = 0.1  # half precision may move a box by a tenth of the largest coordinate before it counts as broken


@dataclass(frozen=True)
class Precision:
    """What the network computes in while weights, loss and optimizer stay in float32.

    Attributes:
        device: where the run takes place.
        dtype: float16 or bfloat16; None is float32 throughout.
    """

    device: torch.device
    dtype: torch.dtype | None = None

    @classmethod
    def choose(cls, amp: bool, bf16: bool, model: nn.Module, device: torch.device, imgsz: int) -> Precision:
        """The precision that options and machine agree on, the same in every process.

        Args:
            amp: mixed precision where it is of use: float16 on CUDA, once a check has shown that it works.
            bf16: bfloat16 instead, on the CPU as well.
            model: on ``device``; unchanged afterwards.
            device: where the run takes place.
            imgsz: px, a size the model takes.

        Raises:
            BackendError: when the GPU has no bfloat16.
        """
        if bf16:
            if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
                raise BackendError("--bf16: this GPU has no bfloat16; leave it out to train in float16")
            return cls(device, torch.bfloat16)
        return cls(device, torch.float16 if from_main(amp and amp_works(model, device, imgsz)) else None)

    @property
    def mixed(self) -> bool:
        """Whether anything is computed in half precision."""
        return self.dtype is not None

    @property
    def scaled(self) -> bool:
        """Whether losses must be scaled up: float16 loses small gradients, bfloat16 has the range of float32."""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager:
        """The context in which the network runs."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.mixed)


def amp_works(model: nn.Module, device: torch.device, imgsz: int) -> bool:
    """Whether float16 gives what float32 gives; always False off CUDA.

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
