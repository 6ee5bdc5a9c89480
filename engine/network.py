"""What a training step calls: the model itself, or the model shared out over processes, compiled, or both."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.dist import connected
from utils.log import LOGGER


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms that see the images of all processes; where that has no use, as it is, and a note.

    Args:
        model: parameters and their names stay the same.
        device: where it trains; torch knows such norms on CUDA only.
    """
    if not connected():
        LOGGER.warning("--sync-bn has no effect in a single process")
        return model
    if device.type != "cuda":
        LOGGER.warning(f"--sync-bn has no effect on {device.type}: torch shares batch norms on CUDA only")
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def wrap_network(model: nn.Module, device: torch.device, *, compiled: bool = False) -> nn.Module:
    """The callable for the forward pass of training.

    In a launch of several processes every backward pass leaves the mean of all processes' gradients, and the model
    starts with the main process's weights.

    Args:
        model: on ``device``; its state is changed by training whatever is around it.
        device: where it trains.
        compiled: run it through torch.compile.
    """
    network = model
    if connected():
        network = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    return torch.compile(network) if compiled else network
