"""Bi-level routing attention as the paper writes it: slow, plain, and what every other backend is tested against.

The token-to-token attention of "BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention.ops.regions import RegionGrid, real_tokens
from models.attention.ops.settings import AttentionSettings


def attend_reference(qkv: Tensor, idx: Tensor, region: RegionGrid, settings: AttentionSettings) -> Tensor:
    """Attention over routed regions with every intermediate result written out.

    Arguments and result are those of :func:`models.attention.ops.dispatch.attend_regions`.
    """
    # An oracle's own rounding should not count: half precision is computed in float32
    wide = qkv.to(torch.promote_types(qkv.dtype, torch.float32))
    q, k, v = wide.chunk(3, dim=-1)  # (B, R, T, C) each
    queries = _split_heads(q, settings.num_heads)  # (B, R, M, T, D)
    keys = _split_heads(_routed(k, idx), settings.num_heads)  # (B, R, M, topk*T, D)
    values = _split_heads(_routed(v, idx), settings.num_heads)

    logits = (queries * settings.scale) @ keys.transpose(-2, -1)  # (B, R, M, T, topk*T)
    if settings.mask_padding and region.is_padded:
        real = real_tokens(region, qkv.device)[idx].flatten(2)  # (B, R, topk*T)
        logits = logits.masked_fill(~real[:, :, None, None, :], float("-inf"))
    mixed = (logits.softmax(dim=-1) @ values).transpose(2, 3)  # (B, R, T, M, D)
    return mixed.flatten(3).to(qkv.dtype)


def _routed(regions: Tensor, idx: Tensor) -> Tensor:
    """Put the routed regions of each region side by side: (B, R, T, C) -> (B, R, topk*T, C)."""
    images = torch.arange(regions.shape[0], device=regions.device)[:, None, None]
    return regions[images, idx].flatten(2, 3)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, R, tokens, C) -> (B, R, M, tokens, D); head m has the channels m*D to (m+1)*D - 1."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(2, 3)
