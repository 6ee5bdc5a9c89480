"""C3 with a BiFormer block inside: swapping the word in a YAML keeps every trained tensor and every row's number.

Ours; the block is that of "BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention.biformer import BiFormerBlock
from models.layers.csp import C3
from models.registry import register_layer


@register_layer(
    width="scaled",
    repeats=True,
    row=("shortcut", "num_heads", "n_win", "topk"),
    row_defaults={"num_heads": 0, "init_scale": 0.0},
)
class C3BiFormer(C3):
    """C3 with a BiFormer block behind its Bottlenecks: same keys, plus ``attn``; starts as the C3 it replaces.

    The legend of the layers: c1 channels in, c2 out, n Bottlenecks, g groups, e hidden width per c2.

    Args:
        c1: channels in.
        c2: channels out.
        n: Bottlenecks.
        shortcut: Bottlenecks with a residual.
        g: groups of their 3x3 convolutions.
        e: hidden channels per output channel.
        num_heads: attention heads; 0 for a head per 32 hidden channels.
        n_win: regions a side.
        topk: regions that each region looks at.
        init_scale: see :class:`models.attention.block.AttentionBlock`.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        num_heads: int | None = 0,
        n_win: int = 7,
        topk: int = 4,
        init_scale: float | None = 0.0,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        self.attn = BiFormerBlock(int(c2 * e), num_heads, n_win, topk, init_scale=init_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) to (B, c2, H, W)."""
        worked = self.attn(self.m(self.cv1(x)))
        return self.cv3(torch.cat([worked, self.cv2(x)], dim=1))
