"""The BiFormer block, and C3 with one inside.

"BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), section 3.3: a depth-wise convolution for position, bi-level routing attention and
an MLP, each on a residual branch, the latter two behind a LayerNorm.

Differs from the released code in:

- Layer scale, when asked for, is on the position branch as well, so that a scale of 0 makes the block the identity.
- The block takes and gives (B, C, H, W), and any attention of that form can be put in.
- ``C3BiFormer`` is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from models.attention.bra import BiLevelRoutingAttention
from models.layers.csp import C3
from models.registry import register_layer


@register_layer(
    width="same",
    row=("num_heads", "n_win", "topk", "mlp_ratio"),
    row_defaults={"num_heads": 0, "init_scale": 0.0},
)
class BiFormerBlock(nn.Module):
    """Position convolution, bi-level routing attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 for ``dim / 32``.
        n_win: regions a side.
        topk: regions that each region looks at.
        mlp_ratio: hidden channels of the MLP per channel.
        init_scale: None for plain residuals. A number multiplies each branch by a vector that starts there: ``gamma0``
            position, ``gamma1`` attention, ``gamma2`` MLP. With 0 the block starts as the identity.
        drop_path: probability to skip the attention, and the MLP, of an image in training.
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
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        if attn is None:
            attn = BiLevelRoutingAttention(
                dim, num_heads, n_win, topk=topk, side_dwconv=side_dwconv, padding=padding, backend=backend
            )
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        # The published keys are mlp.0 and mlp.3: a place is kept free between them
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.Identity(), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = StochasticDepth(drop_path, mode="row")
        for name in ("gamma0", "gamma1", "gamma2"):
            start = None if init_scale is None else nn.Parameter(torch.full((dim,), float(init_scale)))
            self.register_parameter(name, start)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + _scaled(self.pos_embed(x), self.gamma0)
        attended = self.attn(_channels_first(self.norm1(_channels_last(x))))
        x = x + self.drop_path(_scaled(attended, self.gamma1))
        mixed = _channels_first(self.mlp(self.norm2(_channels_last(x))))
        return x + self.drop_path(_scaled(mixed, self.gamma2))


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
        init_scale: see :class:`BiFormerBlock`.
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


def _scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    """Multiply the channels of (B, C, H, W) by a layer scale, keeping the branch's type."""
    return branch if gamma is None else branch * gamma.to(branch.dtype).view(-1, 1, 1)


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)
