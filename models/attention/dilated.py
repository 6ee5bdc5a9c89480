"""Dilated windows: every token attends to tokens a constant distance apart.

"MaxViT: Multi-Axis Vision Transformer", Tu et al., ECCV 2022 (https://arxiv.org/abs/2204.01697), section 3.2 (grid
attention), and "CrossFormer: A Versatile Vision Transformer Hinging on Cross-scale Attention", Wang et al., ICLR 2022
(https://arxiv.org/abs/2108.00154), section 3.2 (long distance attention): tokens the same distance apart, spread over
the whole map. Pattern (d) of the BiFormer paper's figure 1.

Differs from the papers in:

- Padding of a map that the grid does not divide is masked.
- The distance may also be given, which dilates windows over a part of the map.
- No relative position bias: a depth-wise convolution of the values, bi-level routing attention's local term, tells near
  from far, and lets neighbours meet, which dilated windows keep apart.
"""

from __future__ import annotations

from torch import Tensor

from models.attention.base import ROW_DEFAULTS, MapAttention, check_whole
from models.attention.block import AttentionBlock
from models.attention.ops.regions import ceil_div
from models.attention.tiles import Cut, at_most, attend_in_tiles
from models.registry import register_layer


@register_layer(width="same", row=("num_heads", "window", "dilation"), row_defaults=ROW_DEFAULTS)
class DilatedAttention(MapAttention):
    """Self-attention between tokens a constant distance apart, (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 or None for ``dim / 32``.
        window: tokens a side that a token sees, at most.
        dilation: distance between them; 1 is window attention. 0 for the smallest that spans the map.
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
        window: int = 7,
        dilation: int = 0,
        *,
        qk_scale: float | None = None,
        side_dwconv: int = 3,
        init_scale: float | None = None,
    ) -> None:
        super().__init__(dim, num_heads, qk_scale, side_dwconv, init_scale)
        check_whole("window", window, 1)
        check_whole("dilation", dilation, 0)
        self.window = window
        self.dilation = dilation

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3, M, D) to (B, H, W, M, D)."""
        rows, cols = (self._cut(length) for length in qkv.shape[1:3])
        return attend_in_tiles(qkv, rows, cols, self.scale)

    def _cut(self, length: int) -> Cut:
        """A side's dilated windows; where one spans it, it has no more tokens than the side offers."""
        step = at_most(self.dilation, length) if self.dilation else ceil_div(length, self.window)
        return Cut(length, at_most(self.window, ceil_div(length, step)), step)

    def extra_repr(self) -> str:
        """The numbers that no submodule shows."""
        return f"{super().extra_repr()}, window={self.window}, dilation={self.dilation}"


@register_layer(width="same", row=("num_heads", "window", "dilation", "mlp_ratio"), row_defaults=ROW_DEFAULTS)
class DilatedAttentionBlock(AttentionBlock):
    """Position convolution, dilated attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: see :class:`DilatedAttention`.
        window: likewise.
        dilation: likewise.
        mlp_ratio: see :class:`models.attention.block.AttentionBlock`.
        side_dwconv: odd kernel of the attention's local term; 0 for none.
        init_scale: see :class:`models.attention.block.AttentionBlock`.
        drop_path: likewise.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 0,
        window: int = 7,
        dilation: int = 0,
        mlp_ratio: float = 3,
        *,
        side_dwconv: int = 5,
        init_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            lambda: DilatedAttention(dim, num_heads, window, dilation, side_dwconv=side_dwconv),
            mlp_ratio=mlp_ratio,
            init_scale=init_scale,
            drop_path=drop_path,
        )
