"""The attention layers that are compared with bi-level routing attention, and blocks of them, for the tests."""

from __future__ import annotations

import torch
from torch import nn

from models.attention import (
    AxialAttention,
    AxialAttentionBlock,
    DeformableAttention,
    DeformableAttentionBlock,
    DilatedAttention,
    DilatedAttentionBlock,
    FullAttention,
    FullAttentionBlock,
    WindowAttention,
    WindowAttentionBlock,
)

DIM, HEADS = 8, 2
LAYERS = {"full": FullAttention, "window": WindowAttention, "axial": AxialAttention, "dilated": DilatedAttention,
          "deformable": DeformableAttention}  # fmt: skip
BLOCKS = {"full": FullAttentionBlock, "window": WindowAttentionBlock, "axial": AxialAttentionBlock,
          "dilated": DilatedAttentionBlock, "deformable": DeformableAttentionBlock}  # fmt: skip


def layer(name: str, *settings: int, dim: int = DIM, heads: int = HEADS, **named) -> nn.Module:
    """A layer of a given kind; the same weights each time."""
    torch.manual_seed(0)
    return LAYERS[name](dim, heads, *settings, **named)
