"""What the attention layers beside bi-level routing share: projections, local term, layer scale.

Shapes: B images, C channels, H x W tokens of a map, M heads of D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention.bra import head_count
from utils.errors import ConfigError

ROW_DEFAULTS = {"num_heads": 0, "init_scale": 0.0}  # of a layer that a YAML row builds: it starts as the identity


class MapAttention(nn.Module):
    """An attention layer over a map, all but the choice of keys: subclasses write :meth:`attend`.

    The parts and their names are those of :class:`models.attention.bra.BiLevelRoutingAttention`: layers of this kind
    differ in which keys a query sees, weigh the same, and the tensors of one load into another.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 or None for ``dim / 32``.
        qk_scale: factor on the logits; None or 0 for ``D ** -0.5``.
        side_dwconv: odd kernel of the depth-wise convolution on the values, the local term; 0 for none.
        init_scale: None for the plain layer; a number makes it ``x + gamma * attention(x)`` with a ``gamma`` per
            channel that starts there. With 0 the layer starts as the identity.

    Raises:
        ConfigError: for values that make no layer.
    """

    def __init__(
        self, dim: int, num_heads: int | None, qk_scale: float | None, side_dwconv: int, init_scale: float | None
    ) -> None:
        super().__init__()
        if side_dwconv < 0 or (side_dwconv and side_dwconv % 2 == 0):
            raise ConfigError(f"side_dwconv must be an odd kernel size, or 0 for no local term, got {side_dwconv}")
        self.dim = dim
        self.num_heads = head_count(dim, num_heads)
        self.scale = qk_scale or (dim // self.num_heads) ** -0.5
        self.gamma = None if init_scale is None else nn.Parameter(torch.full((dim,), float(init_scale)))
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim) if side_dwconv else None
        self.qkv_linear = nn.Conv2d(dim, 3 * dim, 1)
        self.output_linear = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over a map.

        Args:
            x: (B, C, H, W), any H and W from 1, in either memory format.

        Returns:
            (B, C, H, W), in the memory format of ``x``.
        """
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        qkv = self.qkv_linear(x)
        # (B, 3C, H, W) -> (B, H, W, 3, M, D): no copy where channels come last in memory already
        tokens = qkv.permute(0, 2, 3, 1).contiguous().unflatten(3, (3, self.num_heads, -1))
        mixed = self.attend(tokens).flatten(3).permute(0, 3, 1, 2)  # (B, H, W, M, D) -> (B, C, H, W)
        mixed = mixed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        if self.lepe is not None:
            mixed = mixed + self.lepe(qkv[:, 2 * self.dim :])
        out = self.output_linear(mixed)
        return out if self.gamma is None else x + out * self.gamma.to(out.dtype).view(-1, 1, 1)

    def attend(self, qkv: Tensor) -> Tensor:
        """Mix the values of the keys that each query sees.

        Args:
            qkv: (B, H, W, 3, M, D), contiguous: queries, keys and values of each token.

        Returns:
            (B, H, W, M, D).
        """
        raise NotImplementedError(f"{type(self).__name__} must say which keys a query sees")

    def extra_repr(self) -> str:
        """The numbers that no submodule shows."""
        return f"dim={self.dim}, num_heads={self.num_heads}"


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number from ``least`` on.

    Raises:
        ConfigError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number from {least} on, got {value!r}")
