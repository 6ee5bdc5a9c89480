"""Axial stripes: half of the heads attend along rows, the other half along columns.

"CSWin Transformer: A General Vision Transformer Backbone with Cross-Shaped Windows", Dong et al., CVPR 2022
(https://arxiv.org/abs/2107.00652), section 3.2. With stripes of one token, the rows and columns of "Axial Attention in
Multidimensional Transformers", Ho et al., 2019 (https://arxiv.org/abs/1912.12180). Pattern (c) of the BiFormer paper's
figure 1.

Differs from the papers in:

- Stripes at the border of a map that they do not divide are narrower: padding is masked.
- The depth-wise convolution of the values runs over the whole map and not inside each stripe, as the local term of
  bi-level routing attention does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention.base import ROW_DEFAULTS, MapAttention, check_whole, head_count
from models.attention.block import AttentionBlock
from models.attention.tiles import Cut, at_most, attend_in_tiles
from models.registry import register_layer
from utils.errors import ConfigError


@register_layer(width="same", row=("num_heads", "stripe"), row_defaults=ROW_DEFAULTS)
class AxialAttention(MapAttention):
    """Self-attention inside stripes of rows and stripes of columns, (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out; even.
        num_heads: attention heads of both directions together, even; 0 or None for about ``dim / 32``. The first half
            looks along the rows.
        stripe: rows, and columns, of a stripe.
        qk_scale: see :class:`models.attention.base.MapAttention`.
        side_dwconv: likewise.
        init_scale: likewise.

    Raises:
        ConfigError: for values that make no layer.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 8,
        stripe: int = 1,
        *,
        qk_scale: float | None = None,
        side_dwconv: int = 3,
        init_scale: float | None = None,
    ) -> None:
        if dim % 2 or (num_heads and num_heads % 2):
            raise ConfigError(
                f"axial attention of {dim} channels cannot have {num_heads or 'any'} heads: "
                "one half of both goes to the rows, the other to the columns"
            )
        super().__init__(dim, num_heads or 2 * head_count(dim // 2), qk_scale, side_dwconv, init_scale)
        check_whole("stripe", stripe, 1)
        self.stripe = stripe

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3, M, D) to (B, H, W, M, D)."""
        height, width = qkv.shape[1:3]
        along_rows, along_cols = qkv.chunk(2, dim=4)
        rows, cols = (Cut(length, at_most(self.stripe, length)) for length in (height, width))
        return torch.cat(
            [
                attend_in_tiles(along_rows, rows, Cut(width, width), self.scale),
                attend_in_tiles(along_cols, Cut(height, height), cols, self.scale),
            ],
            dim=3,
        )

    def extra_repr(self) -> str:
        """The numbers that no submodule shows."""
        return f"{super().extra_repr()}, stripe={self.stripe}"


@register_layer(width="same", row=("num_heads", "stripe", "mlp_ratio"), row_defaults=ROW_DEFAULTS)
class AxialAttentionBlock(AttentionBlock):
    """Position convolution, axial attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out; even.
        num_heads: see :class:`AxialAttention`.
        stripe: likewise.
        mlp_ratio: see :class:`models.attention.block.AttentionBlock`.
        side_dwconv: odd kernel of the attention's local term; 0 for none.
        init_scale: see :class:`models.attention.block.AttentionBlock`.
        drop_path: likewise.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 0,
        stripe: int = 1,
        mlp_ratio: float = 3,
        *,
        side_dwconv: int = 5,
        init_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            lambda: AxialAttention(dim, num_heads, stripe, side_dwconv=side_dwconv),
            mlp_ratio=mlp_ratio,
            init_scale=init_scale,
            drop_path=drop_path,
        )
