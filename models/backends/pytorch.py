"""Checkpoints, run by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.backends.protocol import FileFacts
from models.loading import attempt_load
from utils.log import LOGGER
from utils.sizes import grid_size


class PyTorchBackend:
    """One ``.pt`` file, or several as an ensemble. See :class:`models.backends.protocol.Backend`."""

    def __init__(self, weights: Sequence[str | Path], device: torch.device, *, half: bool, fuse: bool) -> None:
        """Load onto a device.

        Args:
            weights: the files.
            device: where to run.
            half: float16; on the CPU a warning, and float32.
            fuse: fold batch norms.
        """
        if half and device.type == "cpu":
            LOGGER.warning("half precision (--half) needs a GPU: going on in single precision")
            half = False
        self.model = attempt_load(weights, device, fuse=fuse)
        self.model.half() if half else self.model.float()
        names = {int(index): str(name) for index, name in self.model.names.items()}
        self.facts = FileFacts(names=names, stride=grid_size(self.model.stride), half=half, classes=self.model.nc)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        return self.with_levels(images)[0]

    def with_levels(self, images: torch.Tensor, augment: bool = False) -> list:
        """[predictions, raw levels]; see :class:`models.heads.Detect` for what the two hold.

        Args:
            images: (B, 3, H, W).
            augment: test-time augmentation; the levels are then None.
        """
        return list(self.model(images, augment=augment))
