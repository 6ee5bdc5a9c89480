"""Full attention: every token of a map attends to every other.

"Attention Is All You Need", Vaswani et al., NeurIPS 2017 (https://arxiv.org/abs/1706.03762), section 3.2.2, over the
tokens of an image as in "An Image is Worth 16x16 Words", Dosovitskiy et al., ICLR 2021
(https://arxiv.org/abs/2010.11929), section 3.1. Pattern (a) of the BiFormer paper's figure 1.

Differs from the papers in:

- No position is added to the tokens: a depth-wise convolution of the values, bi-level routing attention's local term,
  tells near from far.
- The matrix of all pairs is never kept. Time still grows with the square of the number of tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from models.attention.base import ROW_DEFAULTS, MapAttention
from models.attention.block import AttentionBlock
from models.registry import register_layer


@register_layer(width="same", row=("num_heads",), row_defaults=ROW_DEFAULTS)
class FullAttention(MapAttention):
    """Multi-head self-attention over a whole map, (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 or None for ``dim / 32``.
        qk_scale: see :class:`models.attention.base.MapAttention`.
        side_dwconv: likewise.
        init_scale: likewise.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 8,
        qk_scale: float | None = None,
        side_dwconv: int = 3,
        *,
        init_scale: float | None = None,
    ) -> None:
        super().__init__(dim, num_heads, qk_scale, side_dwconv, init_scale)

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3, M, D) to (B, H, W, M, D)."""
        height, width = qkv.shape[1:3]
        q, k, v = qkv.flatten(1, 2).permute(2, 0, 3, 1, 4)  # (B, M, H*W, D) each
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return mixed.transpose(1, 2).unflatten(1, (height, width))


@register_layer(width="same", row=("num_heads", "mlp_ratio"), row_defaults=ROW_DEFAULTS)
class FullAttentionBlock(AttentionBlock):
    """Position convolution, full attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: see :class:`FullAttention`.
        mlp_ratio: see :class:`models.attention.block.AttentionBlock`.
        side_dwconv: odd kernel of the attention's local term; 0 for none.
        init_scale: see :class:`models.attention.block.AttentionBlock`.
        drop_path: likewise.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 0,
        mlp_ratio: float = 3,
        *,
        side_dwconv: int = 5,
        init_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            lambda: FullAttention(dim, num_heads, side_dwconv=side_dwconv),
            mlp_ratio=mlp_ratio,
            init_scale=init_scale,
            drop_path=drop_path,
        )
