"""Which regions each region looks at: the upper level of bi-level routing attention.

Section 3.2 of "BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from models.attention.ops.regions import RegionGrid, pad_to_grid, real_tokens


def region_means(x: Tensor, grid: RegionGrid) -> Tensor:
    """Describe each region by the mean of its real tokens.

    Args:
        x: (B, C, H, W), any floating type; padding, being zero, adds nothing to a sum.
        grid: the regions of the map.

    Returns:
        (B, R, C) float32; zeros for a region of padding alone.
    """
    batch, channels = x.shape[:2]
    cut = pad_to_grid(x, grid).unflatten(3, (grid.cols, grid.region_w)).unflatten(2, (grid.rows, grid.region_h))
    sums = cut.sum(dim=(3, 5), dtype=torch.float32).reshape(batch, channels, grid.regions).transpose(1, 2)
    if not grid.is_padded:
        return sums / grid.tokens
    counts = real_tokens(grid, x.device).sum(dim=1).clamp(min=1)  # (R,)
    return sums / counts[:, None]


@torch.no_grad()
def route_regions(q: Tensor, k: Tensor, grid: RegionGrid, topk: int) -> Tensor:
    """Choose for each region the ``topk`` regions whose keys fit its queries best.

    The choice carries no gradient, is the same for all heads and is made in float32 whatever the input's type, as
    sums over many channels leave the range and the resolution of half precision.

    Args:
        q: queries (B, C, H, W).
        k: keys (B, C, H, W).
        grid: the regions of the map.
        topk: regions wanted; no more are given than hold real tokens.

    Returns:
        (B, R, min(topk, filled regions)) int64, best first. Regions of padding alone are never chosen,
        unless an export leaves the map's size open: then they may come last, where the key mask takes them out.
    """
    with _full_precision(q.device.type):
        affinity = region_means(q, grid) @ region_means(k, grid).transpose(1, 2)  # (B, R, R)
        if grid.has_empty_regions:
            empty = ~real_tokens(grid, q.device).any(dim=1)
            affinity = affinity.masked_fill(empty, float("-inf"))
        return affinity.topk(min(topk, grid.filled_regions), dim=-1).indices


def _full_precision(device_type: str) -> AbstractContextManager:
    """Autocast off; shapes alone (the meta device) know no autocast."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
