"""What the attention layers share: number of heads, local term, layer scale.

All but bi-level routing share the whole layer, :class:`MapAttention`, and differ in the choice of keys alone.

Shapes: B images, C channels, H x W tokens of a map, M heads of D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention.ops.regions import in_format_of
from utils.errors import ConfigError

HEAD_WIDTH = 32  # of the published BiFormers
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
        self.dim = dim
        self.num_heads = head_count(dim, num_heads)
        self.scale = qk_scale or (dim // self.num_heads) ** -0.5
        self.gamma = layer_scale(dim, init_scale)
        self.lepe = local_term(dim, side_dwconv)
        self.qkv_linear = nn.Conv2d(dim, 3 * dim, 1)
        self.output_linear = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over a map.

        Args:
            x: (B, C, H, W), any H and W from 1, in either memory format.

        Returns:
            (B, C, H, W), in the memory format of ``x``.
        """
        qkv = self.qkv_linear(x)
        # (B, 3C, H, W) -> (B, H, W, 3, M, D): no copy where channels come last in memory already
        tokens = qkv.permute(0, 2, 3, 1).contiguous().unflatten(3, (3, self.num_heads, -1))
        # (B, H, W, M, D) -> (B, C, H, W)
        mixed = in_format_of(self.attend(tokens).flatten(3).permute(0, 3, 1, 2), like=x)
        if self.lepe is not None:
            mixed = mixed + self.lepe(qkv[:, 2 * self.dim :])
        out = self.output_linear(mixed)
        return out if self.gamma is None else x + scaled(out, self.gamma)

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


def head_count(dim: int, num_heads: int | None = None) -> int:
    """Settle the number of heads.

    Args:
        dim: channels.
        num_heads: as wanted; None or 0 for heads of 32 channels, or as near to 32 as divides ``dim``.

    Raises:
        ConfigError: when ``num_heads`` does not divide ``dim``, or is no whole number.
    """
    check_whole("dim", dim, 1)
    if num_heads:
        check_whole("num_heads", num_heads, 0)
        if dim % num_heads:
            raise ConfigError(
                f"attention of {dim} channels cannot have {num_heads} heads: {num_heads} must divide {dim}"
            )
        return num_heads
    usual = max(dim // HEAD_WIDTH, 1)
    if dim % usual == 0:
        return usual
    divisors = [heads for heads in range(1, dim + 1) if dim % heads == 0]
    return min(divisors, key=lambda heads: abs(dim // heads - HEAD_WIDTH))


def layer_scale(dim: int, init_scale: float | None) -> nn.Parameter | None:
    """A factor per channel that starts at ``init_scale``; None for none."""
    return None if init_scale is None else nn.Parameter(torch.full((dim,), float(init_scale)))


def scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    """Multiply what a residual branch gives by its layer scale.

    Args:
        branch: (B, C, H, W).
        gamma: (C,), a factor per channel; None for none.

    Returns:
        (B, C, H, W) of the branch's type.
    """
    return branch if gamma is None else branch * gamma.to(branch.dtype).view(-1, 1, 1)


def local_term(dim: int, kernel: int) -> nn.Conv2d | None:
    """The depth-wise convolution of the values; None for a kernel of 0.

    Raises:
        ConfigError: for an even kernel, as it would shift the map.
    """
    check_whole("side_dwconv", kernel, 0)
    if kernel and kernel % 2 == 0:
        raise ConfigError(f"side_dwconv must be an odd kernel size, or 0 for no local term, got {kernel}")
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim) if kernel else None


def is_plain_conv(layer: nn.Module) -> bool:
    """Whether a convolution is its weight and bias and nothing else, and nobody looks at its output.

    Hooks watch it, prune it or compute its weight; a parametrized, wrapped or quantized one is of another class.
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Conv2d and layer.bias is not None and not any(hooks)


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number from ``least`` on.

    Raises:
        ConfigError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number from {least} on, got {value!r}")
