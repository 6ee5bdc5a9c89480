"""Batches that memory takes: for ``--batch-size -1`` by measuring small ones, after a failure by trying smaller."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from engine.failures import is_out_of_memory
from engine.precision import Precision
from utils.log import LOGGER

FALLBACK = 16
_MEASURED = (1, 2, 4, 8, 16)
_SHARE = 0.8  # of the free memory; the rest is for the optimizer, the EMA and fragmentation
_LARGEST = 1024


def choose_batch_size(model: nn.Module, imgsz: int, device: torch.device, precision: Precision) -> int:
    """Measure, fit and choose.

    Args:
        model: on ``device``; not changed.
        imgsz: training size, px.
        device: 16 is returned off CUDA.
        precision: what the run computes in.
    """
    if device.type != "cuda":
        LOGGER.info(f"AutoBatch: measures CUDA memory only, using --batch-size {FALLBACK}")
        return FALLBACK
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    sizes, used = _measure(copy.deepcopy(model), imgsz, device, precision)
    chosen = largest_batch(sizes, used, free)
    LOGGER.info(f"AutoBatch: {free / 1e9:.1f} GB free, using --batch-size {chosen}")
    return chosen


def largest_batch(sizes: Sequence[int], used: Sequence[float], free: float) -> int:
    """Where a straight line through the measurements reaches 80 % of the free memory.

    Args:
        sizes: batch sizes.
        used: bytes each took.
        free: bytes there are.

    Returns:
        The batch size; 16 when there are too few measurements or the line leads outside 1..1024.
    """
    if len(sizes) < 2:
        return FALLBACK
    slope, offset = np.polyfit(sizes, used, 1)
    if slope <= 0:
        return FALLBACK
    chosen = int((_SHARE * free - offset) / slope)
    if 1 <= chosen <= _LARGEST:
        return chosen
    LOGGER.warning(f"AutoBatch: the measurements lead to {chosen} images, using {FALLBACK}")
    return FALLBACK


def batch_that_fits(
    model: nn.Module, imgsz: int, device: torch.device, precision: Precision, *, below: int, spare: int = 0
) -> int:
    """The first of the halves of a batch size that goes forward and backward here, by trying; 0 when none does.

    Args:
        model: on ``device``; its gradients are gone afterwards, its batch norms have seen the trials.
        imgsz: training size, px.
        device: where the model is.
        precision: what the run computes in.
        below: batch size that has failed.
        spare: bytes that have to be left, such as the optimizer's that it has not asked for yet.
    """
    model.train()
    size = below // 2
    while size >= 1 and not _goes_through(model, size, imgsz, device=device, precision=precision, spare=spare):
        size //= 2
    return size


def _goes_through(
    model: nn.Module, size: int, imgsz: int, *, device: torch.device, precision: Precision, spare: int
) -> bool:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        kept = torch.empty(spare, dtype=torch.uint8, device=device)
        _forward_and_back(model, size, imgsz, device, precision)
        del kept
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
    return True


def _forward_and_back(model: nn.Module, size: int, imgsz: int, device: torch.device, precision: Precision) -> None:
    """A training step of so many empty images, without the optimizer's part."""
    images = torch.zeros(size, 3, imgsz, imgsz, device=device)
    with precision.autocast():
        levels = model(images)
    sum(level.float().sum() for level in levels).backward()


def _measure(model: nn.Module, imgsz: int, device: torch.device, precision: Precision) -> tuple[list[int], list[float]]:
    """Peak bytes of a forward and backward pass at each batch size that fits."""
    model.train()
    sizes: list[int] = []
    used: list[float] = []
    for size in _MEASURED:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            _forward_and_back(model, size, imgsz, device, precision)
        except torch.OutOfMemoryError:
            break
        sizes.append(size)
        used.append(float(torch.cuda.max_memory_allocated(device) - before))
        model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return sizes, used
