"""Which regions each region looks at: the upper level of bi-level routing attention.

Section 3.2 of "BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from models.attention.ops.regions import RegionGrid, real_tokens


def region_means(tokens: Tensor, grid: RegionGrid) -> Tensor:
    """Describe each region by the mean of its real tokens.

    Args:
        tokens: (B, R, T, C), any floating type; what padding holds does not matter.
        grid: the regions of the map.

    Returns:
        (B, R, C) float32; zeros for a region of padding alone.
    """
    if not grid.is_padded:
        return tokens.mean(dim=2, dtype=torch.float32)
    real = real_tokens(grid, tokens.device).float()  # (R, T)
    shares = real / real.sum(dim=1, keepdim=True).clamp(min=1)
    with _full_precision(tokens.device.type):
        return (shares[:, None] @ tokens.float()).squeeze(2)


@torch.no_grad()
def route_regions(qk: Tensor, grid: RegionGrid, topk: int) -> Tensor:
    """Choose for each region the ``topk`` regions whose keys fit its queries best.

    The choice carries no gradient, is the same for all heads and is made in float32 whatever the input's type, as
    sums over many channels leave the range and the resolution of half precision.

    Args:
        qk: queries and keys of each token (B, R, T, 2C), laid out as by
            :func:`models.attention.ops.regions.to_regions`.
        grid: the regions of the map.
        topk: regions wanted; no more are given than hold real tokens.

    Returns:
        (B, R, min(topk, filled regions)) int64, best first. Regions of padding alone are never chosen,
        unless an export leaves the map's size open: then they may come last, where the key mask takes them out.
    """
    affinity = region_affinity(qk, grid)
    return affinity.topk(min(topk, grid.filled_regions), dim=-1).indices


@torch.no_grad()
def region_affinity(qk: Tensor, grid: RegionGrid) -> Tensor:
    """Say how well the keys of each region fit the queries of each region, in float32.

    Args:
        qk: queries and keys of each token (B, R, T, 2C), as for :func:`route_regions`.
        grid: the regions of the map.

    Returns:
        (B, R, R) float32, a row a query region; minus infinity for a region of padding alone.
    """
    with _full_precision(qk.device.type):
        q, k = region_means(qk, grid).chunk(2, dim=-1)
        affinity = q @ k.transpose(1, 2)  # (B, R, R)
        if grid.has_empty_regions:
            empty = ~real_tokens(grid, qk.device).any(dim=1)
            affinity = affinity.masked_fill(empty, float("-inf"))
        return affinity


class RegionRouter(nn.Module):
    """:func:`route_regions` as a part of a layer, so that a forward hook sees what the layer routes by."""

    def forward(self, qk: Tensor, grid: RegionGrid, topk: int) -> Tensor:
        """Queries and keys (B, R, T, 2C) to (B, R, topk) int64; see :func:`route_regions`."""
        return route_regions(qk, grid, topk)


def _full_precision(device_type: str) -> AbstractContextManager:
    """Autocast off; shapes alone (the meta device) know no autocast."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
