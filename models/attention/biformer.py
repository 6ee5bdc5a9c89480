"""The BiFormer block: :class:`models.attention.block.AttentionBlock` with bi-level routing attention inside.

"BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), section 3.3: a depth-wise convolution for position, bi-level routing attention and
an MLP, each on a residual branch, the latter two behind a LayerNorm. What differs from the released code is said there.
"""

from __future__ import annotations

from torch import nn

from models.attention.base import ROW_DEFAULTS
from models.attention.block import AttentionBlock
from models.attention.bra import BiLevelRoutingAttention
from models.registry import register_layer


@register_layer(width="same", row=("num_heads", "n_win", "topk", "mlp_ratio"), row_defaults=ROW_DEFAULTS)
class BiFormerBlock(AttentionBlock):
    """Position convolution, bi-level routing attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 for ``dim / 32``.
        n_win: regions a side.
        topk: regions that each region looks at.
        mlp_ratio: see :class:`models.attention.block.AttentionBlock`.
        init_scale: likewise.
        drop_path: likewise.
        side_dwconv: odd kernel of the attention's depth-wise convolution; 0 for none.
        padding: see :class:`models.attention.bra.BiLevelRoutingAttention`.
        backend: likewise.
        attn: attention to use instead, (B, C, H, W) to the same shape; the attention arguments then go unused.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 0,
        n_win: int = 7,
        topk: int = 4,
        mlp_ratio: float = 3,
        *,
        init_scale: float | None = None,
        drop_path: float = 0.0,
        side_dwconv: int = 5,
        padding: str = "masked",
        backend: str | None = None,
        attn: nn.Module | None = None,
    ) -> None:
        def routed() -> nn.Module:
            return BiLevelRoutingAttention(
                dim, num_heads, n_win, topk=topk, side_dwconv=side_dwconv, padding=padding, backend=backend
            )

        super().__init__(
            dim,
            routed if attn is None else lambda: attn,
            mlp_ratio=mlp_ratio,
            init_scale=init_scale,
            drop_path=drop_path,
        )
