"""Bi-level routing attention written down formula by formula: what ours is measured against.

"BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), equations 3 to 8, without any thought for speed: heads are split first, keys and
values of all routed regions are gathered out of a map that is repeated for every region, logits are written out. It
computes what :class:`models.attention.bra.BiLevelRoutingAttention` computes, with the same weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.bra import BiLevelRoutingAttention
from utils.errors import ConfigError


class NaiveBRA(BiLevelRoutingAttention):
    """The layer by the formula; arguments and tensors are those of the layer, ``backend`` has no meaning.

    Raises:
        ConfigError: in the forward pass, for a map that ``n_win`` does not divide or with fewer regions than ``topk``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attend over a map, (B, C, H, W) to the same shape; H and W multiples of ``n_win``."""
        _, channels, height, width = x.shape
        side = self.n_win
        reason = why_not_naive(height, width, side, self.topk)
        if reason:
            raise ConfigError(f"the formula written plainly cannot serve this map: {reason}")
        q, k, v = self.qkv_linear(x).chunk(3, dim=1)  # (B, C, H, W) each
        idx = self._routing(q, k)
        queries, keys, values = (self._by_region(part) for part in (q, k, v))  # (B, M, R, T, D) each
        near_keys, near_values = (_gathered(part, idx) for part in (keys, values))  # (B, M, R, topk*T, D)
        logits = (self.scale * queries) @ near_keys.transpose(-2, -1)  # (B, M, R, T, topk*T)
        mixed = logits.softmax(dim=-1) @ near_values  # (B, M, R, T, D)
        laid = mixed.unflatten(3, (height // side, width // side)).unflatten(2, (side, side))
        # (B, M, rows, cols, h, w, D) -> (B, M, D, rows, h, cols, w) -> (B, C, H, W)
        out = laid.permute(0, 1, 6, 2, 4, 3, 5).reshape(-1, channels, height, width)
        if self.lepe is not None:
            out = out + self.lepe(v)
        out = self.output_linear(out)
        return out if self.gamma is None else x + out * self.gamma.view(-1, 1, 1)

    @torch.no_grad()
    def _routing(self, q: Tensor, k: Tensor) -> Tensor:
        """Which regions each region looks at, by the product of their means: (B, R, topk)."""
        size = (q.shape[2] // self.n_win, q.shape[3] // self.n_win)
        q_means, k_means = (F.avg_pool2d(part, size).flatten(2) for part in (q, k))  # (B, C, R)
        return (q_means.transpose(1, 2) @ k_means).topk(self.topk, dim=-1).indices

    def _by_region(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, M, R, T, D)."""
        side, height, width = self.n_win, *x.shape[2:]
        cut = x.unflatten(3, (side, width // side)).unflatten(2, (side, height // side))
        cut = cut.unflatten(1, (self.num_heads, -1))  # (B, M, D, rows, h, cols, w)
        return cut.permute(0, 1, 3, 5, 4, 6, 2).flatten(4, 5).flatten(2, 3)


def why_not_naive(height: int, width: int, n_win: int, topk: int) -> str | None:
    """Say why :class:`NaiveBRA` cannot serve a map; None where it can."""
    if height % n_win or width % n_win:
        return f"{n_win} regions a side do not divide {height} x {width}"
    return f"it has {n_win**2} regions and topk is {topk}" if topk > n_win**2 else None


def _gathered(regions: Tensor, idx: Tensor) -> Tensor:
    """For each region, the tokens of all regions it looks at: (B, M, R, T, D) -> (B, M, R, topk*T, D)."""
    batch, heads, count, tokens, width = regions.shape
    topk = idx.shape[2]
    repeated = regions[:, :, None].expand(-1, -1, count, -1, -1, -1)  # (B, M, R, R, T, D)
    index = idx[:, None, :, :, None, None].expand(batch, heads, count, topk, tokens, width)
    return repeated.gather(3, index).flatten(3, 4)
