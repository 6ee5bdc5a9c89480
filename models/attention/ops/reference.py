"""Bi-level routing attention as the paper writes it: slow, plain, and what every other backend is tested against.

The token-to-token attention of "BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention.ops.regions import RegionGrid, from_regions, real_tokens, to_regions


def attend_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    idx: Tensor,
    region: RegionGrid,
    *,
    num_heads: int,
    scale: float,
    mask_padding: bool,
) -> Tensor:
    """Attention over routed regions with every intermediate result written out.

    Arguments and result are those of
    :func:`models.attention.ops.dispatch.bi_level_routing_attention`.
    """
    batch, channels = q.shape[:2]
    # An oracle's own rounding should not count: half precision is computed in float32
    given, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    q, k, v = q.to(wide), k.to(wide), v.to(wide)
    queries = _split_heads(to_regions(q, region), num_heads)  # (B, R, M, T, D)
    keys = _split_heads(_routed(to_regions(k, region), idx), num_heads)  # (B, R, M, topk*T, D)
    values = _split_heads(_routed(to_regions(v, region), idx), num_heads)

    logits = (queries * scale) @ keys.transpose(-2, -1)  # (B, R, M, T, topk*T)
    if mask_padding and region.is_padded:
        real = real_tokens(region, q.device)[idx].flatten(2)  # (B, R, topk*T)
        logits = logits.masked_fill(~real[:, :, None, None, :], float("-inf"))
    mixed = (logits.softmax(dim=-1) @ values).transpose(2, 3)  # (B, R, T, M, D)
    return from_regions(mixed.reshape(batch, region.regions, region.tokens, channels), region).to(given)


def _routed(regions: Tensor, idx: Tensor) -> Tensor:
    """Put the routed regions of each region side by side: (B, R, T, C) -> (B, R, topk*T, C)."""
    images = torch.arange(regions.shape[0], device=regions.device)[:, None, None]
    return regions[images, idx].flatten(2, 3)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, R, tokens, C) -> (B, R, M, tokens, D); head m has the channels m*D to (m+1)*D - 1."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(2, 3)
