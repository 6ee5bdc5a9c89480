"""Bi-level routing attention (BRA).

"BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), section 3.2. A map is cut into S x S regions; each region picks the ``topk`` regions
whose mean keys fit its mean queries best, and its tokens attend to the tokens of those alone. A depth-wise convolution
of the values ("local context enhancement", ``lepe``) adds the immediate neighbourhood.

Differs from the released code in:

- There are always S regions a side: where S does not divide the map, regions are rounded up and not down.
- Padding is masked: it is no key, counts in no mean, and a region of padding alone is routed to by none.
- A map smaller than S has a region per token instead of an error, and ``topk`` stops at the regions there are.
- Routing is decided in float32 under every precision.
- Nothing keeps ``topk`` copies of keys and values; see :mod:`models.attention.ops`.
- An optional residual form, ``x + scale * BRA(x)``, can start as the identity.

The released numbers remain available through ``padding``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention.base import (
    ROW_DEFAULTS,
    check_whole,
    head_count,
    is_plain_conv,
    layer_scale,
    local_term,
    scaled,
)
from models.attention.ops.dispatch import add_attention, attend_regions
from models.attention.ops.regions import (
    RegionGrid,
    ceil_div,
    from_regions,
    in_format_of,
    is_turned_slowly,
    real_tokens,
    to_regions,
)
from models.attention.ops.routing import RegionRouter
from models.attention.ops.settings import AttentionSettings
from models.registry import register_layer
from utils.errors import ConfigError

PADDING_MODES = ("masked", "legacy", "released")

# Where the older checkpoint layout keeps what the layer below has; its Linear weights are 1x1 convolutions
OLDER_KEYS = {
    "qkv.qkv.weight": "qkv_linear.weight",
    "qkv.qkv.bias": "qkv_linear.bias",
    "wo.weight": "output_linear.weight",
    "wo.bias": "output_linear.bias",
}


@register_layer(width="same", row=("num_heads", "n_win", "topk"), row_defaults=ROW_DEFAULTS)
class BiLevelRoutingAttention(nn.Module):
    """Bi-level routing attention over a map, (B, C, H, W) to the same shape.

    Exports by ``torch.export``, sizes open or fixed; a trace of ``torch.jit.trace`` serves the size it was made with.

    Args:
        dim: C, channels in and out.
        num_heads: attention heads; 0 or None for ``dim / 32``.
        n_win: S, regions a side.
        qk_scale: factor on the logits; None or 0 for ``dim ** -0.5`` (of the full width, as the released models).
        topk: regions that each region looks at.
        side_dwconv: odd kernel of the depth-wise convolution on the values; 0 for none.
        init_scale: None for the plain layer; a number makes it ``x + gamma * BRA(x)`` with a ``gamma`` per channel
            that starts there. With 0 the layer starts as the identity.
        padding: what happens where S does not divide the map. ``masked``: regions rounded up, padding ignored.
            ``legacy``: x is padded with zeros *before* the projection and the padding takes part, as in the
            published BiFormers. ``released``: regions rounded down and padded keys of zero, kept to check numbers
            against the released layer and for nothing else.
        backend: which implementation computes it; None lets ``YOLO_BRA_BACKEND`` or the device decide.

    Raises:
        ConfigError: for values that make no layer.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int | None = 8,
        n_win: int = 7,
        qk_scale: float | None = None,
        topk: int = 4,
        side_dwconv: int = 3,
        *,
        init_scale: float | None = None,
        padding: str = "masked",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        _check_settings(n_win, topk, padding)
        self.dim = dim
        self.num_heads = head_count(dim, num_heads)
        self.n_win = n_win
        self.scale = qk_scale or dim**-0.5
        self.topk = topk
        self.padding = padding
        self.backend = backend
        self.gamma = layer_scale(dim, init_scale)
        self.lepe = local_term(dim, side_dwconv)
        self.router = RegionRouter()
        self._add_projections()

    def forward(self, x: Tensor) -> Tensor:
        """Attend over a map.

        Args:
            x: (B, C, H, W), any H and W from 1; with the channels last in memory nothing is turned around.

        Returns:
            (B, C, H, W), in the memory format of ``x``.
        """
        height, width = x.shape[-2:]
        qkv, grid = self._projected(x)
        qk, v = qkv.split([2 * self.dim, self.dim], dim=-1)
        idx = self.router(qk, grid, self.topk)
        settings = AttentionSettings(self.num_heads, self.scale, mask_padding=self.padding != "released")
        if self.lepe is None:
            mixed = from_regions(attend_regions(qkv, idx, grid, settings, self.backend), grid)
        else:
            local = self.lepe(from_regions(v, grid))
            if not is_plain_conv(self.lepe):
                local = local.clone()  # as a hook, or another module, may have kept it
            mixed = add_attention(local, qkv, idx, grid, settings, self.backend)
        out = self._project_out(mixed[:, :, :height, :width], like=x)
        return out if self.gamma is None else x + scaled(out, self.gamma)

    @torch.no_grad()
    def route(self, x: Tensor) -> tuple[Tensor, RegionGrid]:
        """Tell which regions of a map each region looks at; for drawing and for tests.

        Args:
            x: (B, C, H, W), what :meth:`forward` would get.

        Returns:
            idx (B, R, topk), best first, and the grid that says where region r lies.
        """
        qkv, grid = self._projected(x)
        return self.router(qkv[..., : 2 * self.dim], grid, self.topk), grid

    def extra_repr(self) -> str:
        """The numbers that no submodule shows."""
        return f"dim={self.dim}, num_heads={self.num_heads}, n_win={self.n_win}, topk={self.topk}, {self.padding}"

    def _projected(self, x: Tensor) -> tuple[Tensor, RegionGrid]:
        """Queries, keys and values of a map's tokens, region by region (B, R, T, 3C), and the regions."""
        height, width = x.shape[-2:]
        if self.padding == "legacy":
            padded_h, padded_w = (ceil_div(side, self.n_win) * self.n_win for side in (height, width))
            x = F.pad(x, (0, padded_w - width, 0, padded_h - height))
            grid = RegionGrid.of(padded_h, padded_w, self.n_win)
        elif self.padding == "released":
            grid = self._released_grid(height, width)
        else:
            grid = RegionGrid.of(height, width, self.n_win)
        # The map is cut before it is projected, as that moves a third of the numbers. Tokens laid out as a map of
        # R x T with the channels last are what they are already in memory
        tokens = to_regions(x, grid).permute(0, 3, 1, 2)
        qkv = self._project_in(tokens).permute(0, 2, 3, 1)
        if self.padding == "released" and grid.is_padded:
            qkv = qkv * real_tokens(grid, qkv.device)[:, :, None]  # without the biases there
        return qkv, grid

    def _released_grid(self, height: int, width: int) -> RegionGrid:
        if min(height, width) < self.n_win:
            raise ConfigError(
                f"padding='released' needs maps of at least {self.n_win} x {self.n_win}, got {height} x {width}; "
                "the default padding='masked' takes any"
            )
        return RegionGrid.of_region_size(height, width, height // self.n_win, width // self.n_win)

    # The four methods below are all that a layer with another key layout needs to replace

    def _add_projections(self) -> None:
        self.qkv_linear = nn.Conv2d(self.dim, 3 * self.dim, 1)
        self.output_linear = nn.Conv2d(self.dim, self.dim, 1)

    def _project_in(self, x: Tensor) -> Tensor:
        """(B, C, R, T) -> (B, 3C, R, T): queries, keys and values of each token of each region."""
        return self.qkv_linear(x)

    def _project_out(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, C, H, W), channels last in memory, to the same shape in the memory format of ``like``."""
        layer = self.output_linear
        if is_plain_conv(layer) and is_turned_slowly(x, like):
            # A product of matrices gives the other format for nothing
            weights = layer.weight.flatten(1).expand(len(x), -1, -1)
            return torch.baddbmm(layer.bias[:, None], weights, x.flatten(2)).view(x.shape)
        return in_format_of(layer(x), like)

    def _other_keys(self) -> dict[str, str]:
        """Keys of the other checkpoint layout, and ours for the same tensors."""
        return OLDER_KEYS

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # load_state_dict hands each module a dict of its own, so renaming in it changes nobody else's
        for other, own in self._other_keys().items():
            value = state_dict.pop(prefix + other, None)
            if value is not None:
                wanted = self.get_parameter(own)
                state_dict[prefix + own] = value.reshape(wanted.shape) if value.numel() == wanted.numel() else value
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check_settings(n_win: int, topk: int, padding: str) -> None:
    check_whole("n_win", n_win, 1)
    check_whole("topk", topk, 1)
    if padding not in PADDING_MODES:
        raise ConfigError(f"padding {padding!r} is not one of {', '.join(PADDING_MODES)}")
