"""Local windows: every token attends to the tokens of its window.

"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", Liu et al., ICCV 2021
(https://arxiv.org/abs/2103.14030), section 3.2. Pattern (b) of the BiFormer paper's figure 1.

Differs from the paper in:

- Windows at the border of a map that they do not divide are smaller: padding is masked. So are those that ``shift``
  cuts off, which do not join the opposite border's.
- No relative position bias: a depth-wise convolution of the values, bi-level routing attention's local term, tells near
  from far.
- One layer has one grid of windows. Two rows, the second with a shift of half a window, are the paper's pair.
"""

from __future__ import annotations

from torch import Tensor

from models.attention.base import ROW_DEFAULTS, MapAttention, check_whole
from models.attention.block import AttentionBlock
from models.attention.tiles import Cut, at_most, attend_in_tiles
from models.registry import register_layer
from utils.errors import ConfigError


@register_layer(width="same", row=("num_heads", "window", "shift"), row_defaults=ROW_DEFAULTS)
class WindowAttention(MapAttention):
    """Self-attention inside square windows, (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 or None for ``dim / 32``.
        window: side of a window, tokens; a side of the map below it is a window of its own.
        shift: tokens by which the windows begin outside the map, at the top and the left; below ``window``.
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
        shift: int = 0,
        *,
        qk_scale: float | None = None,
        side_dwconv: int = 3,
        init_scale: float | None = None,
    ) -> None:
        super().__init__(dim, num_heads, qk_scale, side_dwconv, init_scale)
        check_whole("window", window, 1)
        check_whole("shift", shift, 0)
        if shift >= window:
            raise ConfigError(f"shift must be below the window of {window} tokens, got {shift}")
        self.window = window
        self.shift = shift

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3, M, D) to (B, H, W, M, D)."""
        rows, cols = (self._cut(length) for length in qkv.shape[1:3])
        return attend_in_tiles(qkv, rows, cols, self.scale)

    def _cut(self, length: int) -> Cut:
        """A side's windows; where one covers it, it is not cut in two by the shift."""
        tile = at_most(self.window, length)
        return Cut(length, tile, before=self.shift if tile == self.window else 0)

    def extra_repr(self) -> str:
        """The numbers that no submodule shows."""
        return f"{super().extra_repr()}, window={self.window}, shift={self.shift}"


@register_layer(width="same", row=("num_heads", "window", "shift", "mlp_ratio"), row_defaults=ROW_DEFAULTS)
class WindowAttentionBlock(AttentionBlock):
    """Position convolution, window attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: see :class:`WindowAttention`.
        window: likewise.
        shift: likewise.
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
        shift: int = 0,
        mlp_ratio: float = 3,
        *,
        side_dwconv: int = 5,
        init_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            lambda: WindowAttention(dim, num_heads, window, shift, side_dwconv=side_dwconv),
            mlp_ratio=mlp_ratio,
            init_scale=init_scale,
            drop_path=drop_path,
        )
