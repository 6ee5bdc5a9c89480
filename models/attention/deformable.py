"""Deformable attention: all queries look at the same few points of a map, which move to where the content is.

"Vision Transformer with Deformable Attention" (DAT), Xia et al., CVPR 2022 (https://arxiv.org/abs/2201.00520), section
3.2. An even grid of reference points covers the map; a small network moves each by an offset found from the queries
around it; keys and values are read there between pixels, bilinearly. Pattern (e) of the BiFormer paper's figure 1.

Differs from the paper in:

- Keys and values are read from their projected maps instead of being projected from features read at the points. With
  one group of offsets that is the same, as reading is linear; with more, a group's heads look at their own group's
  points. The projections are then those of the other attentions, and so is the local term on the values.
- Points are kept inside the map, so that no key is partly outside.
- No relative position bias: a depth-wise convolution of the values, bi-level routing attention's local term, tells near
  from far.
- Any map: the grid has a point for each ``stride`` x ``stride`` pixels, those at the border included.
- Reading between pixels is made of selections of whole rows, whose gradient torch can compute the same each time; that
  of its own sampling on CUDA differs from run to run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention.base import ROW_DEFAULTS, MapAttention, check_whole
from models.attention.block import AttentionBlock
from models.registry import register_layer
from utils.errors import ConfigError


@register_layer(width="same", row=("num_heads", "stride", "groups"), row_defaults=ROW_DEFAULTS)
class DeformableAttention(MapAttention):
    """Self-attention over a map read at points that move with the content, (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 or None for ``dim / 32``.
        stride: pixels a side for each point: ``ceil(H / stride) * ceil(W / stride)`` points in all.
        groups: sets of points, each for the heads of one group; a divisor of the heads.
        reach: how far a point may move, in distances between neighbouring points.
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
        stride: int = 4,
        groups: int = 1,
        *,
        reach: float = 2.0,
        qk_scale: float | None = None,
        side_dwconv: int = 3,
        init_scale: float | None = None,
    ) -> None:
        super().__init__(dim, num_heads, qk_scale, side_dwconv, init_scale)
        check_whole("stride", stride, 1)
        check_whole("groups", groups, 1)
        if self.num_heads % groups:
            raise ConfigError(f"{groups} groups of points do not divide {self.num_heads} heads")
        if not reach >= 0:
            raise ConfigError(f"reach is a distance and must be at least 0, got {reach}")
        self.stride = stride
        self.groups = groups
        self.reach = reach
        width = dim // groups
        kernel = stride + 1 + stride % 2  # the odd number above the stride: neighbouring points see overlapping parts
        self.offset = nn.Sequential(
            nn.Conv2d(width, width, kernel, stride=stride, padding=kernel // 2, groups=width),
            nn.GELU(),
            nn.Conv2d(width, 2, 1, bias=False),  # a bias would move all points alike
        )

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3, M, D) to (B, H, W, M, D)."""
        batch, height, width, _, heads, _ = qkv.shape
        points = self.points(qkv[:, :, :, 0].flatten(3).permute(0, 3, 1, 2))
        # (B, H, W, 2, M, D) -> (B, G, H, W, 2*C/G): a group's keys and values beside each other
        grouped = qkv[:, :, :, 1:].unflatten(4, (self.groups, -1)).permute(0, 4, 1, 2, 3, 5, 6).flatten(4)
        read = read_between(grouped.flatten(0, 1), points.flatten(0, 1))  # (B*G, P, 2*C/G)
        read = read.unflatten(0, (batch, self.groups)).unflatten(3, (2, heads // self.groups, -1))
        k, v = read.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # (B, M, P, D) each
        q = qkv[:, :, :, 0].flatten(1, 2).transpose(1, 2)  # (B, M, H*W, D)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return mixed.transpose(1, 2).unflatten(1, (height, width))

    def points(self, q: Tensor) -> Tensor:
        """Where keys and values are read.

        Args:
            q: queries (B, C, H, W).

        Returns:
            (B, G, P, 2) float32 (float64 for such queries): y and x in pixels, the centre of the first pixel being 0;
            inside the map.
        """
        height, width = q.shape[-2:]
        moved = self.offset(q.unflatten(1, (self.groups, -1)).flatten(0, 1))  # (B*G, 2, rows, cols)
        moved = moved.to(torch.promote_types(moved.dtype, torch.float32)).tanh() * self.reach
        axes = []
        for axis, length in enumerate((height, width)):
            count = moved.shape[2 + axis]
            place = torch.arange(count, device=q.device, dtype=moved.dtype).view([-1, 1] if axis == 0 else [1, -1])
            spacing = length / count
            axes.append(((place + 0.5 + moved[:, axis]) * spacing - 0.5).clamp(0, length - 1))
        return torch.stack(axes, dim=-1).flatten(1, 2).unflatten(0, (-1, self.groups))

    def extra_repr(self) -> str:
        """The numbers that no submodule shows."""
        return f"{super().extra_repr()}, stride={self.stride}, groups={self.groups}, reach={self.reach}"


def read_between(x: Tensor, points: Tensor) -> Tensor:
    """Read maps between pixels, bilinearly.

    Args:
        x: (N, H, W, K).
        points: (N, P, 2), y and x in pixels, from 0 to H - 1 and to W - 1. Gradients reach them.

    Returns:
        (N, P, K) of the type of ``x``.
    """
    maps, height, width = x.shape[:3]
    first = points.detach().floor().long()  # (N, P, 2)
    second = torch.stack(
        [first[..., axis].add(1).clamp(max=length - 1) for axis, length in enumerate((height, width))], dim=-1
    )
    far = points - first  # weights of the second pixel on either axis
    start = torch.arange(maps, device=x.device)[:, None] * (height * width)
    rows, weights = [], []
    for y, weight_y in ((first[..., 0], 1 - far[..., 0]), (second[..., 0], far[..., 0])):
        for column, weight_x in ((first[..., 1], 1 - far[..., 1]), (second[..., 1], far[..., 1])):
            rows.append(start + y * width + column)
            weights.append(weight_y * weight_x)
    corners = x.flatten(0, 2).index_select(0, torch.stack(rows).flatten()).unflatten(0, (4, maps, points.shape[1]))
    return (corners * torch.stack(weights).to(x.dtype)[..., None]).sum(dim=0)


@register_layer(width="same", row=("num_heads", "stride", "groups", "mlp_ratio"), row_defaults=ROW_DEFAULTS)
class DeformableAttentionBlock(AttentionBlock):
    """Position convolution, deformable attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        num_heads: see :class:`DeformableAttention`.
        stride: likewise.
        groups: likewise.
        mlp_ratio: see :class:`models.attention.block.AttentionBlock`.
        side_dwconv: odd kernel of the attention's local term; 0 for none.
        init_scale: see :class:`models.attention.block.AttentionBlock`.
        drop_path: likewise.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 0,
        stride: int = 4,
        groups: int = 1,
        mlp_ratio: float = 3,
        *,
        side_dwconv: int = 5,
        init_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            lambda: DeformableAttention(dim, num_heads, stride, groups, side_dwconv=side_dwconv),
            mlp_ratio=mlp_ratio,
            init_scale=init_scale,
            drop_path=drop_path,
        )
